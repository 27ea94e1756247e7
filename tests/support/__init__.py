"""What tests share: builders of homes, recordings and results, processes to kill, Dagster's UI in a browser."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
