"""The notebooks of docs/notebooks: every cell runs, on a home on which the whole pipeline ran."""

from __future__ import annotations

import json
from typing import Any

import matplotlib.pyplot as plt
import pytest

from tests.support import REPOSITORY
from tests.support.pipeline import Pipeline

NOTEBOOKS = {path.stem: path for path in (REPOSITORY / "docs" / "notebooks").glob("*.ipynb")}
NAMES = ("own-recording", "ten-questions")


def cells(name: str) -> list[dict[str, Any]]:
    content: dict[str, list[dict[str, Any]]] = json.loads(NOTEBOOKS[name].read_text(encoding="utf-8"))
    return content["cells"]


def test_every_notebook_is_tested_and_stored_without_outputs() -> None:
    assert sorted(NOTEBOOKS) == sorted(NAMES)
    code = [cell for name in NAMES for cell in cells(name) if cell["cell_type"] == "code"]
    assert len(code) > 15
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.mark.parametrize("name", NAMES)
def test_every_cell_runs(
    name: str, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACCELKD_HOME", str(pipeline.home.root))
    plt.switch_backend("agg")
    variables: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(cells(name)):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{name}[{number}]", "exec"), variables)
    figures = plt.get_fignums()
    plt.close("all")
    assert len(figures) >= 2
    assert capsys.readouterr().out
    assert variables["embeddings"].ndim == 2
