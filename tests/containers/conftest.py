"""Tests of the image need a container engine and the image. `make image-test` provides both."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session", autouse=True)
def image() -> str:
    """The name of the image under test."""
    if "ENGINE" not in os.environ or "IMAGE" not in os.environ:
        pytest.skip("needs a container engine and the image; `make image-test` runs it")
    return os.environ["IMAGE"]
