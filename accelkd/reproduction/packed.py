"""A reproduction packed into a few small files, and several of them merged into one report."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from accelkd.home.files import atomic_path, write_json
from accelkd.reproduction.experiments import SUPERVISED
from accelkd.reproduction.records import COHORT, print_progress
from accelkd.reproduction.report import write_reproduction
from accelkd.reproduction.results import SCHEMAS, UNTRAINED, read_table

RESULTS, PEOPLE = "results.zip", "people.zip"  # the second holds values of single participants
MAX_FILE_BYTES = 15 * 2**20  # of each file: what can be copied back from a borrowed machine, with some margin
MERGE_COMMAND = "accelkd reproduce --merge DIR... --out DIR"
MIN_LENGTH = 0.5  # of an experiment's longest training: a shorter one does not count as another seed of it

_OF_PEOPLE = ("errors", "scores")
_TOGETHER = ("preset", "profile", "data_version", "split_version", "code_version", "evaluation_version")

_Run = tuple[str, int]  # experiment and seed
_NO_SEED = -1  # of rows without a seed


def pack(folder: Path, out: Path) -> None:
    """Write the result files of `folder` to two archives in `out`; values of participants as float32.

    If those take more than MAX_FILE_BYTES, the last runs' are left out and reported.
    """
    files = {COHORT: (folder / COHORT).read_bytes()}
    for name, schema in SCHEMAS.items():
        if name not in _OF_PEOPLE:
            files[f"{name}.parquet"] = _parquet(read_table(folder / f"{name}.parquet", schema))
    _archive(out / RESULTS, files)
    _archive(
        out / PEOPLE, _people({name: read_table(folder / f"{name}.parquet", SCHEMAS[name]) for name in _OF_PEOPLE})
    )


def read_facts(folder: Path) -> dict[str, Any]:
    """The facts of a folder of results (`cohort.json`). Raises ValueError if it has none."""
    facts: dict[str, Any] = json.loads(_read(folder, COHORT))
    return facts


@dataclass(frozen=True)
class _Part:
    """One folder of results."""

    folder: Path
    facts: Mapping[str, Any]
    tables: Mapping[str, pa.Table]

    @property
    def group(self) -> tuple[Any, ...]:
        """What two parts must have in common to be merged: the same participants and the same code."""
        return tuple(self.facts.get(name) for name in _TOGETHER)

    @property
    def steps(self) -> dict[_Run, int]:
        models = self.tables["models"]
        columns = (models.column(name).to_pylist() for name in ("experiment", "seed", "steps"))
        return {(experiment, seed): steps for experiment, seed, steps in zip(*columns, strict=True)}

    def rows(self, name: str, runs: set[_Run]) -> pa.Table:
        """The rows of one table that belong to these runs."""
        table = self.tables[name]
        owners = _owners(table)
        return table.filter(pa.array([owner in runs for owner in owners], pa.bool_()))


def merge(folders: Sequence[Path], out: Path) -> Path:
    """Merge several folders of results into one report in `out`; returns the document.

    Only runs of the same preset, cohort and code are merged; the group with most runs is taken. Of the runs of one
    experiment and seed the longest training counts, and none that is shorter than MIN_LENGTH of the experiment's
    longest. All others are listed with the reason. Raises ValueError for a folder without results.
    """
    parts = [_part(folder) for folder in folders]
    runs_of = Counter[tuple[Any, ...]]()
    for part in parts:
        runs_of[part.group] += len(part.steps)
    group = max(runs_of, key=lambda candidate: runs_of[candidate])
    fitting = [part for part in parts if part.group == group]
    chosen, left_out = _chosen(fitting)
    tables = {}
    for name, schema in SCHEMAS.items():
        pieces = [
            part.rows(name, runs)
            for part, runs in zip(fitting, _drawn(chosen) if name == "map" else chosen, strict=True)
        ]
        if name == "results":  # of what trains nothing, which is the same for all
            untrained = {(pseudo, seed) for pseudo in UNTRAINED for seed in fitting[0].facts["seeds"]}
            pieces.append(fitting[0].rows(name, untrained))
        tables[name] = pa.concat_tables(pieces or [schema.empty_table()])
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        with atomic_path(out / f"{name}.parquet") as file:
            pq.write_table(table, file, compression="zstd")
    write_json(out / COHORT, _merged_facts(parts, fitting, chosen, left_out))
    return write_reproduction(out)


def _drawn(chosen: Sequence[set[_Run]]) -> list[set[_Run]]:
    """The runs of each part that are drawn on the map, which has one of each experiment and no seeds."""
    seen: set[str] = set()
    drawn: list[set[_Run]] = []
    for runs in chosen:
        names = {experiment for experiment, _ in runs} - seen
        seen |= names
        drawn.append({(name, _NO_SEED) for name in names})
    return drawn


def _chosen(parts: Sequence[_Part]) -> tuple[list[set[_Run]], dict[str, str]]:
    """The runs of each part that count, and the reasons why the others do not."""
    steps = [part.steps for part in parts]
    longest: dict[str, int] = {}
    for experiment, _, number in ((*run, number) for by_run in steps for run, number in by_run.items()):
        longest[experiment] = max(longest.get(experiment, 0), number)
    best: dict[_Run, int] = {}
    for index, by_run in enumerate(steps):
        for run, number in by_run.items():
            if run not in best or number > steps[best[run]][run]:
                best[run] = index
    chosen: list[set[_Run]] = [set() for _ in parts]
    left_out = {}
    for index, by_run in enumerate(steps):
        for run, number in by_run.items():
            experiment, seed = run
            name = f"{experiment}-{seed} of {parts[index].folder.name}"
            if best[run] != index:
                left_out[name] = f"the same run of {parts[best[run]].folder.name} counts"
            elif number < MIN_LENGTH * longest[experiment] and not experiment.startswith("supervised-"):
                left_out[name] = f"{number:,} steps, another seed has {longest[experiment]:,}"
            else:
                chosen[index].add(run)
    return chosen, left_out


def _merged_facts(
    parts: Sequence[_Part], fitting: Sequence[_Part], chosen: Sequence[set[_Run]], left_out: Mapping[str, str]
) -> dict[str, Any]:
    done = {f"{experiment}-{seed}" for runs in chosen for experiment, seed in runs}
    counted = dict(zip([part.folder for part in fitting], [len(runs) for runs in chosen], strict=True))
    own = ("command", "machine", "cores", "torch", "started", "finished", "stages", "ceilings", "steps")
    facts = {name: value for name, value in fitting[0].facts.items() if name not in own}
    failed = {run: reason for part in fitting for run, reason in part.facts.get("runs_failed", {}).items()}
    return {
        **facts,
        "seeds": sorted({seed for runs in chosen for _, seed in runs}),
        "command": MERGE_COMMAND,
        "machine": ", ".join(sorted({str(part.facts.get("machine")) for part in fitting})),
        "runs_done": sorted(done),
        "runs_failed": {run: reason for run, reason in failed.items() if run not in done},
        "runs_left": list(
            dict.fromkeys(run for part in fitting for run in part.facts.get("runs_left", []) if run not in done)
        ),
        "runs_left_out": dict(left_out),
        "sources": [
            {
                "folder": part.folder.name,
                **{name: part.facts.get(name) for name in (*_TOGETHER, "machine", "torch", "seeds", "started")},
                "runs": len(part.steps),
                "counted": counted.get(part.folder, 0),
                "why_not": _differences(part, fitting[0]),
            }
            for part in parts
        ],
    }


def _differences(part: _Part, other: _Part) -> str:
    """Why two folders cannot be merged; empty if they can."""
    return ", ".join(
        f"{name} is {part.facts.get(name)}, not {other.facts.get(name)}"
        for name in _TOGETHER
        if part.facts.get(name) != other.facts.get(name)
    )


def _part(folder: Path) -> _Part:
    facts = read_facts(folder)
    tables = {name: _table(folder, name) for name in SCHEMAS}
    if "code_version" not in facts:  # an older report: its models have it
        facts["code_version"] = ", ".join(sorted(set(tables["models"].column("code_version").to_pylist())))
    return _Part(folder, facts, tables)


def _owners(table: pa.Table) -> list[_Run]:
    """The run that each row comes from: supervised encoders are reported under one name."""
    names = table.column("experiment").to_pylist()
    seeds = table.column("seed").to_pylist() if "seed" in table.column_names else [_NO_SEED] * len(names)
    if SUPERVISED in pc.unique(table.column("experiment")).to_pylist():
        details = zip(table.column("target").to_pylist(), table.column("label_fraction").to_pylist(), strict=True)
        names = [
            f"supervised-{target}-{fraction:g}" if name == SUPERVISED else name
            for name, (target, fraction) in zip(names, details, strict=True)
        ]
    return list(zip(names, seeds, strict=True))


def _people(tables: Mapping[str, pa.Table]) -> dict[str, bytes]:
    """Errors and scores as files, of as many runs as fit into MAX_FILE_BYTES."""
    small = {name: _single_precision(table) for name, table in tables.items()}
    owners = {name: _owners(table) for name, table in small.items()}
    runs = list(dict.fromkeys(run for runs_of_rows in owners.values() for run in runs_of_rows))
    kept = len(runs)
    while True:
        wanted = set(runs[:kept])
        files = {
            f"{name}.parquet": _parquet(table.filter(pa.array([run in wanted for run in owners[name]], pa.bool_())))
            for name, table in small.items()
        }
        size = sum(map(len, files.values()))
        if size <= MAX_FILE_BYTES or kept == 0:
            break
        kept = min(kept - 1, int(kept * MAX_FILE_BYTES / size))
    if kept < len(runs):
        left = ", ".join(f"{experiment}-{seed}" for experiment, seed in runs[kept:])
        print_progress(f"values of single participants are left out of {PEOPLE}, which would be too large: {left}")
    return files


def _single_precision(table: pa.Table) -> pa.Table:
    fields = [
        field.with_type(pa.float32()) if field.name in ("score", "absolute_error_sum") else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _archive(target: Path, files: Mapping[str, bytes]) -> None:
    """Write an archive of files that are compressed already."""
    with atomic_path(target) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)


def _table(folder: Path, name: str) -> pa.Table:
    try:
        content = _read(folder, f"{name}.parquet")
    except ValueError:
        return SCHEMAS[name].empty_table()
    return read_table(io.BytesIO(content), SCHEMAS[name])


def _read(folder: Path, name: str) -> bytes:
    """A file of the folder or of one of its archives. Raises ValueError if there is none."""
    if (folder / name).is_file():
        return (folder / name).read_bytes()
    for archive in (RESULTS, PEOPLE):
        try:
            with zipfile.ZipFile(folder / archive) as file:
                return file.read(name)
        except (FileNotFoundError, KeyError):
            continue
        except zipfile.BadZipFile as error:
            raise ValueError(f"{folder / archive} is damaged: {error}") from None
    raise ValueError(f"{folder} holds no {name}, neither itself nor in {RESULTS} or {PEOPLE}")
