"""The arrows of docs/architecture.md: orchestration → assets → accelkd → rust_dsp, and what a bare machine needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import REPOSITORY

# The packages of accelkd from bottom to top: each imports from itself and from those before it
ORDER = (
    "home",
    "recordings",
    "segments",
    "cohort",
    "models",
    "training",
    "registry",
    "evaluation",
    "warehouse",
    "reports",
    "operations",
    "reproduction",
    "api",
    "cli",
)
_OUTSIDE = {"tests", "benches"}
FORBIDDEN = {
    "rust_dsp": {"accelkd", "assets", "orchestration", "dagster", *_OUTSIDE},
    "accelkd": {"dagster", "assets", "orchestration", *_OUTSIDE},
    "assets": {"orchestration", *_OUTSIDE},
    "orchestration": _OUTSIDE,
    # Each is a program of its own; they share how their tables are printed
    "benches": {*_OUTSIDE, *(path.stem for path in (REPOSITORY / "benches").glob("*.py"))} - {"tables"},
}


def _imported(source: Path) -> set[str]:
    """Names that a module imports, with the modules that they come from, also inside its functions."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_arrows_point_one_way(package: str) -> None:
    sources = list((REPOSITORY / package).rglob("*.py"))
    assert sources
    offenders = {str(path): {name.split(".")[0] for name in _imported(path)} & FORBIDDEN[package] for path in sources}
    assert not {path: names for path, names in offenders.items() if names}


def test_one_module_alone_imports_what_is_private_in_dagster() -> None:
    private = re.compile(r"dagster[\w.]*\._|dagster_shared\b")
    modules = (REPOSITORY / folder for folder in ("accelkd", "assets", "orchestration", "tests", "benches"))
    importing = {
        path.relative_to(REPOSITORY).as_posix()
        for folder in modules
        for path in folder.rglob("*.py")
        if any(private.match(name) for name in _imported(path))
    }
    assert importing == {"orchestration/dagster_internals.py"}


def test_tests_share_through_their_support_alone() -> None:
    """No test module or conftest is imported, not by the programs that tests start in other processes either."""
    imported = re.compile(r"^\s*(?:from|import) (tests\.[\w.]+)", re.MULTILINE)
    offenders = [
        f"{source.relative_to(REPOSITORY)} imports {module}"
        for source in sorted((REPOSITORY / "tests").rglob("*.py"))
        for module in imported.findall(source.read_text(encoding="utf-8"))
        if not module.startswith("tests.support")
    ]
    assert not offenders


def test_tests_lie_in_the_folders_of_what_they_test() -> None:
    folders = {path.parent.name for path in (REPOSITORY / "tests").glob("*/test_*.py")}
    assert folders <= {*ORDER, "dsp", "assets", "orchestration", "cluster", "e2e", "reliability"}


def test_packages_of_accelkd_import_downwards_alone() -> None:
    upwards = []
    for source in sorted((REPOSITORY / "accelkd").rglob("*.py")):
        package = source.relative_to(REPOSITORY / "accelkd").parts[0].removesuffix(".py")
        if package == "__init__":
            continue  # the public door opens on every package
        assert package in ORDER, f"{source}: put the package where it belongs in ORDER"
        below = ORDER[: ORDER.index(package) + 1]
        imported = {name.split(".")[1] for name in _imported(source) if name.startswith("accelkd.")}
        upwards += [f"{source.relative_to(REPOSITORY)} imports {name}" for name in imported - {*below}]
    assert not upwards


def test_a_bare_machine_can_simulate_segment_and_train() -> None:
    """With only the base dependencies installed: everything else is made impossible to import."""
    program = """
import sys
for name in ("dagster", "duckdb", "matplotlib", "tqdm", "edfio", "openpyxl", "polars", "pandas", "pydantic"):
    sys.modules[name] = None
import accelkd.cli, accelkd.recordings.simulator, accelkd.segments.segment, accelkd.cohort.training_set
import accelkd.training.runs, accelkd.training.checkpoint, accelkd.evaluation.probes, accelkd.evaluation.retrieval
import accelkd.evaluation.participant_probes, accelkd.evaluation.significance, accelkd.evaluation.procrustes
import accelkd.reproduction.run
accelkd.embed, accelkd.open_home, accelkd.preprocess
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY, timeout=120)


def test_code_server_starts_without_torch() -> None:
    program = "import sys, orchestration.definitions; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY, timeout=120)
