"""The page of the Python client: what `ntm_client` exports, from its source and docstrings."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from typing import Any

import ntm_client
from docs.generate.markdown import head, prose

INTRODUCTION = """
Everything below is imported from `ntm_client`. [The Python client](../client.md) shows it in use;
[Errors](errors.md) lists the exceptions.
"""

WIDTH = 90

SECTION = re.compile(r"^(Args|Raises|Returns):$")
Method = ast.FunctionDef | ast.AsyncFunctionDef

OF_THE_LIBRARY = {
    *("answer", "begin", "call", "call_by", "check_open", "explained", "run"),
    "backoff_seconds",
}
"""Methods that only the library itself calls."""

ENTRY = re.compile(r"^ {4}(\w+): (.*)$")


def page() -> str:
    """The classes and functions in order of use, each with its public methods and fields."""
    exported = {name: getattr(ntm_client, name) for name in ntm_client.__all__}
    described = {
        name: found
        for name, found in exported.items()
        if inspect.isfunction(found)
        or (inspect.isclass(found) and not issubclass(found, BaseException))
    }
    parts = [head("Python client", "client/ntm_client"), INTRODUCTION]
    for found in sorted(described.values(), key=_order):
        parts.extend(_class(found) if inspect.isclass(found) else _function(_tree(found), "##"))
    return "".join(parts)


def _order(found: Any) -> tuple[int, str]:
    """
    The sort key of a class or function: the blocking client comes first, because most programs use
    it.
    """
    first = ["Client", "Session", "AsyncClient", "AsyncSession", "Stream", "tls", "Resume"]
    name = found.__name__
    return (first.index(name) if name in first else len(first), name)


def _tree(found: Any) -> Any:
    """The definition of a class or function as its source has it."""
    return ast.parse(inspect.getsource(found)).body[0]


def _class(found: type) -> Iterator[str]:
    tree = _tree(found)
    yield f"\n## {tree.name}\n\n{_text(ast.get_docstring(tree))}\n"
    yield from _fields(tree)
    made_by_another = "Made by" in (found.__doc__ or "")
    for name, method in _methods(found).items():
        if name == "__init__":
            shown = not made_by_another
        else:
            shown = not name.startswith("_") and name not in OF_THE_LIBRARY
        if shown and ast.get_docstring(method):
            yield from _function(method, "###", tree.name)


def _methods(found: type) -> dict[str, Method]:
    """The methods of a class and of its bases in the library, by name."""
    methods: dict[str, Method] = {}
    for base in reversed(found.__mro__):
        if base.__module__.startswith("ntm_client"):
            methods |= {each.name: each for each in _tree(base).body if isinstance(each, Method)}
    return methods


def _fields(tree: ast.ClassDef) -> Iterator[str]:
    """The fields of a record, each with the docstring below it."""
    found = []
    for each, following in zip(tree.body, [*tree.body[1:], None], strict=True):
        if not isinstance(each, ast.AnnAssign):
            continue
        name = ast.unparse(each.target)
        if name.startswith("_"):
            continue
        default = f" = {ast.unparse(each.value)}" if each.value else ""
        text = ""
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = ": " + prose(" ".join(str(following.value.value).split()))
        found.append(f"- `{name}: {ast.unparse(each.annotation)}{default}`{text}\n")
    if found:
        yield "\n" + "".join(found)


def _function(tree: Method, level: str, owner: str = "") -> Iterator[str]:
    is_property = any(ast.unparse(each) == "property" for each in tree.decorator_list)
    returns = f" -> {ast.unparse(tree.returns)}" if tree.returns else ""
    if tree.name == "__init__":
        name, title, returns = owner, f"{owner}()", ""
    else:
        name = title = f"{owner}.{tree.name}" if owner else tree.name
    prefix = "async " if isinstance(tree, ast.AsyncFunctionDef) else ""
    arguments = "" if is_property else _arguments(tree.args, len(f"{prefix}{name}(){returns}"))
    signature = f"{prefix}{name}{arguments}{returns}"
    text = _text(ast.get_docstring(tree))
    yield f"\n{level} {title}\n\n```python\n{signature}\n```\n\n{text}\n"


def _arguments(arguments: ast.arguments, others: int) -> str:
    """The arguments of a signature: one a line where they would not fit beside the others."""
    found = []
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    pairs = list(zip(positional, defaults, strict=True))
    if arguments.vararg or arguments.kwonlyargs:
        pairs += [(ast.arg(f"*{arguments.vararg.arg if arguments.vararg else ''}"), None)]
    pairs += zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    if arguments.kwarg:
        pairs += [(ast.arg(f"**{arguments.kwarg.arg}"), None)]
    for argument, default in pairs:
        if argument.arg != "self":
            value = f" = {ast.unparse(default)}" if default else ""
            found.append(ast.unparse(argument) + value)
    line = f"({', '.join(found)})"
    if len(line) + others <= WIDTH:
        return line
    return "(\n" + "".join(f"    {each},\n" for each in found) + ")"


def _text(docstring: str | None) -> str:
    """A docstring as Markdown: its sections of arguments and errors become lists."""
    lines: list[str] = []
    in_section = False
    for line in (docstring or "").split("\n"):
        entry = ENTRY.match(line) if in_section else None
        if SECTION.match(line):
            in_section = True
            lines.append(f"{line.replace('Args', 'Arguments')}\n")
        elif entry:
            lines.append(f"- `{entry[1]}`: {prose(entry[2])}")
        elif in_section and line.strip():
            lines.append("  " + prose(line.strip()))
        elif line.startswith("    "):
            lines.append(line)
        else:
            in_section = in_section and not line.strip()
            lines.append(prose(line))
    return "\n".join(lines).strip()
