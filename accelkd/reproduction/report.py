"""REPRODUCTION.md: claims, tables and figures, from the result files of a folder alone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from accelkd.home.files import atomic_path, write_text
from accelkd.reports import markdown
from accelkd.reproduction.claims import (
    Judgement,
    claims_table,
    effect_text,
    judge,
    target_name,
    value_text,
    verdict_on,
)
from accelkd.reproduction.comparison import MIN_PARTICIPANTS, Finding, Verdict
from accelkd.reproduction.figures import draw_figures
from accelkd.reproduction.paper import INCONSISTENCIES, SEGMENT_TARGETS
from accelkd.reproduction.results import Results, read_results
from accelkd.reproduction.tables import ABSENT, ResultTable, all_tables, parameters_text

DOCUMENT = "REPRODUCTION.md"
INVESTIGATION = "investigation.md"  # written manually: why a claim does not hold
_MARK: Mapping[Verdict, str] = {
    "holds": "**holds**",
    "does not hold": "**does not hold**",
    "not decidable": "not decidable",
}
_SHORT: Mapping[str | None, str] = {
    "holds": "holds",
    "does not hold": "fails",
    "not decidable": "open",
    None: ABSENT,
}
_FACTS = {  # of cohort.json, in this order; all others follow
    "preset": "Preset",
    "profile": "Profile of the simulation",
    "train": "Training",
    "test": "Test",
    "segments_per_participant": "Segments per participant",
    "calendar_days_per_participant": "Calendar days per participant",
    "time_span_days": "Time span (days)",
    "seeds": "Seeds",
    "command": "Command",
    "machine": "Machine",
    "cores": "Cores",
    "started": "Started",
    "finished": "Finished",
}
_OWN_SECTION = ("sources", "stages", "ceilings")  # of cohort.json


def write_reproduction(folder: Path, figures: bool = True) -> Path:
    """Write REPRODUCTION.md, `claims.parquet` and `figures/` from the result files in `folder`; returns the document.

    A missing result file means that its experiments were not run. Without `figures`, or without matplotlib, the
    document has none. Raises ValueError that names the file and column if a column is missing.
    """
    results = read_results(folder)
    judgements = judge(results)
    with atomic_path(folder / "claims.parquet") as part:
        pq.write_table(claims_table(judgements), part)
    captions = draw_figures(results, folder / "figures") if figures else None
    investigation = folder / INVESTIGATION
    parts = [
        _head(results),
        *_sources(results),
        *_time(results),
        _claims(judgements),
        _reading(judgements, investigation.read_text(encoding="utf-8") if investigation.is_file() else ""),
        _tables(all_tables(results)),
        _figures(captions),
        "## Where the paper contradicts itself\n\nEach number above is quoted from its own table.\n\n"
        + "\n".join(f"- {text}" for text in INCONSISTENCIES),
        _comparisons(judgements),
        _models(results),
        _rerun(results),
    ]
    document = folder / DOCUMENT
    write_text(document, "\n\n".join(parts) + "\n")
    return document


def _head(results: Results) -> str:
    known = {**dict.fromkeys(_FACTS), **results.cohort}
    known = {name: value for name, value in known.items() if name not in _OWN_SECTION}
    rows = [(_FACTS.get(name, name.replace("_", " ")), _fact(value)) for name, value in known.items()]
    versions = sorted({row["code_version"] for row in results.models if row["code_version"]})
    rows.append(("Code", ", ".join(versions) or _fact(None)))
    rows.append(("Encoders trained", str(len(results.models))))
    return "\n\n".join(
        [
            '# Reproduction of "Wearable Accelerometer Foundation Models for Health via Knowledge Distillation"',
            "**Every number of ours was measured on a simulated cohort. The paper's come from another world: 172,318 "
            "real participants. Absolute numbers are never comparable between the two; what is compared is which "
            "encoder is better than which.** The constant predictor, or chance, stands in each table of errors or "
            "retrieval.",
            "## What was run",
            markdown.table(("", ""), rows),
        ]
    )


def _sources(results: Results) -> list[str]:
    """The folders that a merged report was made from; nothing for a report of a single run."""
    if not (sources := results.cohort.get("sources")):
        return []
    header = ("folder", "cohort", "device", "code", "seeds", "runs", "counted", "why not")
    rows = [
        (
            source["folder"],
            f"{source['preset']}, {source['profile']}, data {source['data_version']}, split {source['split_version']}",
            f"{source['machine']}, torch {source['torch']}",
            f"{source['code_version']}, evaluation {source['evaluation_version']}",
            _fact(source["seeds"]),
            str(source["runs"]),
            str(source["counted"]),
            source["why_not"] or ABSENT,
        )
        for source in sources
    ]
    text = (
        "Runs count together that were measured on the same people by the same code; the table of the models trained "
        "says which device and code each run comes from."
    )
    return ["## Sources", text, markdown.table(header, rows)]


def _time(results: Results) -> list[str]:
    """How a time budget was spent, and the device's measured ceilings; nothing without a budget."""
    if not (stages := results.cohort.get("stages")):
        return []
    ceilings = results.cohort["ceilings"]
    rows = [
        (
            markdown.code(stage["run"]),
            _quantity(stage["planned_s"]),
            _quantity(stage["training_s"]),
            _quantity(stage["evaluation_s"], digits=1),
            _quantity(stage["steps"]),
            _quantity(stage["segments_per_s"]),
            _quantity(stage["mfu"], 100, " %", 1),
            stage["notes"] or ABSENT,
        )
        for stage in stages
    ]
    header = ("run", "planned (s)", "training (s)", "encoding (s)", "steps", "segments/s", "MFU", "notes")
    text = (
        f"In the order of training. The device multiplied bfloat16 matrices at {ceilings['matmul_tflop_per_s']:,.1f} "
        f"TFLOP/s and copied at {ceilings['copy_gb_per_s']:,.0f} GB/s."
    )
    return ["## How the time was spent", text, markdown.table(header, rows)]


def _fact(value: Any) -> str:
    if value is None:
        return "not recorded"
    if isinstance(value, Mapping):
        return "; ".join(_named(name.replace("_", " "), of) for name, of in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_fact, value)) or "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _named(name: str, value: Any) -> str:
    """`200 participants` for a count, `run: why it failed` for a text."""
    return f"{name}: {value}" if isinstance(value, str) else f"{_fact(value)} {name}"


def _claims(judgements: Sequence[Judgement]) -> str:
    targets = [target_name(target) for target in SEGMENT_TARGETS]
    count = {verdict: sum(j.verdict == verdict for j in judgements) for verdict in _MARK}
    rows = [
        (
            markdown.Markup(f"[{markdown.escape(j.claim.sentence)}](#{_anchor(j)})"),
            j.claim.where,
            j.paper,
            j.ours,
            markdown.Markup(_MARK[j.verdict]),
            *(_SHORT[verdict_on(j, target)] for target in SEGMENT_TARGETS),
            str(j.seeds or ABSENT),
        )
        for j in judgements
    ]
    return "\n\n".join(
        [
            "## Claims",
            f"Of {len(judgements)} comparative claims: **hold {count['holds']}, do not hold {count['does not hold']}, "
            f"not decidable {count['not decidable']}**. On one target alone: {_by_target(judgements)}.",
            "A claim is a set of comparisons between two encoders. Each is decided by the 95 % interval of its effect: "
            "the relative difference of two errors (`−20 %`: a fifth less error), or the difference of two areas under "
            "the ROC curve. The interval is the hull of two: over the seeds (Welch's where both encoders have several; "
            "with one seed, from the spread that the encoders with several show on the same target), and over the test "
            "participants (paired bootstrap of each participant's errors or scores). A comparison holds if the whole "
            "interval is on the claimed side, fails if all of it is on the other, and is not decidable if it crosses, "
            f"if something was not run, with fewer than {MIN_PARTICIPANTS} test participants, or if neither encoder "
            "beats a constant. With one seed and no encoder that has "
            "several, a verdict is about these two models alone. A claim holds if every comparison holds and does not "
            "hold if any fails, unless its rule says otherwise; the columns HR, SDNN and RMSSD say what becomes "
            "of it on one target alone. The rules and all comparisons are [below](#every-comparison) and in "
            "`claims.parquet`.",
            markdown.table(("claim", "in the paper", "paper", "ours", "verdict", *targets, "seeds"), rows),
        ]
    )


def _by_target(judgements: Sequence[Judgement]) -> str:
    """How many claims hold, fail or are open on heart rate, on SDNN and on RMSSD."""
    texts = []
    for target in SEGMENT_TARGETS:
        verdicts = [verdict for j in judgements if (verdict := verdict_on(j, target))]
        counts = [f"{verdicts.count(verdict)} {_SHORT[verdict]}" for verdict in _MARK]
        texts.append(f"{target_name(target)} {', '.join(counts)} of {len(verdicts)}")
    return "; ".join(texts)


def _reading(judgements: Sequence[Judgement], investigation: str) -> str:
    contrary = [j.claim.claim_id for j in judgements if j.verdict == "does not hold"]
    unexplained = [claim_id for claim_id in contrary if not re.search(rf"(?<![\w-]){claim_id}(?![\w-])", investigation)]
    parts = ["## Reading"]
    if investigation.strip():
        parts.append(investigation.strip())
    elif not contrary:
        parts.append("No claim fails here.")
    if unexplained:
        names = ", ".join(f"`{name}`" for name in unexplained)
        parts.append(f"Not yet explained in `{INVESTIGATION}`: {names}.")
    return "\n\n".join(parts)


def _tables(tables: Iterable[ResultTable]) -> str:
    parts = [
        "## Tables",
        "Ours: mean ± standard deviation over the seeds, one number where there is one seed. MAE: mean absolute "
        "error. `not run`: the experiment has no result at all; `not reached`: it was left when the time was over; "
        "`no result`: none of this kind. –: the paper prints no "
        "number.",
    ]
    for table in tables:
        parts.append(f"### Table {table.number}. {table.title}")
        parts.append(markdown.table(table.header, table.rows))
        parts += table.notes
    return "\n\n".join(parts)


def _figures(captions: Mapping[str, str] | None) -> str:
    parts = ["## Figures"]
    if captions is None:
        parts.append("Left out on the machine that wrote this: without matplotlib, or for want of time.")
    elif not captions:
        parts.append("There are no results to draw.")
    else:
        parts += [f"![{caption}](figures/{file})\n\n*{caption}*" for file, caption in captions.items()]
    return "\n\n".join(parts)


def _comparisons(judgements: Sequence[Judgement]) -> str:
    parts = [
        "## Every comparison",
        "Each with both numbers (of several encoders on a side, their mean), its effect and the 95 % interval.",
    ]
    for j in judgements:
        parts.append(f'<a id="{_anchor(j)}"></a>\n\n**`{j.claim.claim_id}`: {j.verdict}.** {j.claim.sentence}')
        parts.append(f"*Rule.* {j.claim.rule}" + (f" *Note.* {j.claim.note}" if j.claim.note else ""))
        rows = [
            (
                f.what,
                target_name(f.target),
                _pair(f.paper_a, f.paper_b, f.metric),
                _pair(f.ours_a, f.ours_b, f.metric),
                _interval(f),
                f.verdict + (f": {f.why}" if f.why else ""),
                str(f.seeds or ABSENT),
            )
            for f in j.findings
        ]
        header = ("comparison", "target", "paper", "ours", "effect (95 % interval)", "verdict", "seeds")
        parts.append(
            f"<details><summary>{len(rows)} comparisons</summary>\n\n{markdown.table(header, rows)}\n\n</details>"
        )
    return "\n\n".join(parts)


def _pair(a: float | None, b: float | None, metric: str) -> str:
    return ABSENT if a is None or b is None else f"{value_text(a, metric)} / {value_text(b, metric)}"


def _interval(finding: Finding) -> str:
    if finding.effect is None:
        return ABSENT
    effect = effect_text(finding.effect, finding.metric)
    if finding.effect_low is None or finding.effect_high is None:
        return effect
    low, high = (effect_text(bound, finding.metric) for bound in (finding.effect_low, finding.effect_high))
    return f"{effect} ({low} to {high})"


def _models(results: Results) -> str:
    rows = [
        (
            markdown.code(row["experiment"]),
            str(row["seed"]),
            markdown.code(row["model_id"][:12]),
            markdown.code(row["teacher_model_id"][:12]) if row["teacher_model_id"] else ABSENT,
            row["method"],
            row["architecture"],
            parameters_text(row["parameters"]),
            _quantity(row["steps"]),
            _quantity(row["batch_size"]),
            _quantity(row["loss"], digits=3),
            _quantity(row["chance_loss"], digits=3),
            f"{_quantity(row['effective_rank'], digits=1)} of {_quantity(row['width'])}",
            _quantity(row["wall_s"]),
            _quantity(row["segments_per_s"]),
            _quantity(row["mfu"], 100, " %", 1),
            " ".join(str(row[name]) for name in ("device", "precision") if row[name]),
            markdown.code(row["code_version"]) if row["code_version"] else ABSENT,
        )
        for row in results.models
    ]
    header = [
        *("experiment", "seed", "model", "teacher", "method", "architecture", "parameters", "steps", "batch", "loss"),
        *("chance", "effective rank", "time (s)", "segments/s", "MFU", "device", "code"),
    ]
    text = "The effective rank of the test embeddings falls before probes show that an encoder collapses."
    return f"## Models trained\n\n{text}\n\n{markdown.table(header, rows) if rows else 'None.'}"


def _quantity(value: float | None, scale: float = 1, unit: str = "", digits: int = 0) -> str:
    return ABSENT if value is None else f"{scale * value:,.{digits}f}{unit}"


def _rerun(results: Results) -> str:
    command = results.cohort.get("command") or f"accelkd reproduce --preset {results.cohort.get('preset') or 'small'}"
    return (
        f"## Run it again\n\n```bash\n{command}\n```\n\n"
        "Experiments that are done are not run again; what is missing is. This document is rewritten from the "
        f"result files each time; `{INVESTIGATION}` beside it is kept and read in under *Reading*. `claims.parquet` "
        "holds the claims with their comparisons:\n\n"
        "```sql\nSELECT claim_id, verdict, paper, ours FROM 'claims.parquet';\n"
        "SELECT claim_id, unnest(comparisons, recursive := true) FROM 'claims.parquet';\n```"
    )


def _anchor(judgement: Judgement) -> str:
    return f"claim-{judgement.claim.claim_id}"
