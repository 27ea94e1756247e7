"""Real recordings cut, emptied, mislabelled and shuffled: each is rejected with its reason, and its batch goes on."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from accelkd.recordings.ingest import ingest
from accelkd.recordings.validate import validate_batch

Damage = Callable[[Path], object]


@dataclass(frozen=True)
class Pair:
    """Two sessions of one device: one stays good, the other one, made of `files`, is damaged."""

    good: tuple[str, ...]
    files: tuple[str, ...]


E4_FILES = ("ACC.csv", "BVP.csv", "HR.csv", "IBI.csv")
POLAR_FILES = tuple(f"Polar_Sense_{name}.txt" for name in ("ACC", "HR", "PPG", "PPI"))
PAIRS = {
    "e4": Pair(
        tuple(f"stress-predict-e4/S10/{name}" for name in (*E4_FILES, "tags_S10.csv")),
        tuple(f"stress-predict-e4/S24/{name}" for name in (*E4_FILES, "tags_S24.csv")),
    ),
    "bami": Pair(("bami1-watch/Subject_1.mat",), ("bami1-watch/Subject_2.mat",)),
    "wrist-edf": Pair(
        ("wrist-ppg-exercise/s3_run.edf", "wrist-ppg-exercise/s3_run.atr.txt"),
        ("wrist-ppg-exercise/s6_walk.edf", "wrist-ppg-exercise/s6_walk.atr.txt"),
    ),
    "troika": Pair(
        ("troika-spc2015/DATA_01_TYPE01.mat", "troika-spc2015/DATA_01_TYPE01_BPMtrace.mat"),
        ("troika-spc2015/DATA_05_TYPE02.mat", "troika-spc2015/DATA_05_TYPE02_BPMtrace.mat"),
    ),
    "polar": Pair(
        tuple(f"polar-verity-sense/{name}" for name in POLAR_FILES),
        tuple(f"polar-verity-sense/{name}" for name in (*POLAR_FILES, "MARKER.txt")),
    ),
}
MINUTES = 2  # that are kept of the long text files


def copy(shared: Path, files: tuple[str, ...], folder: Path) -> None:
    """Copies for damaging; an E4 session becomes a true session of two minutes, so that the tests are quick."""
    folder.mkdir(parents=True)
    for name in files:
        source, target = shared / "data" / name, folder / Path(name).name
        if name.startswith("stress-predict-e4") and source.name in ("ACC.csv", "BVP.csv", "HR.csv"):
            rate_hz = {"ACC.csv": 32, "BVP.csv": 64, "HR.csv": 1}[source.name]
            lines = source.read_bytes().splitlines(keepends=True)
            target.write_bytes(b"".join(lines[: 2 + 60 * MINUTES * rate_hz]))
        else:
            shutil.copyfile(source, target)


def sessions(shared: Path, device: str, tmp_path: Path) -> tuple[Path, Path]:
    """A delivery with the two sessions of a device: (delivery, folder of the one to be damaged)."""
    delivery = tmp_path / "delivery"
    good, bad = (delivery / name for name in (("S10", "S24") if device == "e4" else ("one", "two")))
    copy(shared, PAIRS[device].good, good)
    copy(shared, PAIRS[device].files, bad)
    if device == "polar":  # the only recording there is, with its last rows cut off: another one
        for name in ("PPG", "ACC"):
            edit_lines(bad / f"Polar_Sense_{name}.txt", lambda lines: lines[:20_000])
    return delivery, bad


def cut(name: str, keep: float) -> Damage:
    """Keep a part of the file's bytes."""

    def damage(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * keep)])

    return damage


def edit_lines(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def lines(name: str, change: Callable[[list[bytes]], list[bytes]]) -> Damage:
    return lambda folder: edit_lines(folder / name, change)


def shuffled(rows: list[bytes]) -> list[bytes]:
    body = rows[1:]
    random.Random(0).shuffle(body)
    return [rows[0], *body]


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def variable(file: str, name: str, change: Callable[[np.ndarray], np.ndarray | None]) -> Damage:
    """Change one variable of a .mat file, or remove it."""

    def damage(folder: Path) -> None:
        content = {key: value for key, value in loadmat(folder / file).items() if not key.startswith("__")}
        changed = change(content.pop(name))
        savemat(folder / file, content if changed is None else content | {name: changed})

    return damage


def shuffle_edf(folder: Path) -> None:
    """Data records of one second in another order."""
    path = folder / "s6_walk.edf"
    content = path.read_bytes()
    header, size = 256 * 16, 15 * 256 * 2
    records = [content[at : at + size] for at in range(header, len(content), size)]
    random.Random(0).shuffle(records)
    path.write_bytes(content[:header] + b"".join(records))


def replace_bytes(name: str, old: bytes, new: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes().replace(old, new, 1))


def other_start(rows: list[bytes]) -> list[bytes]:
    return [b"1644226061, IBI\n", *rows[1:]]


def eightfold(rows: list[bytes]) -> list[bytes]:
    """The counts of an accelerometer with eight times the resolution."""
    counts = ([8 * int(value) for value in row.split(b",")] for row in rows[2:])
    return [*rows[:2], *(b"%d,%d,%d\n" % (x, y, z) for x, y, z in counts)]


def later(rows: list[bytes]) -> list[bytes]:
    """Sensor times of another hour."""
    return [rows[0], *(row.replace(b";7042", b";7080", 1) for row in rows[1:])]


def in_g(rows: list[bytes]) -> list[bytes]:
    return [rows[0], *(b";".join([*row.split(b";")[:2], b"0;0;1\n"]) for row in rows[1:])]


BAMI, EDF, TROIKA = "Subject_2.mat", "s6_walk.edf", "DATA_05_TYPE02.mat"
PPG, ACC, PPI = "Polar_Sense_PPG.txt", "Polar_Sense_ACC.txt", "Polar_Sense_PPI.txt"
CASES: list[tuple[str, str, str, Damage]] = [
    # Empatica E4
    ("e4", "PPG emptied", "empty_file", cut("BVP.csv", 0)),
    ("e4", "PPG without samples", "empty_file", lines("BVP.csv", lambda rows: rows[:2])),
    ("e4", "acceleration lost", "missing_file", remove("ACC.csv")),
    ("e4", "acceleration cut", "unequal_lengths", lines("ACC.csv", lambda rows: rows[: len(rows) // 2])),
    ("e4", "last row cut in its middle", "bad_row", lines("ACC.csv", lambda rows: [*rows[:-1], b"12,3\n"])),
    ("e4", "PPG in the place of acceleration", "bad_row", lambda f: shutil.copyfile(f / "BVP.csv", f / "ACC.csv")),
    ("e4", "header lost", "bad_header", lines("BVP.csv", lambda rows: rows[2:])),
    ("e4", "rows shuffled with the header", "bad_header", lines("BVP.csv", lambda rows: rows[::-1])),
    ("e4", "intervals shuffled", "reference_order", lines("IBI.csv", shuffled)),
    ("e4", "intervals of another session", "bad_header", lines("IBI.csv", other_start)),
    ("e4", "tags of another person", "participant_unknown", lambda f: (f / "tags_S24.csv").rename(f / "tags_S05.csv")),
    ("e4", "binary instead of text", "unreadable_file", lambda f: (f / "HR.csv").write_bytes(b"\x89PNG\xff\xfe" * 99)),
    ("e4", "counts of a device with another range", "accel_unit", lines("ACC.csv", eightfold)),
    # BAMI-1
    ("bami", "emptied", "unreadable_file", cut(BAMI, 0)),
    ("bami", "cut in the header", "unreadable_file", cut(BAMI, 0.0001)),
    ("bami", "cut in its middle", "unreadable_file", cut(BAMI, 0.5)),
    ("bami", "one variable lost", "missing_variable", variable(BAMI, "sigPPG", lambda _: None)),
    ("bami", "one channel lost", "wrong_variable", variable(BAMI, "sigPPG", lambda counts: counts[:2])),
    ("bami", "channels and samples swapped", "wrong_variable", variable(BAMI, "sigAcc", lambda counts: counts.T)),
    ("bami", "text for numbers", "wrong_variable", variable(BAMI, "timeECG", lambda _: np.array(["a"]))),
    ("bami", "acceleration shorter", "unequal_lengths", variable(BAMI, "sigAcc", lambda counts: counts[:, :-9])),
    ("bami", "offset already gone", "accel_unit", variable(BAMI, "sigAcc", lambda c: c.astype(int) - 32768)),
    ("bami", "beats shuffled", "reference_order", variable(BAMI, "timeECG", lambda times: times[::-1])),
    ("bami", "fewer rates than beats", "reference_lengths", variable(BAMI, "bpmECG", lambda rates: rates[:-1])),
    # Wrist EDF
    ("wrist-edf", "emptied", "unreadable_file", cut(EDF, 0)),
    ("wrist-edf", "cut in the header", "unreadable_file", cut(EDF, 0.001)),
    ("wrist-edf", "cut in its middle", "unreadable_file", cut(EDF, 0.5)),
    ("wrist-edf", "cut by one byte", "unreadable_file", cut(EDF, 0.9999996)),
    ("wrist-edf", "seconds shuffled", "clock_jump", shuffle_edf),
    ("wrist-edf", "PPG under another label", "wrong_signals", replace_bytes(EDF, b"wrist_ppg ", b"wrist_ecg ")),
    ("wrist-edf", "acceleration in another unit", "accel_unit", replace_bytes(EDF, b"ms^-2", b"g    ")),
    ("wrist-edf", "beat list cut in a row", "bad_row", cut("s6_walk.atr.txt", 0.5001)),
    ("wrist-edf", "beat list emptied", "bad_header", cut("s6_walk.atr.txt", 0)),
    ("wrist-edf", "beats shuffled", "reference_order", lines("s6_walk.atr.txt", shuffled)),
    ("wrist-edf", "beats of a longer recording", "reference_outside", lines(
        "s6_walk.atr.txt", lambda rows: [*rows, b"    9:59.000   153344     N    0    1    0\n"]
    )),
    # TROIKA
    ("troika", "emptied", "unreadable_file", cut(TROIKA, 0)),
    ("troika", "cut in its middle", "unreadable_file", cut(TROIKA, 0.5)),
    ("troika", "one row lost", "wrong_variable", variable(TROIKA, "sig", lambda rows: rows[:5])),
    ("troika", "trace in the place of the signals", "missing_variable", lambda f: shutil.copyfile(
        f / "DATA_05_TYPE02_BPMtrace.mat", f / TROIKA
    )),
    ("troika", "trace of another recording", "reference_lengths", lambda f: shutil.copyfile(
        f.parent / "one/DATA_01_TYPE01_BPMtrace.mat", f / "DATA_05_TYPE02_BPMtrace.mat"
    )),
    ("troika", "rows in another order", "accel_unit", variable(TROIKA, "sig", lambda rows: rows[::-1])),
    ("troika", "no rate in the trace", "reference_value", variable(
        "DATA_05_TYPE02_BPMtrace.mat", "BPM0", lambda trace: np.full_like(trace, np.nan)
    )),
    # Polar
    ("polar", "PPG emptied", "bad_header", cut(PPG, 0)),
    ("polar", "only the header left", "empty_file", lines(PPG, lambda rows: rows[:1])),
    ("polar", "acceleration lost", "missing_file", remove(ACC)),
    ("polar", "streams swapped", "bad_header", lambda f: shutil.copyfile(f / ACC, f / PPG)),
    ("polar", "rows shuffled", "time_order", lines(PPG, shuffled)),
    ("polar", "a piece cut out", "time_gap", lines(ACC, lambda rows: rows[:5000] + rows[6000:])),
    ("polar", "last row cut", "bad_row", lines(PPG, lambda rows: [*rows, rows[-1][:40]])),
    ("polar", "acceleration of another hour", "no_overlap", lines(ACC, later)),
    ("polar", "acceleration in g", "accel_unit", lines(ACC, in_g)),
    ("polar", "intervals without a time", "bad_row", lines(PPI, lambda rows: [rows[0], b"soon;1000;10;0;1;1;60\n"])),
]  # fmt: skip


@pytest.mark.parametrize(
    ("device", "reason", "damage"),
    [(device, reason, damage) for device, _, reason, damage in CASES],
    ids=[f"{device}: {what}" for device, what, _, _ in CASES],
)
def test_a_damaged_recording_is_rejected_and_its_batch_goes_on(
    shared: Path, tmp_path: Path, device: str, reason: str, damage: Damage
) -> None:
    delivery, bad = sessions(shared, device, tmp_path)
    damage(bad)
    summary = ingest(device, delivery, tmp_path / "landing", "b1")
    assert (summary.read, summary.total) == (1, 2)
    (rejection,) = summary.rejections
    assert rejection.reason == reason
    assert bad.name in rejection.source_file
    assert rejection.detail
    assert validate_batch(tmp_path / "landing/b1") == []
    (row,) = pq.read_table(tmp_path / "landing/b1/rejected.parquet").to_pylist()
    assert row["reason"] == reason
    assert f"rejected      1\n  {reason}" in str(summary)


@pytest.mark.parametrize("device", PAIRS)
def test_both_sessions_are_read_where_nothing_is_damaged(shared: Path, tmp_path: Path, device: str) -> None:
    delivery, _ = sessions(shared, device, tmp_path)
    summary = ingest(device, delivery, tmp_path / "landing", "b1")
    assert (summary.read, summary.rejections) == (2, ())


@pytest.mark.parametrize("device", PAIRS)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    which=st.integers(0, 99),
    keep=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=20),
)
def test_random_damage_never_stops_a_batch(
    shared: Path,
    tmp_path_factory: pytest.TempPathFactory,
    device: str,
    which: int,
    keep: float,
    flips: list[tuple[float, int]],
) -> None:
    """A file is cut at any byte, and bytes of it are changed: what is read still obeys every rule."""
    tmp_path = tmp_path_factory.mktemp("damage")
    delivery, bad = sessions(shared, device, tmp_path)
    victims = sorted(bad.iterdir())
    victim = victims[which % len(victims)]
    content = bytearray(victim.read_bytes())
    for at, change in flips:
        # Half of the changes go to the first kilobytes, where formats keep their headers
        span = len(content) if change % 2 else min(len(content), 4096)
        content[int(at * span)] ^= change
    victim.write_bytes(content[: int(len(content) * (keep if which % 2 else 1))])
    summary = ingest(device, delivery, tmp_path / "landing", "b1")
    assert summary.read >= 1
    assert summary.total == summary.read + len(summary.rejections) == 2
    assert validate_batch(tmp_path / "landing/b1") == []
    shutil.rmtree(tmp_path)
