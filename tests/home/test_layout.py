"""A home says where its truth lies, and keeps passwords to itself."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest

from accelkd.home.layout import Home


def test_the_environment_names_a_home_on_several_machines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACCELKD_HOME", str(tmp_path))
    for name in ("ACCELKD_STORE", "ACCELKD_LOCKS"):
        monkeypatch.delenv(name, raising=False)
    assert Home.from_environment() == Home(tmp_path)
    monkeypatch.setenv("ACCELKD_STORE", "s3://bucket/home")
    monkeypatch.setenv("ACCELKD_LOCKS", "postgresql://user:secret@host/x")
    home = Home.from_environment()
    assert home == Home(tmp_path, store="s3://bucket/home", locks="postgresql://user:secret@host/x")
    assert "secret" not in repr(home)


def test_a_process_that_is_started_with_a_home_cannot_ask_the_orchestrator(tmp_path: Path) -> None:
    home = Home(tmp_path, "run", "s3://bucket/home", "postgresql://host/x", lambda: True)
    sent = copy.copy(home)  # by what also sends it to a process
    assert sent == home
    assert sent.is_alive is None
    assert replace(home, run_id="other").is_alive is home.is_alive
