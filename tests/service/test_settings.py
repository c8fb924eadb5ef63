"""Settings: where their values come from, and which are refused."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from service.rpc import options
from service.settings import Settings, variable


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
        ([], {"NTM_DRAIN_SECONDS": "1s"}, "NTM_DRAIN_SECONDS is '1s'; it must be a number"),
        ([], {"NTM_TLS_KEY": "a.key"}, "NTM_TLS_KEY is 'a.key'; set --tls-certificate too"),
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
