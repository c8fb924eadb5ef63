"""What `torch.save` wrote: tensors and what holds them are read, and nothing is unpickled."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch

_GLOBAL = re.compile(r"GLOBAL ([\w.]{1,200})")

_NOT_SAVED = "is no file that torch.save wrote, or is damaged"


class Refused(ValueError):
    """Why a file is refused: the end of a sentence that begins with its name."""


def read(path: Path, then: str) -> object:
    """
    Read a file, with `weights_only=True`.

    Args:
        path: The file.
        then: What to do about a file that is refused.

    Raises:
        Refused: it is no such file, or holds objects whose own code would have to run.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except MemoryError:
            raise
        except pickle.UnpicklingError as error:
            # PyTorch's own advice is to run what the file says.
            if found := _GLOBAL.search(str(error)):
                raise Refused(
                    f"holds objects of {found[1]}, whose code would have to run to read them; "
                    f"only tensors are read: {then}"
                ) from error
            raise Refused(f"{_NOT_SAVED}; {then}") from error
        except Exception as error:  # zip, pickle and torch each raise their own, of any kind
            raise Refused(f"{_NOT_SAVED}; {then}") from error
