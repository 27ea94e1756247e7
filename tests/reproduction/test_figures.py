"""Figures: one for each kind of result that is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.container import ErrorbarContainer

from accelkd.reproduction.figures import FIGURES, draw_figures, health_targets, label_efficiency, loss_curves
from accelkd.reproduction.results import CONSTANT, read_results
from tests.support.planted import Planted


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    assert draw_figures(read_results(tmp_path), tmp_path / "figures") == {}
    assert not (tmp_path / "figures").exists()


def test_every_figure_has_a_file_and_a_caption(tmp_path: Path) -> None:
    planted = Planted()
    planted.constants()
    planted.errors({"accel-kd-mae": (2.0, 8.0, 9.0), "kd-size-s": (2.2, 8.2, 9.2), "accel-cl": (3.0, 9.0, 9.9)})
    planted.health({"accel-kd-mae": 1.2, "accel-cl": 0.8})
    for name, parameters in (("accel-kd-mae", 6_300_000), ("kd-size-s", 1_200_000)):
        planted.model(name, parameters)
        planted.map(name, 5.0)
    folder = tmp_path / "figures"
    captions = draw_figures(read_results(planted.write(tmp_path)), folder)
    assert captions is not None
    assert set(captions) == set(FIGURES)
    assert {file.name for file in folder.iterdir()} == set(FIGURES)
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in folder.iterdir())


def test_label_efficiency_shows_the_means_over_seeds_and_the_constant(tmp_path: Path) -> None:
    planted = Planted()
    planted.constants()
    for seed, off in enumerate((-0.2, 0.2)):
        planted.error("accel-cl", "hr_bpm", 3 + off, seed, 0.001)
        planted.error("accel-cl", "hr_bpm", 2 + off, seed)
    figure = label_efficiency(read_results(planted.write(tmp_path)))
    assert figure is not None
    panel = figure.get_axes()[0]
    bars = {container.get_label(): container for container in panel.containers}
    curve = bars["Accel-CL"]
    assert isinstance(curve, ErrorbarContainer)
    assert np.asarray(curve.lines[0].get_data()).tolist() == [pytest.approx([0.1, 100]), pytest.approx([3, 2])]
    (constant,) = (line for line in panel.lines if line.get_label() == "constant predictor")
    assert set(np.asarray(constant.get_ydata())) == {9.0}
    assert CONSTANT not in bars


def test_loss_curves_have_a_line_for_each_seed_in_the_order_of_steps(tmp_path: Path) -> None:
    planted = Planted()
    planted.model("ppg-mae", seed=0)
    planted.model("ppg-mae", seed=1)
    planted.rows["curves"].reverse()
    figure = loss_curves(read_results(planted.write(tmp_path)))
    assert figure is not None
    lines = figure.get_axes()[0].lines
    assert len(lines) == 2
    assert all((np.diff(np.asarray(line.get_xdata())) > 0).all() for line in lines)


def test_health_targets_need_both_encoders(tmp_path: Path) -> None:
    planted = Planted()
    planted.health({"accel-kd-mae": 1.2})
    assert health_targets(read_results(planted.write(tmp_path))) is None
