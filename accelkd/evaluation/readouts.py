"""Readouts: the probes' fits, kept to predict: a value and its 90 % interval from one embedding.

A readout is a ridge regression on standardised embeddings, and a second one of the logarithm of its error, which widens
the interval where the embedding says little. Both predict participants that they were not fitted on, fold by fold; the
quantiles of those errors, in units of the expected one, are the interval's bounds (split conformal prediction with
normalised scores: Papadopoulos et al., ICANN 2008; over folds of participants: Barber et al., Ann Stat 2021, 49:486).
Yes-or-no targets have a calibrated probability instead of an interval (accelkd.evaluation.calibration).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy.special import expit

from accelkd.evaluation.blas import one_blas_thread
from accelkd.evaluation.calibration import fit_logistic, stratified_folds
from accelkd.evaluation.evidence import MIN_TRAIN, auc_interval, error_interval
from accelkd.evaluation.matrix import Floats, Matrix, Rows, chunks, mean_and_scale
from accelkd.evaluation.participant_probes import CONTINUOUS, mean_embeddings
from accelkd.evaluation.probes import (
    LabelledEmbeddings,
    People,
    fit_ridges,
    grouped_folds,
    held_out_predictions,
    mean_absolute_error,
)
from accelkd.evaluation.significance import auc
from accelkd.home.files import DamagedFileError, atomic_path, verify_checksum, write_checksum
from accelkd.recordings.labels import LABELS

READOUTS = "readouts.safetensors"  # beside the weights of a checkpoint
COVERAGE = 0.9  # of the intervals
TYPICAL = 0.99  # share of the embeddings that a readout was fitted on and that count as typical
MIN_SPREAD = 1e-3  # of the error's standard deviation: keeps its logarithm finite
_SMALLEST_VARIANCE = 1e-3  # of the mean over directions: below it a direction holds noise
_ARRAYS = ("mean", "scale", "weights", "spread_weights")

Level = Literal["segment", "participant"]


@dataclass(frozen=True, eq=False)
class Readout:
    """One target's fit. `value = intercept + ((x - mean) / scale) @ weights`, within `label_range`."""

    target: str
    level: Level  # of the embeddings: of a segment, or the mean over a participant's
    unit: str | None  # None: yes (1) or no (0), whose value is a probability
    mean: Floats  # [width], as what follows
    scale: Floats
    weights: Floats
    intercept: float
    alpha: float  # the ridge's penalty, scikit-learn's
    label_range: tuple[float, float]  # of the labels it was fitted on; no value lies outside
    spread_weights: Floats  # [width]: of the logarithm of the expected error; zeros where there is no interval
    spread_intercept: float
    spread_range: tuple[float, float]  # of that logarithm over the training participants
    quantiles: tuple[float, float]  # of the errors, in units of the expected one: bounds of the interval
    slope: float  # of the logistic curve from a score to a probability, as the offset
    offset: float
    participants: int  # with a label, that it was fitted on
    samples: int
    held_out: float  # MAE over held-out folds, or area under the ROC curve
    constant: float  # MAE of the labels' median; 0.5
    reads: bool  # whether it predicts held-out people better than a constant does, by its 95 % interval over people


@dataclass(frozen=True, eq=False)
class Typical:
    """Which embeddings are like those of training: by their Mahalanobis distance."""

    mean: Floats  # [width]
    whitening: Floats  # [width, width]
    max_distance: float

    def contains(self, x: Floats) -> npt.NDArray[np.bool_]:
        """Whether each of the embeddings `[samples, width]` is within the distance."""
        return self.distances(x) <= self.max_distance

    def distances(self, x: Floats) -> npt.NDArray[np.float64]:
        """The distance of each of the embeddings."""
        distances: npt.NDArray[np.float64] = np.linalg.norm((x - self.mean) @ self.whitening, axis=1)
        return distances


@dataclass(frozen=True, eq=False)
class Readouts:
    """All fits on the embeddings of one checkpoint."""

    readout_id: str  # hash of the content
    encoder: str
    model_id: str
    of: Mapping[str, Readout]  # by target
    typical: Typical
    batches: Mapping[str, str]  # versions of the batches that they were fitted on

    def at(self, level: Level) -> list[Readout]:
        return [readout for readout in self.of.values() if readout.level == level]


@dataclass(frozen=True, eq=False)
class Predicted:
    """Values `[samples]` with the bounds of their 90 % intervals; NaN bounds for a probability."""

    value: npt.NDArray[np.float64]
    low: npt.NDArray[np.float64]
    high: npt.NDArray[np.float64]


def predict(readout: Readout, x: Floats) -> Predicted:
    """What a readout says of embeddings `[samples, width]`."""
    standardised = (np.asarray(x, np.float64) - readout.mean) / readout.scale
    value = readout.intercept + standardised @ readout.weights
    if readout.unit is None:
        nothing = np.full(len(value), np.nan)
        return Predicted(np.asarray(expit(readout.slope * value + readout.offset)), nothing, nothing)
    value = np.clip(value, *readout.label_range)
    spread = np.exp(np.clip(readout.spread_intercept + standardised @ readout.spread_weights, *readout.spread_range))
    low, high = (value + quantile * spread for quantile in readout.quantiles)
    # No quantity that is read is negative, and the value is always inside
    return Predicted(value, np.minimum(value, np.maximum(low, 0.0)), np.maximum(value, high))


@dataclass(frozen=True, eq=False)
class ReadParticipants:
    """What is read from the mean embedding of each participant; arrays in the order of the names, which is sorted."""

    names: People
    segments: npt.NDArray[np.int64]  # that the mean is over
    typical: npt.NDArray[np.bool_]  # whether at least half of these are
    of: Mapping[str, Predicted]  # by target


def read_participants(readouts: Readouts, matrix: Matrix, participants: People) -> ReadParticipants:
    """Predict the participants of segments from their embeddings `[segments, width]`."""
    names, means = mean_embeddings(matrix, participants)
    code = np.searchsorted(names, participants)
    counts = np.bincount(code, minlength=len(names))
    is_typical = np.empty(len(matrix), np.bool_)
    for which, part in chunks(matrix):
        is_typical[which] = readouts.typical.contains(part)
    typical = np.bincount(code, is_typical, minlength=len(names)) >= counts / 2
    of = {readout.target: predict(readout, means) for readout in readouts.at("participant")}
    return ReadParticipants(names, counts.astype(np.int64), typical, of)


@one_blas_thread()
def fit_readouts(
    encoder: str,
    model_id: str,
    segments: LabelledEmbeddings,
    people: LabelledEmbeddings,
    batches: Mapping[str, str],
) -> Readouts:
    """Fit every target that enough training participants have: of segments, and of participants' mean embeddings.

    A number needs the labels of 10 participants, yes or no 10 of either. Raises ValueError without any such target.
    """
    fitted = [_fit(target, "segment", segments) for target in segments.targets]
    fitted += [_fit(target, "participant", people) for target in people.targets]
    readouts = [readout for readout in fitted if readout is not None]
    if not readouts:
        raise ValueError(f"no target has the labels of {MIN_TRAIN} training participants")
    return _identified(encoder, model_id, readouts, _typical(segments.matrix), batches)


def can_fit(data: LabelledEmbeddings, target: str) -> bool:
    """Whether enough training participants have a label: 10 of a number, or 10 of yes and of no."""
    y = data.targets[target]
    if unit_of(target) is not None:
        return len(np.unique(data.participants[np.isfinite(y)])) >= MIN_TRAIN
    return min(int((y == answer).sum()) for answer in (0, 1)) >= MIN_TRAIN


def unit_of(target: str) -> str | None:
    """Unit of a target of segments or of participants; None of yes or no."""
    return LABELS[target].unit if target in LABELS else CONTINUOUS.get(target)


def write_readouts(readouts: Readouts, folder: Path) -> None:
    """Write them into the folder of their checkpoint, atomically, with a checksum."""
    with atomic_path(folder / READOUTS) as part:
        part.write_bytes(_encoded(readouts))
    write_checksum(folder / READOUTS)


def read_readouts(folder: Path) -> Readouts:
    """The readouts of a checkpoint. Raises FileNotFoundError where it has none, DamagedFileError for a bad file."""
    path = folder / READOUTS
    if not path.exists():
        raise FileNotFoundError(f"{folder} has no {READOUTS}: its readouts have not been fitted")
    verify_checksum(path)
    try:
        with safe_open(path, framework="numpy") as file:
            content = json.loads(file.metadata()["readouts"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        readouts = [_decoded(entry, arrays) for entry in content["of"]]
        typical = Typical(arrays["typical.mean"], arrays["typical.whitening"], content["max_distance"])
        return _identified(content["encoder"], content["model_id"], readouts, typical, content["batches"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{path} is not a file of readouts: {error!r}") from None


def _fit(target: str, level: Level, data: LabelledEmbeddings) -> Readout | None:
    """One target's readout; None where too few participants have it."""
    if not can_fit(data, target):
        return None
    x, rows = data.matrix, np.flatnonzero(np.isfinite(data.targets[target]))
    y, people = np.asarray(data.targets[target], np.float64)[rows], data.participants[rows]
    unit = unit_of(target)
    ridges = fit_ridges(x, y[:, None], people, rows)
    mean, scale = mean_and_scale(x, rows)
    folds = stratified_folds(y) if unit is None else grouped_folds(people)
    alpha = float(ridges.alphas[0])
    held_out = held_out_predictions(x, y, folds, alpha, rows)
    fitted: dict[str, Any] = {
        "target": target,
        "level": level,
        "unit": unit,
        "mean": mean,
        "scale": scale,
        "weights": ridges.weights[:, 0] * scale,
        "intercept": float(ridges.intercepts[0] + mean @ ridges.weights[:, 0]),
        "alpha": alpha,
        "label_range": (float(y.min()), float(y.max())),
        "participants": len(np.unique(people)),
        "samples": len(y),
    }
    if unit is None:
        slope, offset = fit_logistic(held_out, y == 1)
        area = auc(y == 1, held_out)
        return Readout(
            **fitted,
            **_no_spread(len(mean)),
            slope=slope,
            offset=offset,
            held_out=area,
            constant=0.5,
            reads=auc_interval(area, int((y == 1).sum()), int((y == 0).sum()))[0] > 0.5,
        )
    held_out = np.clip(held_out, *fitted["label_range"])
    constant = mean_absolute_error(y, np.median(y))
    bounds = error_interval(np.abs(y - held_out), people)
    return Readout(
        **fitted,
        **_spread(x, rows, y - held_out, people, folds, (mean, scale)),
        slope=0.0,
        offset=0.0,
        held_out=mean_absolute_error(y, held_out),
        constant=constant,
        reads=bounds is not None and bounds[1] < constant,
    )


def _spread(
    x: Matrix,
    rows: Rows,
    errors: npt.NDArray[np.float64],
    people: People,
    folds: npt.NDArray[np.intp],
    standardised: tuple[Floats, Floats],
) -> dict[str, Any]:
    """The regression of the logarithm of the expected error, and the quantiles of what is left."""
    mean, scale = standardised
    smallest = MIN_SPREAD * max(float(errors.std()), MIN_SPREAD)
    logarithm = np.log(np.maximum(np.abs(errors), smallest))
    ridges = fit_ridges(x, logarithm[:, None], people, rows)
    expected = held_out_predictions(x, logarithm, folds, float(ridges.alphas[0]), rows)
    low, high = (float(bound) for bound in np.quantile(expected, (0.01, 0.99)))
    scores = np.sort(errors / np.exp(np.clip(expected, low, high)))
    return {
        "spread_weights": ridges.weights[:, 0] * scale,
        "spread_intercept": float(ridges.intercepts[0] + mean @ ridges.weights[:, 0]),
        "spread_range": (low, high),
        "quantiles": _conformal(scores),
    }


def _conformal(scores: npt.NDArray[np.float64]) -> tuple[float, float]:
    """The scores between which COVERAGE of new ones lie, as many beyond either: of n sorted ones, as of n + 1."""
    tail = (1 - COVERAGE) / 2
    beyond = int(np.floor(tail * (len(scores) + 1))) - 1
    return float(scores[max(beyond, 0)]), float(scores[min(len(scores) - 1 - beyond, len(scores) - 1)])


def _no_spread(width: int) -> dict[str, Any]:
    return {
        "spread_weights": np.zeros(width),
        "spread_intercept": 0.0,
        "spread_range": (0.0, 0.0),
        "quantiles": (0.0, 0.0),
    }


def _typical(matrix: Matrix) -> Typical:
    """Where embeddings `[segments, width]` lie; nearly all of them are typical."""
    mean, _ = mean_and_scale(matrix)
    squares = np.zeros((matrix.shape[1], matrix.shape[1]))
    for _, part in chunks(matrix):
        squares += (part - mean).T @ (part - mean)
    values, vectors = np.linalg.eigh(squares / max(len(matrix), 1))
    floor = _SMALLEST_VARIANCE * max(float(values.mean()), np.finfo(np.float64).tiny)
    typical = Typical(mean, vectors / np.sqrt(np.maximum(values, floor)), np.inf)
    distances = np.empty(len(matrix))
    for which, part in chunks(matrix):
        distances[which] = typical.distances(part)
    return Typical(mean, typical.whitening, float(np.quantile(distances, TYPICAL)))


def _identified(
    encoder: str, model_id: str, readouts: Sequence[Readout], typical: Typical, batches: Mapping[str, str]
) -> Readouts:
    whole = Readouts("", encoder, model_id, {readout.target: readout for readout in readouts}, typical, dict(batches))
    digest = hashlib.sha256(_encoded(whole)).hexdigest()[:16]
    return Readouts(digest, encoder, model_id, whole.of, typical, whole.batches)


def _decoded(entry: Mapping[str, Any], arrays: Mapping[str, Floats]) -> Readout:
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()}
    fields |= {name: arrays[f"{entry['target']}.{name}"] for name in _ARRAYS}
    return Readout(**fields)


def _encoded(readouts: Readouts) -> bytes:
    """The file: equal readouts give equal bytes."""
    entries = [
        {name: value for name, value in asdict(readout).items() if name not in _ARRAYS}
        for readout in readouts.of.values()
    ]
    content = {
        "encoder": readouts.encoder,
        "model_id": readouts.model_id,
        "batches": dict(readouts.batches),
        "max_distance": readouts.typical.max_distance,
        "of": entries,
    }
    arrays = {
        f"{target}.{name}": np.ascontiguousarray(getattr(readout, name), np.float64)
        for target, readout in readouts.of.items()
        for name in _ARRAYS
    }
    arrays["typical.mean"] = np.ascontiguousarray(readouts.typical.mean, np.float64)
    arrays["typical.whitening"] = np.ascontiguousarray(readouts.typical.whitening, np.float64)
    return save(arrays, metadata={"readouts": json.dumps(content, sort_keys=True)})
