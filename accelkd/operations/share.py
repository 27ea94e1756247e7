"""A home on several machines: what its files are in the store, and how they get there and back.

One machine is the head: it has the whole home, the staging file, and Dagster's daemon. The others are workers: their
home is a cache, into which a step brings what it reads. Workers make what needs the files of one batch alone: the
verdict on the arrival batch, its segments, its embeddings. The head makes everything else. Without a store nothing here
does anything.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from uuid import uuid4

from accelkd.home.files import DamagedFileError, atomic_path, link_or_copy, sweep, write_json
from accelkd.home.layout import Home
from accelkd.home.locks import file_lock
from accelkd.home.units import (
    StoredFile,
    Unit,
    cached_files,
    claim,
    commit,
    delete_unit,
    forget_unit,
    prune_cache,
    pull,
    replacing,
    stored_files,
    stored_units,
    sweep_objects,
)
from accelkd.home.version import UnusableHomeError
from accelkd.models.specs import ENCODERS
from accelkd.recordings.arrivals import arrived_batches, refuse, refused
from accelkd.registry.history import promoted_models
from accelkd.warehouse.embedding_relations import KEPT_S, make_views, pinned_files, remove_unused

_REGISTER, _KEY, _PRUNED = "landing/.withdrawn.json", "landing/.withdrawn.key", ".withdrawn.pruned"
# What every step reads, and the head alone writes
STATE = Unit(
    "state",
    (
        *("layout.json", "settings.json", "superseded.json", "superseded.copy.json"),
        *(_REGISTER, _KEY),
        *("cohort/*", "cohort/trained_on/*/*", "checkpoints/*", "checkpoints/*/*", "checkpoints/*/*/*"),
    ),
    may_be_empty=True,  # of a home in which nothing has arrived
)
PUBLISHED = Unit("published", ("warehouse/shared.duckdb", "reports/*"))  # and the files that its views read
_HEAD = Unit("head", ("head.json",))
logger = logging.getLogger(__name__)


def landing_unit(batch_id: str) -> Unit:
    """An arrival batch as it was delivered."""
    return Unit(f"landing/{batch_id}", (f"landing/{batch_id}/**/*",))


def verdict_unit(batch_id: str) -> Unit:
    """The refusal of an arrival batch; no file where it can be used."""
    return Unit(f"verdicts/{batch_id}", (f"refused/{batch_id}.json",), may_be_empty=True)


def segments_unit(batch_id: str) -> Unit:
    """The segments of a batch, what did not become one, and the picture of a few."""
    patterns = (f"segments/{batch_id}.arrow*", f"quarantine/{batch_id}.parquet*", f"reports/examples/{batch_id}.png")
    return Unit(f"segments/{batch_id}", patterns)


def embeddings_unit(encoder: str, model_id: str, batch_id: str) -> Unit:
    """The embeddings of a batch by one checkpoint."""
    path = f"embeddings/{encoder}/{model_id}/{batch_id}"
    return Unit(path, (f"{path}.parquet*",))


def trained_unit(encoder: str, model_id: str) -> Unit:
    """A checkpoint that workers have trained and the head has not collected yet."""
    return Unit(f"trained/{encoder}/{model_id}", (f"checkpoints/{encoder}/{model_id}/*",))


@contextmanager
def shared_step(home: Home, makes: Unit, *, reads: Sequence[Unit]) -> Iterator[None]:
    """Bring what a step reads, claim what it makes, and commit that to the store when the block ends well.

    On the head arrival batches, and what it makes, are as they are there. Raises as accelkd.home.units. Without a store
    it does nothing.
    """
    if home.store is None:
        yield
    elif home.is_worker:
        pull(home, *reads)
        with replacing(home, makes):
            yield
    else:
        check_head(home)  # a worker that takes itself for the head has no landed batches, and would refuse them
        pull(home, *(unit for unit in reads if not unit.name.startswith("landing/")))
        claimed = claim(home, makes)
        yield
        commit(claimed)


def refresh_worker(home: Home) -> None:
    """Bring to a worker what every step reads; after a withdrawal, remove what it still has of the participant."""
    if not home.is_worker:
        return
    _pull_state(home)
    if not _has_pruned(home):
        content = (home.root / _REGISTER).read_bytes()
        sweep(home.root)  # what a killed run was just fetching
        prune_cache(home)
        with file_lock(home.shared.with_suffix(".lock")):
            if not home.shared.exists():  # the withdrawal has changed it, and nobody has pulled it since
                home.published.unlink(missing_ok=True)
            remove_unused(home, 0)
        (home.root / _PRUNED).write_bytes(content)  # last: a run that is killed before leaves the rest to the next one


def share_home(home: Home) -> None:
    """From the head to the store: what has arrived and changed there; and back, what was delivered to the store.

    Raises UnusableHomeError where another machine is the head.
    """
    if home.store is None:
        return
    check_head(home)
    stored = stored_units(home)
    here = set(arrived_batches(home))
    for name in stored:
        kind, _, batch_id = name.partition("/")
        if kind == "landing" and batch_id not in here and not home.batch(batch_id).exists():
            pull(home, landing_unit(batch_id))
    for unit in (STATE, *map(landing_unit, sorted(here))):
        _store_if_changed(home, unit, stored)


def bring_training_set(home: Home) -> None:
    """To a worker: what a training reads."""
    if home.is_worker:
        refresh_worker(home)
        pull(home, *(segments_unit(name.removeprefix("segments/")) for name in stored_units(home, "segments")))


def hand_in_trained(home: Home, encoder: str, model_id: str) -> None:
    """From a worker: a checkpoint that it has trained, for the head to collect."""
    if home.is_worker:
        commit(claim(home, trained_unit(encoder, model_id)))


def collect_trained(home: Home, encoder: str) -> None:
    """To the head: the checkpoints of an encoder that workers have trained; from then on they belong to its state."""
    if home.store is not None:
        for name in stored_units(home, f"trained/{encoder}"):
            unit = trained_unit(*name.split("/")[1:])
            pull(home, unit)
            share_home(home)
            forget_unit(home, unit)


def take_back(home: Home, batch_id: str) -> None:
    """To the head: what workers have made of a batch."""
    pull(home, *_made_by_workers(home, batch_id))
    if (refusal := refused(home).get(batch_id)) is not None:  # which knows the times of the worker's files
        refuse(home, batch_id, refusal.reasons, refusal.also_in, waits_for=refusal.waits_for)


def take_back_missing(home: Home, batch_ids: Iterable[str]) -> None:
    """To the head: what workers have made of batches, and a head that was killed has not taken back."""
    stored = stored_units(home)
    for batch_id in batch_ids:
        verdict, *made = _made_by_workers(home, batch_id)
        missing = verdict.name in stored and not cached_files(home, verdict)  # the head's own has other times
        if missing or any(unit.name in stored and cached_files(home, unit) != stored[unit.name] for unit in made):
            take_back(home, batch_id)


def share_published(home: Home) -> None:
    """From the head to the store: what analysts read. One conditional PUT moves them all to it."""
    if home.store is not None:
        check_head(home)
        commit(claim(home, _published(home)))


def bring_published(home: Home) -> None:
    """To an analyst's machine: the published warehouse with the files that its views read, the reports, the encoders.

    The published file is replaced when all is there. Files that it reads no more stay for a day, for connections that
    are open; after a withdrawal they go at once.
    """
    if not home.is_worker:
        return
    _pull_state(home)
    with file_lock(home.shared.with_suffix(".lock")):
        pull(home, PUBLISHED)
        _open_shared(home)
        remove_unused(home, KEPT_S if _has_pruned(home) else 0)
    refresh_worker(home)


def bring_everything(home: Home) -> None:
    """To the head: all that the store has and it has not."""
    if home.store is not None:
        check_head(home)
        for unit in (_unit(home, name) for name in stored_units(home)):
            if not cached_files(home, unit):
                pull(home, unit)
        if not home.published.exists():
            _open_shared(home)


def share_everything(home: Home) -> None:
    """From the head to the store: every unit as it is here; then nothing else is left in the store.

    To be called under the exclusive lock. Raises RuntimeError if the store holds another object afterwards.
    """
    if home.store is None:
        return
    stored = stored_units(home)
    for unit in (_unit(home, name) for name in stored):
        if cached_files(home, unit):
            _store_if_changed(home, unit, stored)
        else:
            delete_unit(home, unit)
    share_home(home)
    swept = sweep_objects(home)
    logger.info("%d objects that nothing names were removed from the store", len(swept))


def check_head(home: Home) -> None:
    """Raise UnusableHomeError unless this machine is the head of its store; the first one becomes it."""
    if not home.head:
        raise UnusableHomeError(
            f"this machine is a worker of {home.store}: run it on the head, where ACCELKD_HEAD is 1"
        )
    stored, own = stored_files(home, _HEAD.name), cached_files(home, _HEAD)
    if not stored:
        write_json(home.root / "head.json", {"head": uuid4().hex})
        commit(claim(home, _HEAD))
    elif stored != own:
        raise UnusableHomeError(
            f"another machine is the head of {home.store}: stop it, then `accelkd take-over` makes this one the head"
        )


def take_over(home: Home) -> None:
    """Make this machine the head, in place of one that is gone: bring everything. The warehouse is to be rebuilt."""
    claimed = claim(home, _HEAD)
    write_json(home.root / "head.json", {"head": uuid4().hex})
    commit(claimed)
    bring_everything(home)
    _pull_state(home)


def _pull_state(home: Home) -> None:
    pull(home, STATE)
    key = home.root / _KEY
    if key.exists():
        key.chmod(0o600)


def _made_by_workers(home: Home, batch_id: str) -> list[Unit]:
    models = promoted_models(home)
    embedded = [embeddings_unit(spec.name, models[spec.name], batch_id) for spec in ENCODERS if spec.name in models]
    return [verdict_unit(batch_id), segments_unit(batch_id), *embedded]


def _unit(home: Home, name: str) -> Unit:
    """The unit of a name in the store."""
    kind, _, rest = name.partition("/")
    if kind in ("embeddings", "trained"):
        return embeddings_unit(*rest.split("/")) if kind == "embeddings" else trained_unit(*rest.split("/"))
    of_batch = {"landing": landing_unit, "verdicts": verdict_unit, "segments": segments_unit}
    if kind in of_batch:
        return of_batch[kind](rest)
    return _published(home) if name == PUBLISHED.name else {unit.name: unit for unit in (STATE, _HEAD)}[name]


def _published(home: Home) -> Unit:
    """On the head, the published unit with the files that its views read. Raises DamagedFileError if one is missing."""
    if home.published.exists():
        with atomic_path(home.shared) as part:
            link_or_copy(home.published, part)
    pinned = sorted(pinned_files(home, home.shared))
    for path in pinned:
        if not path.exists():
            raise DamagedFileError(f"{path} is missing, which {home.published} reads: `accelkd rebuild-warehouse`")
    return replace(PUBLISHED, patterns=(*PUBLISHED.patterns, *map(home.relative, pinned)))


def _open_shared(home: Home) -> None:
    """Make the published file from the one that was brought: its views read the files of this machine."""
    if home.shared.exists():
        with atomic_path(home.published) as part:
            shutil.copyfile(home.shared, part)
            make_views(home, part)


def _has_pruned(home: Home) -> bool:
    """Whether this machine has removed what the withdrawals that it knows of have taken away."""
    register, pruned = home.root / _REGISTER, home.root / _PRUNED
    return not register.exists() or (pruned.exists() and pruned.read_bytes() == register.read_bytes())


def _store_if_changed(home: Home, unit: Unit, stored: Mapping[str, Mapping[str, StoredFile]]) -> None:
    if cached_files(home, unit) != stored.get(unit.name, {}):
        commit(claim(home, unit))
