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
    with pytest.raises(AttributeError, match="module 'accelkd' has no attribute 'train'"):
        accelkd.train  # type: ignore[attr-defined]  # noqa: B018


WITHOUT_POSIX = """
import os, sys
sys.modules["fcntl"] = sys.modules["portalocker"] = None  # neither POSIX's locks nor what stands for them
sys.modules["psutil"] = None  # whose build for Linux, unlike accelkd, needs POSIX
for name in ("O_DIRECTORY", "sysconf", "sched_getaffinity"):
    delattr(os, name)
import numpy as np
import accelkd
noise = 1e-3 * np.random.default_rng(0).standard_normal((3, 64 * 130))
windows = accelkd.preprocess(accel=[[1], [0], [0]] + noise, rate_hz=64)
encoder = accelkd.load_encoder(sys.argv[1])
assert accelkd.embed(encoder, windows.signals[windows.usable]).shape == (2, encoder.width)
from accelkd.home.layout import Home
from accelkd.home.locks import shared_lock
from pathlib import Path
try:
    with shared_lock(Home(Path(sys.argv[2]))):
        raise SystemExit("a lock without a lock")
except OSError as error:
    assert "needs POSIX, or portalocker" in str(error), error
"""


def test_recordings_are_embedded_without_what_only_posix_has(home: Home, tmp_path: Path) -> None:
    folder = next(home.encoder("accel_student").glob("*/model.safetensors")).parent
    subprocess.run([sys.executable, "-c", WITHOUT_POSIX, str(folder), str(tmp_path)], check=True, timeout=120)


def test_types_are_shipped() -> None:
    assert Path(accelkd.__file__).with_name("py.typed").is_file()


@pytest.mark.parametrize("name", [name for name in accelkd.__all__ if name[0].islower()])
def test_examples_run(name: str, read_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELKD_HOME", str(read_home.root))
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(accelkd, name), name, globs={})
    assert example.examples
    said: list[str] = []
    doctest.DocTestRunner().run(example, out=said.append)
    assert not said, "".join(said)
