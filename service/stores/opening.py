"""Opens the store that the settings name."""

from __future__ import annotations

import re
from pathlib import Path

from service.errors import FileInvalid
from service.settings import Settings
from service.stores.base import Store
from service.stores.directory import DirectoryStore

_URLS = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss"}
"""
The schemes of URLs, and redis-py's names for them. With -cluster, the URL is of a node of a
cluster.
"""

_CLUSTER = "-cluster"


def open_store(settings: Settings) -> Store | None:
    """
    The store that the settings name; None if sessions end with their server.

    Raises:
        FileInvalid: there is no such store, or it cannot be used.
    """
    kind, colon, rest = settings.store.partition(":")
    if not settings.has_store:
        return None
    url = _URLS.get(kind.removesuffix(_CLUSTER))
    if url and rest.startswith("//"):
        return _redis(f"{url}:{rest}", settings, is_cluster=kind.endswith(_CLUSTER))
    if kind == "directory" and rest:
        return _directory(Path(rest), settings)
    if "/" in settings.store and not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", settings.store):
        return _directory(Path(settings.store), settings)
    # Only the text before a colon is shown, because the rest may hold a password.
    raise FileInvalid(
        f"--store {'begins with' if rest else 'is'} {kind + colon!r}; it must be none, "
        "directory:FOLDER, a path with a slash, or a URL: redis://HOST:PORT, rediss:// for TLS, "
        "likewise valkey:// and valkeys://, and for a cluster redis-cluster:// and so on"
    )


def _directory(folder: Path, settings: Settings) -> Store:
    if settings.store_password_file:
        raise FileInvalid(
            f"--store-password-file is {settings.store_password_file!r}, and --store is a folder, "
            "which has no password; leave it out"
        )
    return DirectoryStore(
        folder, sync=settings.store_sync == "yes", timeout_seconds=settings.store_timeout_seconds
    )


def _redis(url: str, settings: Settings, *, is_cluster: bool) -> Store:
    try:
        from service.stores.redis_store import RedisStore
    except ModuleNotFoundError as error:
        raise FileInvalid(
            "--store needs redis, an extra of this server; in a checkout of the project, run "
            "`pip install ./client '.[redis]'`"
        ) from error
    return RedisStore(
        url,
        is_cluster=is_cluster,
        password_file=Path(settings.store_password_file) if settings.store_password_file else None,
        timeout_seconds=settings.store_timeout_seconds,
    )
