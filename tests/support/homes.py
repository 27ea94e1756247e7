"""Small homes: batches, segment stores, split, checkpoints and embeddings, all written by the real writers."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from accelkd.cohort.participants import segmented_participants
from accelkd.cohort.split import extend_split
from accelkd.home.files import write_checksum, write_json
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.models.encoders import build_encoder
from accelkd.models.heads import ProjectionHead
from accelkd.models.specs import ENCODERS, encoder_spec
from accelkd.operations.adopt import adopt
from accelkd.recordings.batches import MANIFEST, writing_batch
from accelkd.recordings.schema import SURVEY
from accelkd.recordings.simulator import simulate_batch
from accelkd.registry.history import decide
from accelkd.registry.trained_on import TRAINED_ON, write_trained_on
from accelkd.segments.schema import ACCEL_AXES, QUARANTINE, SAMPLES
from accelkd.segments.store import SegmentStore, write_segments
from accelkd.training.checkpoint import Identity, write_checkpoint
from accelkd.training.presets import PRESETS
from accelkd.warehouse.embedding_files import embedding_rows
from accelkd.warehouse.embeddings import load_embeddings
from accelkd.warehouse.load import load_batch, load_model, load_split
from tests.support import REPOSITORY
from tests.support.segments import PPG_CHANNELS, segment_rows

EMBEDDING_WIDTH = 16  # of the smoke preset
DEVICE_ID = "sim-wrist-64"
GOOD_SEGMENT = {
    "motion_median_g": 0.01,
    "motion_p95_g": 0.02,
    "label_channel": 0,
    "label_agreement": 1.0,
    "label_template_correlation": 0.95,
    "label_coverage": 0.97,
    "label_good": True,
    "reference_hr_bpm": 70.0,
}


def new_home(root: Path) -> Home:
    """A home with the settings of the smoke preset and the Dagster instance that is shipped; nothing has landed."""
    home = Home(root)
    (root / "dagster").mkdir(parents=True)
    shutil.copy(REPOSITORY / "dagster.yaml", root / "dagster")
    Settings(preset="smoke").save(home)
    return home


def copy_home(home: Home, root: Path) -> Home:
    """A copy with all its history. Dagster keeps absolute paths nowhere that matters to a run."""
    return Home(Path(shutil.copytree(home.root, root)))


def simulate(
    home: Home,
    batch_id: str,
    first_participant: int = 0,
    *,
    participants: int = 12,
    segments: int = 4,
    seed: int = 3,
    replaces: str | None = None,
) -> None:
    """Land an easy batch of the cohort of a seed: its participants are `sim<seed>-000000` and so on."""
    manifest = simulate_batch(
        home.landing,
        batch_id,
        participants=participants,
        segments=segments,
        seed=seed,
        profile="easy",
        first_participant=first_participant,
    )
    if replaces is not None:
        write_json(home.batch(batch_id) / MANIFEST, asdict(replace(manifest, replaces=replaces)))


def land(
    home: Home,
    batch_id: str,
    participants: Sequence[str],
    *,
    minutes: int = 3,
    prefix: str | None = None,
    ppg_channels: int = PPG_CHANNELS,
    replaces: str | None = None,
    survey: Sequence[tuple[str, str, str]] = (),
) -> None:
    """An arrival batch with one recording `<prefix>-<participant>` each, noise as segments, one quarantined window.

    `prefix` is the batch's id unless given; `survey` is (participant, question, answer) of each answer.
    """
    prefix = prefix or batch_id
    rng = np.random.default_rng([*batch_id.encode()])
    with writing_batch(home.landing, batch_id, source="simulation", replaces=replaces) as batch:
        batch.add(
            "participants",
            pa.table(
                {
                    "participant_id": list(participants),
                    "sex": [("female", "male")[i % 2] for i in range(len(participants))],
                    "age_years": 20.0 + 50.0 * rng.random(len(participants)),
                    "height_m": [1.7] * len(participants),
                }
            ),
        )
        if survey:
            answers = [dict(zip(SURVEY.names, answer, strict=True)) for answer in survey]
            batch.add("survey", pa.Table.from_pylist(answers, SURVEY.arrow()))
        batch.add(
            "recordings",
            pa.table(
                {
                    "recording_id": [f"{prefix}-{participant}" for participant in participants],
                    "participant_id": list(participants),
                    "device_id": [DEVICE_ID] * len(participants),
                    "ppg": [[[1.0] * 64] * ppg_channels] * len(participants),
                    "ppg_rate_hz": [64.0] * len(participants),
                    "accel": [[[1.0] * 64] * ACCEL_AXES] * len(participants),
                    "accel_rate_hz": [64.0] * len(participants),
                    "accel_start_s": [0.0] * len(participants),
                }
            ),
        )
    segments = _noise(prefix, participants, minutes, ppg_channels, {"batch_id": batch_id, "device_id": DEVICE_ID}, rng)
    write_segments(home.segments(batch_id), [segments])
    window = {
        "batch_id": batch_id,
        "participant_id": participants[0],
        "recording_id": f"{prefix}-{participants[0]}",
        **{"unit": "window", "offset_s": 180.0, "reason": "motion", "detail": "0.2 g"},
    }
    home.quarantine(batch_id).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([window], QUARANTINE.arrow()), home.quarantine(batch_id))
    write_checksum(home.quarantine(batch_id))


def _noise(
    prefix: str,
    participants: Sequence[str],
    minutes: int,
    ppg_channels: int,
    facts: Mapping[str, Any],
    rng: np.random.Generator,
) -> pa.RecordBatch:
    """So many segments of each participant, with random labels and good quality; `facts` are the same in every row."""
    windows = [(participant, minute) for participant in participants for minute in range(minutes)]
    labels = np.empty((len(windows), 3))
    ppg, accel = (np.empty((len(windows), channels * SAMPLES)) for channels in (ppg_channels, ACCEL_AXES))
    for row in range(len(windows)):
        labels[row] = rng.uniform((50, 20, 20), 100)
        ppg[row] = rng.standard_normal(ppg.shape[1])
        accel[row] = rng.standard_normal(accel.shape[1])
    columns: dict[str, Any] = {name: [value] * len(windows) for name, value in {**GOOD_SEGMENT, **facts}.items()}
    for stream, channels, level, ac_level in (("ppg", ppg_channels, 1e5, 1e3), ("accel", ACCEL_AXES, 0.5, 0.01)):
        columns[f"{stream}_level"] = np.full((len(windows), channels), level)
        columns[f"{stream}_ac_level"] = np.full((len(windows), channels), ac_level)
    columns |= {"ppg": ppg, "accel": accel, **dict(zip(("hr_bpm", "sdnn_ms", "rmssd_ms"), labels.T, strict=True))}
    columns["offset_s"] = [60.0 * minute for _, minute in windows]
    columns["recording_id"] = [f"{prefix}-{participant}" for participant, _ in windows]
    columns["segment_id"] = [
        hashlib.sha256(f"{prefix}-{participant} {minute}".encode()).hexdigest()[:16] for participant, minute in windows
    ]
    return segment_rows([participant for participant, _ in windows], columns, ppg_channels)


def load_and_split(home: Home, batch_ids: Sequence[str]) -> None:
    """Load landed batches into the warehouse, and assign their participants to the two sides of the split."""
    for batch_id in batch_ids:
        load_batch(home, batch_id)
    extend_split(home.split, segmented_participants(home, batch_ids))
    load_split(home)


def land_two_batches(home: Home) -> None:
    """Batches b1, of eight participants, and b2, of four, loaded and in the split."""
    land(home, "b1", [f"p{i}" for i in range(8)])
    land(home, "b2", [f"q{i}" for i in range(4)])
    load_and_split(home, ["b1", "b2"])


def checkpoint(
    home: Home,
    encoder: str,
    *,
    seed: int = 0,
    teacher: str | None = None,
    trained_on: Sequence[tuple[str, str, int]] = (("p1", "b1", 4),),
    scale: float = 1.0,
    channels: int = PPG_CHANNELS,
) -> str:
    """An untrained checkpoint of the smallest size; returns its model id.

    It says that it was trained on the given (participant, batch, segments). Its weights are multiplied by `scale`: with
    0 it embeds everything alike. A teacher takes so many `channels`.
    """
    spec, preset = encoder_spec(encoder), PRESETS["smoke"]
    config, channels = preset.config(spec), spec.channels or channels
    module = nn.Module()
    torch.manual_seed(seed)
    module.encoder = build_encoder(channels, config.encoder)
    if teacher is not None:
        module.teacher_head = ProjectionHead(preset.teacher.encoder.width)
        module.student_head = ProjectionHead(config.encoder.width)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(scale)
    identity = Identity(
        encoder=encoder,
        method="distillation" if teacher else "masked_autoencoding",
        modality=spec.modality,
        channels=channels,
        teacher=teacher,
        config=asdict(config),
        code_version="0",
        data_version=str(seed),
        split_version="0",
        segments="0",
    )
    segments = pa.Table.from_pylist(
        [dict(zip(TRAINED_ON.names, row, strict=True)) for row in trained_on], TRAINED_ON.arrow()
    )
    counts = {"segments": sum(row[2] for row in trained_on), "participants": len({row[0] for row in trained_on})}
    metrics = {**counts, "steps": 0, "batch_size": 1, "loss": 1.0}
    curve = pa.table({"step": [0, 1], "loss": [1.0, 0.5]})
    write_checkpoint(home.checkpoint(encoder, identity.model_id), identity, module, curve, metrics)
    write_trained_on(home, encoder, identity.model_id, segments, sorted({row[1] for row in trained_on}))
    return identity.model_id


def adopt_pair(home: Home, elsewhere: Home, *, seed: int = 0) -> dict[str, str]:
    """Adopt an untrained pair, whose teacher takes four channels, from another home; returns model ids by encoder."""
    teacher = checkpoint(elsewhere, "ppg_teacher", seed=seed, channels=4)
    student = checkpoint(elsewhere, "accel_student", seed=seed, teacher=teacher)
    models = {"ppg_teacher": teacher, "accel_student": student}
    decide(elsewhere, "promoted", models, "a test")
    return dict(adopt(home, [elsewhere.root]).models)


def loaded_checkpoint(home: Home, encoder: str, batch_ids: Sequence[str], **options: Any) -> str:
    """A `checkpoint` that the warehouse knows, trained on these batches; returns its model id."""
    model_id = checkpoint(home, encoder, **options)
    load_model(home, encoder, model_id, batch_ids)
    return model_id


def loaded_pair(home: Home, batch_ids: Sequence[str], **options: Any) -> dict[str, str]:
    """An untrained checkpoint of every encoder that the warehouse knows, a teacher before its students, by encoder."""
    models: dict[str, str] = {}
    for spec in ENCODERS:
        teacher = None if spec.teacher is None else models[spec.teacher]
        models[spec.name] = loaded_checkpoint(home, spec.name, batch_ids, teacher=teacher, **options)
    return models


def segment_keys(home: Home, batch_id: str) -> tuple[list[str], list[str]]:
    """Ids of a batch's segments and their participants, in the order of the store."""
    metadata = SegmentStore([home.segments(batch_id)]).metadata
    return metadata.column("segment_id").to_pylist(), metadata.column("participant_id").to_pylist()


def plant_embeddings(
    home: Home,
    encoder: str,
    model_id: str,
    batch_ids: Iterable[str],
    matrix: npt.NDArray[np.floating] | None = None,
) -> list[str]:
    """Load `matrix`, else noise, as the model's embeddings of the batches, in the order of their stores.

    Returns the status of each batch's rows (`LoadedEmbeddings.status`).
    """
    places: list[str] = []
    start = 0
    for batch_id in batch_ids:
        segments, people = segment_keys(home, batch_id)
        noise = np.random.default_rng(0).standard_normal((len(segments), EMBEDDING_WIDTH))
        rows = (noise if matrix is None else matrix[start : start + len(segments)]).astype(np.float32)
        table = embedding_rows(encoder, model_id, batch_id, segments, people, rows)
        places.append(load_embeddings(home, encoder, table).status)
        start += len(segments)
    return places
