"""Which store a setting opens."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from service.errors import FileInvalid
from service.settings import Settings
from service.stores.directory import DirectoryStore
from service.stores.opening import open_store
from service.stores.redis_store import RedisStore


@pytest.mark.parametrize("setting", ["", "none"])
def test_no_store_is_a_setting(setting: str) -> None:
    """Sessions end with their server unless it is told otherwise."""
    assert open_store(Settings(store=setting)) is None


@pytest.mark.parametrize("prefix", ["directory:", ""])
async def test_a_folder_opens_a_directory(tmp_path: Path, prefix: str) -> None:
    """The folder is made, for nobody else to read."""
    store = open_store(Settings(store=f"{prefix}{tmp_path}/a/store"))

    assert isinstance(store, DirectoryStore)
    assert (tmp_path / "a" / "store").stat().st_mode & 0o777 == 0o700
    await store.close()


@pytest.mark.parametrize("kind", ["redis", "rediss", "valkey", "valkeys", "valkeys-cluster"])
async def test_a_url_opens_a_server(kind: str) -> None:
    """Nothing is connected before something is asked."""
    store = open_store(Settings(store=f"{kind}://user:secret@localhost:1/0"))

    assert isinstance(store, RedisStore)
    await store.close()


@pytest.mark.parametrize(
    "setting",
    [
        "redis",
        "redis:localhost",
        "directory:",
        "word",
        "ftp://user:secret@host/path",
        "redis://user:secret/key@host",
        "redis://user:secret@host?socket_timeout=secret",
        "redis://user:secret@host?unheard=of",
        "redis-cluster://user:secret@host?unheard=of",
        "redis-cluster://user:secret@host/2",
        "directory-cluster:secret",
    ],
)
def test_another_setting_is_refused_without_a_word_of_its_password(setting: str) -> None:
    """The sentence says what is allowed."""
    with pytest.raises(FileInvalid, match="it must be") as refused:
        open_store(Settings(store=setting))
    assert "secret" not in str(refused.value)


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    """Such as a file."""
    (tmp_path / "file").touch()

    with pytest.raises(FileInvalid, match=r"cannot use .*/file: File exists"):
        open_store(Settings(store=f"directory:{tmp_path}/file"))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis takes an extra, which a server without it does not need."""
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "service.stores.redis_store")

    with pytest.raises(FileInvalid, match=r"pip install 'ntm-service\[redis\]'"):
        open_store(Settings(store="redis://localhost"))
