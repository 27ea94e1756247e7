"""BeliefPPG on BAMI-1, for benches/comparators.py: its heart rate in each minute of each recording, as a CSV file.

It needs TensorFlow, so it runs in an environment of its own and imports nothing of this repository:

    python3.11 -m venv belief && belief/bin/pip install beliefppg==0.3.1
    belief/bin/python benches/belief.py ../shared/data/bami1-watch belief.csv

Bieri, Streli, Demirel & Holz, "BeliefPPG: Uncertainty-aware Heart Rate Estimation from PPG signals via Belief
Propagation", UAI 2023. The model sees 20 s every 2 s. The time of an estimate is the middle of the last 8 s of them,
with which the package's own training aligns its labels (`prepare_session_labels`); `infer_hr` gives times 15 s earlier.
Which recordings the released weights were trained on is not documented; the package reads BAMI-1 to train on.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from beliefppg import infer_hr
from scipy.io import loadmat

RATE_HZ = 50
COUNTS_PER_G, OFFSET = 4096, 32768
SEEN_S, LABELLED_S, STRIDE_S = 20, 8, 2
MINUTE_S = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with Subject_<N>.mat")
    parser.add_argument("out", type=Path, help="CSV: participant_id, offset_s, bpm")
    arguments = parser.parse_args()
    errors: dict[int, list[float]] = {0: [], SEEN_S - LABELLED_S // 2 - STRIDE_S // 2: []}  # by seconds earlier
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["participant_id", "offset_s", "bpm"])
        for path in sorted(arguments.folder.glob("Subject_*.mat")):
            recording = loadmat(path)
            ppg = recording["sigPPG"].T.astype(np.float64)
            accel = (recording["sigAcc"].T.astype(np.float64) - OFFSET) / COUNTS_PER_G
            bpm = np.asarray(infer_hr(ppg, RATE_HZ, accel, RATE_HZ)[0], np.float64).ravel()
            at_s = SEEN_S - LABELLED_S / 2 + STRIDE_S * np.arange(len(bpm))
            beats_s, rates_bpm = recording["timeECG"].ravel(), recording["bpmECG"].ravel()
            for time_s, estimate in zip(at_s, bpm, strict=True):
                for earlier_s, of_shift in errors.items():
                    near = np.abs(beats_s - (time_s - earlier_s)) <= LABELLED_S / 2
                    if near.any():
                        of_shift.append(abs(estimate - rates_bpm[near].mean()))
            for offset_s in range(0, len(ppg) // RATE_HZ, MINUTE_S):
                inside = (at_s >= offset_s) & (at_s < offset_s + MINUTE_S)
                if inside.any():
                    number = path.stem.removeprefix("Subject_")
                    writer.writerow([f"bami-{number}", offset_s, f"{bpm[inside].mean():.3f}"])
            file.flush()  # a recording takes a minute
    for earlier_s, of_shift in errors.items():
        print(f"placed {earlier_s} s earlier: {np.mean(of_shift):.2f} bpm in {len(of_shift)} windows of {LABELLED_S} s")


if __name__ == "__main__":
    main()
