"""Encoders: the PPG teacher, and the accelerometer student distilled from it."""

import json
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq

from accelkd.cohort.curation import TrainingSet, training_set
from accelkd.cohort.trained import whose_segments, write_trained_on
from accelkd.files import sha256_file
from accelkd.lake import Lake
from accelkd.settings import Settings
from accelkd.training.current import EncoderName, current_checkpoint, make_current
from accelkd.warehouse.load import load_model
from assets.cohort import participant_split
from assets.metadata import figure, tags
from assets.segments import segments

# torch is imported inside the functions: the code server, which only lists assets, stays small and quick without it.


@dg.asset(
    deps=[segments, participant_split],
    group_name="encoders",
    kinds={"pytorch"},
    owners=["team:research"],
    tags=tags("of-people", "each-training"),
    pool="training",
    code_version="1",
    metadata={"settings": "preset"},
)
def ppg_teacher(lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
    """PPG teacher, pre-trained by masked autoencoding on the training participants' segments (paper, section 3.1).

    The checkpoint's name is a hash of configuration, code, data and split: with nothing changed the one that is there
    is used again, and an interrupted training continues.
    """
    from accelkd.training.presets import PRESETS
    from accelkd.training.runs import train_encoder

    curated = training_set(lake)
    folder = train_encoder(
        curated.store,
        curated.rows,
        PRESETS[settings.preset].teacher,
        lake.encoder("ppg_teacher"),
        name="ppg_teacher",
        data_version=curated.data_version,
        split_version=curated.split_version,
    )
    return _put_into_use(lake, "ppg_teacher", folder, curated)


@dg.asset(
    deps=[segments, participant_split, ppg_teacher],
    group_name="encoders",
    kinds={"pytorch"},
    owners=["team:research"],
    tags=tags("of-people", "each-training"),
    pool="training",
    code_version="1",
    metadata={"settings": "preset"},
)
def accel_student(lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[None]:
    """Accelerometer student, distilled from the frozen PPG teacher by a multi-modal InfoNCE (paper, section 3.2).

    Reuses and resumes like the teacher. A loss of ln(batch size) is chance.
    """
    from accelkd.training.presets import PRESETS
    from accelkd.training.runs import train_encoder

    curated = training_set(lake)
    folder = train_encoder(
        curated.store,
        curated.rows,
        PRESETS[settings.preset].student,
        lake.encoder("accel_student"),
        name="accel_student",
        data_version=curated.data_version,
        split_version=curated.split_version,
        teacher=current_checkpoint(lake, "ppg_teacher"),
    )
    return _put_into_use(lake, "accel_student", folder, curated)


def _put_into_use(lake: Lake, encoder: EncoderName, folder: Path, curated: TrainingSet) -> dg.MaterializeResult[None]:
    from accelkd.evaluation.figures import loss_figure
    from accelkd.training.checkpoint import CARD, CURVE, METRICS, WEIGHTS

    make_current(lake, encoder, folder.name)
    write_trained_on(lake, encoder, folder.name, whose_segments(curated), curated.batch_ids)
    load_model(lake, encoder, folder.name, curated.batch_ids)
    metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(sha256_file(folder / WEIGHTS)),
        metadata={
            "model_id": folder.name,
            "dagster/uri": str(folder),
            "training_batches": ", ".join(curated.batch_ids),
            "batches_left_out": ", ".join(curated.left_out) or "none",
            "data_version": curated.data_version,
            "split_version": curated.split_version,
            **{name: value for name, value in metrics.items() if isinstance(value, int | float | str)},
            "card": dg.MetadataValue.md((folder / CARD).read_text(encoding="utf-8")),
            "loss_curve": figure(loss_figure(pq.read_table(folder / CURVE), encoder), "training loss"),
        },
    )
