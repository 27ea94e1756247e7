"""How often 95 % intervals of an area under the ROC curve hold the true area, by the number of people with yes.

    python benches/intervals.py [--runs 1500] [--no 100]

Scores are normal; those of people with yes are a third, once or three times as spread as those of people with no.
Compares the interval of the reports with the percentile bootstrap over people and with DeLong's on the logit. Prints a
Markdown table: of all spreads and true areas the lowest share that holds the truth, and the mean width.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from accelkd.evaluation.evidence import auc_interval
from accelkd.evaluation.significance import auc, bootstrap_aucs, interval

SPREADS = (1 / 3, 1.0, 3.0)
AREAS = (0.5, 0.7, 0.85, 0.95)
BOOTSTRAPPED = 150  # runs of the bootstrap, which is slow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1_500)
    parser.add_argument("--no", type=int, default=100, help="people with no")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    print("| yes | reports | width | DeLong, logit | width | bootstrap | width |\n|" + " --- |" * 7)
    for yes in (1, 3, 5, 10, 30):
        labels = np.arange(yes + arguments.no) < yes
        lowest, widths = np.ones(3), []
        for spread in SPREADS:
            for area in AREAS:
                covered, width, runs = np.zeros(3), np.zeros(3), np.zeros(3)
                for run in range(arguments.runs):
                    distance = np.hypot(1, spread) * norm.ppf(area)
                    scores = np.concatenate(
                        [spread * rng.standard_normal(yes) + distance, rng.standard_normal(arguments.no)]
                    )
                    bounds = [auc_interval(auc(labels, scores), yes, arguments.no), delong(scores[:yes], scores[yes:])]
                    if run < BOOTSTRAPPED:
                        bounds.append(interval(bootstrap_aucs(labels, scores[None], seed=run)[0]))
                    for method, (low, high) in enumerate(bounds):
                        covered[method] += low <= area <= high
                        width[method] += high - low
                        runs[method] += 1
                lowest = np.minimum(lowest, covered / runs)
                widths.append(width / runs)
        cells = [f"{value:.2f}" for pair in zip(lowest, np.mean(widths, axis=0), strict=True) for value in pair]
        print(f"| {yes} | " + " | ".join(cells) + " |", flush=True)


def delong(yes: npt.NDArray[np.float64], no: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The interval of DeLong et al. (1988) on the logit; a point where the estimated variance is 0 or undefined."""
    above = (yes[:, None] > no).astype(float)
    area = float(above.mean())
    if len(yes) < 2 or area in (0.0, 1.0):
        return area, area
    variance = above.mean(axis=1).var(ddof=1) / len(yes) + above.mean(axis=0).var(ddof=1) / len(no)
    half = norm.ppf(0.975) * np.sqrt(variance) / (area * (1 - area))
    middle = np.log(area / (1 - area))
    low, high = 1 / (1 + np.exp(-(middle - half))), 1 / (1 + np.exp(-(middle + half)))
    return float(low), float(high)


if __name__ == "__main__":
    main()
