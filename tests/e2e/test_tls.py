"""TLS over real connections: rotated certificates, wrong certificates, client certificates."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from ntm.v1 import ntm_pb2 as pb
from ntm.v1 import ntm_pb2_grpc
from service import probe
from service.auth.principal import READ, STEP
from tests.conftest import Running, Serve
from tests.e2e.calls import chunk, outputs, reason
from tests.e2e.test_process import ROOT, flags, ports, started
from tests.e2e.test_rpcs import refused
from tests.support.certificates import Authority, Pair
from tests.support.tokens import bearer, token_line, write

TRUSTED, OTHER = Authority("trusted"), Authority("other")


def configured(folder: Path, pair: Pair, client_ca: bytes = b"") -> dict[str, str]:
    """The settings of a server with this certificate and key, which are written into the folder."""
    certificate, key = pair.written(folder, "server")
    settings = {"tls_certificate": str(certificate), "tls_key": str(key)}
    if client_ca:
        (folder / "clients.pem").write_bytes(client_ca)
        settings["tls_client_ca"] = str(folder / "clients.pem")
    return settings


def trusting(authority: Authority, shown: Pair | None = None) -> grpc.ChannelCredentials:
    """Credentials of a client: the CA that it trusts, and its own certificate."""
    if shown is None:
        return grpc.ssl_channel_credentials(authority.certificate)
    return grpc.ssl_channel_credentials(authority.certificate, shown.key, shown.certificate)


async def listed(
    running: Running, credentials: grpc.ChannelCredentials | None, metadata: Any = ()
) -> grpc.StatusCode:
    """The status code of ListModels over a new connection."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with (
        grpc.aio.secure_channel(running.address, credentials, options)
        if credentials
        else grpc.aio.insecure_channel(running.address, options)
    ) as channel:
        stub: Any = ntm_pb2_grpc.NtmServiceStub(channel)
        call = stub.ListModels(pb.ListModelsRequest(), metadata=metadata, timeout=10)
        found: grpc.StatusCode = await call.code()
        return found


async def test_certificates_are_rotated_under_open_connections(
    serve: Serve, tmp_path: Path
) -> None:
    """An open stream continues; new connections get the new certificate alone."""
    old, new = TRUSTED.signed("old"), OTHER.signed("new", lasts=timedelta(days=3))
    async with serve(trusting(TRUSTED), **configured(tmp_path, old)) as running:
        before = expiry(running, "server")
        call = running.stub.StreamSteps()
        opening = pb.Operation(open=pb.CreateSessionRequest(model="ledger"))
        await call.write(pb.StreamStepsRequest(operations=[opening]))
        session = (await call.read()).outcomes[0].opened.id

        new.written(tmp_path, "server")
        assert await listed(running, trusting(OTHER)) is grpc.StatusCode.OK
        assert await listed(running, trusting(TRUSTED)) is grpc.StatusCode.UNAVAILABLE

        stepping = pb.Operation(step=chunk(session, [[1, 2]]))
        await call.write(pb.StreamStepsRequest(operations=[stepping]))
        assert outputs((await call.read()).outcomes[0].reply).tolist() == [[1, 2]]
        await call.done_writing()
        day = 24 * 60 * 60
        assert expiry(running, "server") - before == pytest.approx(2 * day, abs=60)


def expiry(running: Running, file: str) -> float:
    """The time at which the file's certificate expires, from the metric."""
    return running.metric("ntm_certificate_expiry_timestamp_seconds", file=file)


@pytest.mark.parametrize("which", ["half", "mixed", "expired", "gone"])
async def test_a_wrong_pair_keeps_the_old_one(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    """The log has the reason; as soon as the files are right, the server uses them."""
    old, new = TRUSTED.signed("old"), OTHER.signed("new")
    async with serve(trusting(TRUSTED), **configured(tmp_path, old)) as running:
        wrong = {
            "half": Pair(new.certificate[:200], new.key),
            "mixed": Pair(new.certificate, old.key),
            "expired": OTHER.signed("late", lasts=timedelta(days=-1)),
            "gone": Pair(b"", b""),
        }[which]
        certificate, key = wrong.written(tmp_path, "server")
        if which == "gone":
            key.unlink()
        with caplog.at_level(logging.ERROR):
            assert await listed(running, trusting(TRUSTED)) is grpc.StatusCode.OK
            assert await listed(running, trusting(OTHER)) is grpc.StatusCode.UNAVAILABLE
        said = [vars(record) for record in caplog.records if record.name == "service.watched_files"]
        assert {each["message"] for each in said} == {"files not taken over"}
        assert str(tmp_path) in said[0]["why"]
        new.written(tmp_path, "server")
        assert await listed(running, trusting(OTHER)) is grpc.StatusCode.OK
        assert certificate.read_bytes() == new.certificate


async def test_nothing_is_told_without_tls(serve: Serve, tmp_path: Path) -> None:
    """A client that does not encrypt gets no answer."""
    async with serve(trusting(TRUSTED), **configured(tmp_path, TRUSTED.signed("s"))) as running:
        assert await listed(running, None) is grpc.StatusCode.UNAVAILABLE
        assert await listed(running, trusting(TRUSTED)) is grpc.StatusCode.OK


async def test_old_versions_of_tls_are_refused(serve: Serve, tmp_path: Path) -> None:
    """The server accepts TLS 1.2 and 1.3."""
    async with serve(trusting(TRUSTED), **configured(tmp_path, TRUSTED.signed("s"))) as running:
        command = ["openssl", "s_client", "-connect", running.address, "-alpn", "h2"]
        for version, accepted in (("tls1_1", False), ("tls1_2", True), ("tls1_3", True)):
            # Without -cipher, OpenSSL itself would refuse to try the old one.
            spoken = subprocess.run(  # noqa: ASYNC221 - the server's handshake has its own threads
                [*command, f"-{version}", "-cipher", "DEFAULT:@SECLEVEL=0"],
                input=b"",
                capture_output=True,
                timeout=20,
                check=False,
            )
            assert (b"Verification" in spoken.stdout and spoken.returncode == 0) is accepted


async def test_clients_must_show_a_certificate_that_is_trusted(
    serve: Serve, tmp_path: Path
) -> None:
    """The handshake refuses a missing certificate, one of another CA, and an expired one."""
    settings = configured(tmp_path, TRUSTED.signed("server"), TRUSTED.certificate)
    alice = TRUSTED.signed("alice")
    async with serve(trusting(TRUSTED, alice), **settings) as running:
        assert await listed(running, trusting(TRUSTED, alice)) is grpc.StatusCode.OK
        for shown in (
            None,
            OTHER.signed("alice"),
            TRUSTED.signed("alice", lasts=timedelta(days=-1)),
        ):
            code = await listed(running, trusting(TRUSTED, shown))
            assert code is grpc.StatusCode.UNAVAILABLE
        assert expiry(running, "client_ca") > expiry(running, "server")


async def test_a_rotated_authority_of_clients_counts_for_new_connections(
    serve: Serve, tmp_path: Path
) -> None:
    """Clients of the old CA are refused, and clients of the new CA are accepted."""
    settings = configured(tmp_path, TRUSTED.signed("server"), TRUSTED.certificate)
    before, after = TRUSTED.signed("alice"), OTHER.signed("alice")
    async with serve(trusting(TRUSTED, before), **settings) as running:
        assert await listed(running, trusting(TRUSTED, after)) is grpc.StatusCode.UNAVAILABLE
        (tmp_path / "clients.pem").write_bytes(OTHER.certificate)
        assert await listed(running, trusting(TRUSTED, after)) is grpc.StatusCode.OK
        assert await listed(running, trusting(TRUSTED, before)) is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_names_its_principal(serve: Serve, tmp_path: Path) -> None:
    """The name is the common or alternative name; it owns sessions; a token overrides it."""
    settings = configured(tmp_path, TRUSTED.signed("server"), TRUSTED.certificate)
    file = tmp_path / "tokens.jsonl"
    write(file, token_line("alice", "tok-alice", READ, STEP))
    alice = TRUSTED.signed("alice")
    async with serve(trusting(TRUSTED, alice), **settings, tokens_file=str(file)) as running:
        request = pb.CreateSessionRequest(model="ledger")
        session = (await running.stub.CreateSession(request)).session.id
        describing = pb.GetSessionRequest(session_id=session)
        for pair, metadata, expected in (
            (alice, (), "ok"),
            (TRUSTED.signed("alice"), (), "ok"),  # renewed
            (TRUSTED.signed("bob"), (), "SESSION_UNKNOWN"),
            (TRUSTED.signed(None, names=("alice",)), (), "ok"),
            (TRUSTED.signed(None, names=("bob", "alice")), (), "SESSION_UNKNOWN"),
            (TRUSTED.signed(None, names=()), (), "UNAUTHENTICATED"),
            (alice, bearer("tok-alice"), "SESSION_UNKNOWN"),  # another alice
            (alice, bearer("wrong"), "UNAUTHENTICATED"),
        ):
            credentials = trusting(TRUSTED, pair)
            async with grpc.aio.secure_channel(running.address, credentials) as channel:
                stub: Any = ntm_pb2_grpc.NtmServiceStub(channel)
                call = stub.GetSession(describing, metadata=metadata)
                if expected == "ok":
                    assert (await call).session.id == session
                else:
                    assert reason(await refused(call)) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tls-certificate=a.pem"], "--tls-certificate is 'a.pem'; set --tls-key too"),
        (
            ["--tls-certificate=a.pem", "--tls-key=a.key"],
            "cannot serve: --tls-certificate, --tls-key: cannot read a.pem: No such file",
        ),
        (["--tokens-file=none"], "cannot serve: --tokens-file: cannot read none: No such file"),
        (
            ["--tokens-file=README.md"],
            "cannot serve: --tokens-file: line 1 is not JSON: Expecting value",
        ),
        (
            ["--jwt-keys=README.md", "--jwt-issuer=i", "--jwt-audience=a"],
            "cannot serve: --jwt-keys: no key fits (0 found)",
        ),
        (["--metrics-token-file=none"], "cannot serve: --metrics-token-file: cannot read none"),
    ],
)
def test_a_server_with_wrong_files_does_not_start(
    models_dir: Path, arguments: list[str], message: str
) -> None:
    """The error names the flag or the file, and the reason."""
    command = [sys.executable, "-m", "service", *flags(models_dir), *arguments]
    ended = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode != 0
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


async def test_an_open_port_is_warned_of(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """If other machines can reach the port, a warning names each setting that is missing."""
    file = tmp_path / "tokens.jsonl"
    write(file, token_line("alice", "tok-alice", READ))
    encrypted = configured(tmp_path, TRUSTED.signed("server"))
    everywhere = {"host": "0.0.0.0"}  # noqa: S104 - that it is everywhere is the point
    unencrypted = "calls and tokens are not encrypted: set --tls-certificate and --tls-key"
    anybody = "callers are not authenticated: set --tokens-file, --jwt-keys or --tls-client-ca"
    for settings, expected in (
        ({}, []),
        (everywhere, [unencrypted, anybody]),
        ({**everywhere, "tokens_file": str(file)}, [unencrypted]),
        ({**everywhere, **encrypted}, [anybody]),
        ({**everywhere, **encrypted, "tokens_file": str(file)}, []),
    ):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            async with serve(**settings):
                pass
        warnings = [record.message for record in caplog.records if record.name == "service.server"]
        assert warnings == expected


@pytest.mark.parametrize("names", [("localhost",), ("*.ntm.example",)])
@pytest.mark.parametrize("client_ca", [b"", TRUSTED.certificate])
def test_the_probe_speaks_tls_as_the_server_does(
    models_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    client_ca: bytes,
    names: tuple[str, ...],
) -> None:
    """It reads the server's variables, and shows the server's certificate if asked for one."""
    settings = configured(tmp_path, TRUSTED.signed("server", names=names), client_ca)
    options = [f"--{name.replace('_', '-')}={path}" for name, path in settings.items()]
    with started("-m", "service", *flags(models_dir), *options) as process:
        address, _ = ports(process)
        monkeypatch.setattr(sys, "argv", ["probe", address])
        assert probe.main() == 1  # it does not know of TLS
        for name, path in settings.items():
            monkeypatch.setenv(f"NTM_{name.upper()}", path)
        assert probe.main() == 0
        TRUSTED.signed("another").written(tmp_path, "server")
        monkeypatch.setenv("NTM_TLS_KEY", str(tmp_path / "nowhere"))
        assert probe.main() == 1
    captured = capsys.readouterr()
    assert captured.out == f"{address}: SERVING\n"
    assert "--tls-key: cannot read" in captured.err
    assert "; if the server has TLS, set NTM_TLS_CERTIFICATE and NTM_TLS_KEY" in captured.err


def test_the_first_line_says_whether_it_is_safe(models_dir: Path, tmp_path: Path) -> None:
    """The log line has whether the server encrypts and authenticates."""
    settings = configured(tmp_path, TRUSTED.signed("server"), TRUSTED.certificate)
    options = [f"--{name.replace('_', '-')}={path}" for name, path in settings.items()]
    with started("-m", "service", *flags(models_dir), *options) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if '"message": "serving"' in line)
    fields = json.loads(line)
    assert (fields["tls"], fields["authentication"]) == (True, True)
