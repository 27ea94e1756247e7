"""Reports: probes, retrieval and maps of the embeddings, as rows in the warehouse, figures and one written report."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import dagster as dg

from accelkd.home.files import sha256_file, sha256_json
from accelkd.home.layout import Home
from accelkd.models.specs import ENCODERS, encoder_spec
from accelkd.warehouse.schema import PARTICIPANT_PROBE_RESULTS, PROBE_PREDICTIONS, PROBE_RESULTS, RETRIEVAL_RESULTS
from assets.cohort import participant_split
from assets.failures import explained
from assets.metadata import document, figure, markdown_table, presented, tags, warehouse_tables
from assets.predictions import fairness
from assets.sensors import sensor_check

if TYPE_CHECKING:
    from accelkd.evaluation.retrieval import RetrievalResult


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
        tags=tags("participant-level", "each-report"),
        metadata={
            "dagster/table_name": "probe_results",
            **warehouse_tables([PROBE_RESULTS, PARTICIPANT_PROBE_RESULTS, PROBE_PREDICTIONS], [encoder]),
        },
        pool="duckdb_writer",
        code_version="4",
    )
    @explained
    def probes(home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
        from accelkd.reports.report import probe_encoder
        from assets.probe_results import participant_probes, segment_probes

        report = probe_encoder(home, encoder)
        rows = [asdict(result) for result in report.results]
        people = [asdict(result) for result in report.participants]
        classical = report.classical and asdict(report.classical)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(
                sha256_json(
                    [
                        *(report.model_id, report.split_version, report.batches_version),
                        *(rows, people, classical, report.not_measured),
                    ]
                )
            ),
            metadata=presented(
                {
                    "not_measured": "; ".join(report.not_measured),
                    "predicted_against_measured": report.figure
                    and figure(report.figure.read_bytes(), "predicted against measured"),
                    **segment_probes(report.results, report.classical),
                    "effective_rank": report.effective_rank,
                    **participant_probes(report.participants),
                    "model_id": report.model_id,
                    "split_version": report.split_version,
                    "figure_file": report.figure and home.relative(report.figure),
                    "dagster/row_count": len(rows),
                }
            ),
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
    code_version="3",
)
@explained
def retrieval(home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """How often a segment's acceleration finds its own PPG among all candidates, and the reverse (paper, table 1).

    Held-out participants only, over bootstrapped pools, in the space of the projection heads and in the raw one, on
    segments that teacher and student embed; without any, `not_measured` says why.
    """
    from accelkd.reports.report import retrieve_pairs

    report = retrieve_pairs(home)
    rows = [
        {"query": query, "key": key, "space": space, **asdict(result)}
        for (query, key, space), result in report.results.items()
    ]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(
            sha256_json(
                [*report.models.values(), report.split_version, *report.batches_versions, rows, report.not_measured]
            )
        ),
        metadata=presented(
            {
                "not_measured": "; ".join(report.not_measured),
                "ranks": report.figure and figure(report.figure.read_bytes(), "rank of the true pair"),
                **_ranks(report.results),
                "results": markdown_table(
                    [
                        {
                            "query and key": f"{query} finds {key}, {space}",
                            "top-1 (%)": f"{result.top1_percent:.1f}, chance {result.chance_top1_percent:.1f}",
                            "mean rank": f"{result.mean_rank:.1f}, chance {result.chance_mean_rank:.1f}",
                        }
                        for (query, key, space), result in report.results.items()
                    ]
                ),
                "not_decidable": ", ".join(dict.fromkeys(report.not_decidable.values())) or "none",
                **{f"{encoder}_model_id": model_id for encoder, model_id in report.models.items()},
                "figure_file": report.figure and home.relative(report.figure),
                "dagster/row_count": len(rows),
            }
        ),
    )


def _ranks(results: "Mapping[tuple[str, str, str], RetrievalResult]") -> dict[str, float]:
    """Numbers to plot, in the space that a student was trained in: how it finds its teacher, and is found by it."""
    numbers: dict[str, float] = {}
    for (query, key, space), result in results.items():
        if space == "projected":
            name = f"{query}_finds" if encoder_spec(query).teacher else f"{key}_found"
            numbers |= {f"{name}_top1_percent": result.top1_percent, f"{name}_mean_rank": result.mean_rank}
            numbers |= {"candidates": result.segments, "pools": result.pools}
    return numbers


@dg.asset(
    deps=[*(f"{spec.name}_embeddings" for spec in ENCODERS), participant_split],
    kinds={"scikitlearn"},
    group_name="reports",
    owners=["team:research"],
    tags=tags("summaries", "each-report"),
    pool="duckdb_writer",
    code_version="2",
)
@explained
def embedding_map(home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """t-SNE maps of the same held-out segments by every encoder, coloured by participant (paper, figure 3).

    What there is too little of to be mapped is left out with its reason, `not_measured`.
    """
    from accelkd.reports.report import map_embeddings

    report = map_embeddings(home)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(
            sha256_json(
                [report.made_of.configuration, report.figure and sha256_file(report.figure), report.not_measured]
            )
        ),
        metadata=presented(
            {
                "not_measured": "; ".join(report.not_measured),
                "map": report.figure and figure(report.figure.read_bytes(), "t-SNE of the embeddings"),
                "participants": report.participants,
                "segments": report.segments,
                "figure_file": report.figure and home.relative(report.figure),
            }
        ),
    )


@dg.asset(
    deps=[*(f"{spec.name}_probes" for spec in ENCODERS), retrieval, embedding_map, sensor_check, fairness],
    kinds={"markdown"},
    group_name="reports",
    owners=["team:research"],
    tags=tags("summaries", "each-report"),
    pool="duckdb_writer",
    code_version="4",
)
@explained
def written_report(home: dg.ResourceParam[Home]) -> dg.MaterializeResult[None]:
    """`reports/report.md`: the cohort, the training, the probes and the retrieval, and what they were made from."""
    from accelkd.reports.report import write_report

    path = write_report(home)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(sha256_file(path)),
        metadata=presented({"report": document(path), "dagster/uri": str(path)}),
    )
