"""The heart rate by other people's programs beside ours, on the same minutes: for docs/real-data.md.

    pip install -e '.[bench]'
    python benches/comparators.py ../shared/data --home /somewhere/with/space --belief belief.csv

`belief.csv` is what benches/belief.py writes in its own environment; without it, that column is empty. Every minute of
E4, BAMI and Polar, without a motion gate, is compared with the reference that travelled with it: the device's own rate
(E4, Polar: derived from the same PPG) or a Holter ECG (BAMI). It prints the table as Markdown.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import neurokit2
import numpy as np
import numpy.typing as npt
import tables

from accelkd.evaluation.evidence import error_interval
from accelkd.home.layout import Home
from accelkd.recordings.devices import DEVICES
from accelkd.recordings.ingest import ingest
from accelkd.segments.schema import SAMPLING_RATE_HZ
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import SegmentStore

FOLDERS = {"e4": "stress-predict-e4", "bami": "bami1-watch", "polar": "polar-verity-sense"}
STILL_G = 0.05

Floats = npt.NDArray[np.float64]


def neurokit_bpm(ppg: npt.NDArray[np.float16], polarity: int) -> float:
    """Median over the channels [channels, 3840] of NeuroKit2's rate, with systole up; NaN where it finds no beats."""
    rates = []
    for channel in ppg.astype(np.float64) * polarity:
        try:
            cleaned = neurokit2.ppg_clean(channel, sampling_rate=SAMPLING_RATE_HZ)
            peaks = neurokit2.ppg_findpeaks(cleaned, sampling_rate=SAMPLING_RATE_HZ)["PPG_Peaks"]
        except (ValueError, IndexError):  # of a channel without a pulse
            continue
        if len(peaks) > 2:
            rates.append(60 * SAMPLING_RATE_HZ / np.mean(np.diff(peaks)))
    return float(np.median(rates)) if rates else np.nan


def compare(home: Home, device: str, belief: dict[tuple[str, float], float]) -> None:
    """The rows of one device."""
    segment_batch(home, device, gate="off")
    store = SegmentStore([home.segments(device)])
    metadata = store.metadata
    people = np.asarray(metadata.column("participant_id").to_pylist(), np.str_)
    measured, label, classical, p95_g, median_g = (
        np.array(metadata.column(name).to_pylist(), np.float64)
        for name in ("reference_hr_bpm", "hr_bpm", "accel_hr_bpm", "motion_p95_g", "motion_median_g")
    )
    estimates = {
        "label": label,
        "neurokit": np.array([neurokit_bpm(ppg, DEVICES[device].polarity or 1) for ppg in store.signals("ppg")]),
        "belief": np.array(
            [
                belief.get((person, offset_s), np.nan)
                for person, offset_s in zip(people.tolist(), metadata.column("offset_s").to_pylist(), strict=True)
            ]
        ),
        "classical": classical,
    }
    known, labelled = np.isfinite(measured), np.isfinite(label)
    minutes = {
        "still, with our label": known & labelled & (p95_g < STILL_G),
        "mostly still, with our label": known & labelled & (median_g < STILL_G),
        "any movement, with our label": known & labelled,
        "moving, with our label": known & labelled & (median_g >= STILL_G),
        "moving, all of them": known & (median_g >= STILL_G),
        "all of them": known,
    }
    before = np.zeros_like(known)
    for name, chosen in minutes.items():
        if chosen.any() and (chosen != before).any():  # a device whose every minute is mostly still has fewer rows
            before = chosen
            median = np.median(measured[chosen])
            cells = [_error(measured, estimate, chosen, people) for estimate in estimates.values()]
            constant = f"{np.abs(measured[chosen] - median).mean():.1f}"
            tables.row(device, name, chosen.sum(), len(np.unique(people[chosen])), *cells, constant)


def _error(measured: Floats, estimate: Floats, chosen: npt.NDArray[np.bool_], people: npt.NDArray[np.str_]) -> str:
    """Mean absolute error with its interval over people, and of how many minutes where the estimate lacks some."""
    both = chosen & np.isfinite(estimate)
    if not both.any():
        return ""
    error = np.abs(measured - estimate)[both]
    bounds = error_interval(error, people[both])
    interval = "" if bounds is None else f" ({bounds[0]:.1f} to {bounds[1]:.1f})"
    return f"{error.mean():.1f}{interval}" + ("" if both.sum() == chosen.sum() else f", of {both.sum()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with one subfolder per dataset")
    parser.add_argument("--home", type=Path, required=True, help="folder for the home that this makes")
    parser.add_argument("--belief", type=Path, help="what benches/belief.py has written")
    arguments = parser.parse_args()
    belief = {}
    if arguments.belief:
        with arguments.belief.open(newline="", encoding="utf-8") as file:
            belief = {
                (row["participant_id"], float(row["offset_s"])): float(row["bpm"]) for row in csv.DictReader(file)
            }
    home = Home(arguments.home)
    names = ("device", "minutes", "number", "people", "our label", "NeuroKit2", "BeliefPPG", "acceleration", "constant")
    print(f"\nMean absolute errors in bpm:\n\n| {' | '.join(names)} |\n|{' --- |' * len(names)}")
    for device, folder in FOLDERS.items():
        ingest(device, arguments.data / folder, home.landing, device)
        compare(home, device, belief)


if __name__ == "__main__":
    main()
