"""How honest the intervals of predictions are: coverage over participants whom readouts were not fitted on.

    python benches/coverage.py --home /somewhere/home --encoder accel_student

Reads the embeddings of a home's warehouse. Splits its participants at random, many times over: fits readouts on one
part, measures on the other. Prints Markdown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tables

from accelkd.evaluation.probes import LabelledEmbeddings
from accelkd.evaluation.readouts import fit_readouts, predict
from accelkd.home.layout import Home
from accelkd.warehouse.read_embeddings import people_of, read_embeddings
from accelkd.warehouse.staging import staging


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--encoder", default="accel_student")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--participants", type=int, nargs="*", default=[0], help="to fit on; 0: four fifths of all")
    arguments = parser.parse_args()
    home = Home(arguments.home.resolve())
    with staging(home) as connection:
        data = read_embeddings(connection, arguments.encoder, test_only=False)
        everybody = people_of(connection, data)
    names = np.unique(data.participants)
    tables.header("fitted on", "target", "coverage (%)", "of single splits", "MAE", "of a constant", "measured on")
    for wanted in arguments.participants:
        count = wanted or len(names) * 4 // 5
        inside: dict[str, list[float]] = {}
        errors: dict[str, list[tuple[float, float]]] = {}
        for seed in range(arguments.splits):
            chosen = np.random.default_rng(seed).permutation(names)[:count]
            sides = [np.isin(data.participants, chosen), np.isin(everybody.participants, chosen)]
            segments, people = data.labelled(), everybody
            fitted = fit_readouts(arguments.encoder, "", _rows(segments, sides[0]), _rows(people, sides[1]), {})
            for readout in fitted.of.values():
                if readout.unit is None:
                    continue
                of, side = (segments, sides[0]) if readout.level == "segment" else (people, sides[1])
                rest = _rows(of, ~side)
                measured = rest.targets[readout.target]
                known = np.isfinite(measured)
                read = predict(readout, rest.matrix[known])
                held = (read.low <= measured[known]) & (measured[known] <= read.high)
                inside.setdefault(readout.target, []).append(float(held.mean()))
                constant = np.median(of.targets[readout.target][side & np.isfinite(of.targets[readout.target])])
                errors.setdefault(readout.target, []).append(
                    (
                        float(np.abs(read.value - measured[known]).mean()),
                        float(np.abs(constant - measured[known]).mean()),
                    )
                )
        for target, shares in inside.items():
            mae, constant_mae = np.mean(errors[target], axis=0)
            low, high = np.quantile(shares, (0.05, 0.95))
            tables.row(
                f"{count} people",
                target,
                f"{100 * np.mean(shares):.1f}",
                f"{100 * low:.1f} to {100 * high:.1f}",
                f"{mae:.2f}",
                f"{constant_mae:.2f}",
                f"{len(names) - count} people, {arguments.splits} splits",
            )


def _rows(data: LabelledEmbeddings, rows: npt.NDArray[np.bool_]) -> LabelledEmbeddings:
    targets = {name: values[rows] for name, values in data.targets.items()}
    return LabelledEmbeddings(data.matrix[rows], data.participants[rows], targets)


if __name__ == "__main__":
    main()
