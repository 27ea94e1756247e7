"""Which checkpoint of each encoder is in use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from accelkd.files import write_json
from accelkd.lake import Lake

EncoderName = Literal["ppg_teacher", "accel_student"]


def make_current(lake: Lake, encoder: EncoderName, model_id: str) -> None:
    """Put a checkpoint into use: embeddings are made with it from now on."""
    write_json(lake.encoder(encoder) / "current.json", {"model_id": model_id})


def current_checkpoint(lake: Lake, encoder: EncoderName) -> Path:
    """Folder of the checkpoint in use. Raises FileNotFoundError that says what to do when there is none."""
    path = lake.encoder(encoder) / "current.json"
    if not path.exists():
        raise FileNotFoundError(f"no {encoder} in {lake.root}: materialize `{encoder}` first")
    return lake.checkpoint(encoder, json.loads(path.read_text(encoding="utf-8"))["model_id"])
