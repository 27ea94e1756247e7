"""A home to read from: its warehouse, its segments, its participants, its encoders."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from accelkd.cohort.loaded import usable_batches
from accelkd.home.layout import Home
from accelkd.segments.segment import verify_segments
from accelkd.segments.store import SegmentStore

if TYPE_CHECKING:
    import duckdb

    from accelkd.api.encoders import Encoder


@dataclass(frozen=True)
class OpenHome:
    """What can be read of a home; nothing of it writes. `root` is its folder."""

    root: Path

    @property
    def batches(self) -> tuple[str, ...]:
        """Ids of the arrival batches that the warehouse has loaded, sorted, without those that a correction superseded.

        In a home that never had a warehouse: of all that have segments.
        """
        home = Home(self.root)
        return tuple(batch_id for batch_id in usable_batches(home) if home.segments(batch_id).exists())

    def segments(self, batch_id: str | None = None) -> SegmentStore:
        """Segments of one batch, or of all `batches`: `metadata`, an Arrow table, and `signals(modality, rows)`.

        Signals, `[rows, channels, 3840]` float16, stay on disk until they are asked for. The files are hashed first:
        about a second for each GB. Raises FileNotFoundError for a batch without segments, DamagedFileError (a
        ValueError) for a file that is not as it was written, ValueError where devices of the batches differ in their
        number of PPG channels.
        """
        batches = self.batches
        if batch_id is not None and batch_id not in batches:
            raise FileNotFoundError(
                f"no segments of a batch {batch_id!r} in {self.root}; there are {', '.join(batches) or 'none'}"
            )
        home, chosen = Home(self.root), batches if batch_id is None else [batch_id]
        for name in chosen:
            verify_segments(home, name)
        return SegmentStore([home.segments(name) for name in chosen])

    def warehouse(self) -> duckdb.DuckDBPyConnection:
        """A read-only connection to the published warehouse (docs/analysts.md has queries). Close it, or use `with`.

        It keeps what it saw when it was opened; the pipeline goes on publishing meanwhile. Raises ImportError where
        DuckDB is not installed, FileNotFoundError before anything is published.
        """
        try:
            import duckdb
        except ImportError:
            raise ImportError("the warehouse needs DuckDB: pip install 'accelkd[platform]'") from None
        published = Home(self.root).published
        if not published.exists():
            raise FileNotFoundError(f"nothing is published in {self.root}: {published} is not there")
        return duckdb.connect(str(published), read_only=True)

    def participants(self) -> pa.Table:
        """One row for each participant, in the order of their ids: the last known of each fact, and the split.

        The warehouse's view `participants`: `participant_id`, `sex`, `age_years`, `height_m`, `bmi_kg_m2` and more.
        Raises what `warehouse` raises.
        """
        with self.warehouse() as connection:
            return connection.sql("FROM participants ORDER BY participant_id").to_arrow_table()

    def encoder(self, name: str) -> Encoder:
        """The promoted encoder of that name, as `accelkd.load_encoder(name, home=root)` loads it."""
        from accelkd.api.encoders import load_encoder  # imports torch

        return load_encoder(name, home=self.root)


def open_home(path: str | os.PathLike[str] | None = None) -> OpenHome:
    """Open a home to read from it: the folder `path`.

    Without a path it is the folder of $ACCELKD_HOME, else `.accelkd` in the current folder. Raises FileNotFoundError
    where there is none.

        >>> import accelkd
        >>> home = accelkd.open_home()
        >>> home.batches
        ('sim-a',)
        >>> with home.warehouse() as warehouse:
        ...     warehouse.sql("SELECT count(*) FROM segments").fetchall()
        [(6,)]
        >>> store = home.segments("sim-a")
        >>> store.metadata.column("offset_s").to_pylist()
        [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
        >>> store.signals("accel").shape
        (6, 3, 3840)
        >>> home.participants().column("participant_id").to_pylist()
        ['sim3-000000', 'sim3-000001']
        >>> home.encoder("accel_student").name
        'accel_student'
    """
    root = Home.from_environment().root if path is None else Path(path).resolve()
    if not any((root / name).is_dir() for name in ("landing", "segments", "checkpoints", "warehouse")):
        raise FileNotFoundError(f"{root} holds no home: none of landing, segments, checkpoints, warehouse is in it")
    return OpenHome(root)
