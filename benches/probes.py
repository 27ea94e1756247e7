"""Seconds of the evaluation's numerics on random embeddings: probes, health targets, comparisons, retrieval, alignment.

    python benches/probes.py [--participants 1000] [--segments 20] [--width 256]

A fifth of the participants is in test. Prints a Markdown table; values mean nothing, times do.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from accelkd.evaluation.calibration import probabilities
from accelkd.evaluation.participant_probes import TARGET_LABELS, mean_embeddings, probe_participants
from accelkd.evaluation.probes import LABEL_FRACTIONS, LabelledEmbeddings, probe_segments
from accelkd.evaluation.procrustes import fit_alignment
from accelkd.evaluation.retrieval import POOLS, retrieve
from accelkd.evaluation.significance import BOOTSTRAPS, compare_aucs
from accelkd.recordings.labels import LABELS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--participants", type=int, default=1_000)
    parser.add_argument("--segments", type=int, default=20, help="of each participant")
    parser.add_argument("--width", type=int, default=256)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)

    def side(name: str, participants: int) -> tuple[LabelledEmbeddings, LabelledEmbeddings]:
        """Segments, and their participants."""
        names = np.repeat([f"{name}{number:06d}" for number in range(participants)], arguments.segments)
        x = rng.standard_normal((len(names), arguments.width), np.float32)
        people, means = mean_embeddings(x, names)
        answers = {
            target: np.where(rng.random(participants) < 0.1, np.nan, rng.random(participants) < 0.2)
            for target in TARGET_LABELS
        }
        labels = {target: rng.standard_normal(len(names)) for target in LABELS}
        return LabelledEmbeddings(x, names, labels), LabelledEmbeddings(means, people, answers)

    in_test = arguments.participants // 5
    (train, train_people), (test, test_people) = side("a", arguments.participants - in_test), side("b", in_test)
    yes_or_no = [target for target in TARGET_LABELS if target not in ("age", "bmi")]
    scores = rng.standard_normal((2, in_test))

    def compare() -> None:
        for target in yes_or_no:
            asked = np.isfinite(test_people.targets[target])
            compare_aucs(test_people.targets[target][asked] == 1, *scores[:, asked])

    def calibrate() -> None:
        for probe in probed:
            probabilities(probe, train_people)

    probed = [probe for probe in probe_participants(train_people, test_people).values() if probe.result.unit is None]
    work: dict[str, Callable[[], object]] = {
        f"{len(LABELS) * len(LABEL_FRACTIONS)} probes of segments, each on its own fraction": lambda: probe_segments(
            train, test, fractions=LABEL_FRACTIONS
        ),
        f"{len(TARGET_LABELS)} probes of participants": lambda: probe_participants(train_people, test_people),
        f"{len(yes_or_no)} curves from scores to probabilities": calibrate,
        f"{len(yes_or_no)} comparisons of two encoders, {BOOTSTRAPS} bootstraps": compare,
        f"retrieval, one direction, {POOLS} pools": lambda: retrieve(
            test.matrix, test.matrix, test.participants.tolist()
        ),
        "Procrustes alignment, fitted": lambda: fit_alignment(train.matrix, train.matrix),
    }
    print(f"{len(train.matrix):,} training and {len(test.matrix):,} test segments, width {arguments.width}\n")
    print("| what | seconds | of one core |\n| --- | --- | --- |")
    for what, do in work.items():
        started, busy = time.perf_counter(), time.process_time()
        do()
        print(f"| {what} | {time.perf_counter() - started:.2f} | {time.process_time() - busy:.2f} |", flush=True)


if __name__ == "__main__":
    main()
