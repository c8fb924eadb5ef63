"""
Tokens in a file: the hash of each token, its principal and its scopes.

Each line of the file is a JSON object, which `python -m service.tokens NAME` makes:

    {"principal": "alice", "scopes": ["read", "step"], "sha256": "...", "expires": "2027-01-31"}

`expires` is optional; a date without a time means 00:00 UTC. Empty lines are allowed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.auth.principal import SCOPES, Principal
from service.watched_files import WatchedFiles

log = logging.getLogger(__name__)

_FIELDS = {"principal", "scopes", "sha256"}


class Tokens:
    """Finds the principal of a token."""

    def __init__(self, lines: Sequence[str], clock: Callable[[], float] = time.time) -> None:
        """
        Read the lines of a tokens file.

        Args:
            lines: The lines; a ValueError names the number of the first wrong one.
            clock: Gives Unix seconds.
        """
        self._clock = clock
        # Tokens are looked up by a keyed hash that no client can compute. So the time of a look-up
        # says nothing about other tokens, and it does not grow with their number.
        self._secret = secrets.token_bytes(32)
        self._principals: dict[bytes, Principal] = {}
        for number, line in enumerate(lines, 1):
            if line.strip():
                self._add(number, line)

    def has_valid(self) -> bool:
        """Return whether there is a token that has not expired."""
        return any(map(self._is_valid, self._principals.values()))

    def principal(self, token: str) -> Principal | None:
        """Return the principal of a token; None if the token is unknown or has expired."""
        found = self._principals.get(self._place(hashlib.sha256(token.encode()).digest()))
        return found if found is not None and self._is_valid(found) else None

    def _is_valid(self, principal: Principal) -> bool:
        expires = principal.expires_unix_seconds
        return expires is None or self._clock() < expires

    def _add(self, number: int, line: str) -> None:
        try:
            digest, principal = _entry(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"line {number} is not JSON: {error.msg}") from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number}: {error}") from error
        if self._place(digest) in self._principals:
            raise ValueError(
                f"line {number}: the token is in the file already; delete one of its lines"
            )
        self._principals[self._place(digest)] = principal

    def _place(self, digest: bytes) -> bytes:
        return hashlib.blake2b(digest, key=self._secret).digest()


def watched(setting: str, path: Path) -> WatchedFiles[Tokens]:
    """
    Read a tokens file, and read it again when it changes.

    A file in which no token is valid is taken over, since it takes back those that it had; the log
    has a warning then. Raises FileInvalid.
    """

    def read() -> Tokens:
        tokens = Tokens(path.read_text(encoding="utf-8").splitlines())
        if not tokens.has_valid():
            facts = {"setting": setting, "path": str(path)}
            log.warning("the file has no valid token, and none is accepted", extra=facts)
        return tokens

    return WatchedFiles(setting, [path], read)


def _entry(fields: Any) -> tuple[bytes, Principal]:
    """The hash of a token and its principal, from a line of the file."""
    if not isinstance(fields, dict) or not _FIELDS <= fields.keys() <= _FIELDS | {"expires"}:
        raise ValueError(
            f"it must have the fields {', '.join(sorted(_FIELDS))} and no other but expires"
        )
    name, scopes, digest = fields["principal"], fields["scopes"], fields["sha256"]
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"principal is {name!r}; it must be a name")
    if not isinstance(scopes, list) or not scopes or any(each not in SCOPES for each in scopes):
        raise ValueError(f"scopes are {scopes!r}; they must be a list of some of {list(SCOPES)}")
    if not isinstance(digest, str) or not re.fullmatch("[0-9a-f]{64}", digest):
        raise ValueError("sha256 must be 64 hexadecimal digits, in lower case")
    expires = _unix_seconds(fields["expires"]) if "expires" in fields else None
    return bytes.fromhex(digest), Principal(f"token:{name}", frozenset(scopes), expires)


def _unix_seconds(text: Any) -> float:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        raise ValueError(f"expires is {text!r}; it must be like 2027-01-31T12:00:00Z") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def new_token(
    principal: str, scopes: Sequence[str], expires: datetime | None = None
) -> tuple[str, str]:
    """
    Make a random token, and the line of the tokens file that allows it.

    Raises ValueError if the principal or a scope is not valid in the file.
    """
    token = "ntm_" + secrets.token_urlsafe(32)
    fields: dict[str, Any] = {
        "principal": principal,
        "scopes": list(scopes),
        "sha256": _hash(token),
    }
    if expires is not None:
        fields["expires"] = expires.isoformat(timespec="seconds")
    _entry(fields)
    return token, json.dumps(fields)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
