"""Settings: where their values come from, and which are refused."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest

from service.rpc import options
from service.settings import SettingInvalid, Settings, _flag, variable


def test_a_flag_wins_over_a_variable_and_a_variable_over_the_default() -> None:
    """The order is flag, variable, default."""
    environment = {"NTM_PORT": "1111", "NTM_MAX_BATCH": "16", "NTM_MODELS_DIR": "/models"}
    settings = Settings.from_command_line(["--port", "2222"], environment)
    assert settings.port == 2222
    assert settings.max_batch == 16
    assert settings.models_dir == Path("/models")
    assert settings.max_burst == Settings().max_burst


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"port": 70_000}, "--port is 70000; it must be at most 65535"),
        ({"max_batch": 1}, "--max-batch is 1; it must be at least 8"),
        ({"device": "tpu"}, "--device is 'tpu'; it must be auto or cpu or cuda"),
        ({"max_message_bytes": 2**31}, "--max-message-bytes is 2147483648; it must be at most"),
        ({"max_calls": 2**31}, "--max-calls is 2147483648; it must be at most"),
        ({"drain_seconds": float("inf")}, "--drain-seconds is inf; it must be at most"),
        ({"drain_seconds": float("nan")}, "--drain-seconds is nan; it must be at least 0.0"),
        ({"host": ""}, "--host is empty; use 0.0.0.0 for every interface"),
        ({"metrics_host": ""}, "--metrics-host is empty; use 0.0.0.0 for every interface"),
        (
            {"default_idle_timeout_seconds": 10.0, "max_idle_timeout_seconds": 5.0},
            "--default-idle-timeout-seconds is 10.0, above --max-idle-timeout-seconds, which is 5",
        ),
        ({"tls_certificate": "a.pem"}, "--tls-certificate is 'a.pem'; set --tls-key too"),
        ({"tls_key": "a.key"}, "--tls-key is 'a.key'; set --tls-certificate too"),
        (
            {"tls_client_ca": "ca.pem"},
            "--tls-client-ca is 'ca.pem'; set --tls-certificate and --tls-key too",
        ),
        (
            {"jwt_keys": "keys.json"},
            "--jwt-keys is 'keys.json'; set --jwt-issuer and --jwt-audience too",
        ),
        ({"jwt_audience": "ntm"}, "--jwt-audience is 'ntm'; set --jwt-keys and --jwt-issuer too"),
    ],
)
def test_a_wrong_value_is_named(changes: dict[str, object], message: str) -> None:
    """The error has the setting, the value, and what is allowed."""
    with pytest.raises(ValueError, match=message):
        Settings(**changes)  # type: ignore[arg-type] # chosen to be wrong


NUMBERS = [setting for setting in fields(Settings) if type(setting.default) in (int, float)]
CHOICES = [setting for setting in fields(Settings) if setting.metadata["choices"]]
OF_STORE = [setting for setting in fields(Settings) if setting.metadata["of_store"]]

NO_NUMBERS = ["", "x", "nan", "inf", "1_0", "0x10", "\uff11\uff12", "1,5", "1j", "True", "1 0"]
"""Texts that Python or people take for numbers."""


def refusal(
    capsys: pytest.CaptureFixture[str], arguments: list[str], environment: dict[str, str]
) -> str:
    """The one sentence that the process ends with; its status is 2."""
    with pytest.raises(SystemExit) as ended:
        Settings.from_command_line(arguments, environment)
    assert ended.value.code == 2
    *usage, last = capsys.readouterr().err.splitlines()
    assert [line for line in usage if "Traceback" in line] == []
    return last.removeprefix("python -m service: error: ")


def wrong_texts(setting: Field[Any]) -> Iterator[tuple[str, str]]:
    """Values that the setting must refuse, and how the sentence goes on after its name."""
    if setting.metadata["choices"]:
        yield "x", f"is 'x'; it must be {' or '.join(setting.metadata['choices'])}"
        return
    kind: Any = type(setting.default)
    minimum, maximum = setting.metadata["minimum"], setting.metadata["maximum"]
    assert minimum is not None, f"{setting.name} has no minimum"
    assert maximum is not None, f"{setting.name} has no maximum"
    for text in NO_NUMBERS:
        yield text, f"is {text!r}; it must be a {'whole' if kind is int else 'finite'} number"
    below, above = kind(minimum - 1), kind(maximum * 2 + 1)
    yield str(below), f"is {below}; it must be at least {minimum}"
    yield str(above), f"is {above}; it must be at most {maximum}"
    yield "9" * 5000, "is "


@pytest.mark.parametrize("setting", [*NUMBERS, *CHOICES], ids=lambda setting: setting.name)
def test_every_setting_has_limits(capsys: pytest.CaptureFixture[str], setting: Field[Any]) -> None:
    """What is below, above, no number or no choice is refused, as a flag and as a variable."""
    flag, name = "--" + setting.name.replace("_", "-"), variable(setting)
    for text, problem in wrong_texts(setting):
        assert refusal(capsys, [f"{flag}={text}"], {}).startswith(f"{flag} {problem}")
        assert refusal(capsys, [], {name: text}).startswith(f"{name} {problem}")


@pytest.mark.parametrize("setting", OF_STORE, ids=lambda setting: setting.name)
def test_a_setting_of_the_store_needs_one(setting: Field[Any]) -> None:
    """Without a store it would change nothing, so it is refused; with one it is taken."""
    choices = [text for text in setting.metadata["choices"] or () if text != setting.default]
    kind: Any = type(setting.default)
    value = choices[0] if choices else kind(7)
    flag = "--" + setting.name.replace("_", "-")

    for store in ("", "none"):
        with pytest.raises(SettingInvalid) as refused:
            Settings(**{setting.name: value, "store": store})
        assert str(refused.value) == f"{flag} is {value!r}; set --store too"
    assert getattr(Settings(**{setting.name: value, "store": "a/b"}), setting.name) == value


def test_settings_of_the_store_are_declared() -> None:
    """Those whose help names the store are of the store, apart from the store itself."""
    named = {setting.name for setting in fields(Settings) if "store" in setting.metadata["help"]}
    assert named <= {"store", *(setting.name for setting in OF_STORE)}
    assert {each.name for each in fields(Settings) if each.name.startswith("store_")} <= {
        setting.name for setting in OF_STORE
    }


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("[::1]", True),
        ("0.0.0.0", False),  # noqa: S104 - that it is everywhere is the point
        ("[::]", False),
        ("10.0.0.1", False),
        ("ntm.example", False),
    ],
)
def test_a_local_address_is_recognised(host: str, is_local: bool) -> None:
    """A name that may be of another machine does not count as local."""
    assert Settings(host=host).address.is_local is is_local


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["--port", "a"], {}, "--port is 'a'; it must be a whole number"),
        ([], {"NTM_PORT": "a"}, "NTM_PORT is 'a'; it must be a whole number"),
        ([], {"NTM_PORT": "70000"}, "NTM_PORT is 70000; it must be at most 65535"),
        (["--port=-1"], {"NTM_PORT": "1"}, "--port is -1; it must be at least 0"),
        ([], {"NTM_DRAIN_SECONDS": "1s"}, "NTM_DRAIN_SECONDS is '1s'; it must be a finite number"),
        ([], {"NTM_TLS_KEY": "a.key"}, "NTM_TLS_KEY is 'a.key'; set NTM_TLS_CERTIFICATE too"),
        (
            ["--max-connection-age-seconds", "0.5"],
            {},
            "--max-connection-age-seconds is 0.5; it must be 0 for never, or at least 1, because a "
            "connection could else end before a call is made on it",
        ),
        (["--prot=1"], {}, "unrecognized arguments: --prot=1"),
    ],
)
def test_a_mistake_ends_the_process_with_a_sentence_that_names_its_place(
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    environment: dict[str, str],
    sentence: str,
) -> None:
    """It names the flag or the variable that the value came from; the exit status is 2."""
    with pytest.raises(SystemExit) as ended:
        Settings.from_command_line(arguments, environment)

    assert ended.value.code == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"python -m service: error: {sentence}"


def test_a_wrong_variable_is_no_mistake_where_a_flag_wins() -> None:
    """The flag's value counts, and the variable's is not read."""
    assert Settings.from_command_line(["--port", "1"], {"NTM_PORT": "a"}).port == 1


@pytest.mark.parametrize(
    ("host", "metrics_host", "overlap"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("[::1]", "LOCALHOST", True),
        ("0.0.0.0", "127.0.0.1", True),  # noqa: S104 - it overlaps with every host
        ("ntm.example", "::", True),
        ("0.0.0.0", "::", True),  # noqa: S104
        ("0.0.0.0", "::1", False),  # noqa: S104
        ("127.0.0.1", "127.0.0.2", False),
        ("unix:socket", "127.0.0.1", False),
    ],
)
def test_the_two_ports_are_not_one(host: str, metrics_host: str, overlap: bool) -> None:
    """One address for both is refused; any free ports are two."""
    Settings(host=host, port=0, metrics_host=metrics_host, metrics_port=0)
    Settings(host=host, port=50072, metrics_host=metrics_host, metrics_port=50073)
    sentence = "--metrics-port is 50072, and --port is the same; the monitoring port needs one"
    with pytest.raises(SettingInvalid, match=sentence) if overlap else nullcontext():
        Settings(host=host, port=50072, metrics_host=metrics_host, metrics_port=50072)


def test_an_endpoint_of_spans_is_an_address() -> None:
    """What spans cannot be sent to is refused before the server starts."""
    good = ("http://collector:4317", "https://[::1]:4317/", "collector:4317", "unix:///run/spans")
    for endpoint in good:
        assert Settings(otlp_endpoint=endpoint).otlp_endpoint == endpoint
    for endpoint in ("ftp://x:1", "a b", "http://x:99999", "http://", "http://x:1?y", "http://a b"):
        with pytest.raises(SettingInvalid) as refused:
            Settings(otlp_endpoint=endpoint)
        assert str(refused.value).startswith(f"--otlp-endpoint is {endpoint!r}")


def test_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    """Every setting is in --help with its variable."""
    with pytest.raises(SystemExit):
        Settings.from_command_line(["--help"], {})
    text = capsys.readouterr().out
    for setting in fields(Settings):
        assert "--" + setting.name.replace("_", "-") in text
        assert variable(setting) in text.replace("\n", "").replace(" ", "")


def test_grpc_can_hold_what_follows_from_many_sessions() -> None:
    """The options of gRPC are numbers of 31 bits."""
    arguments = options.arguments(Settings(max_sessions=2**40))
    assert all(-1 <= value < 2**31 for _, value in arguments)


def test_a_setting_has_one_name_in_sentences() -> None:
    """Errors, logs and help write the flag as it is typed, with its hyphens."""
    flags = [_flag(setting.name) for setting in fields(Settings)]
    kebabs = "|".join(flag[2:] for flag in flags if "-" in flag[2:])
    snakes = "|".join(setting.name for setting in fields(Settings) if "_" in setting.name)
    other_name = re.compile(rf"(?<![-\w])({kebabs})(?![-\w])|(?<![\w.{{])({snakes})(?![\w(=])")
    found = [
        (path.name, text)
        for path in (Path(__file__).parents[2] / "service").rglob("*.py")
        if not path.name.endswith(("_pb2.py",))
        for text in sentences(path.read_text(encoding="utf-8"))
        if other_name.search(text)
    ]
    assert found == []


def sentences(source: str) -> Iterator[str]:
    """The texts of a module that have several words, without docstrings."""
    tree = ast.parse(source)
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and " " in text.strip() and id(node) not in documentation:
            yield text
