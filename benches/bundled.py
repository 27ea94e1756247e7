"""Trains small encoders on a simulated cohort of all profiles and placements: one teacher, several students.

    OMP_NUM_THREADS=1 nice python benches/bundled.py --home /somewhere/with/space

Takes a night of one core; interrupted, the same command continues. `--only` trains one of them.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

from accelkd.cohort.training_set import training_set
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.models.efficientnet import EfficientNetShape
from accelkd.models.encoders import EncoderShape
from accelkd.models.transformer import TransformerShape
from accelkd.operations.split import split_participants
from accelkd.recordings.simulator import simulate_batch
from accelkd.segments.segment import segment_batch
from accelkd.training.presets import PRESETS, night_distillation
from accelkd.training.runs import train_encoder
from accelkd.warehouse.load import load_batch

SEED = 2_026  # other people than those of the demo
SEGMENTS_PER_PARTICIPANT = 8
# (batch, profile, rate, first participant, participants)
COHORT = (
    ("easy-64", "easy", 64, 0, 256),
    ("realistic-64", "realistic", 64, 256, 512),
    ("realistic-256", "realistic", 256, 768, 192),
    ("hard-64", "hard", 64, 960, 256),
    ("chest-64", "chest", 64, 1_216, 256),
)
TEACHER = "ppg-teacher-xs"
STUDENTS: dict[str, tuple[EncoderShape, int, float]] = {  # (shape, steps, peak of the learning rate)
    "accel-kd-xs": (PRESETS["night"].student.encoder, 5_600, 4e-3),
    "accel-kd-transformer-xs": (
        TransformerShape(width=64, layers=3, heads=2, mlp=256, stem="convolutional"),
        7_000,
        2e-3,
    ),
    "accel-kd-s": (EfficientNetShape(width=128, width_multiplier=0.25), 4_000, 3e-3),
}


def cohort(home: Home) -> None:
    """Land, segment and split the cohort; what is there stays."""
    Settings(preset="night").save(home)
    for batch_id, profile, rate_hz, first, participants in COHORT:
        if not home.batch(batch_id).exists():
            simulate_batch(
                home.landing,
                batch_id,
                participants=participants,
                segments=SEGMENTS_PER_PARTICIPANT,
                seed=SEED,
                profile=profile,
                rate_hz=rate_hz,
                first_participant=first,
                processes=os.cpu_count() or 1,
            )
        if not home.segments(batch_id).exists():
            print(batch_id, segment_batch(home, batch_id), flush=True)
            load_batch(home, batch_id)
    if not home.split.exists():
        split_participants(home)


def train(home: Home, name: str) -> Path:
    """Train one of the encoders, or find it trained."""
    data = training_set(home)
    night = PRESETS["night"]
    run = partial(
        train_encoder,
        data.store,
        data.rows,
        data_version=data.data_version,
        split_version=data.split_version,
        device="cpu",
    )
    teacher = run(night.teacher, home.encoder("ppg_teacher"), name="ppg_teacher")
    if name == TEACHER:
        return teacher
    shape, steps, learning_rate = STUDENTS[name]
    config = replace(night.student, encoder=shape, optimisation=night_distillation(steps, learning_rate))
    return run(config, home.encoder("accel_student"), name="accel_student", teacher=teacher)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--only", choices=(TEACHER, *STUDENTS))
    arguments = parser.parse_args()
    home = Home(arguments.home.resolve())
    cohort(home)
    for name in [arguments.only] if arguments.only else [TEACHER, *STUDENTS]:
        print(name, train(home, name), flush=True)


if __name__ == "__main__":
    main()
