"""Stores of both kinds, which the tests of the store and of units share."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from accelkd.home.store import Store, open_store
from tests.support.services import S3Server


@pytest.fixture
def bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty store in a bucket, whose credentials the environment has."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{s3_server.bucket}/{uuid4().hex}"


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store: in a folder, and in a bucket of a real S3 server."""
    if request.param == "folder":
        return open_store((tmp_path / "a store").as_uri())
    return open_store(request.getfixturevalue("bucket"))
