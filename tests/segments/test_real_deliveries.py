"""Every folder of real recordings, from the files to segments: what is read, whose it is, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from accelkd.home.layout import Home
from accelkd.recordings.ingest import ingest
from accelkd.recordings.validate import validate_batch
from accelkd.segments.segment import segment_batch


@dataclass(frozen=True)
class Delivery:
    """A folder of real recordings, and what comes of it."""

    device: str
    folder: str
    read: int
    participants: int
    still: int  # segments under the strict gate
    segments: int  # without a gate
    channels: dict[int, int]  # of these, by number of PPG channels
    not_recognised: int = 0  # files of other formats beside them
    quarantined: dict[str, int] = field(default_factory=dict)  # without a gate


DELIVERIES = (
    Delivery("e4", "stress-predict-e4", 16, 16, 278, 879, {1: 879}),
    Delivery("bami", "bami1-watch", 16, 16, 1, 224, {3: 224}),
    Delivery("wrist-edf", "wrist-ppg-exercise", 5, 4, 0, 23, {1: 23}),
    Delivery("edf", "wrist-ppg-exercise", 5, 4, 0, 23, {1: 23}, not_recognised=5),
    Delivery("troika", "troika-spc2015", 13, 12, 0, 56, {2: 56}, quarantined={"accel_missing": 1}),
    Delivery("polar", "polar-verity-sense", 1, 1, 7, 8, {3: 8}),
    Delivery("axivity", "accelerometer-formats", 2, 2, 0, 2, {0: 2}, 3, {"accel_gap": 1}),
    Delivery("geneactiv", "accelerometer-formats", 1, 1, 0, 0, {}, 4, {"too_short": 1}),
    Delivery("actigraph", "accelerometer-formats", 1, 1, 0, 1, {0: 1}, 4),
    Delivery("matrix", "accelerometer-formats", 1, 1, 3, 6, {0: 6}, 4),
    Delivery("nilspod", "biopsykit-nilspod-chest", 1, 1, 10, 10, {0: 10}),
    Delivery("embraceplus", "empatica-embraceplus", 1, 1, 4, 30, {1: 30}),
    Delivery("phone", "mscardio-phone-scg", 80, 80, 27, 70, {0: 70}, quarantined={"too_short": 10}),
    Delivery("verily", "verily-study-watch", 2, 1, 2, 11, {0: 1, 1: 10}),
)


@pytest.mark.parametrize("expected", DELIVERIES, ids=[f"{entry.device}: {entry.folder}" for entry in DELIVERIES])
def test_a_real_delivery_becomes_segments(shared: Path, tmp_path: Path, expected: Delivery) -> None:
    if not (shared / "data" / expected.folder).is_dir():
        pytest.skip(f"no folder data/{expected.folder} in `shared`")
    home = Home(tmp_path)
    summary = ingest(expected.device, shared / "data" / expected.folder, home.landing, "real")
    assert (summary.read, summary.participants) == (expected.read, expected.participants)
    assert [rejection.reason for rejection in summary.rejections] == ["not_recognised"] * expected.not_recognised
    assert validate_batch(home.batch("real")) == []
    still = segment_batch(home, "real")
    assert still.segments == expected.still
    assert still.reasons.get("not_worn", 0) == 0  # all of them were worn
    counts = segment_batch(home, "real", gate="off")
    assert (counts.segments, counts.channels["ppg"]) == (expected.segments, expected.channels)
    beside = {"not_recognised": expected.not_recognised} if expected.not_recognised else {}
    assert counts.reasons == {**expected.quarantined, **beside}
