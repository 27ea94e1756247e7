"""Real devices for docs/real-data.md: all of them through ingest, segments and labels; E4 through the whole chain.

    python benches/real_data.py ../shared/data --home /somewhere/with/space --skip-training
    python benches/real_data.py ../shared/data --home /somewhere/with/space

Needs the public recordings that docs/devices.md names; prints the tables as Markdown.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import dagster as dg
import duckdb
import numpy as np

from accelkd.evaluation.probes import LabelledEmbeddings, probe_segments
from accelkd.home.layout import Home
from accelkd.home.settings import MotionGate, PresetName, Settings
from accelkd.recordings.ingest import ingest
from accelkd.recordings.labels import LABELS
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import SegmentStore
from orchestration.catch_up import catch_up

FOLDERS = {
    "e4": "stress-predict-e4",
    "bami": "bami1-watch",
    "wrist-edf": "wrist-ppg-exercise",
    "troika": "troika-spc2015",
    "polar": "polar-verity-sense",
    "embraceplus": "empatica-embraceplus",
    "verily": "verily-study-watch",
    "nilspod": "biopsykit-nilspod-chest",
    "phone": "mscardio-phone-scg",
}
GATES: tuple[MotionGate, ...] = ("strict", "loose", "off")


def segments_and_labels(data: Path, home: Home) -> None:
    """Ingest every device, cut segments with every gate, compare the labels with what travelled along."""
    for device, folder in FOLDERS.items():
        ingest(device, data / folder, home.landing, device)
    print("| device | gate | windows | segments | good labels | HR MAE (bpm) | RMSSD MAE (ms) |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for device in FOLDERS:
        for gate in GATES:
            counts = segment_batch(home, device, gate=gate)
            metadata = SegmentStore([home.segments(device)]).metadata
            errors = []
            for label in ("hr_bpm", "rmssd_ms"):
                ours, theirs = (
                    np.array(metadata.column(name).to_pylist(), np.float64) for name in (label, f"reference_{label}")
                )
                both = np.isfinite(ours) & np.isfinite(theirs)
                errors.append(f"{np.abs(ours - theirs)[both].mean():.2f} (n = {both.sum()})" if both.any() else "")
            print(
                f"| {device} | {gate} | {counts.seen} | {counts.segments} | {counts.label_good} | "
                f"{errors[0]} | {errors[1]} |"
            )


def whole_chain(data: Path, home: Home, preset: PresetName) -> None:
    """Sixteen people with an Empatica E4, loose gate, through every asset."""
    Settings(preset=preset, motion_gate="loose").save(home)
    started = time.perf_counter()
    ingest("e4", data / FOLDERS["e4"], home.landing, "stress-predict")
    dagster_home = home.root / "dagster"
    dagster_home.mkdir(exist_ok=True)
    with dg.DagsterInstance.local_temp(str(dagster_home)) as instance:
        outcome = catch_up(home, instance)
    assert not outcome.failed, outcome.failed
    print(f"\nWhole chain: {time.perf_counter() - started:.0f} s, preset {preset}\n")
    print("| encoder | target | MAE | constant | Pearson R | fitted on | measured on |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with duckdb.connect(str(home.published), read_only=True) as connection:
        for encoder in ("ppg_teacher", "accel_student"):
            rows = connection.sql(
                f"SELECT embedding, participant_id, split, reference_hr_bpm, {', '.join(LABELS)} "
                f"FROM embeddings.{encoder} JOIN segments USING (segment_id, participant_id) "
                "JOIN split USING (participant_id) ORDER BY segment_id"
            ).fetchall()
            x = np.array([row[0] for row in rows], np.float32)
            people = np.array([row[1] for row in rows])
            test = np.array([row[2] == "test" for row in rows])
            targets = {"device's heart rate": (3, False), "device's heart rate, minutes with good labels": (3, True)}
            targets |= {name: (column, False) for column, name in enumerate(LABELS, start=4)}
            good = np.array([row[4] is not None for row in rows])
            for name, (column, good_only) in targets.items():
                y = np.array([row[column] for row in rows], np.float64)
                y[~good & good_only] = np.nan
                target = name if name in LABELS else "hr_bpm"
                sides = (LabelledEmbeddings(x[side], people[side], {target: y[side]}) for side in (~test, test))
                result = probe_segments(*sides)[target, 1.0].result
                print(
                    f"| {encoder} | {name} | {result.mae:.2f} {result.unit} | {result.constant_mae:.2f} | "
                    f"{'' if result.pearson_r is None else format(result.pearson_r, '.2f')} | "
                    f"{result.train_segments} of {result.train_participants} | "
                    f"{result.test_segments} of {result.test_participants} |"
                )
        print("\n| query | finds | space | top-1 (%) | chance | mean rank | chance | candidates |")
        print("| --- | --- | --- | --- | --- | --- | --- | --- |")
        for row in connection.sql(
            "SELECT query_encoder, key_encoder, space, top1_percent, chance_top1_percent, mean_rank, "
            "chance_mean_rank, segments FROM retrieval_results ORDER BY ALL"
        ).fetchall():
            print("| " + " | ".join(value if isinstance(value, str) else f"{value:.1f}" for value in row) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with one subfolder per dataset")
    parser.add_argument("--home", type=Path, required=True, help="folder for the homes that this makes")
    parser.add_argument("--preset", default="demo", choices=("paper", "demo", "smoke"))
    parser.add_argument("--skip-training", action="store_true", help="segments and labels alone")
    arguments = parser.parse_args()
    segments_and_labels(arguments.data, Home(arguments.home / "devices"))
    if not arguments.skip_training:
        whole_chain(arguments.data, Home(arguments.home / "e4"), arguments.preset)


if __name__ == "__main__":
    main()
