"""Who may import what: packages, the rooms of the service, and the owners of third parties."""

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

SOURCES = {
    "ntm": "client/ntm",
    "ntm_client": "client/ntm_client",
    "ntm_tasks": "tasks/ntm_tasks",
    "ntm_lab": "lab/ntm_lab",
    "service": "service",
    "export": "export",
    "bench": "bench",
    "deploy": "deploy",
    "docs": "docs",
}
"""The folder of each package."""

MAY_IMPORT = {
    "ntm": ("ntm",),
    "ntm_client": ("ntm_client", "ntm"),
    "ntm_tasks": ("ntm_tasks",),
    "ntm_lab": ("ntm_lab", "ntm_client", "ntm_tasks", "ntm"),
    "service": ("service", "ntm"),
    # The contracts, and one door: an export ends by loading and stepping the model by the server's
    # own code, since what else reads the spec may read it otherwise. A server in a process of its
    # own would test no more of the model, and take a port and a second.
    "export": (
        *("export", "ntm.versions", "ntm_client", "ntm_tasks"),
        *("service.spec", "service.errors", "service.models.rehearsal"),
    ),
    # Its peers take the parameters of models, and train as the trainer does. Its controls make
    # networks that decipher must find nothing in, which takes the trainer and the lab.
    "bench": (
        *("bench", "service", "export", "ntm_client", "ntm", "ntm_tasks", "ntm_lab.outputs"),
        *("ntm_lab.decipher", "ntm_lab.recordings"),
    ),
    # Bounds of buckets are the server's, to the digit; the load of the pictures is a client's.
    "deploy": (
        *("deploy", "service.telemetry.metrics", "ntm_client"),
        *("ntm_lab.outputs", "bench.arguments"),
    ),
    # The reference pages are written from the code.
    "docs": ("docs", "service", "ntm_client", "ntm_lab.outputs"),
}
"""What each package may import of this project."""

CONTRACTS = {
    "service",
    "service.errors",
    "service.session_ref",
    "service.settings",
    "service.spec",
}
"""What every room of the service may import."""

ROOMS = {
    # The wiring: everything.
    "service.server": None,
    "service.rpc": {
        "service.loop",
        "service.auth",
        "service.codec",
        "service.decoding",
        "service.inference",
        *("service.engine", "service.models", "service.telemetry"),
    },
    "service.loop": {
        "service.codec",
        "service.stores",
        *("service.engine", "service.models", "service.telemetry"),
    },
    "service.codec": {"service.engine", "service.models", "service.records"},
    "service.engine": {"service.models", "service.telemetry"},
    "service.models": {"service.telemetry", "service.watched_files"},
    "service.stores": set[str](),
    "service.auth": {"service.watched_files"},
    "service.telemetry": set[str](),
    "service.watched_files": set[str](),
    "service.decoding": set[str](),
    "service.records": set[str](),
    "service.inference": set[str](),
}
"""What each room of the service may import of the others, from the top down."""

FORBIDDEN = {
    # The engine is synchronous: tests turn it by hand, and nothing in it waits.
    "service.engine": (
        *("asyncio", "concurrent", "socket", "threading"),
        *("grpc", "google", "ntm.v1", "redis", "service.stores"),
    ),
    "service.telemetry": ("service",),
    # An ONNX file is a protobuf message, so that google.protobuf belongs here.
    "service.models": ("asyncio.streams", "grpc", "google.rpc", "ntm"),
    "service.stores": ("grpc", "google", "ntm"),
}
"""What must not be imported in a room."""

OWNERS = {
    "cryptography": {"service/auth/jwt_keys.py"},  # comes with PyJWT
    "ctypes": {"service/models/cuda.py"},  # no third party, but the way to libraries that are
    "grpc": {
        "service/auth/authentication.py",
        "service/auth/tls.py",
        "service/probe.py",
        "service/rpc/gate.py",
        "service/rpc/inference/servicer.py",
        "service/rpc/queue_loop.py",
        "service/rpc/status.py",
        "service/rpc/transport.py",
        "service/server.py",
    },
    "grpc_health": {"service/probe.py", "service/server.py"},
    "grpc_reflection": {"service/server.py"},
    "jwt": {"service/auth/jwt_keys.py"},
    "matplotlib": set[str](),
    "onnx": {"service/models/graph.py"},
    "onnxruntime": {
        "service/models/bound_run.py",
        "service/models/runtime.py",
        "service/server.py",
    },  # the server tells its version
    "opentelemetry": {"service/rpc/spans.py"},
    "prometheus_client": {
        "service/server.py",
        "service/telemetry/meters.py",
        "service/telemetry/metrics.py",
        "service/telemetry/monitoring.py",
    },
    "pynvml": {"service/telemetry/meters.py"},
    "redis": {"service/stores/redis_store.py"},
    "torch": set[str](),
}
"""The only files of the service that may import each third party."""

UNNAMED_CALLERS = {
    "ANYBODY": {"service/auth/principal.py"},
    "SERVER": {
        "service/engine/lifecycle.py",
        "service/loop/keeper.py",
        "service/rpc/calls.py",
    },
}
"""The only files that may reach sessions of any owner, by the constant that they name."""

READ_THE_ENVIRONMENT = {
    "service/__init__.py",  # what onnxruntime reads at its import
    "service/probe.py",  # four; it starts every few seconds and loads no more than it must
    "service/settings.py",
}


def sources(package: str) -> list[Path]:
    """The files of a package that are written by hand."""
    found = sorted((ROOT / SOURCES[package]).rglob("*.py"))
    return [path for path in found if "_pb2" not in path.name]


def module_name(package: str, path: Path) -> str:
    """The name under which a file is imported."""
    inside = path.relative_to(ROOT / SOURCES[package]).with_suffix("")
    return ".".join(part for part in (package, *inside.parts) if part != "__init__")


MODULES = {module_name(package, path): path for package in SOURCES for path in sources(package)}
"""Every module of the project, by name."""


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, for types only as well; of `from a import b`, a.b."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_within(name: str, modules: tuple[str, ...]) -> bool:
    """Whether a name is one of the modules or inside one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def room(name: str) -> str | None:
    """The room of the service that a module belongs to; None for the wiring and the contracts."""
    return next((each for each in ROOMS if is_within(name, (each,))), None)


def test_rules_are_about_files_that_exist() -> None:
    """No rule outlives the file that it names."""
    named = set.union(READ_THE_ENVIRONMENT, *OWNERS.values())

    assert {name for name in named if not (ROOT / name).is_file()} == set()
    assert all(sources(package) for package in SOURCES)
    folders = {f"service.{path.name}" for path in (ROOT / "service").iterdir() if path.is_dir()}
    assert folders - {"service.__pycache__"} <= set(ROOMS)


@pytest.mark.parametrize("package", SOURCES)
def test_package_imports_of_this_project_only_what_it_may(package: str) -> None:
    """The service knows no client and no training; the others know only its contracts."""
    wrong = {
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imports(path)
        if is_within(name, (*SOURCES, "tests", "proto"))
        and not is_within(name, MAY_IMPORT[package])
    }

    assert wrong == set()


@pytest.mark.parametrize("module", [name for name in MODULES if room(name)])
def test_room_imports_only_rooms_below_it(module: str) -> None:
    """From the wire to the kernel, the arrows between rooms point one way."""
    own = room(module)
    assert own is not None
    below = ROOMS[own]
    if below is None:
        return
    wrong = {
        name
        for name in imports(MODULES[module])
        if is_within(name, ("service",))
        and room(name) not in (own, *below)
        and not is_within(name, tuple(CONTRACTS - {"service"}))
        and name not in ("service.__version__",)
    }

    assert wrong == set()


@pytest.mark.parametrize("module", [name for name in MODULES if room(name) in FORBIDDEN])
def test_room_keeps_out_what_it_has_no_use_for(module: str) -> None:
    """The engine waits for nothing; telemetry knows nothing of the service; stores know bytes."""
    own = room(module)
    assert own is not None
    found = {n for n in imports(MODULES[module]) if is_within(n, FORBIDDEN[own])}

    assert {name for name in found if room(name) != own} == set()


def test_format_of_checkpoints_needs_no_protobuf() -> None:
    """The engine reads checkpoints, and the engine imports neither gRPC nor protobuf."""
    found = {*imports(MODULES["ntm.checkpoint"]), *imports(MODULES["ntm.tensors"])}

    assert {name for name in found if is_within(name, ("grpc", "google", "ntm"))} == {
        "ntm.tensors.TYPES",
        "ntm.tensors.Array",
    }


@pytest.mark.parametrize("party", OWNERS)
def test_third_party_stays_with_its_owners(party: str) -> None:
    """The service can change a library by changing the few files that own it."""
    users = {
        path.relative_to(ROOT).as_posix()
        for path in sources("service")
        if any(is_within(name, (party,)) for name in imports(path))
    }

    assert users == OWNERS[party]


@pytest.mark.parametrize("constant", UNNAMED_CALLERS)
def test_sessions_of_any_owner_are_reached_from_few_places(constant: str) -> None:
    """To see that no other owner is reached by mistake, these files are enough to read."""
    users = {
        path.relative_to(ROOT).as_posix()
        for path in sources("service")
        if f"service.session_ref.{constant}" in imports(path)
    }

    assert users == UNNAMED_CALLERS[constant]
    whole = {
        path.relative_to(ROOT).as_posix()
        for path in sources("service")
        if {"service.session_ref", "service.session_ref.Unnamed"} & set(imports(path))
    }
    assert whole == set()


def test_environment_is_read_in_one_place() -> None:
    """A setting that is not in the settings does not exist."""
    readers = {
        path.relative_to(ROOT).as_posix()
        for path in sources("service")
        if re.search(r"\bos\.(environ|getenv)|from os import", path.read_text())
    }

    assert readers == READ_THE_ENVIRONMENT


@pytest.mark.parametrize("package", SOURCES)
def test_modules_import_each_other_without_cycles(package: str) -> None:
    """The modules of a package can be read from the bottom up, imports for types included."""
    modules = {name: path for name, path in MODULES.items() if is_within(name, (package,))}
    graph = {module: imported(module, path, modules) for module, path in modules.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


def imported(module: str, path: Path, modules: dict[str, Path]) -> set[str]:
    """Which of the modules a file imports: the longest that a name lies in."""
    found = set()
    for name in imports(path):
        holders = [other for other in modules if is_within(name, (other,))]
        if holders:
            found.add(max(holders, key=len))
    return found - {module}


def test_proto_holds_no_python() -> None:
    """`proto` is the import name of another project, proto-plus: ours must not hide it."""
    assert list((ROOT / "proto").rglob("*.py")) == []


@pytest.mark.parametrize(
    "module", ["service.__main__", "service.server", "service.probe", "ntm_client"]
)
def test_loads_where_torch_and_the_trainer_are_missing(module: str) -> None:
    """A server and a client run on machines without torch, export and what else is optional."""
    extras = ["torch", "export", "matplotlib", "jwt", "cryptography", "ntm_lab", "ntm_tasks"]
    others = ["onnxruntime", "onnx", "service"] if module == "ntm_client" else ["ntm_client"]
    blocked = f"import sys\nfor name in {extras + others}: sys.modules[name] = None"
    run = subprocess.run(
        [sys.executable, "-c", f"{blocked}\nimport {module}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (run.returncode, run.stderr) == (0, "")
