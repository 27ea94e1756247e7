"""The field's own words: no term that version 0.1.0 coined, where a standard one exists, is in code, logs or docs.

Each table holds the term and its standard word. Phrases are searched in every text; names in what Python code defines
and binds.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import REPOSITORY

SCOPES = ("accelkd", "assets", "orchestration", "rust_dsp", "docs", "tests", "benches", "deploy", "")
ROOT_FILES = ("Makefile", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")

# Generated with the results that it reports, and this file
NOT_CHECKED = ("docs/reproduction/", "tests/test_vocabulary.py")
# Names that version 0.1.0 gave to files and tables, which its homes are migrated from
LEGACY = {
    "accelkd/recordings/arrivals.py": "retired.json",
    "accelkd/operations/upgrade.py": "retired.json",
    "accelkd/warehouse/migrations.py": "retired_batches",
    "tests/operations/test_upgrade.py": "retired",
    "tests/warehouse/test_corrections.py": "retired.json",
    "tests/warehouse/schema-0.1.0.sql": "retired_batches",
    "tests/warehouse/test_migrations.py": "retired_batches",
    "tests/warehouse/test_warehouse.py": "retired_batches",
}

PHRASES = {
    r"\bcall_apart\b|\bapart\.py\b": "isolated.run_in_subprocess",
    r"the kernel ends it": "released when the process exits",
    r"\bat_work\b": "shared_lock",
    r"\bat work\b": "running",
    r"\bgone back from\b": "rollbacks undone",
    r"\bcurrent_models\b": "promoted_models",
    r"\bmodels_in_use\b": "loaded_models",
    r"\bturned down\b": "rejected",
    r"\binto use\b": "promoted",
    r"\bin use\b": "promoted, active",
    r"\btell_of_|\buntold\b|\buntold_": "report_promotions, unreported_promotion",
    r"\btold\b": "reported, described",
    r"\baloud\b": "reported, logged",
    r"_bury_the_dead\b": "fail_orphaned_runs",
    r"\bunsettled\b": "pending_arrivals",
    r"(?i)\bretire(d|s|ment)?(?![a-z])": "superseded",
    r"\bseal(ed|s|ing)?(?![a-z])": "write_checksum, verify_checksum",
    r"\bintact_segments\b": "verify_segments",
    r"\bASIDE\b|\b(stand|stands|stood|standing|left|set) aside\b": "UNPUBLISHED_SUFFIXES, unpublished, companions",
    r"\b[Ll]akes?\b": "Home",
    r"\b_?(MOST|LEAST|FEWEST)_[A-Z_]*": "MAX_, MIN_",
    r"\b[A-Z_]*_AT_ONCE\b": "CHUNK_SIZE",
    r"\bof-people\b": "participant-level",
    r"\bby-hand\b": "manual",
    r"\bmade_from\b": "lineage",
    r"['\"]waiting['\"]": "staged",
    r"\banew\b": "again; rebuilt, re-segmented",
    r"kernel's work on its pages": "page-fault cost",
    r"\bthe night (makes|materializes)\b|\b(stop|wait for|waits for) the night\b": "the nightly catch-up",
    r"[Tt]he way of the data": "Data flow",
    r"(?m)^#+ Tried\b": "Fault-injection results",
}
NAMES = {
    "lake": "home",
    "found": "the noun that it stands for",
    "one": "the noun that it stands for",
    "who": "the noun that it stands for",
}
# Of functions and of fields of classes: as names of locals these are plain
MEMBERS = {
    "alone": "exclusive_lock",
    "consider": "evaluate_candidate",
    "traces": "find_remnants",
    "left": "remaining",
    "due": "stale_or_missing",
    "going_on": "withdrawal",
    "_note": "save_journal",
    "_look_up": "locate",
}
MODULES = {
    "apart": "isolated",
    "at_work": "locks",
    "current": "history",
    "lake": "layout",
    "traces": "remnants",
}
RUST = {
    r"\bfn bring\b": "load_tile",
    r"\bfn hold\b": "load_dark",
    r"\bfn plain\b": "uniform",
    r"\bSteady\b": "FixedNeighbours",
    r"\bMix\b": "AmbientTerms",
}
_LINE_BREAK = r"\s+(?:(?:#|//[/!]?|--)\s*)?"  # a phrase may go on in the next line of a comment


def texts(scope: str) -> list[Path]:
    """The texts of a folder of the repository, or its root files."""
    if not scope:
        return [REPOSITORY / name for name in ROOT_FILES]
    suffixes = {".py", ".pyi", ".rs", ".sql", ".md", ".sh"}
    paths = (path for path in (REPOSITORY / scope).rglob("*") if path.suffix in suffixes)
    relative = {path.relative_to(REPOSITORY).as_posix(): path for path in paths}
    return [
        path for name, path in sorted(relative.items()) if not name.startswith(NOT_CHECKED) and "/target/" not in name
    ]


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of everything that Python code defines or binds."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()) | ast.arg(arg=name):
                yield node.lineno, name
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield node.lineno, name
            case ast.Import() | ast.ImportFrom():
                yield from ((node.lineno, alias.asname) for alias in node.names if alias.asname)


def members(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of functions and of the annotated fields of classes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.ClassDef):
            fields = (part.target for part in node.body if isinstance(part, ast.AnnAssign))
            yield from ((field.lineno, field.id) for field in fields if isinstance(field, ast.Name))


def violations(name: str, text: str) -> list[str]:
    """Terms of the tables in one text, each with its line and its standard word."""
    text = text.replace(LEGACY.get(name, "\0"), "")
    patterns = PHRASES | (RUST if name.endswith(".rs") else {})
    hits = [
        (text.count("\n", 0, match.start()) + 1, match[0], standard)
        for pattern, standard in patterns.items()
        for match in re.finditer(pattern.replace(" ", _LINE_BREAK), text)
    ]
    if name.endswith(".py"):
        tree = ast.parse(text)
        defined = ((NAMES, bound_names(tree)), (MEMBERS, members(tree)), (MODULES, [(1, Path(name).stem)]))
        hits += [(line, term, table[term]) for table, terms in defined for line, term in terms if term in table]
    return [f"{name}:{line}: {' '.join(term.split())!r} -> {standard}" for line, term, standard in sorted(hits)]


@pytest.mark.parametrize("scope", SCOPES)
def test_standard_words(scope: str) -> None:
    contents = {path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8") for path in texts(scope)}
    assert contents
    hits = [hit for name, text in contents.items() for hit in violations(name, text)]
    assert not hits, "say it in the field's own words:\n" + "\n".join(hits)


@pytest.mark.parametrize(
    ("name", "text", "term"),
    [
        ("a.py", "for one in range(3): pass", "'one' -> the noun"),
        ("a.py", "def f(who: str) -> None: ...", "'who' -> the noun"),
        ("a.py", "if found := 1: pass", "'found' -> the noun"),
        ("a.py", "class Run:\n    left: list[str]", "a.py:2: 'left' -> remaining"),
        ("a.py", "_MOST_ROWS = 3", "MAX_, MIN_"),
        ("a.py", "# it was turned\n# down", "'turned # down' -> rejected"),
        ("a.py", "def due(): ...", "'due' -> stale_or_missing"),
        ("accelkd/traces.py", "", "'traces' -> remnants"),
        ("a.rs", "fn bring() {}", "load_tile"),
        ("a.sql", "CREATE TABLE retired_batches (made_from VARCHAR)", "lineage"),
        ("a.md", "## Tried\n", "Fault-injection results"),
        ("Makefile", "# the encoder in use", "active"),
    ],
)
def test_terms_are_recognised(name: str, text: str, term: str) -> None:
    assert term in "\n".join(violations(name, text))


@pytest.mark.parametrize("text", ["left, values, right = svd(x)", "x.one", '"found 3"', "# a user, in useful words"])
def test_plain_words_pass(text: str) -> None:
    assert violations("a.py", text) == []
