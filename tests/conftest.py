"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout with real recordings and golden vectors (docs/devices.md says what is in it)."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail("the folder `shared` beside the checkout is missing; continuous integration must have it")
        pytest.skip("no folder `shared` beside the checkout: real recordings and golden vectors are not at hand")
    return SHARED
