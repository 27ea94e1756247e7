"""Reports: probes, retrieval and maps of the embeddings, as rows in the warehouse, figures and one written report."""

from dataclasses import asdict

import dagster as dg

from accelkd.home.files import sha256_file, sha256_json
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS
from accelkd.warehouse.inspect import documented_columns
from assets.cohort import participant_split
from assets.metadata import figure, markdown_table, table, tags, warehouse_columns

_SPLIT = ["participant_split.participant_id", "participant_split.split"]
_LABELS = [f"segment_tables.segments.{label}" for label in ("hr_bpm", "sdnn_ms", "rmssd_ms")]
_TRAITS = [
    *(f"segment_tables.demographics.{trait}" for trait in ("age_years", "bmi_kg_m2", "sex")),
    "segment_tables.survey_targets.value",
]
_ERRORS = ("mae", "rmse", "pearson_r", "constant_mae", "constant_rmse", "ridge_alpha")
_PEOPLE = ("train_participants", "test_participants")
_ANSWERS = ("train_yes", "train_no", "test_yes", "test_no")
_MODELS = [f"{spec.name}_embeddings.model_id" for spec in ENCODERS]
_EMBEDDINGS = [f"{spec.name}_embeddings.embedding" for spec in ENCODERS]
_RANKS = ("top1_percent", "mean_rank", "top1_percent_sd", "mean_rank_sd")


def _probes(encoder: str) -> dg.AssetsDefinition:
    model, embedding = [f"{encoder}_embeddings.model_id"], f"{encoder}_embeddings.embedding"
    segments = {
        "model_id": model,
        **dict.fromkeys(("split_version", *_PEOPLE, "train_segments", "test_segments"), _SPLIT),
        **{name: [embedding, *_LABELS, *_SPLIT] for name in _ERRORS},
    }
    participants = {
        "model_id": model,
        **dict.fromkeys(("split_version", *_PEOPLE), _SPLIT),
        **{name: [*_TRAITS, *_SPLIT] for name in (*_ANSWERS, "not_decidable")},
        **{name: [embedding, *_TRAITS, *_SPLIT] for name in (*_ERRORS, "auc", "auc_low", "auc_high")},
    }
    lineage = {
        **{f"probe_results.{name}": sources for name, sources in segments.items()},
        **{f"participant_probe_results.{name}": sources for name, sources in participants.items()},
    }

    @dg.asset(
        name=f"{encoder}_probes",
        deps=[f"{encoder}_embeddings", participant_split],
        kinds={"scikitlearn", "duckdb"},
        description=(
            f"Ridge probes on the embeddings of {encoder}, fitted on training, measured on test participants: heart "
            "rate, SDNN, RMSSD of segments; age, BMI, sex, 46 health targets of participants (paper, section 4.2)."
        ),
        group_name="reports",
        owners=["team:research"],
        tags=tags("summaries", "each-report"),
        metadata={
            "dagster/table_name": "probe_results",
            **table(warehouse_columns(documented_columns(), ("probe_results", "participant_probe_results")), lineage),
        },
        pool="duckdb_writer",
        code_version="2",
    )
    def probes(home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
        from accelkd.reports.report import probe_encoder

        report = probe_encoder(home, encoder)
        rows = [asdict(result) for result in report.results]
        people = [asdict(result) for result in report.participants]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(sha256_json([report.model_id, report.split_version, rows, people])),
            metadata={
                "dagster/row_count": len(rows),
                "model_id": report.model_id,
                "split_version": report.split_version,
                "effective_rank": report.effective_rank,
                "results": markdown_table(rows),
                "participant_results": markdown_table(people),
                "figure_file": dg.MetadataValue.path(report.figure),
                "predicted_against_measured": figure(report.figure.read_bytes(), "predicted against measured"),
                **{f"{result.target}_mae": result.mae for result in report.results},
                **{f"{result.target}_mae_constant": result.constant_mae for result in report.results},
            },
        )

    return probes


probe_assets = [_probes(spec.name) for spec in ENCODERS]


@dg.asset(
    deps=[*(f"{spec.name}_embeddings" for spec in ENCODERS), participant_split],
    kinds={"numpy", "duckdb"},
    group_name="reports",
    owners=["team:research"],
    tags=tags("summaries", "each-report"),
    metadata={
        "dagster/table_name": "retrieval_results",
        **table(
            warehouse_columns(documented_columns(), ["retrieval_results"]),
            {
                "query_model_id": _MODELS,
                "key_model_id": _MODELS,
                "split_version": _SPLIT,
                **dict.fromkeys(("participants", "segments"), _SPLIT),
                **{name: [*_EMBEDDINGS, *_SPLIT] for name in _RANKS},
            },
        ),
    },
    pool="duckdb_writer",
    code_version="1",
)
def retrieval(home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """How often a segment's acceleration finds its own PPG among all candidates, and the reverse (paper, table 1).

    Held-out participants only, over bootstrapped pools, in the space of the projection heads and in the raw one.
    """
    from accelkd.reports.report import retrieve_pairs

    report = retrieve_pairs(home)
    rows = [
        {"query": query, "key": key, "space": space, **asdict(result)}
        for (query, key, space), result in report.results.items()
    ]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(sha256_json([*report.models.values(), report.split_version, rows])),
        metadata={
            "dagster/row_count": len(rows),
            **{f"{encoder}_model_id": model_id for encoder, model_id in report.models.items()},
            "results": markdown_table(rows),
            "figure_file": dg.MetadataValue.path(report.figure),
            "ranks": figure(report.figure.read_bytes(), "rank of the true pair"),
            **{
                f"{query}_finds_{key}_{space}_{name}": getattr(result, name)
                for (query, key, space), result in report.results.items()
                for name in ("top1_percent", "mean_rank")
            },
        },
    )


@dg.asset(
    deps=[*(f"{spec.name}_embeddings" for spec in ENCODERS), participant_split],
    kinds={"scikitlearn"},
    group_name="reports",
    owners=["team:research"],
    tags=tags("summaries", "each-report"),
    pool="duckdb_writer",
    code_version="1",
)
def embedding_map(home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """t-SNE maps of the same held-out segments by every encoder, coloured by participant (paper, figure 3)."""
    from accelkd.reports.report import map_embeddings

    report = map_embeddings(home)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(sha256_file(report.figure)),
        metadata={
            "participants": report.participants,
            "segments": report.segments,
            "figure_file": dg.MetadataValue.path(report.figure),
            "map": figure(report.figure.read_bytes(), "t-SNE of the embeddings"),
        },
    )


@dg.asset(
    deps=[*(f"{spec.name}_probes" for spec in ENCODERS), retrieval, embedding_map],
    kinds={"markdown"},
    group_name="reports",
    owners=["team:research"],
    tags=tags("summaries", "each-report"),
    pool="duckdb_writer",
    code_version="2",
)
def written_report(home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """`reports/report.md`: the cohort, the training, the probes and the retrieval, and what they were made from."""
    from accelkd.reports.report import write_report

    path = write_report(home)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(sha256_file(path)),
        metadata={"dagster/uri": str(path), "report": dg.MetadataValue.md(path.read_text(encoding="utf-8"))},
    )
