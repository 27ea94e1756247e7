"""The specification's reference implementation, from the shared folder."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.instruction_sets import InstructionSet, instruction_sets


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


@pytest.fixture(params=instruction_sets())
def instruction_set(request: pytest.FixtureRequest) -> InstructionSet:
    name: InstructionSet = request.param
    return name
