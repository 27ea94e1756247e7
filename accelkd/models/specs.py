"""The encoders of the pipeline: one row each, from which assets, checks, tables and reports follow."""

from __future__ import annotations

import re
from dataclasses import dataclass

from accelkd.segments.schema import ACCEL_AXES
from accelkd.segments.store import Modality


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder. Raises ValueError for a name that cannot be a table's."""

    name: str  # of its assets, tables and checkpoints: lower-case SQL; `__` is kept for suffixes of tables
    modality: Modality
    channels: int | None  # of its input; None: as many as the training batches' devices have
    teacher: str | None  # the encoder that it is distilled from; None: it is pre-trained by masked autoencoding
    title: str  # in figures and reports

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", self.name) or len(self.name) > 60:
            raise ValueError(f"encoder {self.name!r} is not a lower-case SQL name")


# A teacher stands before its students. All of them are trained, compared and promoted together.
ENCODERS: tuple[EncoderSpec, ...] = (
    EncoderSpec("ppg_teacher", "ppg", channels=None, teacher=None, title="PPG teacher"),
    EncoderSpec("accel_student", "accel", ACCEL_AXES, teacher="ppg_teacher", title="accelerometer student"),
)


def encoder_spec(name: str) -> EncoderSpec:
    """The row of that name. Raises LookupError that lists the names there are."""
    for spec in ENCODERS:
        if spec.name == name:
            return spec
    raise LookupError(f"there is no encoder {name!r}; there are {', '.join(spec.name for spec in ENCODERS)}")


def students() -> list[tuple[EncoderSpec, str]]:
    """The encoders that are distilled from another one, with its name."""
    return [(spec, spec.teacher) for spec in ENCODERS if spec.teacher is not None]
