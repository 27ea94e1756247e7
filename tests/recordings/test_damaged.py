"""Real recordings cut, emptied, mislabelled and shuffled: each costs what is damaged, with a reason."""

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
from accelkd.recordings.timeline import place
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


def remove(*names: str) -> Damage:
    def damage(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return damage


def variable(file: str, name: str, change: Callable[[np.ndarray], np.ndarray | None]) -> Damage:
    """Change one variable of a .mat file, or remove it."""

    def damage(folder: Path) -> None:
        content = {key: value for key, value in loadmat(folder / file).items() if not key.startswith("__")}
        changed = change(content.pop(name))
        savemat(folder / file, content if changed is None else content | {name: changed})

    return damage


def shuffle_edf(folder: Path) -> None:
    """Data records of one second in another order."""
    header, rows = records(folder / "s6_walk.edf")
    random.Random(0).shuffle(rows)
    (folder / "s6_walk.edf").write_bytes(header + b"".join(rows))


def records(path: Path) -> tuple[bytes, list[bytes]]:
    """Header and data records of a file of 15 signals at 256 Hz, of one second each."""
    content = path.read_bytes()
    header, size = 256 * 16, 15 * 256 * 2
    return content[:header], [content[at : at + size] for at in range(header, len(content), size)]


def zero_records(first: int, last: int) -> Damage:
    def damage(folder: Path) -> None:
        header, rows = records(folder / "s6_walk.edf")
        rows[first:last] = [bytes(len(rows[0]))] * (last - first)
        (folder / "s6_walk.edf").write_bytes(header + b"".join(rows))

    return damage


def cut_records(path: Path, first: int, last: int) -> None:
    header, rows = records(path)
    path.write_bytes(header + b"".join([*rows[:first], *rows[last:]]))


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


def in_m_s2(rows: list[bytes]) -> list[bytes]:
    return [rows[0], *(b";".join([*row.split(b";")[:2], b"0;0;9.81\n"]) for row in rows[1:])]


BAMI, EDF, TROIKA = "Subject_2.mat", "s6_walk.edf", "DATA_05_TYPE02.mat"
PPG, ACC, HR, PPI = "Polar_Sense_PPG.txt", "Polar_Sense_ACC.txt", "Polar_Sense_HR.txt", "Polar_Sense_PPI.txt"
REJECTED: list[tuple[str, str, str, Damage]] = [
    ("e4", "nothing but references", "missing_file", remove("BVP.csv", "ACC.csv")),
    ("e4", "both streams emptied", "empty_file", lambda f: [(f / n).write_bytes(b"") for n in ("BVP.csv", "ACC.csv")]),
    ("e4", "tags of another person", "participant_unknown", lambda f: (f / "tags_S24.csv").rename(f / "tags_S05.csv")),
    ("bami", "emptied", "unreadable_file", cut(BAMI, 0)),
    ("bami", "cut in the header", "unreadable_file", cut(BAMI, 0.0001)),
    ("bami", "cut in its middle", "unreadable_file", cut(BAMI, 0.5)),
    ("wrist-edf", "emptied", "unreadable_file", cut(EDF, 0)),
    ("wrist-edf", "cut in the header", "unreadable_file", cut(EDF, 0.001)),
    ("wrist-edf", "seconds shuffled", "clock_jump", shuffle_edf),
    ("wrist-edf", "PPG under another label", "wrong_signals", replace_bytes(EDF, b"wrist_ppg ", b"wrist_ecg ")),
    ("troika", "emptied", "unreadable_file", cut(TROIKA, 0)),
    ("troika", "cut in its middle", "unreadable_file", cut(TROIKA, 0.5)),
    ("troika", "one row lost", "wrong_variable", variable(TROIKA, "sig", lambda rows: rows[:5])),
    ("troika", "trace in the place of the signals", "missing_variable", lambda f: shutil.copyfile(
        f / "DATA_05_TYPE02_BPMtrace.mat", f / TROIKA
    )),
    ("troika", "rows in another order", "accel_unit", variable(TROIKA, "sig", lambda rows: rows[::-1])),
    ("polar", "nothing but references", "missing_file", remove(PPG, ACC)),
]  # fmt: skip
# What is left of the session is read, and a note says what is not
MENDED: list[tuple[str, str, str, Damage]] = [
    ("e4", "PPG emptied", "BVP.csv has no rows", cut("BVP.csv", 0)),
    ("e4", "PPG without samples", "BVP.csv has no samples", lines("BVP.csv", lambda rows: rows[:2])),
    ("e4", "counts of a device with another range", "the acceleration left out", lines("ACC.csv", eightfold)),
    ("bami", "offset already gone", "the acceleration left out", variable(
        BAMI, "sigAcc", lambda counts: counts.astype(int) - 32768
    )),
    ("wrist-edf", "an axis in another unit", "the acceleration left out", replace_bytes(EDF, b"ms^-2", b"g    ")),
    ("wrist-edf", "an axis in counts", "the acceleration left out", replace_bytes(EDF, b"ms^-2", b"count")),
    ("polar", "acceleration in g under mg", "the acceleration left out", lines(ACC, in_g)),
    ("polar", "acceleration in m/s^2 under mg", "the acceleration left out", lines(ACC, in_m_s2)),
    ("e4", "last row cut", "ACC.csv: the last row", lines("ACC.csv", lambda rows: [*rows[:-1], b"12,3\n"])),
    ("e4", "PPG in the place of acceleration", "ACC.csv has no 3 columns", lambda f: shutil.copyfile(
        f / "BVP.csv", f / "ACC.csv"
    )),
    ("e4", "header lost", "BVP.csv: the first two rows", lines("BVP.csv", lambda rows: rows[2:])),
    ("e4", "rows reversed with the header", "BVP.csv: the first two rows", lines("BVP.csv", lambda rows: rows[::-1])),
    ("e4", "a row overwritten", "BVP.csv: 1 rows without", lines(
        "BVP.csv", lambda rows: [*rows[:99], b"\xc3\x28\n", *rows[100:]]
    )),
    ("e4", "intervals of another session", "IBI.csv counts from another instant", lines("IBI.csv", other_start)),
    ("e4", "binary instead of text", "HR.csv has no samples", lambda f: (f / "HR.csv").write_bytes(b"\x89PNG" * 99)),
    ("bami", "PPG lost", "no variable 'sigPPG'", variable(BAMI, "sigPPG", lambda _: None)),
    ("bami", "one channel lost", "sigPPG is 2 x 42000", variable(BAMI, "sigPPG", lambda counts: counts[:2])),
    ("bami", "text for numbers", "timeECG holds no real numbers", variable(BAMI, "timeECG", lambda _: np.array(["a"]))),
    ("bami", "beats reversed", "not in the order of time", variable(BAMI, "timeECG", lambda times: times[::-1])),
    ("bami", "fewer rates than beats", "no heart rate", variable(BAMI, "bpmECG", lambda rates: rates[:-1])),
    ("bami", "no beats", "no reference", variable(BAMI, "timeECG", lambda _: None)),
    ("wrist-edf", "cut in its middle", "168 whole data records", cut(EDF, 0.5)),
    ("wrist-edf", "cut by one byte", "336 whole data records", cut(EDF, 0.9999996)),
    ("wrist-edf", "a block of zeros", "511 samples of unreadable blocks", zero_records(100, 102)),
    ("wrist-edf", "some seconds lost", "3.141 s lost", lambda f: cut_records(f / EDF, 100, 103)),
    ("wrist-edf", "all axes in another unit", "read as m/s^2", lambda f: [
        replace_bytes(EDF, b"ms^-2", b"g    ")(f) for _ in range(3)
    ]),
    ("wrist-edf", "beat list emptied", "no rows of a beat list", cut("s6_walk.atr.txt", 0)),
    ("wrist-edf", "beats of a longer recording", "beats after the end", lines(
        "s6_walk.atr.txt", lambda rows: [*rows, b"    9:59.000   153344     N    0    1    0\n"]
    )),
    ("troika", "trace of another recording", "148 windows, expected 146", lambda f: shutil.copyfile(
        f.parent / "one/DATA_01_TYPE01_BPMtrace.mat", f / "DATA_05_TYPE02_BPMtrace.mat"
    )),
    ("troika", "no rate in the trace", "reference_hr_bpm: 146", variable(
        "DATA_05_TYPE02_BPMtrace.mat", "BPM0", lambda trace: np.full_like(trace, np.nan)
    )),
    ("troika", "no trace", "no file with a heart-rate trace", remove("DATA_05_TYPE02_BPMtrace.mat")),
    ("polar", "PPG emptied", "Polar_Sense_PPG.txt has no rows", cut(PPG, 0)),
    ("polar", "only the header left", "has less than two samples", lines(PPG, lambda rows: rows[:1])),
    ("polar", "streams swapped", "no column 'channel 0'", lambda f: shutil.copyfile(f / ACC, f / PPG)),
    ("polar", "rows shuffled", "sorted by it", lines(PPG, shuffled)),
    ("polar", "a piece cut out", "1 gaps, 1000 samples", lines(ACC, lambda rows: rows[:5000] + rows[6000:])),
    ("polar", "last row cut", "the last row, which is cut", lines(PPG, lambda rows: [*rows, rows[-1][:40]])),
    ("polar", "rates of another app", "no column 'HR'", lines(HR, lambda rows: [b"Phone timestamp;rate\n", *rows[1:]])),
    ("polar", "intervals without a time", "1 pulse intervals", lines(PPI, lambda r: [r[0], b"soon;999;9;0;1;1;60\n"])),
]  # fmt: skip


@pytest.mark.parametrize(
    ("device", "reason", "damage"),
    [(device, reason, damage) for device, _, reason, damage in REJECTED],
    ids=[f"{device}: {what}" for device, what, _, _ in REJECTED],
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


@pytest.mark.parametrize(
    ("device", "note", "damage"),
    [(device, note, damage) for device, _, note, damage in MENDED],
    ids=[f"{device}: {what}" for device, what, _, _ in MENDED],
)
def test_damage_to_a_part_costs_that_part_alone(
    shared: Path, tmp_path: Path, device: str, note: str, damage: Damage
) -> None:
    delivery, bad = sessions(shared, device, tmp_path)
    damage(bad)
    summary = ingest(device, delivery, tmp_path / "landing", "b1")
    assert (summary.read, summary.rejections) == (2, ())
    assert any(note in line for line in summary.notes)
    assert validate_batch(tmp_path / "landing/b1") == []


def test_what_one_stream_alone_covers_is_a_recording_of_its_own(shared: Path, tmp_path: Path) -> None:
    delivery, bad = sessions(shared, "polar", tmp_path)
    edit_lines(bad / ACC, later)
    summary = ingest("polar", delivery, tmp_path / "landing", "b1")
    assert (summary.read, summary.rejections) == (3, ())
    assert validate_batch(tmp_path / "landing/b1") == []


@pytest.mark.parametrize("device", PAIRS)
def test_both_sessions_are_read_where_nothing_is_damaged(shared: Path, tmp_path: Path, device: str) -> None:
    delivery, _ = sessions(shared, device, tmp_path)
    summary = ingest(device, delivery, tmp_path / "landing", "b1")
    assert (summary.read, summary.rejections) == (2, ())


@pytest.mark.parametrize("device", PAIRS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    assert summary.total == summary.read + len(summary.rejections) >= 2
    assert validate_batch(tmp_path / "landing/b1") == []
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("wrong_s", [-3e8, -100.0, 100.0, 3e8, 1e25, np.nan])
def test_a_single_damaged_time_is_one_missing_sample(wrong_s: float) -> None:
    time_s = 7e8 + np.arange(5000) / 50
    time_s[2000] += wrong_s
    (piece,), notes = place(time_s, np.arange(5000.0)[None])
    assert piece.rate_hz == pytest.approx(50, rel=1e-6)
    assert piece.samples.shape == (1, 5000)
    assert np.flatnonzero(np.isnan(piece.samples[0])).tolist() == [2000]
    assert len(notes) == 2


def test_damaged_times_never_become_a_recording_of_years() -> None:
    rng = np.random.default_rng(0)
    time_s = 7e8 + np.arange(5000) / 50
    wrong = rng.integers(0, 5000, 40)
    time_s[wrong] += rng.uniform(-1e9, 1e9, 40)
    pieces, _ = place(time_s, np.arange(5000.0)[None])
    assert all(piece.end_s - piece.start_s < 800 for piece in pieces)
    assert sum(np.isfinite(piece.samples[0]).sum() for piece in pieces) > 4900
