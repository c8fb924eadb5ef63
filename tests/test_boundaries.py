"""Who may import what: the packages keep to themselves, and each third party has its owners."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("service", "client", "export", "bench", "deploy")

MAY_IMPORT = {
    "service": ("service",),
    "client": ("client", "service.pb"),
    "export": ("export", "client", "service.spec", "service.errors"),
    # Its peers take the parameters of models, and train as the trainer does.
    "bench": ("bench", "service", "export"),
    # Bounds of buckets are the server's, to the digit; the load of the pictures is a client's.
    "deploy": ("deploy", "service.metrics", "client"),
}
"""What each package may import of this project."""

OWNERS = {
    "cryptography": {"service/jwt_keys.py"},  # comes with PyJWT
    "ctypes": {"service/cuda.py"},  # no third party, but the way to libraries that are
    "grpc": {
        "service/authentication.py",
        "service/interceptors.py",
        "service/observation.py",
        "service/probe.py",
        "service/server.py",
        "service/servicer.py",
        "service/status.py",
        "service/stream.py",
        "service/tls.py",
    },
    "grpc_health": {"service/probe.py", "service/server.py"},
    "grpc_reflection": {"service/server.py"},
    "jwt": {"service/jwt_keys.py"},
    "matplotlib": set[str](),
    "onnx": {"service/graph.py"},
    "onnxruntime": {"service/runtime.py", "service/server.py"},  # the server tells its version
    "opentelemetry": {"service/spans.py"},
    "prometheus_client": {
        "service/gpu.py",
        "service/lag.py",
        "service/metrics.py",
        "service/monitoring.py",
        "service/server.py",
    },
    "pynvml": {"service/gpu.py"},
    "redis": {"service/redis_store.py"},
    "torch": set[str](),
}
"""The only files of the service that may import each third party."""

READ_THE_ENVIRONMENT = {
    "service/probe.py",  # three; it starts every few seconds and loads no more than it must
    "service/settings.py",
}


def sources(package: str) -> list[Path]:
    """The files of a package that are written by hand."""
    return [p for p in sorted((ROOT / package).rglob("*.py")) if "pb" not in p.parts]


def is_for_types_only(node: ast.AST) -> bool:
    """Whether a statement is `if TYPE_CHECKING:`, whose imports never happen at run time."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def imports(path: Path, *, at_run_time: bool = False) -> Iterator[str]:
    """Every module that a file imports, by full name; of `from a import b`, a.b."""
    nodes: list[ast.AST] = [ast.parse(path.read_text())]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (at_run_time and is_for_types_only(node)):
            nodes.extend(ast.iter_child_nodes(node))


def is_within(name: str, modules: tuple[str, ...]) -> bool:
    """Whether a name is one of the modules or inside one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def test_rules_are_about_files_that_exist() -> None:
    """No rule outlives the file that it names."""
    named = set.union(READ_THE_ENVIRONMENT, *OWNERS.values())

    assert {name for name in named if not (ROOT / name).is_file()} == set()
    assert all(sources(package) for package in PACKAGES)


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_of_this_project_only_what_it_may(package: str) -> None:
    """The service knows no client and no training; the others know only its contract."""
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imports(path)
        if is_within(name, (*PACKAGES, "tests", "proto"))
        and not is_within(name, MAY_IMPORT[package])
    }

    assert wrong == set()


@pytest.mark.parametrize("party", OWNERS)
def test_third_party_stays_with_its_owners(party: str) -> None:
    """The service can change a library by changing the few files that own it."""
    users = {
        path.relative_to(ROOT).as_posix()
        for path in sources("service")
        if any(is_within(name, (party,)) for name in imports(path))
    }

    assert users == OWNERS[party]


def test_environment_is_read_in_one_place() -> None:
    """A setting that is not in the settings does not exist."""
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in sources("service")
        if re.search(r"\bos\.(environ|getenv)|from os import", path.read_text())
    }

    assert readers == READ_THE_ENVIRONMENT


@pytest.mark.parametrize("package", PACKAGES)
def test_modules_import_each_other_without_cycles(package: str) -> None:
    """The modules of a package can be read, and loaded, from the bottom up."""
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in sources(package)
    }
    graph = {
        module: {
            other
            for other in modules
            for name in imports(path, at_run_time=True)
            if other != module and is_within(name, (other,))
        }
        for module, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def test_proto_holds_no_python() -> None:
    """`proto` is the import name of another project, proto-plus: ours must not hide it."""
    assert list((ROOT / "proto").rglob("*.py")) == []


@pytest.mark.parametrize("module", ["service.__main__", "service.probe", "client"])
def test_loads_where_torch_and_the_trainer_are_missing(module: str) -> None:
    """A server and a client run on machines without torch, export and what else is optional."""
    extras = ("torch", "export", "matplotlib", "jwt", "cryptography")
    blocked = f"import sys\nfor name in {extras}: sys.modules[name] = None"
    run = subprocess.run(
        [sys.executable, "-c", f"{blocked}\nimport {module}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.returncode, run.stderr) == (0, "")
