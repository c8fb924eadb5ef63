"""Settings of the server: each one is a flag, an environment variable NTM_*, and a default."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from ntm.addresses import Address, AddressInvalid, listening, parse

PREFIX = "NTM_"
"""What the names of the environment variables start with."""

MIN_CONNECTION_AGE_SECONDS = 1
"""
A client whose connections end in milliseconds only connects: a call of 5 ms took 28 s with an age
of 5 ms, and up to 5 s with one of 100 ms.
"""

_CLIENTS = (f"{PREFIX}SERVER", f"{PREFIX}TOKEN")
"""Variables of the command `ntm`."""

_TYPES: dict[type, tuple[str, str, str]] = {
    int: ("INT", "a whole number", r"[+-]?\d{1,4000}"),
    float: ("FLOAT", "a finite number", r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"),
    str: ("TEXT", "a text", r"(?s:.*)"),
    Path: ("PATH", "a path", r"(?s:.+)"),
}
"""How help and errors name each type, and its form. Python reads more than that, such as 1_0."""


def _setting(
    default: Any,
    help_text: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    choices: tuple[str, ...] | None = None,
    of_store: bool = False,
) -> Any:
    """
    Declare a field with its help and its limits, for flags, checks and reference pages.

    A setting `of_store` has a meaning only where there is a store.
    """
    limits = {"minimum": minimum, "maximum": maximum, "choices": choices, "of_store": of_store}
    return field(default=default, metadata={"help": help_text, **limits})


class SettingInvalid(ValueError):
    """A setting has a value that it cannot have; the message names the flag and the value."""

    def __init__(
        self, setting: str, problem: str, others: Sequence[str] = (), rest: str = ""
    ) -> None:
        """
        Name a setting and its problem.

        Args:
            setting: The field's name.
            problem: Goes on with the sentence that starts with the name of the setting.
            others: Other settings that the sentence names next.
            rest: The end of the sentence.
        """
        super().__init__()
        self.setting = setting
        self._problem = problem
        self._others = others
        self._rest = rest

    def __str__(self) -> str:
        return self.sentence(_flag)

    def sentence(self, name: Callable[[str], str]) -> str:
        """The message, with every setting named in the same way: by its flag or its variable."""
        others = " and ".join(name(each) for each in self._others)
        return f"{name(self.setting)} {self._problem}{others}{self._rest}"


@dataclass(frozen=True)
class Settings:
    """Every setting; its value comes from the flag, else from the variable, else the default."""

    models_dir: Path = _setting(
        Path("models"), "folder that holds one folder for each model, or the files of one model"
    )
    model_name: str = _setting(
        "", "name of the model whose files lie in --models-dir itself; the folder's name if empty"
    )
    models: str = _setting(
        "",
        "comma-separated names of the models to serve, loaded at start; empty serves all models "
        "and loads each at its first session",
    )
    device: str = _setting(
        "auto",
        "device that runs the networks; cuda fails at start if CUDA does not work, auto then uses "
        "the CPU",
        choices=("auto", "cpu", "cuda"),
    )
    cuda_graphs: str = _setting(
        "no",
        "whether runs on a GPU are captured once for each size of batch and then replayed by one "
        "launch; refused on a CPU, and not tried on a GPU yet",
        choices=("yes", "no"),
    )
    host: str = _setting(
        "127.0.0.1",
        "address or name of the gRPC port; 0.0.0.0 or :: for every interface, or unix:PATH for a "
        "Unix domain socket, which has no port",
    )
    port: int = _setting(50051, "gRPC port; 0 for any free port", minimum=0, maximum=65535)
    listen: str = _setting(
        "",
        "comma-separated addresses on which the server listens too, such as unix:///run/ntm.sock "
        "or [::1]:50052; without a port, an address gets that of --port",
    )
    tls_certificate: str = _setting(
        "", "PEM file of the server's certificate chain; empty disables TLS"
    )
    tls_key: str = _setting("", "PEM file of the certificate's private key, without a password")
    tls_client_ca: str = _setting(
        "", "PEM file of the CAs that sign client certificates; empty disables mTLS"
    )
    tokens_file: str = _setting(
        "", "file of the tokens that clients may use; python -m service.tokens makes its lines"
    )
    jwt_keys: str = _setting(
        "",
        "JWKS or PEM file of the public keys that verify signed tokens (JWT); needs the extra jwt",
    )
    jwt_issuer: str = _setting("", "issuer (iss) that signed tokens must have")
    jwt_audience: str = _setting("", "audience (aud) that signed tokens must have")
    metrics_host: str = _setting(
        "127.0.0.1",
        "address or name of the monitoring port; 0.0.0.0 or :: for every interface",
    )
    metrics_port: int = _setting(
        9464,
        "monitoring port, with /metrics, /healthz and /readyz; 0 for any free port",
        minimum=0,
        maximum=65535,
    )
    metrics_token_file: str = _setting(
        "",
        "file of the tokens for /metrics, which need the scope metrics; empty allows everybody to "
        "read it",
    )
    threads: int = _setting(
        1,
        "threads of onnxruntime inside one tick; with more than 1, outputs may depend on the batch",
        minimum=1,
        maximum=256,
    )
    parallel_runs: int = _setting(
        0,
        "runs of networks at the same time, each on its own thread; 0 for one on a GPU, where one "
        "thread makes all, and on a CPU for one less than the cores that the process may use, by "
        "its affinity and CPU quota",
        minimum=0,
        maximum=256,
    )
    max_batch: int = _setting(
        32, "maximum number of sessions stepped in one tick", minimum=8, maximum=4096
    )
    max_burst: int = _setting(
        8,
        "maximum number of ticks in one run, for which new chunks wait; rounded down to a power of "
        "two",
        minimum=1,
        maximum=16,
    )
    max_calls: int = _setting(
        4_096,
        "maximum number of calls at the same time, streams included; more are refused",
        minimum=1,
        maximum=2**30,  # gRPC is given twice as many, in 31 bits
    )
    max_sessions: int = _setting(
        10_000, "maximum number of open sessions", minimum=1, maximum=2**40
    )
    max_awake_sessions: int = _setting(
        0,
        "maximum number of sessions in memory, if there is a store; above it, the sessions unused "
        "for longest are put to sleep in the store; 0 for no limit",
        minimum=0,
        maximum=2**40,
        of_store=True,
    )
    sleep_after_seconds: float = _setting(
        0.0,
        "time without a step after which a session is put to sleep in the store; 0 for never",
        minimum=0.0,
        maximum=1e9,
        of_store=True,
    )
    max_state_bytes: int = _setting(
        2 << 30,
        "maximum bytes of state, and of values given at opening, of all sessions; on a GPU also of "
        "the slabs, with the slots that are free",
        minimum=1,
        maximum=2**60,
    )
    max_sessions_per_principal: int = _setting(
        0,
        "maximum number of open sessions of one principal; 0 for no limit",
        minimum=0,
        maximum=2**40,
    )
    max_state_bytes_per_principal: int = _setting(
        0,
        "maximum bytes of state of one principal's sessions; 0 for no limit",
        minimum=0,
        maximum=2**60,
    )
    max_connection_age_seconds: float = _setting(
        0.0,
        "age at which a client is asked to close its connection; its streams are ended "
        "--drain-seconds later; 0 for never, else at least 1",
        minimum=0.0,
        maximum=2e6,  # some weeks; gRPC counts milliseconds in 32 bits
    )
    max_locations: int = _setting(
        16_384, "maximum number of memory locations of a session", minimum=1, maximum=2**32 - 1
    )
    max_chunk_steps: int = _setting(
        1_024, "maximum number of steps in one chunk", minimum=1, maximum=2**32 - 1
    )
    max_waiting_steps: int = _setting(
        4_096, "maximum number of steps of one session that wait", minimum=1, maximum=2**32 - 1
    )
    durability: str = _setting(
        "asynchronous",
        "when the steps of a session are stored, if there is a store and the session does not say",
        choices=("none", "asynchronous", "synchronous"),
        of_store=True,
    )
    checkpoint_every_steps: int = _setting(
        256,
        "steps after which a session with asynchronous durability is stored, approximately",
        minimum=1,
        maximum=2**32 - 1,  # as much as the API has a place for
        of_store=True,
    )
    max_replay_bytes: int = _setting(
        65_536,
        "bytes of its last outputs and traces that each session keeps, for clients that lost them",
        minimum=0,
        maximum=2**40,
    )
    max_message_bytes: int = _setting(
        4 << 20,
        "maximum bytes of one gRPC message",
        minimum=65_536,
        maximum=2**31 - 1,  # the most that gRPC's options hold
    )
    default_idle_timeout_seconds: float = _setting(
        300.0, "idle timeout of a session that asks for none", minimum=0.001, maximum=1e9
    )
    max_idle_timeout_seconds: float = _setting(
        86_400.0,
        "longest idle timeout that a session may ask for",
        minimum=0.001,
        maximum=1e9,  # 31 years; protobuf and datetime hold more
    )
    store: str = _setting(
        "",
        "store that keeps sessions when the server stops: directory:FOLDER, or redis://HOST:PORT "
        "(rediss:// for TLS, redis-cluster:// for a cluster; needs the extra redis); empty for "
        "none",
    )
    store_sync: str = _setting(
        "yes",
        "whether a directory store also survives a loss of power, which makes it slower",
        choices=("yes", "no"),
        of_store=True,
    )
    store_password_file: str = _setting(
        "",
        "file of the password for redis://USER@HOST, instead of a password in the URL",
        of_store=True,
    )
    store_timeout_seconds: float = _setting(
        2.0,
        "longest time for an answer of the store, retries included",
        minimum=0.01,
        maximum=3600.0,
        of_store=True,
    )
    drain_seconds: float = _setting(
        10.0,
        "longest time after SIGTERM to finish the steps that wait",
        minimum=0.0,
        maximum=2e6,  # some weeks, as above
    )
    log_level: str = _setting(
        "info",
        "least severe level that is logged",
        choices=("debug", "info", "warning", "error"),
    )
    access_log_per_second: float = _setting(
        10.0,
        "maximum number of calls logged a second, and as many failed calls; the next line counts "
        "the calls that were left out; 0 for none",
        minimum=0.0,
        maximum=1e6,
    )
    otlp_endpoint: str = _setting(
        "",
        "address that OpenTelemetry spans are sent to, such as http://collector:4317; "
        "OTEL_TRACES_SAMPLER chooses the calls; needs the extra otel; empty for none",
    )

    def __post_init__(self) -> None:
        """Check every value. Raises SettingInvalid."""
        for setting in fields(self):
            _check(setting, getattr(self, setting.name))
        for name, port in (("host", self.port), ("metrics_host", self.metrics_port)):
            host = getattr(self, name)
            if not host:  # an HTTP server would listen on every interface
                raise SettingInvalid(name, "is empty; use 0.0.0.0 for every interface")
            try:
                address = listening(host, port)
            except AddressInvalid as error:
                raise SettingInvalid(name, f"is {host!r}: {error.why}") from error
            if name == "metrics_host" and address.socket_path:
                raise SettingInvalid(name, f"is {host!r}; the monitoring port needs an IP address")
        monitoring = listening(self.metrics_host, self.metrics_port)
        if _overlap(self.address, monitoring):
            raise SettingInvalid(
                "metrics_port",
                f"is {self.metrics_port}, and ",
                ("port",),
                " is the same; the monitoring port needs one of its own",
            )
        self._check_listen(monitoring)
        if self.otlp_endpoint:
            _check_endpoint(self.otlp_endpoint)
        if 0 < self.max_connection_age_seconds < MIN_CONNECTION_AGE_SECONDS:
            raise SettingInvalid(
                "max_connection_age_seconds",
                f"is {self.max_connection_age_seconds}; it must be 0 for never, or at least "
                f"{MIN_CONNECTION_AGE_SECONDS}, because a connection could else end before a call "
                "is made on it",
            )
        if self.default_idle_timeout_seconds > self.max_idle_timeout_seconds:
            raise SettingInvalid(
                "default_idle_timeout_seconds",
                f"is {self.default_idle_timeout_seconds}, above ",
                ("max_idle_timeout_seconds",),
                f", which is {self.max_idle_timeout_seconds}",
            )
        self._check_together("tls_certificate", "tls_key")
        self._check_together("jwt_keys", "jwt_issuer", "jwt_audience")
        if not self.tls_certificate:
            self._check_default("tls_client_ca", ("tls_certificate", "tls_key"))
        if not self.has_store:
            for setting in fields(self):
                if setting.metadata["of_store"]:
                    self._check_default(setting.name, ("store",))

    @property
    def has_store(self) -> bool:
        """Whether sessions outlive the server."""
        return self.store not in ("", "none")

    @property
    def address(self) -> Address:
        """What the gRPC port is to listen on."""
        return listening(self.host, self.port)

    @property
    def addresses(self) -> list[Address]:
        """Everything that the server is to listen on for calls, `address` first."""
        also = self.listen.split(",") if self.listen else []
        return [self.address, *(parse(each.strip(), self.port) for each in also)]

    @property
    def authenticates(self) -> bool:
        """Whether callers need a token or a client certificate."""
        return bool(self.tokens_file or self.jwt_keys or self.tls_client_ca)

    def _check_listen(self, monitoring: Address) -> None:
        """Raise SettingInvalid if an address of `listen` is none, or is not of its own."""
        try:
            first, *also = self.addresses
        except AddressInvalid as error:
            raise SettingInvalid("listen", f"is {self.listen!r}: {error}") from error
        for number, each in enumerate(also):
            if _overlap(each, monitoring):
                raise SettingInvalid(
                    "listen", f"has {str(each)!r}, the monitoring port; see ", ("metrics_port",)
                )
            if any(each == other or _overlap(each, other) for other in (first, *also[:number])):
                raise SettingInvalid(
                    "listen", f"has {str(each)!r}, where the server listens already"
                )

    def _check_together(self, *names: str) -> None:
        given = [name for name in names if getattr(self, name)]
        missing = [name for name in names if name not in given]
        if given and missing:
            raise SettingInvalid(given[0], f"is {getattr(self, given[0])!r}; set ", missing, " too")

    def _check_default(self, name: str, missing: Sequence[str]) -> None:
        """Raise SettingInvalid for a setting that changes nothing without the missing settings."""
        default = next(setting.default for setting in fields(self) if setting.name == name)
        if getattr(self, name) != default:
            raise SettingInvalid(name, f"is {getattr(self, name)!r}; set ", missing, " too")

    @classmethod
    def from_command_line(
        cls, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Settings:
        """
        Read the settings from flags and variables.

        Ends the process with status 2 and one sentence on a mistake, and with 0 on `--help`.

        Args:
            arguments: The command line without the program's name.
            environment: The variables; None for those of this process.
        """
        environment = os.environ if environment is None else environment
        parser = _parser()
        flags = vars(parser.parse_args(arguments))
        variables = {
            setting.name: environment[variable(setting)]
            for setting in fields(cls)
            if variable(setting) in environment
        }
        texts = variables | flags
        try:
            return cls(
                **{
                    setting.name: _value(setting, texts[setting.name])
                    for setting in fields(cls)
                    if setting.name in texts
                }
            )
        except SettingInvalid as error:
            is_variable = error.setting in variables and error.setting not in flags
            sentence = error.sentence(_variable if is_variable else _flag)
            if is_variable and variables[error.setting].startswith("tcp://"):
                sentence += (
                    "; Kubernetes sets this variable for a service of that name: give the pod "
                    "enableServiceLinks: false"
                )
            parser.error(sentence)


def variable(setting: Field[Any]) -> str:
    """The environment variable of a setting."""
    return _variable(setting.name)


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def unknown_variables(environment: Mapping[str, str] | None = None) -> list[str]:
    """The names of variables that start as a setting's and are no setting's, nor a client's."""
    environment = os.environ if environment is None else environment
    known = {variable(setting) for setting in fields(Settings)} | set(_CLIENTS)
    return sorted(name for name in environment if name.startswith(PREFIX) and name not in known)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _parser() -> argparse.ArgumentParser:
    """A parser that yields the text of each flag that is given, and nothing for others."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        usage="%(prog)s [--FLAG VALUE ...]",
        description="Serve recurrent networks over gRPC until SIGTERM or SIGINT.",
        epilog="The environment variable in brackets sets the same as the flag; the flag wins.",
        argument_default=argparse.SUPPRESS,
    )
    for setting in fields(Settings):
        choices = setting.metadata["choices"]
        default = f" (default: {setting.default})" if str(setting.default) else ""
        parser.add_argument(
            _flag(setting.name),
            help=f"{setting.metadata['help']} [{variable(setting)}]{default}",
            metavar="|".join(choices) if choices else _TYPES[_kind(setting)][0],
        )
    return parser


def _kind(setting: Field[Any]) -> type:
    return Path if isinstance(setting.default, Path) else type(setting.default)


def _value(setting: Field[Any], text: str) -> Any:
    """The text as a value of the setting's type."""
    kind = _kind(setting)
    _, name, form = _TYPES[kind]
    if not re.fullmatch(form, text, re.ASCII):
        raise SettingInvalid(setting.name, f"is {text!r}; it must be {name}")
    return kind(text)


def _overlap(one: Address, other: Address) -> bool:
    """Whether no two servers can listen on both, as far as names tell."""
    if one.socket_path or other.socket_path or one.port != other.port or not one.port:
        return False
    hosts = {one.host.lower(), other.host.lower()}
    if "0.0.0.0" in hosts:  # noqa: S104 - compared, not listened on
        return not any(":" in host for host in hosts - {"::"})
    return len(hosts) == 1 or "::" in hosts or hosts in _LOOPBACKS


_LOOPBACKS = ({"localhost", "127.0.0.1"}, {"localhost", "::1"})


def _check_endpoint(endpoint: str) -> None:
    """Raise SettingInvalid unless spans can be sent there."""
    scheme, mark, rest = endpoint.partition("://")
    is_url = bool(mark) and scheme != "unix"
    place = rest.partition("/")[0] if is_url else endpoint
    if is_url and (scheme not in ("http", "https") or not place):
        raise SettingInvalid(
            "otlp_endpoint",
            f"is {endpoint!r}; it must be http://HOST:PORT, or https://HOST:PORT for TLS",
        )
    try:
        parse(place)
    except AddressInvalid as error:
        raise SettingInvalid("otlp_endpoint", f"is {endpoint!r}: {error.why}") from error


def _check(setting: Field[Any], value: Any) -> None:
    minimum, maximum = setting.metadata["minimum"], setting.metadata["maximum"]
    choices = setting.metadata["choices"]
    if choices and value not in choices:
        raise SettingInvalid(setting.name, f"is {value!r}; it must be {' or '.join(choices)}")
    # Written so that NaN fails.
    if minimum is not None and not value >= minimum:
        raise SettingInvalid(setting.name, f"is {value}; it must be at least {minimum}")
    if maximum is not None and not value <= maximum:
        raise SettingInvalid(setting.name, f"is {value}; it must be at most {maximum}")
