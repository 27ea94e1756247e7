"""What a failed asset or check says: first the sentence that tells what to do, and the traceback where nobody knows."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from accelkd.home.files import verify_checksum
from accelkd.home.identifiers import check_identifier
from accelkd.home.isolated import run_in_subprocess
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.models.specs import ENCODERS
from accelkd.recordings.batches import MANIFEST
from assets.failures import explained
from orchestration.catch_up import catch_up
from orchestration.definitions import build_defs

BATCH = "b"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("empty"))
    Settings(preset="smoke").save(home)
    return home


def failure(result: dg.ExecuteInProcessResult) -> tuple[str | None, str, list[str]]:
    """Of the only step that failed: what it explains, the first line of its error, and the messages of all causes."""
    (event,) = (event for event in result.all_events if event.is_step_failure)
    data = event.step_failure_data
    assert data.error
    error, messages = data.error, [data.error.message]
    while error.cause:
        error = error.cause
        messages.append(error.message)
    explanation = data.user_failure_data.description if data.user_failure_data else None
    return explanation, data.error.message.splitlines()[0], messages


def run(
    defs: dg.Definitions, *, asset: dg.AssetKey | None = None, check: dg.AssetCheckKey | None = None
) -> dg.ExecuteInProcessResult:
    """Materialize an asset, or run a check, for the batch where it is partitioned."""
    key = asset or (check.asset_key if check else None)
    assert key
    job = defs.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={asset} if asset else set(), asset_check_selection={check} if check else None
    )
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("arrival_batch", [BATCH])
        return job.execute_in_process(
            instance=instance,
            partition_key=BATCH if defs.resolve_asset_graph().get(key).is_partitioned else None,
            raise_on_error=False,
            run_config=QUIET,
        )


def says_so_first(result: dg.ExecuteInProcessResult) -> bool:
    """Whether the failure begins with what to do, instead of the path of a class."""
    explanation, first, _ = failure(result)
    return explanation is not None and first == f"Failed: {explanation.splitlines()[0]}"


def test_what_lacks_its_inputs_says_so_first(empty: Home) -> None:
    """Every asset and every check, on a home where nothing was made."""
    defs = build_defs(empty)
    graph = defs.resolve_asset_graph()
    # An empty home is enough for these; the checks of a promotion are reported by its asset
    assets = graph.materializable_asset_keys - {
        dg.AssetKey(name) for name in ("participant_split", "published_warehouse", "reproduction")
    }
    checks = {check for check in graph.asset_check_keys if check.asset_key != dg.AssetKey("promoted_encoders")}
    silent = [key.to_user_string() for key in assets if not says_so_first(run(defs, asset=key))]
    for check in checks:
        if check.asset_key.to_user_string().startswith(ENCODERS[0].name):
            continue  # as those of the next encoder
        result = run(defs, check=check)
        if not result.success and not says_so_first(result):
            silent.append(check.to_user_string())
    assert not silent


def materialized(function: Callable[[], object], *, isolated: bool = False) -> dg.ExecuteInProcessResult:
    @dg.asset
    @explained
    def example() -> None:
        if isolated:
            run_in_subprocess(function)
        else:
            function()

    return dg.materialize([example], raise_on_error=False, run_config=QUIET)


def damaged() -> None:
    verify_checksum(Path("/nowhere/b.arrow"))


def mistaken() -> None:
    check_identifier({}["batch_id"], "b")  # type: ignore[index]  # it is wrong on purpose


@pytest.mark.parametrize("isolated", [False, True])
def test_a_known_failure_begins_with_its_sentence(isolated: bool) -> None:
    explanation, first, messages = failure(materialized(damaged, isolated=isolated))
    assert explanation
    assert explanation.startswith("/nowhere/b.arrow: the file or its checksum is missing")
    assert first == f"Failed: {explanation}"
    assert any("/nowhere/b.arrow" in message for message in messages[1:])  # what raised it is kept


@pytest.mark.parametrize("isolated", [False, True])
def test_an_unknown_failure_keeps_its_traceback(isolated: bool) -> None:
    result = materialized(mistaken, isolated=isolated)
    explanation, _, messages = failure(result)
    assert explanation is None
    assert "KeyError: 'batch_id'" in messages[-1]
    (event,) = (event for event in result.all_events if event.is_step_failure)
    assert "in mistaken" in str(event.step_failure_data.error)


def test_the_operating_system_s_reason_is_a_sentence_too() -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/nowhere/b.arrow")

    assert failure(materialized(full))[1] == "Failed: [Errno 28] No space left on device: '/nowhere/b.arrow'"


def test_the_catch_up_prints_the_same_sentence(empty: Home, capsys: pytest.CaptureFixture[str]) -> None:
    (empty.landing / BATCH).mkdir(parents=True)
    (empty.landing / BATCH / MANIFEST).write_text("{")
    with dg.DagsterInstance.ephemeral() as instance:
        catch_up(empty, instance)
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "raw_recordings" in line)
    assert f"FAILED: batch {BATCH} cannot be used: " in line
