"""Reports: probes, retrieval and maps of the embeddings, as rows in the warehouse, figures and one written report."""

from dataclasses import asdict

import dagster as dg

from accelkd.home.files import sha256_file, sha256_json
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS
from accelkd.warehouse.schema import PARTICIPANT_PROBE_RESULTS, PROBE_PREDICTIONS, PROBE_RESULTS, RETRIEVAL_RESULTS
from assets.cohort import participant_split
from assets.metadata import figure, markdown_table, tags, warehouse_tables


def _probes(encoder: str) -> dg.AssetsDefinition:
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
            **warehouse_tables([PROBE_RESULTS, PARTICIPANT_PROBE_RESULTS, PROBE_PREDICTIONS], [encoder]),
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
        **warehouse_tables([RETRIEVAL_RESULTS]),
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
