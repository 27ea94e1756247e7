"""A reproduction in a few small files that travel, and several of them as one."""

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
from accelkd.reproduction.records import COHORT, say
from accelkd.reproduction.report import write_reproduction
from accelkd.reproduction.results import CONSTANT, SCHEMAS, read_table

RESULTS, PEOPLE = "results.zip", "people.zip"  # the second holds what is known of single participants
MAX_FILE_BYTES = 15 * 2**20  # of each file: what a lent machine gives back, with some room
MERGE_COMMAND = "accelkd reproduce --merge DIR... --out DIR"
MIN_LENGTH = 0.5  # of the longest training of an experiment: a shorter one is no other seed of the same

_OF_PEOPLE = ("errors", "scores")
_TOGETHER = ("preset", "profile", "data_version", "split_version", "code_version", "evaluation_version")

_Run = tuple[str, int]  # experiment and seed
_NO_SEED = -1  # of rows that have none


def pack(folder: Path, out: Path) -> None:
    """Write the result files of `folder` to two archives in `out`; values of participants as float32.

    Where those take more than MAX_FILE_BYTES, the last runs' are left out, and that is said.
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
    """What a folder of results says of itself. Raises ValueError for one that holds none."""
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
        """Results of one group were measured on the same people by the same code."""
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
    """One report of several folders of results, in `out`; returns the document.

    Runs count together that fit: same preset, cohort and code; the group with most runs is taken. Of one experiment
    and seed the longest training counts, and none that is shorter than MIN_LENGTH of the experiment's longest. What
    does not fit is listed with the reason. Raises ValueError for a folder without results.
    """
    parts = [_part(folder) for folder in folders]
    runs_of = Counter[tuple[Any, ...]]()
    for part in parts:
        runs_of[part.group] += len(part.steps)
    group = max(runs_of, key=lambda one: runs_of[one])
    fitting = [part for part in parts if part.group == group]
    chosen, left_out = _chosen(fitting)
    tables = {}
    for name, schema in SCHEMAS.items():
        pieces = [
            part.rows(name, runs)
            for part, runs in zip(fitting, _drawn(chosen) if name == "map" else chosen, strict=True)
        ]
        if name == "results":  # of the constant, which is the same for all
            pieces.append(fitting[0].rows(name, {(CONSTANT, seed) for seed in fitting[0].facts["seeds"]}))
        tables[name] = pa.concat_tables(pieces or [schema.empty_table()])
    out.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        with atomic_path(out / f"{name}.parquet") as file:
            pq.write_table(table, file, compression="zstd")
    write_json(out / COHORT, _merged_facts(parts, fitting, chosen, left_out))
    return write_reproduction(out)


def _drawn(chosen: Sequence[set[_Run]]) -> list[set[_Run]]:
    """Whose segments are on the map, which has one of each experiment and no seeds."""
    seen: set[str] = set()
    drawn: list[set[_Run]] = []
    for runs in chosen:
        names = {experiment for experiment, _ in runs} - seen
        seen |= names
        drawn.append({(name, _NO_SEED) for name in names})
    return drawn


def _chosen(parts: Sequence[_Part]) -> tuple[list[set[_Run]], dict[str, str]]:
    """The runs of each part that count, and the others with the reason."""
    steps = [part.steps for part in parts]
    longest: dict[str, int] = {}
    for experiment, _, number in ((*run, number) for one in steps for run, number in one.items()):
        longest[experiment] = max(longest.get(experiment, 0), number)
    best: dict[_Run, int] = {}
    for index, one in enumerate(steps):
        for run, number in one.items():
            if run not in best or number > steps[best[run]][run]:
                best[run] = index
    chosen: list[set[_Run]] = [set() for _ in parts]
    left_out = {}
    for index, one in enumerate(steps):
        for run, number in one.items():
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
    together = [part.facts for part in fitting]
    failed = {run: reason for one in together for run, reason in one.get("runs_failed", {}).items()}
    return {
        **facts,
        "seeds": sorted({seed for runs in chosen for _, seed in runs}),
        "command": MERGE_COMMAND,
        "machine": ", ".join(sorted({str(one.get("machine")) for one in together})),
        "runs_done": sorted(done),
        "runs_failed": {run: reason for run, reason in failed.items() if run not in done},
        "runs_left": list(
            dict.fromkeys(run for one in together for run in one.get("runs_left", []) if run not in done)
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
    """In what two folders do not fit together; empty where they do."""
    return ", ".join(
        f"{name} is {part.facts.get(name)}, not {other.facts.get(name)}"
        for name in _TOGETHER
        if part.facts.get(name) != other.facts.get(name)
    )


def _part(folder: Path) -> _Part:
    facts = read_facts(folder)
    tables = {name: _table(folder, name) for name in SCHEMAS}
    if "code_version" not in facts:  # of an older report: its models have it
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
    """Errors and scores as files, of as many runs as fit."""
    small = {name: _single_precision(table) for name, table in tables.items()}
    owners = {name: _owners(table) for name, table in small.items()}
    runs = list(dict.fromkeys(run for one in owners.values() for run in one))
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
        say(f"values of single participants are left out of {PEOPLE}, which would be too large: {left}")
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
    """One archive of files that are compressed already."""
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
    """A file of the folder, or of one of its archives. Raises ValueError where there is none."""
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
