"""
Checks the arguments of public functions, so that a mistake is named before anything is sent.

Each check takes the argument's name and value, and returns the value or raises `InvalidArgument`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ntm.tensors import TYPES, Array
from ntm_client.errors import InvalidArgument

T = TypeVar("T")

Float32 = npt.NDArray[np.float32]

MAX_UINT32 = 2**32 - 1

_LONGEST_TIMEOUT = timedelta(days=3_652_500)
"""What the API's field holds: ten thousand years."""

_MAX_SECONDS = 1e9
"""About 30 years; gRPC cannot count much longer."""

_SHOWN = 80
"""The number of characters of a wrong value that an error shows."""


def wrong(name: str, needed: str, value: object) -> InvalidArgument:
    """The error for an argument that is not as needed."""
    try:
        shown = repr(value)
    except Exception:  # the value is the caller's, and may raise anything
        shown = f"a value of type {type(value).__name__}"
    if len(shown) > _SHOWN:
        shown = f"{shown[:_SHOWN]}..."
    return InvalidArgument(f"{name} must be {needed}, not {shown}")


def instance(name: str, value: object, kind: type[T], needed: str) -> T:
    """A value of a type, which `needed` describes."""
    if not isinstance(value, kind):
        raise wrong(name, needed, value)
    return value


def text(name: str, value: object, needed: str, *, may_be_empty: bool = False) -> str:
    """A text that a message can hold."""
    if not isinstance(value, str) or not (value or may_be_empty):
        raise wrong(name, needed, value)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise wrong(name, "text that UTF-8 can hold", value) from None
    return value


def whole(name: str, value: object, least: int = 0, most: int = MAX_UINT32) -> int:
    """A whole number within limits; numpy's are taken too."""
    needed = f"a whole number from {least} to {most}"
    if isinstance(value, bool | np.bool_):
        raise wrong(name, needed, value)
    try:
        number = operator.index(value)  # type: ignore[arg-type] # that is what is checked
    except TypeError:
        raise wrong(name, needed, value) from None
    if not least <= number <= most:
        raise wrong(name, needed, value)
    return number


def number(name: str, value: object, needed: str, *, most: float = 1e300) -> float:
    """A real number of at least 0 that is finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise wrong(name, needed, value)
    if isinstance(value, np.complexfloating) or not 0 <= (found := _float(value)) <= most:
        raise wrong(name, needed, value)
    return found


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number that is larger than any float
        return math.inf


def call_seconds(name: str, value: object) -> float:
    """The seconds that a call may take."""
    needed = "a number of seconds above 0"
    seconds = number(name, value, needed, most=_MAX_SECONDS)
    if not seconds:
        raise wrong(name, needed, value)
    return seconds


def timeout(name: str, value: object) -> timedelta:
    """A time that the API can hold."""
    found = instance(name, value, timedelta, "a timedelta, such as timedelta(minutes=5)")
    if not timedelta(0) < found <= _LONGEST_TIMEOUT:
        raise wrong(name, f"above 0 and at most {_LONGEST_TIMEOUT.days} days", value)
    return found


def data(name: str, value: object) -> bytes:
    """The bytes of anything that has bytes."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise wrong(name, "bytes", value)
    return bytes(value)


def path(name: str, value: object) -> Path:
    """The path of a file."""
    if not isinstance(value, str | Path) or "\0" in str(value):
        raise wrong(name, "the path of a file", value)
    return Path(text(name, str(value), "the path of a file"))


def names(name: str, value: Sequence[str]) -> tuple[str, ...]:
    """Several texts; a single text is a mistake, since its letters would be taken for names."""
    needed = "a list of names, such as ['read_weighting']"
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise wrong(name, needed, value)
    return tuple(text(f"a name in {name}", each, "text") for each in value)


def typed(name: str, values: npt.ArrayLike, type_: str) -> Array:
    """
    An array of elements of a type of `ntm.tensors`, after a check that the type can hold them.

    Whole numbers are taken from whole numbers, a bool from a bool or from 0 and 1.
    """
    if type_ == "float32":
        return floats(name, values)
    dtype = TYPES[type_]
    if dtype.kind == "f":
        wide = floats(name, values)
        with np.errstate(over="ignore"):
            converted = wide.astype(dtype)
        _check_all(name, wide, np.isfinite(converted), f"finite as {type_}")
        return converted
    found = _array(name, values)
    if found.dtype.kind not in "biu":
        raise InvalidArgument(
            f"{name} must be {type_}, not values of type {found.dtype}: convert them first"
        )
    lowest, highest = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    allowed = (found >= lowest) & (found <= highest)
    _check_all(name, found, allowed, f"whole numbers from {lowest} to {highest}")
    return found.astype(dtype)


def _array(name: str, values: npt.ArrayLike) -> Array:
    try:
        found: Array = np.asarray(values)
    except Exception as error:  # the values are the caller's, and may raise anything
        raise InvalidArgument(f"{name} cannot be read as an array of numbers: {error}") from error
    if np.ma.is_masked(values):
        raise InvalidArgument(f"{name} must have no masked values; fill them first")
    return found


def _check_all(name: str, values: Array, allowed: Array, needed: str) -> None:
    if not allowed.all():
        place = tuple(np.argwhere(~allowed)[0].tolist())
        raise InvalidArgument(
            f"{name} must be {needed}; the value at {list(place)} is {values[place]}"
        )


def floats(name: str, values: npt.ArrayLike) -> Float32:
    """
    An array of real numbers that are finite as float32.

    Complex numbers, texts and objects are refused, since numpy would drop or guess a part of them.
    """
    if type(values) is np.ndarray and values.dtype == np.float32 and np.isfinite(values).all():
        return values  # as most are, so that the checks below cost nothing
    found = _array(name, values)
    if found.dtype.kind not in "biuf":
        raise InvalidArgument(
            f"{name} must be real numbers, not values of type {found.dtype}: convert them first"
        )
    with np.errstate(over="ignore"):
        converted: Float32 = found.astype(np.float32, copy=False)
    _check_all(name, found, np.isfinite(converted), "finite as float32")
    return converted
