"""Trainings and reproductions on a Ray cluster of two nodes: what they make is what processes of one machine make."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from accelkd.home.layout import Home
from accelkd.reproduction.cohort import cohort_home, make_cohort
from accelkd.reproduction.run import reproduce
from accelkd.training.checkpoint import WEIGHTS
from accelkd.training.parallel import rank
from accelkd.training.workers import on_workers
from tests.support import REPOSITORY
from tests.support.homes import copy_home
from tests.support.ray_cluster import ray_cluster
from tests.support.reproduction import PLAN, few_experiments
from tests.support.segments import pulse_trains, segment_store
from tests.support.training import train_long

UNDER_TORCHRUN = """
import sys
from pathlib import Path
import torch
from accelkd.training.parallel import process_group
from tests.support.training import train_long
with process_group(torch.device("cpu")):
    train_long(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Two nodes, a core each, which this process's environment names."""
    variables = {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1"}
    with ray_cluster(variables, job_server=False) as started, pytest.MonkeyPatch.context() as patch:
        for name, value in started.client_environment.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("segments") / "batch.arrow"
    segment_store(path, pulse_trains(["anna"] * 4 + ["ben"] * 4 + ["cleo"] * 4 + ["dan"] * 4))
    return path


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two workers have written, one of which died, and which raised an error in the end."""
    out = tmp_path_factory.mktemp("ray")
    with pytest.raises(ValueError, match="that is wrong"):
        on_workers(partial(train_and_fail, store, out), 2)
    return out


def train_and_fail(store: Path, out: Path) -> None:
    train_long(store, out, rank_to_kill=1)
    (out / f"failed-{rank()}-{os.getpid()}").touch()
    raise ValueError("that is wrong")


def test_a_training_whose_worker_dies_goes_on_to_the_bytes_of_two_local_processes(
    trained: Path, store: Path, tmp_path: Path
) -> None:
    assert [len(list(trained.glob(f"started-{rank}-*"))) for rank in (0, 1)] == [2, 2]
    script = tmp_path / "process.py"
    script.write_text(UNDER_TORCHRUN)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, str(store), str(tmp_path)], cwd=REPOSITORY, env=environment, check=True)
    [local] = tmp_path.glob(f"*/{WEIGHTS}")
    assert (trained / local.parent.name / WEIGHTS).read_bytes() == local.read_bytes()


def test_an_error_that_would_come_again_comes_once(trained: Path) -> None:
    assert len(list(trained.glob("failed-*"))) == 2


def test_a_reproduction_on_ray_has_the_numbers_of_one_in_processes(tmp_path: Path) -> None:
    start = Home(tmp_path / "start")
    make_cohort(cohort_home(start, PLAN), PLAN, processes=1)
    chosen = few_experiments("smoke", ["ppg-mae", "accel-kd-mae"])
    homes = {on: copy_home(start, tmp_path / on) for on in ("processes", "ray")}
    outcomes = {
        "processes": reproduce(homes["processes"], chosen, workers=os.cpu_count()),
        "ray": reproduce(homes["ray"], chosen, on="ray"),
    }
    assert outcomes["ray"].done == outcomes["processes"].done == ["ppg-mae-0", "accel-kd-mae-0"]
    for name in ("results", "retrieval"):
        tables = [pq.read_table(home.root / "reproduction" / f"{name}.parquet") for home in homes.values()]
        assert tables[0].num_rows
        assert tables[0].equals(tables[1])
