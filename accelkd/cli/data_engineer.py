"""Commands of who runs the pipeline: arrival batches, settings, the warehouse, withdrawals."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from accelkd.cli.arguments import AtLeastOne, NotNegative, OpenedHome, WholeNumber
from accelkd.home.identifiers import check_identifier
from accelkd.home.layout import Home
from accelkd.home.locks import exclusive_lock, shared_lock
from accelkd.home.settings import MotionGate, PresetName, Settings
from accelkd.recordings.deliveries import MAX_PARTICIPANTS, batch_ids

_Batch = Annotated[str, Parameter(help="identifier of the arrival batch")]
_MaxParticipants = Annotated[
    AtLeastOne, Parameter(help="of one batch; a larger delivery is cut into several, named <ID>-001 and so on")
]
_CORES = os.cpu_count() or 1


def simulate(
    *,
    participants: AtLeastOne,
    segments: Annotated[AtLeastOne, Parameter(help="one-minute recordings of each")],
    seed: NotNegative,
    batch: _Batch,
    profile: Annotated[str, Parameter(help="difficulty and placement: easy, realistic, hard or chest")] = "realistic",
    rate_hz: Annotated[Literal[64, 256], Parameter(help="sampling rate of the device")] = 64,
    first_participant: Annotated[NotNegative, Parameter(help="number of the first person")] = 0,
    max_participants: _MaxParticipants = MAX_PARTICIPANTS,
    processes: AtLeastOne = _CORES,
    home: OpenedHome,
) -> int:
    """Land a simulated arrival batch."""
    from accelkd.recordings.simulator import simulate_batch

    last = first_participant + participants
    firsts = range(first_participant, last, max_participants)
    for batch_id, first in zip(batch_ids(batch, len(firsts)), firsts, strict=True):
        manifest = simulate_batch(
            home.landing,
            batch_id,
            participants=min(max_participants, last - first),
            segments=segments,
            seed=seed,
            profile=profile,
            rate_hz=rate_hz,
            first_participant=first,
            processes=processes,
        )
        print(
            f"batch {manifest.batch_id}: {manifest.rows('participants')} participants, "
            f"{manifest.rows('recordings')} recordings in {home.batch(manifest.batch_id)}"
        )
    return 0


def ingest(
    device: Annotated[str | None, Parameter(help="e4, polar, table ... (docs/devices.md)")] = None,
    folder: Annotated[Path | None, Parameter(help="what the device's software exported")] = None,
    /,
    *,
    batch: Annotated[str | None, Parameter(help="identifier of the arrival batch")] = None,
    participant_from: Annotated[
        str | None,
        Parameter(help="where participants are named: path (or path:2, the second name of it), file or column"),
    ] = None,
    participants: Annotated[Path | None, Parameter(help="table of ages, sexes, heights and weights")] = None,
    mapping: Annotated[Path | None, Parameter(help="what the columns of tables mean (docs/own-recordings.md)")] = None,
    describe: Annotated[Path | None, Parameter(help="propose a mapping of this file, and ingest nothing")] = None,
    replaces: Annotated[str | None, Parameter(help="the landed batch that this one corrects")] = None,
    max_participants: _MaxParticipants = MAX_PARTICIPANTS,
    home: OpenedHome,
) -> int:
    """Land the recordings that a device exported."""
    if describe is not None:
        return _describe(describe)
    if device is None or folder is None or batch is None:
        asked = {"<device>": device, "<folder>": folder, "--batch": batch}
        missing = [name for name, value in asked.items() if value is None]
        raise ValueError(f"ingest needs {' and '.join(missing)}: `accelkd ingest --help` explains them")
    from accelkd.recordings.identity import level_of
    from accelkd.recordings.ingest import ingest as ingest_folder
    from accelkd.recordings.mapping import Mapping, read_mapping
    from accelkd.recordings.participants import read_participants
    from accelkd.recordings.readers.table import table_reader

    check_identifier("batch_id", batch)  # before the lock's file is made
    level_of(participant_from)
    if device == "table" and mapping is None:
        raise ValueError("a table needs --mapping; `accelkd ingest --describe <file>` proposes one")
    chosen = Mapping() if mapping is None else read_mapping(mapping)
    if mapping is not None and device != "table" and participants is None:
        raise ValueError(f"--mapping is of tables: {device} files say themselves what they hold")
    reader = table_reader(chosen) if device == "table" else None
    if device == "table" and participant_from is None:
        participant_from = chosen.participant_from
    described = read_participants(participants, device, chosen.participants) if participants else None
    with shared_lock(home):
        landed = ingest_folder(
            device,
            folder,
            home.landing,
            batch,
            replaces=replaces,
            max_participants=max_participants,
            participant_from=participant_from,
            demographics=described,
            reader=reader,
            companions=[path for path in (participants, mapping) if path],
        )
    if described is not None:
        landed = replace(landed, notes=(*landed.notes, *described.notes, *described.unmatched()))
    print(landed)
    return 0 if landed.read else 1


def _describe(file: Path) -> int:
    from accelkd.recordings.describe import describe

    print(describe(file), end="")
    return 0


def validate(
    batch: Annotated[str, Parameter(help="a batch in the landing zone, or the path of a batch folder")],
    /,
    *,
    home: OpenedHome,
) -> int:
    """Check an arrival batch against every rule."""
    from accelkd.recordings.validate import validate_batch

    folder = Path(batch)
    landed = not folder.is_dir()
    violations = validate_batch(home.batch(batch), home) if landed else validate_batch(folder)
    for violation in violations:
        print(violation)
    for rule, count in violations.omitted.items():
        print(f"and {count:,} more: {rule}")
    total = violations.counts.total()
    print(f"{folder.name}: {total} violations" if total else f"{folder.name}: valid")
    return 1 if violations else 0


def check(
    batch: Annotated[str | None, Parameter(help="a segmented batch; without one, the landing zone is checked")] = None,
    /,
    *,
    home: OpenedHome,
) -> int:
    """Measure what must hold of one batch, or of the landing zone, as in the UI."""
    from accelkd.operations.checks import Verdict, check_batch

    if batch is None:
        return _check_landing_zone(home)
    failed = 0
    with shared_lock(home):
        for what, verdict in check_batch(home, batch):
            if isinstance(verdict, Verdict):
                failed += not verdict.passed
                status = "passed" if verdict.passed else "FAILED" if what.blocking else "WARNING"
                said = ", ".join(f"{name} = {_written(value)}" for name, value in verdict.measured.items())
            else:
                status, said = "not yet", verdict
            print(f"{status:<8} {f'{what.asset}: {what.name}':<60} {said}")
    return 1 if failed else 0


def check_sensor(
    batch: Annotated[str, Parameter(help="a segmented batch")],
    /,
    *,
    home: OpenedHome,
) -> int:
    """Measure whether the accelerometer of each device of one batch carries the heart."""
    from accelkd.operations.sensor_check import check_sensors

    check_identifier("batch_id", batch)
    with shared_lock(home):
        sensors = check_sensors(home, batch)
    for sensor in sensors:
        rows = {
            "still minutes": str(sensor.still_minutes),
            "tested with beats": f"{sensor.tested_minutes}, {sensor.reference_minutes} with those of the reference",
            "locked at p < 0.01": f"{sensor.locked_minutes} ({_percent(sensor.locked_share)})",
            "with other beats": f"{_percent(sensor.false_alarm_share)} of {sensor.false_alarm_tests} tests",
            "locked wave": _measured(sensor.locked_rms_mg, "mg"),
            "autocorrelation peak": _measured(sensor.peak, ""),
        }
        if sensor.bands.segments:
            rows["heart sounds agree"] = (
                f"{_percent(sensor.bands.share)} of {sensor.bands.segments} minutes, "
                f"{_percent(sensor.bands.by_chance)} by chance"
            )
        print(f"{sensor.device_id}: {sensor.verdict}: {sensor.reason}")
        for name, value in rows.items():
            print(f"  {name:<22}{value}")
    if not sensors:
        print(f"batch {batch} has no still minute")
    return 1 if any(sensor.verdict == "carries nothing" for sensor in sensors) else 0


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _measured(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.2f} {unit}".rstrip()


def _check_landing_zone(home: Home) -> int:
    from accelkd.cohort.loaded import segmented
    from accelkd.operations.checks import check_landing_zone

    with shared_lock(home):
        verdict = check_landing_zone(home, segmented(home))
    for row in verdict.table:
        print(f"{row['batch']}: {row['reason']}")
    print(", ".join(f"{name} = {value}" for name, value in verdict.measured.items()))
    return 0 if verdict.passed else 1


def _written(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def repair(*, home: OpenedHome) -> int:
    """Verify the segments of every batch, and re-segment what is damaged or lost."""
    from accelkd.cohort.loaded import unused_batches
    from accelkd.operations.repair import repair as repair_segments

    with shared_lock(home):
        repaired = repair_segments(home)
    for batch in repaired:
        print(f"re-segmented batch {batch.batch_id}: {batch.reason}")
    for batch_id in unused_batches(home):
        print(f"batch {batch_id} is segmented and not loaded: nothing is trained on it")
    print(f"{len(repaired)} batches repaired")
    return 0


def configure(
    *,
    preset: Annotated[PresetName | None, Parameter(help="sizes and schedules of the training")] = None,
    motion_gate: Annotated[MotionGate | None, Parameter(help="which windows are still enough")] = None,
    hop_s: Annotated[float | None, Parameter(help="seconds from one window of a recording to the next")] = None,
    split_seed: Annotated[WholeNumber | None, Parameter(help="of the split into training and test")] = None,
    test_fraction: Annotated[float | None, Parameter(help="share of the participants in test")] = None,
    retrain_after_participants: Annotated[
        WholeNumber | None, Parameter(help="new ones that start a training; 0: weekly only")
    ] = None,
    expected_arrival_days: Annotated[
        WholeNumber | None, Parameter(help="days between deliveries, beyond which they are overdue; 0: none expected")
    ] = None,
    keep_runs_days: Annotated[
        WholeNumber | None, Parameter(help="days that Dagster's runs are kept; 0: for ever")
    ] = None,
    home: OpenedHome,
) -> int:
    """Show or change what this home is set to."""
    asked = {
        "preset": preset,
        "motion_gate": motion_gate,
        "hop_s": hop_s,
        "split_seed": split_seed,
        "test_fraction": test_fraction,
        "retrain_after_participants": retrain_after_participants,
        "expected_arrival_days": expected_arrival_days,
        "keep_runs_days": keep_runs_days,
    }
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    settings = replace(Settings.load(home), **given)
    settings.save(home)
    print(f"{home.root}: " + ", ".join(f"{name} = {value}" for name, value in vars(settings).items()))
    return 0


def rebuild_warehouse(*, home: OpenedHome) -> int:
    """Rebuild the warehouse from the files of this home."""
    from accelkd.operations.rebuild import rebuild_warehouse as rebuild

    with shared_lock(home):
        published = rebuild(home)
    print(f"{published.path}: {sum(published.rows.values()):,} rows in {len(published.rows)} tables")
    return 0


def take_over(*, home: OpenedHome) -> int:
    """Make this machine the head of the store, in place of one that is gone."""
    from accelkd.operations.rebuild import rebuild_warehouse as rebuild
    from accelkd.operations.share import take_over as become_head

    if home.store is None or not home.head:
        raise ValueError("take-over is for a home on several machines: set ACCELKD_STORE, and ACCELKD_HEAD to 1")
    with exclusive_lock(home):
        become_head(home)
        published = rebuild(home)
    print(f"{home.root} is the head of {home.store}: {sum(published.rows.values()):,} rows in {published.path}")
    return 0


def withdraw(
    participant: Annotated[str | None, Parameter(help="default: finish what is unfinished")] = None,
    /,
    *,
    home: OpenedHome,
) -> int:
    """Remove a participant from every file, and search for remnants."""
    from accelkd.operations.withdraw import finish_withdrawals
    from accelkd.operations.withdraw import withdraw as withdraw_participant

    withdrawals = finish_withdrawals(home) if participant is None else [withdraw_participant(home, participant)]
    for withdrawal in withdrawals:
        print(withdrawal)
    return 0 if all(withdrawal.finished for withdrawal in withdrawals) else 1


def alert(
    *,
    test: Annotated[bool, Parameter(negative=(), help="send a test message through every channel")] = False,
    home: OpenedHome,
) -> int:
    """Show which problems are open, and which channels fail."""
    from accelkd.operations.alerts import alert_status, alerts_are_on, send_test

    if not alerts_are_on(home):
        raise FileNotFoundError(f"no alerts.toml in {home.root}: alerts are off (docs/monitoring.md)")
    if test:
        results = send_test(home)
        for channel, error in results.items():
            print(f"{channel}: {f'FAILED: {error}' if error else 'sent'}")
        return 1 if any(results.values()) or not results else 0
    status = alert_status(home)
    for problem in status.open:
        print(f"{problem.kind}: {problem.text}")
    for channel, error in status.failing.items():
        print(f"{channel}: FAILED: {error}; {status.undelivered.get(channel, 0)} alerts wait")
    print(f"{len(status.open)} problems are open")
    return 0


def metrics(
    *,
    output: Annotated[Path | None, Parameter(help="file to replace, such as .../accelkd.prom; default: print")] = None,
    serve: Annotated[AtLeastOne | None, Parameter(help="port of 127.0.0.1 to serve them on, until stopped")] = None,
    home: OpenedHome,
) -> int:
    """Print metrics for Prometheus: batches, runs, drift, ages, sizes."""
    try:
        from accelkd.operations.metrics import metrics_text, serve_metrics, write_metrics
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed: pip install 'accelkd[platform,metrics]'") from None

    if output and serve:
        raise ValueError("give either --output or --serve")
    if output:
        write_metrics(home, output)
    elif serve:
        serve_metrics(home, serve)
    else:
        print(metrics_text(home), end="")
    return 0


def backup(
    destination: Annotated[Path, Parameter(help="folder of the backups, outside of the home")],
    /,
    *,
    keep: Annotated[AtLeastOne | None, Parameter(help="how many of the newest to keep; default: all")] = None,
    home: OpenedHome,
) -> int:
    """Copy this home while runs go on; what has not changed takes no space."""
    from accelkd.operations.backup import backup as back_up

    made = back_up(home, destination, keep=keep)
    print(f"{made.folder}: {len(made.files)} files, {made.copied_bytes / 1e6:.1f} MB of them new")
    return 0


def restore(
    source: Annotated[Path, Parameter(help="a backup, or the folder of the backups: the newest")],
    /,
    *,
    replace: Annotated[bool, Parameter(negative=(), help="replace what this home holds; landed batches stay")] = False,
    verify: Annotated[bool, Parameter(negative=(), help="only read the backup, and compare every hash")] = False,
    home: OpenedHome,
) -> int:
    """Bring this home to a backup; who has withdrawn since is withdrawn again."""
    from accelkd.operations.backup import find_backup, verify_backup
    from accelkd.operations.backup import restore as restore_home

    if verify:
        made = find_backup(source)
        verify_backup(made)
        print(f"{made.folder}: {len(made.files)} files of {made.made_at}, all as they were copied")
        return 0
    restored = restore_home(home, source, replace=replace)
    print(f"{home.root}: {restored.files} files of {restored.backup}")
    for batch_id in restored.kept_batches:
        print(f"landed since, kept: {batch_id}")
    print(f"{len(restored.withdrawals)} participants withdrawn again")
    unfinished = [withdrawal for withdrawal in restored.withdrawals if not withdrawal.finished]
    for withdrawal in unfinished:
        print(withdrawal)
    print("next: `accelkd upgrade`, then start Dagster or a catch-up, which makes what is missing")
    return 1 if unfinished else 0


def upgrade(*, home: OpenedHome) -> int:
    """Bring a home that an older version wrote to this version; take a backup first."""
    from accelkd.operations.upgrade import upgrade as upgrade_home

    done = upgrade_home(home)
    for step in done:
        print(step)
    print(f"{home.root}: {len(done)} steps" if done else f"{home.root}: nothing to do")
    return 0
