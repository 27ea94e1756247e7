"""`import accelkd`: light, typed, complete, and every public name has an example that runs."""

from __future__ import annotations

import doctest
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import accelkd
from accelkd.home.layout import Home


def loaded_after(program: str) -> set[str]:
    """Top-level packages that a new interpreter has loaded after a program."""
    program += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=60
    ).stdout
    return set(output.split())


def test_importing_accelkd_loads_no_other_package() -> None:
    installed = {"torch", "numpy", "scipy", "pyarrow", "duckdb", "rust_dsp", "sklearn", "safetensors"}
    assert not loaded_after("import accelkd; dir(accelkd)") & installed


def test_raw_recordings_and_homes_do_without_torch() -> None:
    loaded = loaded_after("import accelkd; accelkd.preprocess, accelkd.Windows, accelkd.open_home")
    assert "rust_dsp" in loaded
    assert not loaded & {"torch", "duckdb", "scipy", "sklearn"}


def test_every_public_name_is_there_and_documented() -> None:
    assert sorted(accelkd.__all__) == accelkd.__all__
    assert set(accelkd.__all__) <= set(dir(accelkd))
    for name in accelkd.__all__:
        made = getattr(accelkd, name)
        assert made.__name__ == name
        assert inspect.getdoc(made)
    with pytest.raises(AttributeError, match="module 'accelkd' has no attribute 'predict'"):
        accelkd.predict  # type: ignore[attr-defined]  # noqa: B018


def test_types_are_shipped() -> None:
    assert Path(accelkd.__file__).with_name("py.typed").is_file()


@pytest.mark.parametrize("name", [name for name in accelkd.__all__ if name[0].islower()])
def test_examples_run(name: str, home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELKD_HOME", str(home.root))
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(accelkd, name), name, globs={})
    assert example.examples
    said: list[str] = []
    doctest.DocTestRunner().run(example, out=said.append)
    assert not said, "".join(said)
