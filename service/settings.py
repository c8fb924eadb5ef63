"""Settings of the server: each a flag, an environment variable NTM_*, and a default; validated."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any

PREFIX = "NTM_"


def _setting(
    default: Any,
    help_text: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """Declare a dataclass field with what the flag, the validation and the README need of it."""
    metadata = {"help": help_text, "minimum": minimum, "maximum": maximum, "choices": choices}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """Everything that can be set: by flag, else by variable, else the default."""

    models_dir: Path = _setting(Path("models"), "folder with one folder for each model")
    models: str = _setting(
        "",
        "comma-separated names of the models to serve, loaded at start; empty for all, each loaded "
        "at its first session",
    )
    device: str = _setting(
        "auto",
        "where networks run; cuda fails at start where CUDA does not work",
        choices=("auto", "cpu", "cuda"),
    )
    host: str = _setting("127.0.0.1", "address to listen on; 0.0.0.0 for every interface")
    port: int = _setting(50051, "gRPC port; 0 for any free one", minimum=0, maximum=65535)
    metrics_host: str = _setting("127.0.0.1", "address of the monitoring server")
    metrics_port: int = _setting(
        9464, "port of /metrics, /healthz and /readyz; 0 for any free one", minimum=0, maximum=65535
    )
    threads: int = _setting(
        1,
        "onnxruntime threads inside one tick; above 1, results may depend on the batch",
        minimum=1,
        maximum=256,
    )
    parallel_runs: int = _setting(
        0,
        "runs of networks at once, each on a thread; 0 for one on a GPU, else one for each core "
        "but one, which is left to the event loop",
        minimum=0,
        maximum=256,
    )
    max_batch: int = _setting(32, "sessions stepped in one tick", minimum=8, maximum=4096)
    max_burst: int = _setting(
        8,
        "ticks made in one run before newcomers are looked at; rounded down to a power of two",
        minimum=1,
        maximum=16,
    )
    max_calls: int = _setting(
        4_096, "calls under way at once, streams included; gRPC refuses more", minimum=1
    )
    max_sessions: int = _setting(10_000, "open sessions", minimum=1)
    max_state_bytes: int = _setting(2 << 30, "bytes of state of all sessions together", minimum=1)
    max_locations: int = _setting(16_384, "memory locations of a session", minimum=1)
    max_chunk_steps: int = _setting(1_024, "steps in one chunk", minimum=1)
    max_waiting_steps: int = _setting(4_096, "steps of one session that may wait", minimum=1)
    max_stream_operations: int = _setting(
        1_024, "operations of one stream that may be unanswered", minimum=1
    )
    max_message_bytes: int = _setting(4 << 20, "bytes of one gRPC message", minimum=65_536)
    max_input_magnitude: float = _setting(1e6, "largest absolute input value", minimum=1.0)
    default_idle_timeout_seconds: float = _setting(
        300.0, "idle timeout of a session that asks for none", minimum=0.001
    )
    max_idle_timeout_seconds: float = _setting(
        86_400.0,
        "longest idle timeout a session may ask for",
        minimum=0.001,
        maximum=1e9,  # half a lifetime; what protobuf and datetime can hold, with room to spare
    )
    retry_delay_seconds: float = _setting(
        1.0, "how long a client is told to wait at a limit", minimum=0.0
    )
    drain_seconds: float = _setting(
        10.0, "time that waiting steps have to finish after SIGTERM", minimum=0.0
    )
    log_level: str = _setting(
        "info", "least severe level logged", choices=("debug", "info", "warning", "error")
    )
    access_log_per_second: float = _setting(
        10.0,
        "calls logged a second, and as many that failed; the next line says how many were left out",
        minimum=0.0,
    )
    otlp_endpoint: str = _setting(
        "", "where OpenTelemetry spans are sent, such as http://collector:4317; empty for nowhere"
    )
    otlp_ratio: float = _setting(
        1.0,
        "share of calls with spans, of those whose client has not decided it",
        minimum=0.0,
        maximum=1.0,
    )

    def __post_init__(self) -> None:
        """
        Check every value.

        Raises:
            ValueError: names the setting, its value and what is allowed.
        """
        for setting in fields(self):
            _check(setting, getattr(self, setting.name))
        if self.default_idle_timeout_seconds > self.max_idle_timeout_seconds:
            raise ValueError(
                f"default_idle_timeout_seconds is {self.default_idle_timeout_seconds}, above "
                f"max_idle_timeout_seconds, {self.max_idle_timeout_seconds}"
            )

    @classmethod
    def from_command_line(
        cls, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Settings:
        """
        Read the settings; a flag wins over a variable. Ends the process on `--help` or an error.

        The environment is the process's own unless another is given.
        """
        variables = os.environ if environment is None else environment
        parser = argparse.ArgumentParser(
            prog="python -m service",
            description="Serve recurrent networks over gRPC until SIGTERM or SIGINT.",
            epilog="Each flag can also be set by the environment variable in brackets.",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )
        for setting in fields(cls):
            parser.add_argument(
                "--" + setting.name.replace("_", "-"),
                help=f"{setting.metadata['help']} [{variable(setting)}]",
                default=variables.get(variable(setting), setting.default),
                type=_kind(setting),
                choices=setting.metadata["choices"],
                metavar=None if setting.metadata["choices"] else _kind(setting).__name__.upper(),
            )
        try:
            return cls(**vars(parser.parse_args(arguments)))
        except ValueError as error:
            parser.error(str(error))


def variable(setting: Field[Any]) -> str:
    """The environment variable of a setting."""
    return PREFIX + setting.name.upper()


def _kind(setting: Field[Any]) -> type:
    assert setting.default is not MISSING
    return Path if isinstance(setting.default, Path) else type(setting.default)


def _check(setting: Field[Any], value: Any) -> None:
    allowed = setting.metadata
    if allowed["choices"] and value not in allowed["choices"]:
        raise ValueError(f"{setting.name} is {value!r}; it must be one of {allowed['choices']}")
    if allowed["minimum"] is not None and not value >= allowed["minimum"]:
        raise ValueError(f"{setting.name} is {value}; the least allowed is {allowed['minimum']}")
    if allowed["maximum"] is not None and not value <= allowed["maximum"]:
        raise ValueError(f"{setting.name} is {value}; the most allowed is {allowed['maximum']}")
