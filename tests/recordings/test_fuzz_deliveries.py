"""Some hundred mutated deliveries of all formats (`tests.reliability.fuzz_deliveries` runs a hundred thousand)."""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest

from accelkd.recordings.ingest import ingest
from tests.support.fuzz import run_case, write
from tests.support.fuzz_seeds import seeds
from tests.support.mutations import Entries, Fifo, Link, Seed

CASES = 14  # of each format
FORMATS = (
    "e4", "e4 in ZIPs", "polar", "bami", "troika", "wrist-edf", "edf", "wfdb", "embraceplus", "verily", "axivity AX3",
    "axivity AX6", "geneactiv", "actigraph", "matrix", "nilspod", "phone: MSCardio", "phone: Sensor Logger",
    "table: csv", "table: parquet", "table: feather", "table: mat",
)  # fmt: skip


@pytest.fixture(scope="module")
def deliveries(shared: Path) -> dict[str, Seed]:
    if not (shared / "data/mscardio-phone-scg").is_dir():
        pytest.skip("not all real recordings are at hand")
    return seeds(shared / "data")


@pytest.mark.parametrize("name", FORMATS)
def test_mutated_deliveries_end_in_segments_or_named_reasons(
    deliveries: dict[str, Seed], tmp_path: Path, name: str
) -> None:
    assert tuple(deliveries) == FORMATS
    cases = [run_case(deliveries[name], number, (0, FORMATS.index(name)), tmp_path / "case") for number in range(CASES)]
    assert [(case.number, case.mutations, case.failure) for case in cases if case.failure] == []
    assert any(case.outcome == "read whole" for case in cases)


def test_a_session_that_ends_in_nothing_is_a_failure(
    deliveries: dict[str, Seed], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelkd.recordings.readers.matrix.read", lambda _session: [])
    cases = [run_case(deliveries["matrix"], number, (0, 14), tmp_path / "case") for number in range(3)]
    assert any("ended in nothing" in case.failure for case in cases)


def archive(members: dict[str, bytes]) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return out.getvalue()


def e4_session(deliveries: dict[str, Seed], person: str) -> dict[str, bytes]:
    files = deliveries["e4"].files
    return {path.partition("/")[2]: content for path, content in files.items() if path.startswith(person)}


def test_a_damaged_archive_costs_nothing_of_the_one_before_it(deliveries: dict[str, Seed], tmp_path: Path) -> None:
    sound = archive(e4_session(deliveries, "S10"))
    damaged = bytearray(archive(e4_session(deliveries, "S24")))
    damaged[2000] ^= 1  # within the stored bytes of the first member
    odd: Entries = {
        b"S10.zip": sound,
        b"S24.zip": bytes(damaged),
        b"S25.zip": b"no archive",
        b"S26.zip": sound[:100],
        b"S27.zip": archive({}),
        b"S28.zip": archive({"../BVP.csv": b"1\n"}),
        b"S29.zip": archive({"BVP.csv": b"1\n"}).replace(b"BVP.csv", b"BVP.cs~", 1),
    }
    write(odd, tmp_path / "delivery")
    summary = ingest("e4", tmp_path / "delivery", tmp_path / "landing", "b1")
    assert (summary.read, summary.participants) == (1, 1)
    reasons = {rejection.source_file: rejection.reason for rejection in summary.rejections}
    assert reasons.pop("S27.zip") == "empty_file"
    assert reasons == dict.fromkeys((f"S{number}.zip" for number in (24, 25, 26, 28, 29)), "unreadable_file")


def test_two_members_of_one_name_are_refused(deliveries: dict[str, Seed], tmp_path: Path) -> None:
    members = e4_session(deliveries, "S10")
    out = BytesIO(archive(members))
    with zipfile.ZipFile(out, "a") as packed, pytest.warns(UserWarning, match="Duplicate"):
        packed.writestr("BVP.csv", b"1\n")
    write({b"S10.zip": out.getvalue()}, tmp_path / "delivery")
    summary = ingest("e4", tmp_path / "delivery", tmp_path / "landing", "b1")
    assert [(entry.source_file, entry.reason) for entry in summary.rejections] == [("S10.zip", "unreadable_file")]
    assert "two files of one name" in summary.rejections[0].detail


def test_links_and_fifos_beside_a_session_are_listed(deliveries: dict[str, Seed], tmp_path: Path) -> None:
    entries: Entries = {path.encode(): content for path, content in deliveries["e4"].files.items()}
    write({**entries, b"S10/x.csv": Link(b"BVP.csv"), b"S24/y.csv": Fifo()}, tmp_path / "delivery")
    summary = ingest("e4", tmp_path / "delivery", tmp_path / "landing", "b1")
    assert summary.read == 2
    assert {(entry.source_file, entry.reason) for entry in summary.rejections} == {
        ("S10/x.csv", "not_a_regular_file"),
        ("S24/y.csv", "not_a_regular_file"),
    }


def test_a_case_can_be_repeated(deliveries: dict[str, Seed], tmp_path: Path) -> None:
    first, second = (run_case(deliveries["matrix"], 3, (0, 14), tmp_path / "case") for _ in range(2))
    assert (first.mutations, first.outcome, first.reasons) == (second.mutations, second.outcome, second.reasons)
    assert np.isfinite(first.took_s)
