"""What a masked autoencoder's tokens know beyond their mean: `python benches/pooling.py --preset longer`.

Reads the cohort and the encoder `ppg-mae` (first seed) that `accelkd reproduce` left in ACCELKD_HOME, and predicts
heart rate, SDNN and RMSSD of the test participants by ridge from the mean over the tokens (the embedding), from their
standard deviation too, and from that of the differences of neighbours too.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import RidgeCV

from accelkd.home.layout import Home
from accelkd.models.transformer import Encoder
from accelkd.recordings.labels import LABELS
from accelkd.reproduction.cohort import Cohort, Versions, cohort_home, read_cohort
from accelkd.reproduction.experiments import experiment_preset
from accelkd.training.checkpoint import load_encoder

BATCH = 64
POOLED = ("mean over the tokens", "and their standard deviation", "and that of their differences")


def statistics(encoder: Encoder, cohort: Cohort) -> npt.NDArray[np.float32]:
    """`[segments, 3 × width]`: mean, standard deviation, and standard deviation of the differences of neighbours."""
    pooled = []
    with torch.inference_mode():
        for rows in np.array_split(np.arange(len(cohort.store)), -(-len(cohort.store) // BATCH)):
            segments = torch.from_numpy(cohort.store.signals("ppg", rows)).float()
            tokens = encoder.transformer(encoder.tokenize(segments))
            pooled.append(torch.cat([tokens.mean(1), tokens.std(1), tokens.diff(dim=1).std(1)], dim=1).numpy())
    return np.concatenate(pooled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="small", help="of the reproduction that lies in the home")
    chosen = experiment_preset(parser.parse_args().preset)
    home = Home.from_environment()
    nested_home = cohort_home(home, chosen.cohort)
    cohort = read_cohort(nested_home, chosen.cohort, Versions("", ""))  # nothing is written that would carry them
    record = home.root / "reproduction" / "experiments" / f"ppg-mae-{chosen.seeds[0]}" / "run.json"
    encoder, _ = load_encoder(nested_home.root / json.loads(record.read_text(encoding="utf-8"))["checkpoint"])
    if not isinstance(encoder, Encoder):
        raise TypeError("ppg-mae is no Transformer")
    features = statistics(encoder, cohort)
    width = features.shape[1] // len(POOLED)
    print("| ridge on | " + " | ".join(f"{target}: MAE, r" for target in LABELS) + " |")
    print("|---" * (1 + len(LABELS)) + "|")
    for number, name in enumerate(POOLED, start=1):
        known = features[:, : number * width]
        cells = [name]
        for target in LABELS:
            y = cohort.labels[target]
            train, test = (np.isfinite(y) & side for side in (~cohort.in_test, cohort.in_test))
            centre, scale = known[train].mean(axis=0), known[train].std(axis=0) + 1e-9
            ridge = RidgeCV(np.logspace(-3, 4, 15)).fit((known[train] - centre) / scale, y[train])
            predicted = ridge.predict((known[test] - centre) / scale)
            error = np.abs(predicted - y[test]).mean()
            cells.append(f"{error:.2f}, {np.corrcoef(predicted, y[test])[0, 1]:.2f}")
        print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
