"""The arrows of docs/architecture.md: orchestration → assets → accelkd → rust_dsp, and what a bare machine needs."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
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
    "cli",
)
FORBIDDEN = {
    "accelkd": {"dagster", "assets", "orchestration"},
    "assets": {"orchestration"},
    "rust_dsp": {"accelkd", "assets", "orchestration", "dagster"},
}


def _imported(source: Path) -> set[str]:
    """Top-level names that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_arrows_point_one_way(package: str) -> None:
    sources = list((REPOSITORY / package).rglob("*.py"))
    assert sources
    offenders = {str(path): _imported(path) & FORBIDDEN[package] for path in sources}
    assert not {path: names for path, names in offenders.items() if names}


def _imported_packages(source: Path) -> set[str]:
    """Packages of accelkd that a module imports, also inside its functions."""
    modules = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {module.split(".")[1] for module in modules if module.startswith("accelkd.")}


def test_packages_of_accelkd_import_downwards_alone() -> None:
    upwards = []
    for source in sorted((REPOSITORY / "accelkd").rglob("*.py")):
        package = source.relative_to(REPOSITORY / "accelkd").parts[0].removesuffix(".py")
        if package == "__init__":
            continue  # the public door opens on every package
        assert package in ORDER, f"{source}: put the package where it belongs in ORDER"
        below = ORDER[: ORDER.index(package) + 1]
        upwards += [
            f"{source.relative_to(REPOSITORY)} imports {name}" for name in _imported_packages(source) - {*below}
        ]
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
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY, timeout=120)


def test_code_server_starts_without_torch() -> None:
    program = "import sys, orchestration.definitions; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=REPOSITORY, timeout=120)
