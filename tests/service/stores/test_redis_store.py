"""The Redis store: servers that stop, hang and refuse, lost answers, passwords, TLS, clusters."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.errors import FileInvalid
from service.stores.base import Saved, StoreUnavailable, name_of
from service.stores.redis_store import PREFIX, RedisStore
from tests.support.certificates import Authority
from tests.support.claims import claimed, record_of
from tests.support.valkey import SPARE_SECONDS, Gate, Valkey

SAVED = Saved("session", 1, b"record" * 1_000, 60.0)
BOUND_SECONDS = 0.5


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """A server of the test's own, for it to mistreat."""
    server = Valkey(tmp_path)
    yield server
    server.stop()


@asynccontextmanager
async def opened(
    url: str, timeout_seconds: float = 10.0, password_file: Path | None = None
) -> AsyncIterator[RedisStore]:
    """A store, closed at the end."""
    store = RedisStore(url, timeout_seconds=timeout_seconds, password_file=password_file)
    try:
        yield store
    finally:
        await store.close()


async def refused(store: RedisStore) -> str:
    """What the store says to a save that fails, having checked that it does in time."""
    began = time.monotonic()
    with pytest.raises(StoreUnavailable) as failed:
        await store.save([SAVED])
    assert time.monotonic() - began < BOUND_SECONDS + SPARE_SECONDS
    return str(failed.value)


async def until_kept(store: RedisStore) -> None:
    """Save until it succeeds."""
    deadline = time.monotonic() + 10
    while True:
        try:
            assert await store.save([SAVED]) == [True]
            return
        except StoreUnavailable:
            assert time.monotonic() < deadline


async def test_a_server_that_stopped_is_told_in_time(valkey: Valkey) -> None:
    """What was kept before is there when it is back, and the store needs no restart."""
    async with opened(valkey.url, BOUND_SECONDS) as store:
        await until_kept(store)
        valkey.stop()

        assert f"127.0.0.1:{valkey.port}" in (message := await refused(store))
        assert "Connect" in message
        valkey.start()
        assert await record_of(store, SAVED.session_id) == SAVED.record


async def test_a_save_waits_for_a_server_that_restarts(valkey: Valkey) -> None:
    """Lost connections are made again within the time that the store has."""
    async with opened(valkey.url) as store:
        await store.save([SAVED])
        valkey.stop()
        save = asyncio.create_task(store.save([SAVED._replace(record=b"new")]))
        await asyncio.sleep(0)  # it is under way
        await asyncio.to_thread(valkey.start)

        assert await save == [True]
        assert await record_of(store, SAVED.session_id) == b"new"


async def test_a_server_that_hangs_is_told_in_time(valkey: Valkey) -> None:
    """When it goes on, no answer to what was given up is taken for another's."""
    async with opened(valkey.url, BOUND_SECONDS) as store:
        await until_kept(store)
        with valkey.paused():
            messages = await asyncio.gather(*(refused(store) for _ in range(20)))
            assert all("Timeout" in each or "no answer" in each for each in messages)

        await until_kept(store)
        answers = await asyncio.gather(
            *(store.save([Saved(str(n), 1, b"%d" % n, 60.0)]) for n in range(40))
        )
        assert answers == [[True]] * 40
        records = await asyncio.gather(*(record_of(store, str(n)) for n in range(40)))
        assert records == [b"%d" % n for n in range(40)]


async def test_a_save_that_was_given_up_does_not_undo_a_later_one(valkey: Valkey) -> None:
    """The server may make it at any time after, over a connection that was slow."""
    gate = Gate(valkey.port)
    async with gate.open() as port, opened(f"redis://127.0.0.1:{port}") as store:
        release = gate.hold()
        early = asyncio.create_task(store.save([SAVED._replace(record=b"early")]))
        await gate.holding.wait()
        gate.hold_no_more()
        assert await store.save([SAVED._replace(record=b"later")]) == [True]

        release.set()
        assert await early == [True]
        assert await record_of(store, SAVED.session_id) == b"later"


async def test_a_save_whose_answer_is_lost_gets_the_right_verdict(valkey: Valkey) -> None:
    """A save is repeated after a lost answer: kept for the owner, refused for an earlier owner."""
    gate = Gate(valkey.port)
    async with gate.open() as port, opened(f"redis://127.0.0.1:{port}") as store:
        await store.save([SAVED])
        gate.losing = True
        assert await store.save([SAVED._replace(record=b"new")]) == [True]
        assert gate.lost == 1

        async with opened(valkey.url) as other:
            assert await record_of(other, SAVED.session_id) == b"new"
        gate.losing = True
        assert await store.save([SAVED]) == [False]
        assert gate.lost == 2


async def test_an_answer_that_never_comes_is_asked_for_again(valkey: Valkey) -> None:
    """Over another connection, in half of the time that there is."""
    gate = Gate(valkey.port)
    async with gate.open() as port, opened(f"redis://127.0.0.1:{port}", 4.0) as store:
        release = gate.hold()
        save = asyncio.create_task(store.save([SAVED]))
        await gate.holding.wait()
        gate.hold_no_more()

        assert await save == [True]
        release.set()


async def test_a_claim_whose_answer_is_lost_is_made_again(valkey: Valkey) -> None:
    """The epoch goes up twice; the claimant owns the last one."""
    gate = Gate(valkey.port)
    async with gate.open() as port, opened(f"redis://127.0.0.1:{port}") as store:
        await store.save([SAVED])
        first, _ = await claimed(store, SAVED.session_id)
        gate.losing = True

        epoch, record = await claimed(store, SAVED.session_id)
        assert gate.lost == 1
        assert epoch >= first + 2
        assert record == SAVED.record
        assert await store.save([SAVED._replace(epoch=epoch)]) == [True]


async def test_an_opening_whose_answer_is_lost_finds_its_own_record(valkey: Valkey) -> None:
    """And owns the session in the later of the two epochs."""
    gate = Gate(valkey.port)
    async with gate.open() as port, opened(f"redis://127.0.0.1:{port}") as store:
        gate.losing = True
        told = await store.open(SAVED)
        assert told is not None
        assert gate.lost == 1
        assert told == (await store.epoch(SAVED.session_id), SAVED.record)
        assert await store.save([SAVED._replace(epoch=told[0])]) == [True]


async def test_scripts_that_the_server_forgot_are_sent_again(valkey: Valkey) -> None:
    """As after its restart, for each script."""
    async with opened(valkey.url) as store:
        await store.save([SAVED])
        valkey.command("SCRIPT", "FLUSH")
        assert await store.save([SAVED, SAVED._replace(session_id="2")]) == [True, True]
        valkey.command("SCRIPT", "FLUSH")
        assert await record_of(store, SAVED.session_id) == SAVED.record
        valkey.command("SCRIPT", "FLUSH")
        await store.delete(SAVED.session_id, await store.epoch(SAVED.session_id), 60.0)
        assert await store.claim(SAVED.session_id) is None


@pytest.mark.parametrize(
    ("command", "undo", "reason"),
    [
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0", "OOM|maxmemory"),
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE", "read only replica"),
    ],
)
async def test_a_server_that_refuses_is_quoted(
    valkey: Valkey, command: str, undo: str, reason: str
) -> None:
    """Its reason, and nothing of the record or the key; afterwards the store works again."""
    async with opened(valkey.url, BOUND_SECONDS) as store:
        await until_kept(store)
        valkey.command(*command.split())

        message = await refused(store)
        assert any(each in message for each in reason.split("|"))
        assert "recordrecord" not in message
        assert name_of(SAVED.session_id) not in message
        valkey.command(*undo.split())
        await until_kept(store)


async def test_a_full_server_takes_a_deletion(valkey: Valkey) -> None:
    """Though it takes nothing else; what is left of the session is its epoch."""
    async with opened(valkey.url, BOUND_SECONDS) as store:
        await until_kept(store)
        valkey.command("CONFIG", "SET", "maxmemory", 1)
        await refused(store)

        await store.delete(SAVED.session_id, 1, 60.0)
        await store.delete("never saved", 1, 60.0)
        assert await store.claim(SAVED.session_id) is None
        assert await store.epoch(SAVED.session_id) == await store.epoch("never saved") == 2


async def test_a_record_of_an_earlier_server_is_claimed(valkey: Valkey) -> None:
    """It does not say for how long it is kept, and is kept no longer by a claim."""
    async with opened(valkey.url) as store:
        key = PREFIX + name_of(SAVED.session_id)
        valkey.command("HSET", key, "epoch", 1, "order", 1, "record", "record")
        valkey.command("PEXPIRE", key, 50_000)

        assert await record_of(store, SAVED.session_id) == b"record"
        assert valkey.command("PTTL", key) <= 50_000


async def test_a_wrong_password_is_told_at_once_and_not_shown(valkey: Valkey) -> None:
    """No retry would make it right."""
    valkey.command("ACL", "SETUSER", "ntm", "on", ">right", "~ntm:*", "+@all")
    async with opened(f"redis://ntm:wr0ng@127.0.0.1:{valkey.port}", 60.0) as store:
        message = await refused(store)
        assert "invalid username-password pair" in message
        assert "wr0ng" not in message
    async with opened(f"redis://ntm:right@127.0.0.1:{valkey.port}") as store:
        assert await store.save([SAVED]) == [True]


async def test_a_password_file_is_read_for_each_connection(valkey: Valkey, tmp_path: Path) -> None:
    """A password can be replaced while the server runs."""
    valkey.command("ACL", "SETUSER", "ntm", "on", ">first", "~ntm:*", "+@all")
    file = tmp_path / "password"
    file.write_text("first\n")
    url = f"redis://ntm@127.0.0.1:{valkey.port}"
    async with opened(url, BOUND_SECONDS, password_file=file) as store:
        await until_kept(store)
        file.write_text("second\n")
        valkey.command("ACL", "SETUSER", "ntm", "resetpass", ">second")
        valkey.command("CLIENT", "KILL", "USER", "ntm")
        await until_kept(store)

        file.unlink()
        valkey.command("CLIENT", "KILL", "USER", "ntm")
        assert f"cannot read {file}: No such file" in await refused(store)
        file.write_text("second\n")
        await until_kept(store)
    with pytest.raises(FileInvalid, match="--store-password-file: cannot read"):
        RedisStore(url, password_file=tmp_path / "missing")


async def test_tls_needs_an_authority_that_is_known(valkey: Valkey, tmp_path: Path) -> None:
    """And a certificate for the name in the URL."""
    authority = Authority()
    pair = authority.signed("valkey").written(tmp_path, "valkey")
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    (tmp_path / "other.pem").write_bytes(Authority("other").certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    async with Gate(valkey.port).open(context) as port:
        url = f"rediss://127.0.0.1:{port}?ssl_ca_certs={tmp_path}"
        async with opened(f"{url}/ca.pem") as store:
            assert await store.save([SAVED]) == [True]
        async with opened(f"{url}/other.pem", BOUND_SECONDS) as store:
            assert "CERTIFICATE_VERIFY_FAILED" in await refused(store)


async def test_connections_are_few(valkey: Valkey) -> None:
    """The number of connections stays small, however many requests are made at once."""
    async with opened(valkey.url) as store:
        await asyncio.gather(*(store.save([SAVED]) for _ in range(200)))

        clients = valkey.command("CLIENT", "LIST").splitlines()
        assert 1 < len(clients) <= 8 + 1  # and the one that asks


@pytest.mark.parametrize("by_opening", [False, True])
async def test_a_session_is_one_key_with_its_time(valkey: Valkey, by_opening: bool) -> None:
    """The hash is called by the SHA-256 of the id, and goes by itself."""
    async with opened(valkey.url) as store:
        await (store.open(SAVED) if by_opening else store.save([SAVED]))

        key = PREFIX + name_of(SAVED.session_id)
        assert valkey.command("KEYS", "*") == [key]
        assert 59_000 < valkey.command("PTTL", key) <= 60_000


async def test_scripts_keep_to_the_rules_of_a_cluster(tmp_path: Path) -> None:
    """Each touches one key: a batch may hold sessions of any slots, here all of one node."""
    server = Valkey(tmp_path, "--cluster-enabled", "yes")
    try:
        server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        async with opened(server.url) as store:
            batch = [SAVED._replace(session_id=str(number)) for number in range(50)]
            deadline = time.monotonic() + 10
            while "cluster_state:ok" not in server.command("CLUSTER", "INFO"):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            assert await store.save(batch) == [True] * 50
            assert await record_of(store, "7") == SAVED.record
            await store.delete("7", await store.epoch("7"), 60.0)
            assert await store.claim("7") is None
    finally:
        server.stop()
