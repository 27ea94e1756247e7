"""Named jobs: what a person or a schedule launches as one thing."""

from __future__ import annotations

import dagster as dg

per_batch = dg.define_asset_job(
    "per_batch",
    selection=dg.AssetSelection.groups("recordings", "segments"),
    description="One arrival batch: validate its recordings, cut segments, load its tables.",
)
train_encoders = dg.define_asset_job(
    "train_encoders",
    selection=dg.AssetSelection.groups("cohort", "encoders"),
    description="Extend the split, pre-train the PPG teacher, distil the accelerometer student.",
)
embed_batch = dg.define_asset_job(
    "embed_batch",
    selection=dg.AssetSelection.groups("embeddings"),
    description="Embed one arrival batch with the current encoders.",
)
report = dg.define_asset_job(
    "report",
    selection=dg.AssetSelection.groups("reports", "warehouse"),
    description="Probe, retrieve, project; publish the DuckDB file and the written report.",
)

jobs = [per_batch, train_encoders, embed_batch, report]
