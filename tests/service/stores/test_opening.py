"""The store that a setting names: what is refused at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.errors import FileInvalid
from service.settings import Settings
from service.stores.opening import open_store


def test_a_directory_takes_no_password(tmp_path: Path) -> None:
    """The file would be read by no store, so it is refused."""
    settings = Settings(store=f"directory:{tmp_path}", store_password_file="secret")
    with pytest.raises(FileInvalid, match="--store-password-file is 'secret', and --store is a"):
        open_store(settings)


@pytest.mark.parametrize("store", ["here", "redis:x", "http://x", "directory:"])
def test_a_store_of_no_kind_is_named_by_its_flag(store: str) -> None:
    """The sentence has the kind and what there is, and nothing that may be a password."""
    kind = "".join(store.partition(":")[:2])
    with pytest.raises(FileInvalid, match=f"^--store (is|begins with) '{kind}'; it must be"):
        open_store(Settings(store=store))
