"""How far other people and other sensors lie from the demo's training participants: the table in docs/operations.md.

    make demo && python benches/drift.py

Simulates batches of 24 people with the demo's seed, other numbers and three profiles, lands them in a copy of the
demo's home and measures them as the checks do, by the encoders that the demo promoted.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from accelkd.cohort.training_set import segmented_batches
from accelkd.home.layout import Home
from accelkd.operations.drift import embedding_drift, segment_drift
from accelkd.operations.embed import embed_batch
from accelkd.recordings.simulator import simulate_batch
from accelkd.segments.segment import segment_batch
from accelkd.warehouse.load import load_batch

PEOPLE = 24


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        home = Home(Path(shutil.copytree(Home.from_environment().root, Path(scratch) / "home")))
        batches = list(segmented_batches(home))
        for number, profile in enumerate(("easy", "realistic", "hard")):
            batches.append(batch := f"other-{profile}")
            simulate_batch(
                home.landing,
                batch,
                participants=PEOPLE,
                segments=8,
                seed=7,
                profile=profile,
                first_participant=400 + 100 * number,
            )
            segment_batch(home, batch)
            load_batch(home, batch)
            for encoder in ("ppg_teacher", "accel_student"):
                embed_batch(home, encoder, batch)
        for batch in batches:
            segments = segment_drift(home, batch)
            embeddings = {name: embedding_drift(home, name, batch) for name in ("ppg_teacher", "accel_student")}
            largest = max(segments, key=lambda drift: drift.difference)
            shifts = [f"{name} {drift.difference:.2f}" for name, drift in embeddings.items() if drift]
            drifted = [drift.quantity for drift in segments if drift.drifted]
            drifted += [name for name, drift in embeddings.items() if drift and drift.drifted]
            shifted = ", ".join(drifted) or "nothing"
            print(f"{batch:<18} {largest.quantity} {largest.difference:.2f}; {', '.join(shifts)}; drifted: {shifted}")


if __name__ == "__main__":
    main()
