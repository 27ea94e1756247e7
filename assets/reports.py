"""Reports: probes, retrieval and maps of the embeddings, as rows in the warehouse, figures and one written report."""

from dataclasses import asdict

import dagster as dg

from accelkd.files import sha256_file, sha256_json
from accelkd.lake import Lake
from accelkd.training.current import EncoderName
from assets.cohort import participant_split
from assets.embeddings import accel_student_embeddings, ppg_teacher_embeddings
from assets.metadata import figure, markdown_table


def _probes(encoder: EncoderName, embeddings: dg.AssetsDefinition) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"{encoder}_probes",
        deps=[embeddings, participant_split],
        kinds={"scikitlearn", "duckdb"},
        description=(
            f"Ridge probes on the embeddings of {encoder} for heart rate, SDNN and RMSSD, fitted on training and "
            "measured on test participants' segments, beside the constant predictor (paper, section 4.2)."
        ),
        group_name="reports",
        owners=["team:research"],
        pool="duckdb_writer",
        code_version="1",
    )
    def probes(lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
        from accelkd.evaluation.report import probe_encoder

        report = probe_encoder(lake, encoder)
        rows = [asdict(result) for result in report.results]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(sha256_json([report.model_id, report.split_version, rows])),
            metadata={
                "model_id": report.model_id,
                "split_version": report.split_version,
                "results": markdown_table(rows),
                "predicted_against_measured": figure(report.figure.read_bytes(), "predicted against measured"),
                **{f"{result.target}_mae": result.mae for result in report.results},
                **{f"{result.target}_mae_constant": result.constant_mae for result in report.results},
            },
        )

    return probes


ppg_teacher_probes = _probes("ppg_teacher", ppg_teacher_embeddings)
accel_student_probes = _probes("accel_student", accel_student_embeddings)


@dg.asset(
    deps=[ppg_teacher_embeddings, accel_student_embeddings, participant_split],
    kinds={"numpy", "duckdb"},
    group_name="reports",
    owners=["team:research"],
    pool="duckdb_writer",
    code_version="1",
)
def retrieval(lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
    """How often a segment's acceleration finds its own PPG among all candidates, and the reverse (paper, table 1).

    Held-out participants only, over bootstrapped pools, in the space of the projection heads and in the raw one.
    """
    from accelkd.evaluation.report import retrieve_pairs

    report = retrieve_pairs(lake)
    rows = [
        {"query": query, "key": key, "space": space, **asdict(result)}
        for (query, key, space), result in report.results.items()
    ]
    return dg.MaterializeResult(
        data_version=dg.DataVersion(
            sha256_json([report.teacher_model_id, report.student_model_id, report.split_version, rows])
        ),
        metadata={
            "teacher_model_id": report.teacher_model_id,
            "student_model_id": report.student_model_id,
            "results": markdown_table(rows),
            "ranks": figure(report.figure.read_bytes(), "rank of the true pair"),
        },
    )


@dg.asset(
    deps=[ppg_teacher_embeddings, accel_student_embeddings, participant_split],
    kinds={"scikitlearn"},
    group_name="reports",
    owners=["team:research"],
    pool="duckdb_writer",
    code_version="1",
)
def embedding_map(lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
    """t-SNE maps of the same held-out segments by teacher and student, coloured by participant (paper, figure 3)."""
    from accelkd.evaluation.report import map_embeddings

    report = map_embeddings(lake)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(sha256_file(report.figure)),
        metadata={
            "participants": report.participants,
            "segments": report.segments,
            "map": figure(report.figure.read_bytes(), "t-SNE of teacher and student embeddings"),
        },
    )


@dg.asset(
    deps=[ppg_teacher_probes, accel_student_probes, retrieval, embedding_map],
    kinds={"markdown"},
    group_name="reports",
    owners=["team:research"],
    pool="duckdb_writer",
    code_version="1",
)
def written_report(lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[None]:
    """`reports/report.md`: the cohort, the training, the probes and the retrieval, and what they were made from."""
    from accelkd.evaluation.report import write_report

    path = write_report(lake)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(sha256_file(path)),
        metadata={"dagster/uri": str(path), "report": dg.MetadataValue.md(path.read_text(encoding="utf-8"))},
    )
