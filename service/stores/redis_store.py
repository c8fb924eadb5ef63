"""A store that keeps sessions in a Redis or Valkey server, or cluster, for any replicas."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from redis import exceptions
from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider

from service.errors import FileInvalid
from service.stores.base import Saved, StoreUnavailable, name_of

PREFIX = "ntm:"
"""The start of every key; the rest is the session's name."""

_CONNECTIONS = 8
"""The number of connections to the server, or to each primary of a cluster."""

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5

_PASSING = (
    exceptions.ConnectionError,
    exceptions.TimeoutError,
    exceptions.ReadOnlyError,
    exceptions.ClusterError,
    exceptions.TryAgainError,
    exceptions.RedisClusterException,
)
"""Errors that another try may not meet again."""

ScriptCall = tuple[str, tuple[int | bytes, ...]]
"""A session's id and the script's arguments."""

# Scripts, which the server runs as a whole. Each uses only the key that it gets, as Redis Cluster
# requires.
_SAVE = """\
local kept = redis.call('HMGET', KEYS[1], 'epoch', 'order')
local epoch, order = tonumber(kept[1] or 0), tonumber(kept[2] or 0)
local new_epoch, new_order = tonumber(ARGV[1]), tonumber(ARGV[2])
if epoch > new_epoch then return 0 end
if epoch == new_epoch and order > new_order then return 1 end
redis.call('HSET', KEYS[1],
    'epoch', ARGV[1], 'order', ARGV[2], 'record', ARGV[3], 'milliseconds', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
"""
"""Epoch, order, record, milliseconds: 0 if refused. What the owner saved later stays."""

_CLAIM = """\
local kept = redis.call('HMGET', KEYS[1], 'epoch', 'record', 'milliseconds')
if not kept[2] then return false end
local time = redis.call('TIME')
local epoch = math.max(kept[1] + 1, time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', KEYS[1], 'epoch', string.format('%.0f', epoch), 'order', 0)
if kept[3] then redis.call('PEXPIRE', KEYS[1], kept[3]) end
return {epoch, kept[2]}
"""
"""
The new epoch, as `store.epoch_after` has it, and the record.

The new owner counts its saves by a clock of its own. What an earlier server has saved has no time.
"""

_OPEN = f"""\
if redis.call('EXISTS', KEYS[1]) == 0 then
    redis.call('HSET', KEYS[1], 'epoch', 0, 'order', 0, 'record', ARGV[1], 'milliseconds', ARGV[2])
end
{_CLAIM}"""
"""Record, milliseconds, both for one that is unknown: it is kept, and then claimed."""

_EPOCH = """\
return tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0)
"""

_DELETE = """\
local epoch = tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0)
if epoch >= tonumber(ARGV[1]) then return 1 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
"""
The epoch after the owner's, milliseconds: what is left has no record.

To delete comes first: after it a server without memory takes the rest as well.
"""


class RedisStore:
    """
    Keeps each session as a hash: epoch, order of the save in it, record, for how long it is saved.

    Records are as durable as the server makes them. With `appendfsync always` they outlive a crash
    of the server. With an asynchronous replica, the last ones may be lost with the machine.
    """

    def __init__(
        self,
        url: str,
        *,
        is_cluster: bool = False,
        password_file: Path | None = None,
        timeout_seconds: float = 2.0,
    ) -> None:
        """
        Connect at the first call. Lost connections are made again, with growing pauses.

        Args:
            url: redis://, or rediss:// for TLS, then USER:PASSWORD@HOST:PORT/DATABASE, and after a
                question mark what redis-py takes, such as ssl_ca_certs=FILE.
            is_cluster: Whether the URL is of a node of a cluster. Any node will do: it names the
                others.
            password_file: File of the password, instead of one in the URL. It is read for each new
                connection.
            timeout_seconds: Time limit of each method, for all its tries together.

        Raises:
            FileInvalid: the URL or the password file cannot be used.
        """
        self._timeout_seconds = timeout_seconds
        # Within an epoch all saves are this process's, and a later one never has a smaller number,
        # whichever connection is first.
        self._orders = itertools.count(time.time_ns() // 1_000)
        try:
            parts = urlsplit(url)
            self._address = f"{parts.hostname}:{parts.port or 6379}"
            options: dict[str, Any] = {}
            if password_file:
                url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
                user = unquote(parts.username) if parts.username else None
                options["credential_provider"] = _PasswordFile(user, password_file)
            # Each try gets half of the time, because an answer may be lost silently.
            options["socket_timeout"] = options["socket_connect_timeout"] = timeout_seconds / 2
            options |= {"retry": Retry(NoBackoff(), 0), "protocol": 2}
            self._client = _cluster(url, options) if is_cluster else _single(url, options)
        except (TypeError, ValueError, exceptions.RedisClusterException):
            # The wrong part is not quoted, because it may be the password.
            raise FileInvalid(
                "--store: the URL cannot be read; it must be "
                "redis://USER:PASSWORD@HOST:PORT/DATABASE?OPTION=VALUE, with /, @, :, ? and # in "
                "the password as %2F, %40, %3A, %3F and "
                "%23; a cluster has no DATABASE"
            ) from None
        self._places = asyncio.Semaphore(_CONNECTIONS)

    async def save(self, sessions: Sequence[Saved]) -> list[bool]:
        order = next(self._orders)
        calls = [
            (
                each.session_id,
                (each.epoch, order, each.record, _milliseconds(each.seconds)),
            )
            for each in sessions
        ]
        return [kept == 1 for kept in await self._run(_SAVE, calls)]

    async def claim(self, session_id: str) -> tuple[int, bytes] | None:
        (found,) = await self._run(_CLAIM, [(session_id, ())])
        return found and (found[0], found[1])

    async def open(self, session: Saved) -> tuple[int, bytes] | None:
        arguments = session.record, _milliseconds(session.seconds)
        (found,) = await self._run(_OPEN, [(session.session_id, arguments)])
        return found and (found[0], found[1])

    async def epoch(self, session_id: str) -> int:
        (epoch,) = await self._run(_EPOCH, [(session_id, ())])
        return int(epoch)

    async def delete(self, session_id: str, epoch: int, seconds: float) -> None:
        await self._run(_DELETE, [(session_id, (epoch + 1, _milliseconds(seconds)))])

    async def close(self) -> None:
        await self._client.aclose()
        if isinstance(self._client, RedisCluster):
            # redis-py leaves connections open if it has not found all nodes yet.
            for nodes in ("nodes_cache", "startup_nodes"):
                await self._client.nodes_manager.aclose(nodes)
        else:
            await self._client.connection_pool.disconnect()

    async def _run(self, script: str, calls: Sequence[ScriptCall]) -> list[Any]:
        """
        Run a script for each call, all in one round trip, and return the answers.

        Each call is atomic, but not all of them together. While the connection is lost they are
        repeated, so a call may be made twice.
        """
        failed: Exception | None = None
        task = asyncio.current_task()
        assert task is not None
        cancellations = task.cancelling()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                for longest in _longest_pauses():
                    try:
                        return await self._call(script, calls)
                    except exceptions.AuthenticationError:
                        raise
                    except _PASSING as error:
                        failed = error
                        # A cluster's pipeline gathers its nodes' answers: where one of them fails
                        # at the moment of a cancellation, that failure takes its place.
                        if task.cancelling() > cancellations:
                            raise asyncio.CancelledError from error
                        await self._look_again(error)
                    await asyncio.sleep(random.uniform(0, longest))  # noqa: S311 - no secret
        except TimeoutError:
            pass
        except exceptions.RedisError as error:
            failed = error
        raise StoreUnavailable(
            f"the store at {self._address}: {failed or 'no answer'}, in {self._timeout_seconds} s"
        ) from failed

    async def _look_again(self, error: Exception) -> None:
        """
        Before another try, forget the cluster's servers, because another one may be primary now.
        """
        if isinstance(self._client, RedisCluster):
            with suppress(*_PASSING):  # the next try raises it
                await self._client.nodes_manager.initialize()
        elif isinstance(error, exceptions.ReadOnlyError):
            await self._client.connection_pool.disconnect(inuse_connections=False)

    async def _call(
        self, script: str, calls: Sequence[ScriptCall], *, is_known: bool = True
    ) -> list[Any]:
        name = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
        what = ("EVALSHA", name) if is_known else ("EVAL", script)
        # The clients' pools do not wait: they fail where all connections are in use.
        async with self._places, self._client.pipeline(transaction=False) as pipeline:
            for session_id, arguments in calls:
                # A cluster's pipeline has no evalsha(), though it carries out the command.
                pipeline.execute_command(*what, 1, PREFIX + name_of(session_id), *arguments)
            # An error that the pipeline raises itself would quote the record.
            answers = await pipeline.execute(raise_on_error=False)
        errors = [answer for answer in answers if isinstance(answer, Exception)]
        if is_known and any(isinstance(error, exceptions.NoScriptError) for error in errors):
            return await self._call(script, calls, is_known=False)  # a server is a new one
        if errors:
            raise errors[0]
        return answers


def _single(url: str, options: dict[str, Any]) -> Redis:
    pool: ConnectionPool = ConnectionPool.from_url(url, max_connections=_CONNECTIONS, **options)
    # This connects to nothing, but refuses unknown options.
    pool.make_connection()  # type: ignore[no-untyped-call] # it has no annotations
    return Redis(connection_pool=pool)


def _cluster(url: str, options: dict[str, Any]) -> RedisCluster:
    return RedisCluster.from_url(url, max_connections=_CONNECTIONS, **options)


class _PasswordFile(CredentialProvider):
    """
    A password in a file that may be replaced while the server runs. It is read for each connection.
    """

    def __init__(self, user: str | None, file: Path) -> None:
        """Read the file once. Raises FileInvalid if it cannot be read."""
        self._user = user
        self._file = file
        try:
            self.get_credentials()
        except exceptions.AuthenticationError as error:
            raise FileInvalid(f"--store-password-file: {error}") from error

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            password = self._file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
            raise exceptions.AuthenticationError(f"cannot read {self._file}: {why}") from error
        return (self._user, password) if self._user else (password,)

    async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
        return self.get_credentials()


def _milliseconds(seconds: float) -> int:
    return max(1, math.ceil(seconds * 1_000))


def _longest_pauses() -> Iterator[float]:
    """
    The longest pause before each further try, in seconds. The pause is random, so that replicas do
    not try together.
    """
    pause = _FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
