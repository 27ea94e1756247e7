"""What is damaged is reported by name; what is derived is made again, with the same bytes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
import pytest
import torch
from safetensors import SafetensorError

from accelkd.home.files import DamagedFileError, atomic_path, sweep, write_checksum
from accelkd.home.layout import Home
from accelkd.operations.rebuild import rebuild_warehouse
from accelkd.operations.repair import readable_batches, repair, repairing
from accelkd.operations.sensor_check import check_sensors
from accelkd.recordings.batches import MANIFEST
from accelkd.recordings.validate import BatchError, iter_recordings, validate_batch
from accelkd.segments.segment import segment_batch, verify_segments
from accelkd.training.checkpoint import WEIGHTS, is_complete, load_encoder
from accelkd.warehouse.load import load_batch
from accelkd.warehouse.publish import publish
from accelkd.warehouse.sensors import load_sensor_checks
from accelkd.warehouse.staging import readable
from tests.support.damage import cut, flip, flip_all
from tests.support.homes import checkpoint, copy_home, simulate

DAMAGES = [flip, cut, Path.unlink]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("made"))
    simulate(home, "b1", participants=2, segments=2)
    segment_batch(home, "b1")
    return home


@pytest.fixture
def home(made: Home, tmp_path: Path) -> Home:
    return copy_home(made, tmp_path / "home")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_batch_with_damaged_segments_is_re_segmented_to_the_same_bytes(
    home: Home, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    files = [home.segments("b1"), home.quarantine("b1")]
    before = [file.read_bytes() for file in files]
    for file in files:
        damage(file)
        with pytest.raises(DamagedFileError, match=rf"batch b1: .*{file.name}.*`accelkd repair`"):
            verify_segments(home, "b1")  # reading repairs nothing
        assert [repaired.batch_id for repaired in repair(home)] == ["b1"]
        assert [file.read_bytes() for file in files] == before
        assert "re-segmenting batch b1" in caplog.text
        assert file.name in caplog.text
        caplog.clear()
    verify_segments(home, "b1")
    assert repair(home) == []
    assert caplog.text == ""


def test_what_reads_segments_repairs_them_first_and_fails_where_it_cannot(home: Home) -> None:
    flip(home.segments("b1"))
    assert repairing(home, partial(verify_segments, home, "b1"))
    assert readable_batches(home) == ["b1"]

    def damaged() -> None:
        raise DamagedFileError("something else")

    with pytest.raises(DamagedFileError, match="something else"):
        repairing(home, damaged)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["recordings/part-00000.parquet", "participants.parquet", "survey.parquet", "truth.parquet", MANIFEST]
)
def test_a_damaged_landed_file_is_refused_by_name(home: Home, name: str, damage: Callable[[Path], None]) -> None:
    before = verify_segments(home, "b1")
    file = home.batch("b1") / name
    good = file.read_bytes()
    damage(file)
    assert any(violation.file == name and violation.fatal for violation in validate_batch(home.batch("b1")))
    with pytest.raises((BatchError, OSError, ValueError), match=Path(name).name):
        segment_batch(home, "b1")
    assert verify_segments(home, "b1") == before
    file.write_bytes(good)
    assert validate_batch(home.batch("b1")) == []


def test_a_batch_that_grows_while_it_is_read_is_refused(home: Home) -> None:
    reading = iter_recordings(home.batch("b1"))
    next(reading)
    with (home.batch("b1") / "survey.parquet").open("ab") as file:
        file.write(b"more")
    with pytest.raises(BatchError, match="changed"):
        list(reading)


def test_a_damaged_checkpoint_is_refused_and_does_not_count_as_trained(home: Home) -> None:
    folder = home.checkpoint("accel_student", checkpoint(home, "accel_student"))
    assert is_complete(folder)
    flip(folder / WEIGHTS)
    assert not is_complete(folder)
    with pytest.raises(DamagedFileError, match="safetensors"):
        load_encoder(folder)


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.witness,)


def test_a_checkpoint_executes_nothing(home: Home, tmp_path: Path) -> None:
    folder = home.checkpoint("accel_student", checkpoint(home, "accel_student"))
    torch.save(Hostile(tmp_path / "witness"), folder / WEIGHTS)
    write_checksum(folder / WEIGHTS)  # its author vouches for it
    with pytest.raises(SafetensorError):
        load_encoder(folder)
    assert not (tmp_path / "witness").exists()
    torch.load((folder / WEIGHTS).rename(tmp_path / "weights.pt"), weights_only=False)
    assert (tmp_path / "witness").exists()  # so it was a real one


def test_what_a_killed_writer_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    dead = tmp_path / "segments" / ".b1.arrow.abcdefgh.scratch"
    dead.mkdir(parents=True)
    (dead / "b1.arrow").write_bytes(b"half")
    with atomic_path(tmp_path / "segments" / "b2.arrow") as part:
        part.write_bytes(b"whole")
        assert sweep(tmp_path) == [dead]
    assert [path.name for path in (tmp_path / "segments").iterdir()] == ["b2.arrow"]


@pytest.mark.parametrize("damage", [flip_all, cut, Path.unlink])
def test_a_lost_staging_file_is_noticed_and_never_published_over_the_good_one(
    home: Home, damage: Callable[[Path], None]
) -> None:
    simulate(home, "b2", first_participant=7, participants=1, segments=2)
    segment_batch(home, "b2")
    for batch_id in ("b1", "b2"):
        load_batch(home, batch_id)
        load_sensor_checks(home, batch_id, check_sensors(home, batch_id))
    published = publish(home)
    assert readable(home)
    damage(home.staging)
    assert not readable(home)
    if not home.staging.exists():
        load_batch(home, "b2")
        with pytest.raises(RuntimeError, match="lacks 1 published batches"):
            publish(home)
    rebuild_warehouse(home)
    assert readable(home)
    assert publish(home).content_version == published.content_version


FULL = """
import resource, signal, sys
from pathlib import Path
from accelkd.warehouse.publish import compact
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))  # no file can grow beyond this
compact(Path(sys.argv[1]))
"""


def test_a_disk_that_fills_while_a_file_is_compacted_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "whole.duckdb"
    with duckdb.connect(str(file)) as connection:
        connection.execute("CREATE TABLE t AS SELECT random() AS x FROM range(100)")
    before = file.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "small.duckdb" in done.stderr
    assert file.read_bytes() == before
