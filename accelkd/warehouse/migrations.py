"""What became of tables and columns that an older warehouse has under another name, of another type, or not yet.

New tables and new columns that may be empty need nothing here: they are added when a file is opened. Everything else is
declared as one more `Migration` at the end of `MIGRATIONS`; none is ever changed, moved or removed, because a file
keeps the number of those that it has been through.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Migration:
    """One change to one table.

    `select` gives the new rows from the old ones, which it reads `FROM old`:

        SELECT * RENAME (bpm AS hr_bpm) FROM old
        SELECT * REPLACE (1000 * lag AS lag) FROM old
        SELECT *, 'wrist' AS site FROM old         a new column that is never null
        SELECT * EXCLUDE (note) FROM old           a column whose content is given up
    """

    table: str  # as it is named today, with its schema where it has one
    why: str
    select: str | None = None
    renamed_from: str | None = None  # without its schema


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        "superseded_batches",
        "superseded is the word for a batch that a correction replaced",
        renamed_from="retired_batches",
    ),
    Migration(
        "segments",
        "a recording without acceleration has no motion, so it may be null",
        "FROM old",
    ),
)


def new_rows(table: str, done: int, migrations: tuple[Migration, ...]) -> str:
    """The query that takes the rows of `old` through the migrations of a table which its file has not been through."""
    query = "FROM old"
    for migration in migrations[done:]:
        if migration.table == table and migration.select:
            query = f"WITH old AS ({query}) {migration.select}"
    return query
