"""Fitting readouts to the promoted encoders' embeddings, and predicting every segment and participant with them.

Readouts stay as they are while new batches arrive, so that numbers that were read once do not change: they are fitted
again for another checkpoint, when half as many labelled training participants again have come, or when a batch that
they were fitted on has changed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import duckdb
import numpy as np

from accelkd.evaluation.probes import LabelledEmbeddings
from accelkd.evaluation.readouts import Readouts, can_fit, fit_readouts, read_readouts, write_readouts
from accelkd.home.files import DamagedFileError
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS
from accelkd.registry.history import refuse_unpromoted
from accelkd.warehouse.embeddings import loaded_models
from accelkd.warehouse.predictions import (
    embedding_versions,
    forget_readouts,
    load_readouts,
    update_predictions,
)
from accelkd.warehouse.read_embeddings import people_of, read_embeddings
from accelkd.warehouse.staging import staging

GROWTH = 1.5  # of the labelled training participants, from which on readouts are fitted again

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FittedReadouts:
    """The readouts of one encoder; none where nothing could be fitted."""

    encoder: str
    readouts: Readouts | None
    status: str  # fitted, kept, or why there are none


@dataclass(frozen=True)
class PredictedBatches:
    """What predicting one encoder's embeddings did."""

    encoder: str
    readouts: Readouts
    batches: tuple[str, ...]  # that were predicted now; all others were current
    embeddings: Mapping[str, str]  # versions of what all rows are of, by batch
    rows: int
    not_typical: int  # segments unlike those of training


def refresh_readouts(home: Home) -> list[FittedReadouts]:
    """Fit the readouts of every encoder that has embeddings, or keep those that it has; load them.

    What cannot be fitted, with too few labels, keeps what the checkpoint brought from elsewhere, or has the reason.
    Raises FileNotFoundError before an encoder is promoted.
    """
    refuse_unpromoted(home)
    refreshed = []
    for spec in ENCODERS:
        with staging(home) as connection:
            model_id = loaded_models(connection).get(spec.name)
            if model_id is None:
                forget_readouts(connection, spec.name)
                refreshed.append(FittedReadouts(spec.name, None, "nothing is embedded"))
                continue
            fitted = _refreshed(home, connection, spec.name, model_id)
            if fitted.readouts is None:
                forget_readouts(connection, spec.name)
            else:
                load_readouts(home, connection, fitted.readouts)
        refreshed.append(fitted)
    return refreshed


def predict_all(home: Home) -> list[PredictedBatches]:
    """Bring the table `predictions` up to date with embeddings and readouts; only what has changed is computed.

    Raises FileNotFoundError before an encoder is promoted, DamagedFileError where readouts are damaged:
    `refresh_readouts` fits them again.
    """
    refuse_unpromoted(home)
    predicted = []
    for spec in ENCODERS:
        with staging(home) as connection:
            model_id = loaded_models(connection).get(spec.name)
            known = connection.execute("SELECT 1 FROM readouts WHERE encoder = ?", [spec.name]).fetchall()
            if model_id is None or not known:
                continue
            readouts = read_readouts(home.checkpoint(spec.name, model_id))
            batches = update_predictions(home, connection, readouts)
            embeddings = embedding_versions(connection, spec.name, model_id)
            rows, not_typical = connection.execute(
                "SELECT count(*), count(DISTINCT segment_id) FILTER (NOT typical) FROM predictions WHERE encoder = ?",
                [spec.name],
            ).fetchall()[0]
        predicted.append(PredictedBatches(spec.name, readouts, tuple(batches), embeddings, rows, not_typical))
    return predicted


def _refreshed(home: Home, connection: duckdb.DuckDBPyConnection, encoder: str, model_id: str) -> FittedReadouts:
    folder = home.checkpoint(encoder, model_id)
    try:
        existing = read_readouts(folder)
    except FileNotFoundError:
        existing = None
    except DamagedFileError as error:
        logger.warning("readouts are fitted again: %s", error)
        existing = None
    versions = embedding_versions(connection, encoder, model_id)
    segments, people = _training(connection, encoder)
    if existing is not None and not _is_outdated(existing, versions, segments, people):
        return FittedReadouts(encoder, existing, "kept")
    try:
        fitted = fit_readouts(encoder, model_id, segments, people, versions)
    except ValueError as reason:
        return FittedReadouts(encoder, None, str(reason))
    write_readouts(fitted, folder)
    return FittedReadouts(encoder, fitted, "fitted")


def _training(connection: duckdb.DuckDBPyConnection, encoder: str) -> tuple[LabelledEmbeddings, LabelledEmbeddings]:
    """Segments and participants of the training side, with their labels; without any, empty."""
    data = read_embeddings(connection, encoder, test_only=False)
    train = data.take(np.flatnonzero(~data.in_test))
    return train.labelled(), people_of(connection, train)


def _is_outdated(
    readouts: Readouts, versions: dict[str, str], segments: LabelledEmbeddings, people: LabelledEmbeddings
) -> bool:
    """Whether a batch of theirs has changed or gone, a target can be fitted now, or has many more participants.

    Of readouts that were fitted elsewhere no batch is here.
    """
    own = readouts.batches.keys() & versions.keys()
    if own and any(versions.get(batch_id) != version for batch_id, version in readouts.batches.items()):
        return True
    return any(
        _labelled(side, target) >= GROWTH * readouts.of[target].participants
        if target in readouts.of
        else can_fit(side, target)
        for side in (segments, people)
        for target in side.targets
    )


def _labelled(side: LabelledEmbeddings, target: str) -> int:
    return len(np.unique(side.participants[np.isfinite(side.targets[target])]))
