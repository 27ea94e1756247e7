"""Fixtures that every test folder shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from hypothesis import settings

from tests.support import REPOSITORY, services

if TYPE_CHECKING:
    from tests.support.pipeline import Pipeline

SHARED = REPOSITORY.parent / "shared"
# Of all clusters that a process of tests starts: Ray reads both when it is imported, whichever test imports it
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid4().hex}
# The same examples at every run, however slow the machine
settings.register_profile("deterministic", derandomize=True, deadline=None)
settings.load_profile("deterministic")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the checkout with real recordings and golden vectors (docs/devices.md says what is in it)."""
    if not SHARED.is_dir():
        if os.environ.get("CI"):
            pytest.fail("the folder `shared` beside the checkout is missing; continuous integration must have it")
        pytest.skip("no folder `shared` beside the checkout: real recordings and golden vectors are not at hand")
    return SHARED


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A home on which the whole pipeline ran; who changes anything in it works on a copy."""
    from tests.support.pipeline import run_pipeline  # imports Dagster and torch, which other tests do without

    return run_pipeline(tmp_path_factory.mktemp("pipeline") / "home")


@pytest.fixture(scope="session")
def postgres() -> Iterator[services.Postgres]:
    """A PostgreSQL server for all tests of a process; a test that kills it starts it again."""
    with services.postgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[services.S3Server]:
    """An S3 server for all tests of a process, each of which uses a prefix of its own; who kills it starts it again."""
    with services.s3_server() as server:
        yield server
