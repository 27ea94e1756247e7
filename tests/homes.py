"""Small lakes for tests: landed batches, segment stores and untrained checkpoints, all written by the real writers."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from accelkd.home.files import write_checksum
from accelkd.home.layout import Home
from accelkd.models.heads import ProjectionHead
from accelkd.models.transformer import Encoder
from accelkd.recordings.batches import writing_batch
from accelkd.recordings.schema import SURVEY
from accelkd.registry.trained_on import TRAINED_ON, write_trained_on
from accelkd.segments.schema import ACCEL_AXES, QUARANTINE, SAMPLES, segment_schema
from accelkd.segments.store import write_segments
from accelkd.training.checkpoint import Identity, write_checkpoint
from accelkd.training.presets import PRESETS

PPG_CHANNELS = 2


def land(
    home: Home,
    batch_id: str,
    participants: Sequence[str],
    *,
    minutes: int = 3,
    named: str | None = None,
    ppg_channels: int = PPG_CHANNELS,
    replaces: str | None = None,
    survey: Sequence[tuple[str, str, str]] = (),
) -> None:
    """An arrival batch with one recording `<named>-<participant>` each, noise as segments, one quarantined window.

    `named` is the batch's id unless given; `survey` is (participant, question, answer) of each answer.
    """
    named = named or batch_id
    rng = np.random.default_rng([*batch_id.encode()])
    with writing_batch(home.landing, batch_id, source="simulation", replaces=replaces) as batch:
        batch.add(
            "participants",
            pa.table(
                {
                    "participant_id": list(participants),
                    "sex": [("female", "male")[i % 2] for i in range(len(participants))],
                    "age_years": pa.array(20.0 + 50.0 * rng.random(len(participants))),
                    "height_m": pa.array([1.7] * len(participants)),
                    "bmi_kg_m2": pa.array([None] * len(participants), pa.float64()),
                }
            ),
        )
        if survey:
            answers = [dict(zip(SURVEY.names, answer, strict=True)) for answer in survey]
            batch.add("survey", pa.Table.from_pylist(answers, SURVEY))
        batch.add(
            "recordings",
            pa.table(
                {
                    "recording_id": [f"{named}-{p}" for p in participants],
                    "participant_id": list(participants),
                    "device_id": ["sim-wrist-64"] * len(participants),
                    "ppg": [[[1.0] * 64] * ppg_channels] * len(participants),
                    "ppg_rate_hz": [64.0] * len(participants),
                    "accel": [[[1.0] * 64] * 3] * len(participants),
                    "accel_rate_hz": [64.0] * len(participants),
                    "accel_start_s": [0.0] * len(participants),
                }
            ),
        )
    rows = [
        {
            "segment_id": hashlib.sha256(f"{named}-{p} {minute}".encode()).hexdigest()[:16],
            "recording_id": f"{named}-{p}",
            "participant_id": p,
            "batch_id": batch_id,
            "device_id": "sim-wrist-64",
            "offset_s": 60.0 * minute,
            "motion_median_g": 0.01,
            "motion_p95_g": 0.02,
            "hr_bpm": float(rng.uniform(50, 100)),
            "sdnn_ms": float(rng.uniform(20, 100)),
            "rmssd_ms": float(rng.uniform(20, 100)),
            "label_channel": 0,
            "label_agreement": 1.0,
            "label_template_correlation": 0.95,
            "label_coverage": 0.97,
            "label_good": True,
            "reference_hr_bpm": 70.0,
            "ppg_status": [0] * ppg_channels,
            "ppg_level": [1e5] * ppg_channels,
            "ppg_ac_level": [1e3] * ppg_channels,
            "ppg_missing": [0.0] * ppg_channels,
            "accel_status": [0] * ACCEL_AXES,
            "accel_level": [0.5] * ACCEL_AXES,
            "accel_ac_level": [0.01] * ACCEL_AXES,
            "accel_missing": [0.0] * ACCEL_AXES,
            "ppg": rng.standard_normal(ppg_channels * SAMPLES).astype(np.float16),
            "accel": rng.standard_normal(ACCEL_AXES * SAMPLES).astype(np.float16),
        }
        for p in participants
        for minute in range(minutes)
    ]
    segments = pa.RecordBatch.from_pylist(rows, segment_schema(ppg_channels))
    write_segments(home.segments(batch_id), ppg_channels, [segments])
    home.quarantine(batch_id).parent.mkdir(parents=True, exist_ok=True)
    moved = {"batch_id": batch_id, "participant_id": participants[0], "recording_id": f"{named}-{participants[0]}"}
    pq.write_table(
        pa.Table.from_pylist(
            [{**moved, "unit": "window", "offset_s": 180.0, "reason": "motion", "detail": "0.2 g"}], QUARANTINE
        ),
        home.quarantine(batch_id),
    )
    write_checksum(home.quarantine(batch_id))


def checkpoint(
    home: Home,
    encoder: str,
    *,
    seed: int = 0,
    teacher: str | None = None,
    split_version: str = "0",
    trained_on: Sequence[tuple[str, str, int]] = (("p1", "b1", 4),),
    scale: float = 1.0,
) -> str:
    """An untrained checkpoint of the smallest size; returns its model id.

    It says that it was trained on the given (participant, batch, segments). Its weights are multiplied by `scale`: with
    0 it embeds everything alike.
    """
    preset = PRESETS["smoke"]
    config = preset.student if encoder == "accel_student" else preset.teacher
    channels = ACCEL_AXES if encoder == "accel_student" else PPG_CHANNELS
    module = nn.Module()
    torch.manual_seed(seed)
    module.encoder = Encoder(channels, config.encoder)
    if teacher is not None:
        module.teacher_head = ProjectionHead(preset.teacher.encoder.width)
        module.student_head = ProjectionHead(config.encoder.width)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= scale
    identity = Identity(
        encoder=encoder,
        method="distillation" if teacher else "masked_autoencoding",
        modality="accel" if encoder == "accel_student" else "ppg",
        channels=channels,
        teacher=teacher,
        config=asdict(config),
        code_version="0",
        data_version=str(seed),
        split_version=split_version,
        segments="0",
    )
    inside = pa.Table.from_pylist([dict(zip(TRAINED_ON.names, row, strict=True)) for row in trained_on], TRAINED_ON)
    counts = {"segments": sum(row[2] for row in trained_on), "participants": len({row[0] for row in trained_on})}
    metrics = {**counts, "steps": 0, "batch_size": 1, "loss": 1.0}
    curve = pa.table({"step": [0, 1], "loss": [1.0, 0.5]})
    write_checkpoint(home.checkpoint(encoder, identity.model_id), identity, module, curve, metrics)
    write_trained_on(home, encoder, identity.model_id, inside, sorted({row[1] for row in trained_on}))
    return identity.model_id
