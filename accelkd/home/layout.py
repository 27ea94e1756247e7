"""The layout of a home: named locations below one root."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelkd.home.identifiers import check_identifier


@dataclass(frozen=True)
class Home:
    """The folders and files of one home (docs/architecture.md draws them).

    With a `store` the truth lies there, and the folder is this machine's cache of it (accelkd.home.units).
    """

    root: Path
    run_id: str | None = None  # the orchestrator's run that uses it, stored in what that run records
    store: str | None = field(default=None, repr=False)  # address (accelkd.home.store)
    # PostgreSQL that keeps the locks (accelkd.home.locks); its address may hold a password
    locks: str | None = field(default=None, repr=False)
    # Whether the orchestrator still counts the run as running; asked before it changes the store
    is_alive: Callable[[], bool] | None = field(default=None, repr=False, compare=False)
    head: bool = False  # with a store: whether this machine has the warehouse, and all that workers do not make

    def __getstate__(self) -> dict[str, Any]:
        # What asks the orchestrator stays in the process that can; claims fence the others all the same
        return {**self.__dict__, "is_alive": None}

    @classmethod
    def from_environment(cls) -> Home:
        """The home named by ACCELKD_HOME, else `.accelkd` in the current folder.

        ACCELKD_STORE and ACCELKD_LOCKS name the store and the PostgreSQL of a home on several machines; on one of them
        ACCELKD_HEAD is 1.
        """
        root = Path(os.environ.get("ACCELKD_HOME", ".accelkd")).resolve()
        store, locks = (os.environ.get(name) or None for name in ("ACCELKD_STORE", "ACCELKD_LOCKS"))
        return cls(root, store=store, locks=locks, head=os.environ.get("ACCELKD_HEAD") == "1")

    @property
    def is_worker(self) -> bool:
        """Whether this machine makes files for the home of another one, the head."""
        return self.store is not None and not self.head

    @property
    def landing(self) -> Path:
        """Arrival batches, one folder each."""
        return self.root / "landing"

    def relative(self, path: Path) -> str:
        """A path below the root as it is stored in records: relative, with slashes."""
        return path.relative_to(self.root).as_posix()

    def batch(self, batch_id: str) -> Path:
        """Folder of one arrival batch. Raises ValueError, as all methods here, for what is not an identifier."""
        return self.landing / check_identifier("batch_id", batch_id)

    def segments(self, batch_id: str) -> Path:
        """Segment store of one batch: uncompressed Arrow IPC."""
        return self.root / "segments" / f"{check_identifier('batch_id', batch_id)}.arrow"

    def quarantine(self, batch_id: str) -> Path:
        """Windows, recordings and files of one batch that did not become segments, with their reasons."""
        return self.root / "quarantine" / f"{check_identifier('batch_id', batch_id)}.parquet"

    @property
    def split(self) -> Path:
        """The ledger of the participants in training and in test."""
        return self.root / "cohort" / "split.parquet"

    def encoder(self, encoder: str) -> Path:
        """All checkpoints of one encoder, and `candidate.json`, which names the one trained last."""
        return self.root / "checkpoints" / check_identifier("encoder", encoder)

    def checkpoint(self, encoder: str, model_id: str) -> Path:
        """Folder of one checkpoint."""
        return self.encoder(encoder) / check_identifier("model_id", model_id)

    def weights(self, encoder: str, model_id: str) -> Path:
        """Weights of a checkpoint."""
        return self.checkpoint(encoder, model_id) / "model.safetensors"

    def trained_on(self, encoder: str, model_id: str) -> Path:
        """Participants whose segments a checkpoint was trained on; not in its folder, which may be shared."""
        folder = self.root / "cohort" / "trained_on" / check_identifier("encoder", encoder)
        return folder / f"{check_identifier('model_id', model_id)}.parquet"

    def embeddings(self, encoder: str, model_id: str, batch_id: str) -> Path:
        """Embeddings of one batch by one checkpoint."""
        folder = (
            self.root / "embeddings" / check_identifier("encoder", encoder) / check_identifier("model_id", model_id)
        )
        return folder / f"{check_identifier('batch_id', batch_id)}.parquet"

    def embedded(self, batch_id: str) -> list[Path]:
        """The files of embeddings of one batch that there are, by whichever checkpoint, sorted."""
        return sorted((self.root / "embeddings").glob(f"*/*/{check_identifier('batch_id', batch_id)}.parquet"))

    @property
    def loaded(self) -> Path:
        """Names of the batches that the warehouse has loaded (accelkd.cohort.loaded): training needs no DuckDB."""
        return self.root / "cohort" / "loaded.json"

    @property
    def staging(self) -> Path:
        """The DuckDB file that the pipeline writes, one writer at a time."""
        return self.root / "warehouse" / "staging.duckdb"

    @property
    def published(self) -> Path:
        """The DuckDB file that analysts open read-only; only ever replaced as a whole."""
        return self.root / "warehouse" / "accelkd.duckdb"

    @property
    def objects(self) -> Path:
        """With a store: files that the warehouse reads, as they lie in the store, by path and hash; never changed."""
        return self.root / "warehouse" / "objects"

    @property
    def shared(self) -> Path:
        """With a store: the published file as it lies there; its views read files of the head."""
        return self.root / "warehouse" / "shared.duckdb"

    @property
    def reports(self) -> Path:
        """Folder of the report, its figures and example segments."""
        return self.root / "reports"

    def examples(self, batch_id: str) -> Path:
        """Picture of a few segments of one batch: it shows participants' signals."""
        return self.reports / "examples" / f"{check_identifier('batch_id', batch_id)}.png"
