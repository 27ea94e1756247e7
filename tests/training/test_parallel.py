"""Two processes train as one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from accelkd.segments.store import SegmentStore
from tests.support import REPOSITORY
from tests.support.training import train_all, write_gradients

PROCESS = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from accelkd.segments.store import SegmentStore
from accelkd.training.parallel import process_group
from tests.support.training import train_all, write_gradients
out = Path(sys.argv[2])
with process_group(torch.device("cpu")):
    write_gradients(out)
    train_all(SegmentStore([Path(sys.argv[1])]), out)
"""


@pytest.fixture(scope="module")
def of_two(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    folder = tmp_path_factory.mktemp("two")
    script = folder / "process.py"
    script.write_text(PROCESS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, str(store_path), str(folder)], cwd=REPOSITORY, env=environment, check=True)
    return folder


def test_loss_and_gradient_are_those_of_one_process(of_two: Path, tmp_path: Path) -> None:
    write_gradients(tmp_path)
    for name in ("contrastive", "distilled", "simultaneous"):
        expected, divided = (load_file(folder / f"{name}.safetensors") for folder in (tmp_path, of_two))
        assert expected.keys() == divided.keys()
        torch.testing.assert_close(divided.pop("loss"), expected.pop("loss"))
        largest = max(float(gradient.abs().max()) for gradient in expected.values())
        for key, gradient in expected.items():
            torch.testing.assert_close(divided[key], gradient, rtol=1e-3, atol=1e-4 * largest, msg=f"{name}: {key}")


def test_training_curves_and_checkpoints_are_those_of_one_process(
    store: SegmentStore, of_two: Path, tmp_path: Path
) -> None:
    for folder in train_all(store, tmp_path).values():
        expected, divided = (
            pq.read_table(checkpoint / "training.parquet")["loss"].to_numpy()
            for checkpoint in (folder, of_two / folder.name)
        )
        np.testing.assert_allclose(divided, expected, rtol=1e-4)
