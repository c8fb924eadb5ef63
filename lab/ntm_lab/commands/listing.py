"""`models` and `sessions`: lists of what the server has."""

from __future__ import annotations

from collections.abc import Sequence

from ntm_lab import vectors
from ntm_lab.commands.options import LOCAL, ServerOptions
from ntm_lab.texts import printable


def models(*, server: ServerOptions = LOCAL) -> None:
    """List the models that the server has."""
    with server.connect() as client:
        found = client.models()
    rows = [
        (
            model.name,
            model.task,
            model.architecture,
            vectors.described(model),
            f"{model.default_locations}{' (fixed)' if model.fixed_locations else ''}",
            f"{model.read_heads} + {model.write_heads}",
            model.provider,
        )
        for model in found
    ]
    heads = "heads (read + write)"
    names = ("model", "task", "architecture", "widths", "locations", heads, "provider")
    print(table(names, rows))
    alone = ", ".join(model.name for model in found if not model.batched)
    if alone:
        print(f"\nThe results of sessions depend on their batch, so each is stepped alone: {alone}")
    versions = [
        (model.name, version.content_hash, _yes(version.current), _yes(version.loaded))
        for model in found
        for version in model.versions
        if len(model.versions) > 1
    ]
    if versions:
        print()
        print(table(("model", "version", "for new sessions", "loaded"), versions))


def sessions(*, server: ServerOptions = LOCAL) -> None:
    """List the sessions that you have open on the server."""
    with server.connect() as client:
        found = client.sessions()
    rows = [
        (
            session.id,
            session.model,
            str(session.locations),
            str(session.next_step),
            str(session.durable_step),
            str(session.state_bytes),
            f"{session.expires_in.total_seconds():.0f} s",
        )
        for session in found
    ]
    steps = ("next step", "durable step")
    names = ("session", "model", "locations", *steps, "state bytes", "expires in")
    print(table(names, rows))


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """
    A table as text: rows under the names of their columns, each column as wide as its longest text.

    The server's names may have any characters; those that cannot be seen are shown by their codes.
    """
    rows = [[printable(text) for text in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(names, *rows, strict=True)]
    lines = (
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in (names, *rows)
    )
    return "\n".join(lines)
