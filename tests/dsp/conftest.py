"""The specification's reference implementation, from the shared folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Literal, get_args

import pytest

import rust_dsp


def load(path: Path) -> ModuleType:
    """Import a module that is no part of any package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # its dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def preprocessing_reference(shared: Path) -> ModuleType:
    return load(shared / "reference" / "preprocessing_reference.py")


@pytest.fixture(scope="session")
def labels_reference(shared: Path) -> ModuleType:
    return load(shared / "reference" / "labels_reference.py")


InstructionSet = Literal["portable", "avx2", "avx512"]


def instruction_sets() -> list[InstructionSet]:
    """Those of this processor."""
    names: list[InstructionSet] = []
    for name in get_args(InstructionSet):
        try:
            rust_dsp.Plan(ppg_rate_hz=64, instruction_set=name)
        except ValueError:
            continue
        names.append(name)
    return names


@pytest.fixture(params=instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> InstructionSet:
    name: InstructionSet = request.param
    return name
