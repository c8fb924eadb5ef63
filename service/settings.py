"""Settings of the server: each a flag, an environment variable NTM_*, and a default; validated."""

from __future__ import annotations

import argparse
import ipaddress
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
    tls_certificate: str = _setting(
        "", "file of the certificate that the gRPC port shows, as PEM; empty for no TLS"
    )
    tls_key: str = _setting("", "file of its private key, as PEM")
    tls_client_ca: str = _setting(
        "",
        "file of the authorities, as PEM, of which clients have to show a certificate; empty to "
        "ask for none",
    )
    tokens_file: str = _setting(
        "", "file of the tokens that are let in, made by python -m service.tokens"
    )
    jwt_keys: str = _setting(
        "", "file of the public keys of signed tokens (JWT), a JWKS or PEM; needs the extra jwt"
    )
    jwt_issuer: str = _setting("", "the issuer (iss) that signed tokens must have")
    jwt_audience: str = _setting("", "the audience (aud) that signed tokens must have")
    metrics_host: str = _setting("127.0.0.1", "address of the monitoring server")
    metrics_port: int = _setting(
        9464, "port of /metrics, /healthz and /readyz; 0 for any free one", minimum=0, maximum=65535
    )
    metrics_token_file: str = _setting(
        "", "file of tokens, of which /metrics needs one with the scope metrics; empty for none"
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
        4_096,
        "calls under way at once, streams included; more are refused",
        minimum=1,
        maximum=2**30,  # gRPC is given twice as many, in 31 bits
    )
    max_sessions: int = _setting(10_000, "open sessions", minimum=1)
    max_awake_sessions: int = _setting(
        0,
        "sessions whose state is in memory, where there is a store: those unused for longest are "
        "put to sleep in it; 0 for all",
        minimum=0,
    )
    sleep_after_seconds: float = _setting(
        0.0,
        "how long a session is unused before it is put to sleep in the store; 0 for no such time",
        minimum=0.0,
    )
    max_state_bytes: int = _setting(2 << 30, "bytes of state of all sessions together", minimum=1)
    max_sessions_per_principal: int = _setting(
        0, "open sessions of one principal; 0 for no limit of its own", minimum=0
    )
    max_state_bytes_per_principal: int = _setting(
        0, "bytes of state of one principal's sessions; 0 for no limit of its own", minimum=0
    )
    max_connection_age_seconds: float = _setting(
        0.0,
        "when a connection is asked to end, and its streams after drain-seconds more; 0 for never",
        minimum=0.0,
        maximum=2e6,  # some weeks; gRPC counts milliseconds in 32 bits
    )
    max_locations: int = _setting(16_384, "memory locations of a session", minimum=1)
    max_chunk_steps: int = _setting(1_024, "steps in one chunk", minimum=1)
    max_waiting_steps: int = _setting(4_096, "steps of one session that may wait", minimum=1)
    max_stream_operations: int = _setting(
        1_024, "operations of one stream that may be unanswered", minimum=1
    )
    durability: str = _setting(
        "asynchronous",
        "when the steps of a session that does not say are stored, where there is a store",
        choices=("none", "asynchronous", "synchronous"),
    )
    checkpoint_every_steps: int = _setting(
        256,
        "steps between two checkpoints of a session with asynchronous durability, about",
        minimum=1,
    )
    max_replay_bytes: int = _setting(
        65_536,
        "bytes of its last outputs and traces that each session keeps, for clients that lost them",
        minimum=0,
    )
    max_message_bytes: int = _setting(
        4 << 20,
        "bytes of one gRPC message",
        minimum=65_536,
        maximum=2**31 - 1,  # what gRPC's options hold
    )
    max_input_magnitude: float = _setting(
        1e6,
        "largest absolute input value",
        minimum=1.0,
        maximum=3.4e38,  # a float32 above is not finite
    )
    default_idle_timeout_seconds: float = _setting(
        300.0, "idle timeout of a session that asks for none", minimum=0.001
    )
    max_idle_timeout_seconds: float = _setting(
        86_400.0,
        "longest idle timeout a session may ask for",
        minimum=0.001,
        maximum=1e9,  # half a lifetime; what protobuf and datetime can hold, with room to spare
    )
    store: str = _setting(
        "",
        "where sessions outlive their server: directory:FOLDER, or redis://HOST:PORT (rediss:// "
        "for TLS, redis-cluster:// for a cluster), which needs the extra redis; empty for nowhere",
    )
    store_sync: str = _setting(
        "yes",
        "whether what a directory keeps outlives a loss of power, or only the server",
        choices=("yes", "no"),
    )
    store_password_file: str = _setting(
        "", "file of the password for redis://USER@HOST, in the place of one in the URL"
    )
    store_timeout_seconds: float = _setting(
        2.0, "how long the store has to answer, tries included", minimum=0.01, maximum=3600.0
    )
    retry_delay_seconds: float = _setting(
        1.0,
        "how long a client is told to wait at a limit",
        minimum=0.0,
        maximum=1e9,  # as above
    )
    drain_seconds: float = _setting(
        10.0,
        "time that waiting steps have to finish after SIGTERM",
        minimum=0.0,
        maximum=2e6,  # as above
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
        for name in ("host", "metrics_host"):
            if not getattr(self, name):  # HTTP would listen on every interface
                raise ValueError(f"{name} is empty; 0.0.0.0 stands for every interface")
        if self.default_idle_timeout_seconds > self.max_idle_timeout_seconds:
            raise ValueError(
                f"default_idle_timeout_seconds is {self.default_idle_timeout_seconds}, above "
                f"max_idle_timeout_seconds, {self.max_idle_timeout_seconds}"
            )
        self._check_together("tls_certificate", "tls_key")
        self._check_together("jwt_keys", "jwt_issuer", "jwt_audience")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError(
                f"tls_client_ca is {self.tls_client_ca!r}, which needs tls_certificate and tls_key"
            )

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine can reach the gRPC port."""
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def authenticates(self) -> bool:
        """Whether callers have to say who they are."""
        return bool(self.tokens_file or self.jwt_keys or self.tls_client_ca)

    def _check_together(self, *names: str) -> None:
        values = {name: getattr(self, name) for name in names}
        if any(values.values()) and not all(values.values()):
            missing = " and ".join(name for name, value in values.items() if not value)
            given = next(name for name, value in values.items() if value)
            raise ValueError(f"{given} is {values[given]!r}, which needs {missing} too")

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
