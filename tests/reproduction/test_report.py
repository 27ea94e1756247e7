"""The document as its reader gets it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from accelkd.reproduction.claims import CLAIMS
from accelkd.reproduction.report import write_reproduction
from tests.support.planted import like_the_paper


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results like the paper's, with their document."""
    folder = like_the_paper().write(tmp_path_factory.mktemp("reproduction"))
    write_reproduction(folder)
    return folder


@pytest.fixture(scope="module")
def document(folder: Path) -> str:
    return (folder / "REPRODUCTION.md").read_text(encoding="utf-8")


def section(document: str, title: str) -> str:
    return re.split(rf"^## {re.escape(title)}$", document, flags=re.MULTILINE)[1].split("\n## ")[0]


def test_sections_come_in_their_order(document: str) -> None:
    assert re.findall(r"^## (.+)$", document, re.MULTILINE) == [
        "What was run",
        "Claims",
        "Reading",
        "Tables",
        "Figures",
        "Where the paper contradicts itself",
        "Every comparison",
        "Models trained",
        "Run it again",
    ]


def test_it_says_first_that_the_numbers_are_of_a_simulated_cohort(document: str) -> None:
    head = document.split("## What was run")[0]
    assert re.search(r"\*\*.*simulated cohort.*never comparable.*\*\*", head, re.DOTALL)
    assert "| Test | 120 participants; 600 segments |" in document


def test_each_claim_has_a_row_with_its_verdict_that_leads_to_its_comparisons(document: str) -> None:
    rows = [line for line in section(document, "Claims").splitlines() if line.startswith("| [")]
    assert len(rows) == len(CLAIMS)
    verdict = r"\| (\*\*holds\*\*|\*\*does not hold\*\*|not decidable) "
    assert all(re.search(verdict + r"(\| (holds|fails|open|–) ){3}\| (\d+|–) \|$", row) for row in rows)
    for anchor in re.findall(r"\(#([\w-]+)\)", "\n".join(rows)):
        assert f'<a id="{anchor}"></a>' in document


def test_claims_are_judged_by_target_too(document: str) -> None:
    claims = section(document, "Claims")
    rows = {line.split("#claim-")[1].split(")")[0]: line for line in claims.splitlines() if line.startswith("| [")}
    assert "| **holds** | holds | holds | holds |" in rows["distilled-beats-unimodal-mae"]
    assert "| **does not hold** | – | – | – |" in rows["demographics-cl"]
    on_heart_rate = [row.split(" | ")[5] for row in rows.values()]
    assert f"HR {on_heart_rate.count('holds')} holds, {on_heart_rate.count('fails')} fails" in claims


def test_tables_are_whole(document: str) -> None:
    """Every row has as many cells as its header."""
    for table in re.findall(r"(?:^\|.*\|\n?)+", document, re.MULTILINE):
        lines = table.strip().splitlines()
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, lines[0]


def test_links_to_figures_lead_somewhere(folder: Path, document: str) -> None:
    files = re.findall(r"\]\((figures/[^)]+)\)", document)
    assert len(files) == 5
    assert all((folder / file).is_file() for file in files)


def test_every_model_is_listed(document: str) -> None:
    models = section(document, "Models trained")
    assert "| `kd-size-s` | 0 |" in models
    assert "| 1.2M |" in models


def test_claims_are_a_table_that_duckdb_reads(folder: Path) -> None:
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW claims AS SELECT * FROM '{folder / 'claims.parquet'}'")
        assert connection.sql("SELECT count(*) FROM claims").fetchall() == [(len(CLAIMS),)]
        verdicts = connection.sql(
            "SELECT verdict, effect < 0 FROM (SELECT unnest(comparisons, recursive := true) FROM claims "
            "WHERE claim_id = 'distilled-beats-unimodal-mae')"
        ).fetchall()
    assert verdicts == [("holds", True)] * 3


def test_failed_claims_ask_for_a_reading_until_there_is_one(folder: Path, document: str, tmp_path: Path) -> None:
    """What people wrote is included; everything else stays as it was."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    written = "### demographics-cl\n\nThe paper's own table says so."
    (copy / "investigation.md").write_text(written, encoding="utf-8")
    missing = "Not yet explained in `investigation.md`: `demographics-cl`."
    assert missing in section(document, "Reading")
    assert write_reproduction(copy).read_text(encoding="utf-8") == document.replace(missing, written)


def test_a_folder_without_results_says_that_nothing_was_run(tmp_path: Path) -> None:
    document = write_reproduction(tmp_path).read_text(encoding="utf-8")
    assert f"hold 0, do not hold 0, not decidable {len(CLAIMS)}" in document
    assert "| Preset | not recorded |" in document
    assert "There are no results to draw." in document


def test_a_machine_without_matplotlib_and_duckdb_reports_without_figures(folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("*.parquet"):
        shutil.copy(file, tmp_path)
    program = f"""
import sys
from pathlib import Path
for name in ("matplotlib", "duckdb", "dagster", "polars", "tqdm"):
    sys.modules[name] = None
from accelkd.reproduction.report import write_reproduction
write_reproduction(Path({str(tmp_path)!r}))
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    document = (tmp_path / "REPRODUCTION.md").read_text(encoding="utf-8")
    assert "without matplotlib" in section(document, "Figures")
    assert "**holds**" in section(document, "Claims")
