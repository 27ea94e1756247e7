"""The picture of a few segments of a batch, raw and processed, as a file of the reports folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from accelkd.evaluation.figures import segments_figure
from accelkd.files import atomic_path
from accelkd.lake import Lake
from accelkd.recordings.batches import read_manifest
from accelkd.segments.examples import example_segments


@dataclass(frozen=True)
class ExamplesFigure:
    """Where the picture lies, and whether nobody's signal is in it."""

    path: Path
    simulated: bool


def draw_examples(lake: Lake, batch_id: str) -> ExamplesFigure | None:
    """Draw up to four segments of a batch into the reports folder; None where it has no segment."""
    examples = example_segments(lake, batch_id)
    if not examples:
        lake.examples(batch_id).unlink(missing_ok=True)
        return None
    with atomic_path(lake.examples(batch_id)) as part:
        part.write_bytes(segments_figure(examples))
    return ExamplesFigure(lake.examples(batch_id), read_manifest(lake.batch(batch_id)).source == "simulation")
