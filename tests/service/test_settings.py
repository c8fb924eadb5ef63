"""Settings: where they come from, and what is refused."""

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
        ({"port": 70_000}, "port is 70000; the most allowed is 65535"),
        ({"max_batch": 1}, "max_batch is 1; the least allowed is 8"),
        ({"device": "tpu"}, "device is 'tpu'; it must be one of"),
        ({"max_input_magnitude": float("nan")}, "max_input_magnitude is nan"),
        ({"max_input_magnitude": float("inf")}, "max_input_magnitude is inf; the most allowed"),
        ({"max_message_bytes": 2**31}, "max_message_bytes is 2147483648; the most allowed"),
        ({"retry_delay_seconds": float("inf")}, "retry_delay_seconds is inf; the most allowed"),
        ({"max_calls": 2**31}, "max_calls is 2147483648; the most allowed"),
        ({"drain_seconds": float("inf")}, "drain_seconds is inf; the most allowed"),
        ({"host": ""}, "host is empty; 0.0.0.0 stands for every interface"),
        ({"metrics_host": ""}, "metrics_host is empty; 0.0.0.0 stands for every interface"),
        (
            {"default_idle_timeout_seconds": 10.0, "max_idle_timeout_seconds": 5.0},
            "default_idle_timeout_seconds is 10.0, above max_idle_timeout_seconds, 5.0",
        ),
        ({"tls_certificate": "a.pem"}, "tls_certificate is 'a.pem', which needs tls_key too"),
        ({"tls_key": "a.key"}, "tls_key is 'a.key', which needs tls_certificate too"),
        ({"tls_client_ca": "ca.pem"}, "tls_client_ca is 'ca.pem', which needs tls_certificate and"),
        (
            {"jwt_keys": "keys.json"},
            "jwt_keys is 'keys.json', which needs jwt_issuer and jwt_audience too",
        ),
        ({"jwt_audience": "ntm"}, "jwt_audience is 'ntm', which needs jwt_keys and jwt_issuer too"),
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
def test_what_is_local_is_known(host: str, is_local: bool) -> None:
    """A name that could be anywhere is not."""
    assert Settings(host=host).is_local is is_local


def test_a_wrong_variable_ends_the_process_with_a_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A variable that cannot be read is reported like a flag."""
    with pytest.raises(SystemExit) as ended:
        Settings.from_command_line([], {"NTM_PORT": "a"})
    assert ended.value.code == 2
    assert "--port: invalid int value: 'a'" in capsys.readouterr().err


def test_help_is_complete(capsys: pytest.CaptureFixture[str]) -> None:
    """Every setting is in --help with its variable."""
    with pytest.raises(SystemExit):
        Settings.from_command_line(["--help"], {})
    text = capsys.readouterr().out
    for setting in fields(Settings):
        assert "--" + setting.name.replace("_", "-") in text
        assert variable(setting) in text.replace("\n", "").replace(" ", "")


def test_grpc_can_hold_what_follows_from_many_sessions() -> None:
    """Its options are numbers of 31 bits."""
    arguments = options.arguments(Settings(max_sessions=2**40))
    assert all(-1 <= value < 2**31 for _, value in arguments)
