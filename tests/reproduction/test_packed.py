"""Results that travel, and several folders of them as one."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from accelkd.reproduction import packed
from accelkd.reproduction.packed import merge, pack, read_facts
from accelkd.reproduction.results import read_results
from tests.support.planted import Planted

FACTS = {
    "preset": "gpu",
    "profile": "realistic",
    "data_version": "data",
    "split_version": "split",
    "code_version": "code",
    "evaluation_version": "evaluation",
    "machine": "H100",
    "seeds": [0],
    "runs_failed": {},
}


def written(
    folder: Path, seed: int = 0, *, steps: int = 100, hr: float = 1.0, facts: Mapping[str, Any] | None = None
) -> Path:
    """A folder of results of two encoders with one seed, packed."""
    planted = Planted()
    for name, mae in (("accel-kd-mae", hr), ("accel-mae", 3 * hr)):
        planted.error(name, "hr_bpm", mae, seed)
        planted.model(name, seed=seed, steps=steps)
    planted.error("accel-supervised", "hr_bpm", 2 * hr, seed)
    planted.model("supervised-hr_bpm-1", seed=seed, steps=12)
    planted.metric("constant", "hr_bpm", "mae", 9.0, seed)
    source = folder.with_name(f"{folder.name}-source")
    planted.write(source)
    done = [f"{name}-{seed}" for name in ("accel-kd-mae", "accel-mae", "supervised-hr_bpm-1")]
    known = {**FACTS, "seeds": [seed], "runs_done": done, "runs_left": [f"ppg-cl-{seed}"], **(facts or {})}
    (source / "cohort.json").write_text(json.dumps(known), encoding="utf-8")
    folder.mkdir()
    pack(source, folder)
    shutil.rmtree(source)
    return folder


def seeds_of(out: Path) -> dict[str, set[int]]:
    seeds: dict[str, set[int]] = {}
    for row in pq.read_table(out / "models.parquet").to_pylist():
        seeds.setdefault(row["experiment"], set()).add(row["seed"])
    return seeds


def test_what_was_packed_is_read_again(tmp_path: Path) -> None:
    folder = written(tmp_path / "a")
    assert {path.name for path in folder.iterdir()} == {"results.zip", "people.zip"}
    assert read_facts(folder)["machine"] == "H100"
    merge([folder], tmp_path / "out")
    results = read_results(tmp_path / "out")
    assert results.values("accel-kd-mae", "hr_bpm") == {0: pytest.approx(1.0)}
    assert results.values("accel-supervised", "hr_bpm") == {0: pytest.approx(2.0)}
    assert results.constant("hr_bpm") == 9.0
    assert len(results.errors["accel-kd-mae", "hr_bpm", 1.0][0].participants) == 60


def test_seeds_that_fit_count_together(tmp_path: Path) -> None:
    folders = [written(tmp_path / f"seed-{seed}", seed, hr=1 + seed / 100) for seed in (0, 1, 2)]
    document = merge(folders, tmp_path / "out")
    assert seeds_of(tmp_path / "out")["accel-kd-mae"] == {0, 1, 2}
    results = read_results(tmp_path / "out")
    assert set(results.values("accel-supervised", "hr_bpm")) == {0, 1, 2}
    assert results.cohort["runs_left"] == ["ppg-cl-0", "ppg-cl-1", "ppg-cl-2"]
    claims = {row["claim_id"]: row for row in pq.read_table(tmp_path / "out" / "claims.parquet").to_pylist()}
    (finding,) = [f for f in claims["distilled-beats-unimodal-mae"]["comparisons"] if f["target"] == "hr_bpm"]
    assert (finding["seeds"], finding["verdict"]) == (3, "holds")
    text = document.read_text(encoding="utf-8")
    assert all(f"| seed-{seed} | gpu, realistic" in text for seed in (0, 1, 2))


@pytest.mark.parametrize("differs", ["preset", "data_version", "split_version", "code_version", "evaluation_version"])
def test_what_does_not_fit_is_listed_and_does_not_count(tmp_path: Path, differs: str) -> None:
    folders = [written(tmp_path / f"seed-{seed}", seed) for seed in (0, 1)]
    folders.insert(0, written(tmp_path / "other", 2, facts={differs: "another"}))
    document = merge(folders, tmp_path / "out")
    assert seeds_of(tmp_path / "out")["accel-kd-mae"] == {0, 1}
    (line,) = [line for line in document.read_text(encoding="utf-8").splitlines() if line.startswith("| other |")]
    assert line.endswith(f"| 3 | 0 | {differs} is another, not {FACTS[differs]} |")


def test_a_run_counts_once_the_longer_one(tmp_path: Path) -> None:
    folders = [written(tmp_path / "short", 0, steps=60, hr=2.0), written(tmp_path / "long", 0, steps=100)]
    merge(folders, tmp_path / "out")
    results = read_results(tmp_path / "out")
    assert results.values("accel-kd-mae", "hr_bpm") == {0: pytest.approx(1.0)}
    left_out = results.cohort["runs_left_out"]
    assert left_out["accel-kd-mae-0 of short"] == "the same run of long counts"
    rows = pq.read_table(tmp_path / "out" / "results.parquet").to_pylist()
    keys = [(r["experiment"], r["seed"], r["target"], r["metric"], r["label_fraction"]) for r in rows]
    assert len(set(keys)) == len(keys)


def test_a_seed_that_was_trained_far_shorter_is_no_seed_of_the_same(tmp_path: Path) -> None:
    folders = [written(tmp_path / "cut", 1, steps=49), written(tmp_path / "whole", 0, steps=100)]
    merge(folders, tmp_path / "out")
    assert seeds_of(tmp_path / "out") == {
        "accel-kd-mae": {0},
        "accel-mae": {0},
        "supervised-hr_bpm-1": {0, 1},  # ends when its validation says so
    }
    left_out = read_results(tmp_path / "out").cohort["runs_left_out"]
    assert left_out["accel-mae-1 of cut"] == "49 steps, another seed has 100"


def test_a_merged_folder_can_be_merged_again(tmp_path: Path) -> None:
    merge([written(tmp_path / f"seed-{seed}", seed) for seed in (0, 1)], tmp_path / "two")
    merge([tmp_path / "two", written(tmp_path / "seed-2", 2)], tmp_path / "three")
    assert seeds_of(tmp_path / "three")["accel-kd-mae"] == {0, 1, 2}


def test_values_of_participants_that_do_not_fit_are_left_out_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = (written(tmp_path / "whole") / "people.zip").stat().st_size
    monkeypatch.setattr(packed, "MAX_FILE_BYTES", whole - 500)
    folder = written(tmp_path / "less")
    assert (folder / "people.zip").stat().st_size < whole
    assert "left out of people.zip, which would be too large: supervised-hr_bpm-1-0" in capsys.readouterr().out
    merge([folder], tmp_path / "out")
    errors = read_results(tmp_path / "out").errors
    assert {experiment for experiment, _, _ in errors} < {"accel-kd-mae", "accel-mae", "accel-supervised"}


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no cohort.json"):
        merge([tmp_path / "empty"], tmp_path / "out")
    folder = written(tmp_path / "damaged")
    (folder / "results.zip").write_bytes(b"PK no archive")
    with pytest.raises(ValueError, match=r"results.zip is damaged"):
        merge([folder], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_archives_of_the_same_results_have_the_same_bytes(tmp_path: Path) -> None:
    first, again = (written(tmp_path / name) for name in ("a", "b"))
    for name in ("results.zip", "people.zip"):
        assert (first / name).read_bytes() == (again / name).read_bytes()
        assert zipfile.is_zipfile(first / name)
