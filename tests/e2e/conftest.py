"""The Dagster instance of the home on which the whole pipeline ran."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from tests.support.pipeline import Pipeline, opened_instance


@pytest.fixture
def instance(pipeline: Pipeline) -> Iterator[dg.DagsterInstance]:
    with opened_instance(pipeline.home) as opened:
        yield opened
