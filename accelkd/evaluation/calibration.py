"""Probabilities from a probe's scores: a logistic curve that is fitted on held-out training participants (Platt 1999).

A ridge regression on 0 and 1 orders people, but its values lie outside 0 to 1 and shrink towards the mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit

from accelkd.evaluation.blas import one_blas_thread
from accelkd.evaluation.participant_probes import ParticipantProbe
from accelkd.evaluation.probes import FOLDS, LabelledEmbeddings, held_out_predictions

# Per standard deviation of the scores: rising, so that probabilities keep the scores' order and with it the area
MIN_SLOPE = 1e-3


@one_blas_thread()
def probabilities(probe: ParticipantProbe, train: LabelledEmbeddings) -> npt.NDArray[np.float64]:
    """The probability of yes for every test participant of a yes-or-no `probe` that was fitted on `train`.

    The curve is fitted to what ridges of the probe's penalty, each without a fifth of the training participants,
    predict for that fifth; the fifths have the same share of yes. Empty where nothing was predicted.
    """
    alpha = probe.result.ridge_alpha
    if alpha is None:
        return probe.predicted
    known = np.isfinite(train.targets[probe.result.target])
    x, y = train.matrix[known], np.asarray(train.targets[probe.result.target], np.float64)[known]
    slope, offset = fit_logistic(held_out_predictions(x, y, stratified_folds(y), alpha), y == 1)
    return np.asarray(expit(slope * probe.predicted + offset), np.float64)


def stratified_folds(y: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """The fold of each participant `[participants]`; all folds have the same share of yes (1) and no (0)."""
    folds = np.empty(len(y), np.intp)
    for answer in (0, 1):
        rows = np.flatnonzero(y == answer)
        folds[rows] = np.arange(len(rows)) % FOLDS
    return folds


def fit_logistic(scores: npt.NDArray[np.float64], yes: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and offset of the most likely curve, whose value at a score is `expit(slope * score + offset)`.

    Platt's targets keep it from certainty on few people.
    """
    center, scale = float(scores.mean()), float(scores.std()) or 1.0
    standardised = (scores - center) / scale
    positives, negatives = int(yes.sum()), int((~yes).sum())
    targets = np.where(yes, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss(parameters: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        logits = parameters[0] * standardised + parameters[1]
        residuals = expit(logits) - targets
        value = float((np.logaddexp(0, logits) - targets * logits).mean())
        return value, np.array([(residuals * standardised).mean(), residuals.mean()])

    start = np.array([MIN_SLOPE, np.log((positives + 1) / (negatives + 1))])
    fitted = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(MIN_SLOPE, None), (None, None)])
    slope, intercept = (float(value) for value in fitted.x)
    return slope / scale, intercept - slope * center / scale
