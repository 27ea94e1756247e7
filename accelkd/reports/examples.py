"""The figure of a few segments of a batch, raw and processed, as a file of the reports folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelkd.home.files import atomic_path
from accelkd.home.layout import Home
from accelkd.recordings.batches import read_manifest
from accelkd.reports.example_segments import example_segments
from accelkd.reports.figures import segments_figure


@dataclass(frozen=True)
class ExamplesFigure:
    """The figure's file, and whether its signals are simulated, so that no participant is shown."""

    path: Path
    simulated: bool


def draw_examples(home: Home, batch_id: str) -> ExamplesFigure | None:
    """Draw up to three segments of a batch into the reports folder; None, and no file, if it has no segment."""
    examples = example_segments(home, batch_id)
    if not examples:
        home.examples(batch_id).unlink(missing_ok=True)
        return None
    with atomic_path(home.examples(batch_id)) as part:
        part.write_bytes(segments_figure(examples))
    return ExamplesFigure(home.examples(batch_id), read_manifest(home.batch(batch_id)).source == "simulation")
