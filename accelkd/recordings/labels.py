"""The labels of a minute: heart rate and its variability, as a reference that came with a recording or from its PPG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from accelkd.home.columns import Unit

LabelName = Literal["hr_bpm", "sdnn_ms", "rmssd_ms"]


@dataclass(frozen=True)
class Label:
    """One label, wherever it is stored, probed or drawn."""

    name: LabelName  # of its column
    unit: Unit
    title: str  # in figures and reports
    abbreviation: str  # in tables
    plausible: tuple[float, float]  # of a living person: a value outside it is an error of measurement

    @property
    def axis(self) -> str:
        """Title and unit."""
        return f"{self.title} ({self.unit})"


LABELS: dict[str, Label] = {
    label.name: label
    for label in (
        Label("hr_bpm", "bpm", "heart rate", "HR", (30.0, 220.0)),
        Label("sdnn_ms", "ms", "SDNN", "SDNN", (0.0, 500.0)),
        Label("rmssd_ms", "ms", "RMSSD", "RMSSD", (0.0, 500.0)),
    )
}
