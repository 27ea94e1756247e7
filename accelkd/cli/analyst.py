"""Commands of who reads results."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from accelkd.cli.arguments import OpenedHome, Positive
from accelkd.home.settings import MotionGate
from accelkd.models import bundled

if TYPE_CHECKING:
    import pyarrow as pa

    from accelkd.api.predictions import Predictions

_SHOWN = 20  # lines of what was left out
_SHOWN_OF_PARTICIPANTS = ("age", "bmi", "sex")


def summary(*, home: OpenedHome) -> int:
    """Print the counts and results of the published warehouse."""
    from accelkd.warehouse.summary import summary as published_summary

    print(published_summary(home.published))
    return 0


def pull(*, home: OpenedHome) -> int:
    """Bring the published warehouse, reports and encoders from the store."""
    from accelkd.operations.share import bring_published

    if home.store is None:
        raise ValueError(f"{home.root} is the home itself: a home on several machines has ACCELKD_STORE")
    bring_published(home)
    if not home.published.exists():
        raise FileNotFoundError(f"nothing is published in {home.store} yet")
    print(home.published)
    return 0


def predict(
    source: Annotated[Path, Parameter(help="a recording, or the folder that a device's software exported")],
    /,
    *,
    encoder: Annotated[
        str, Parameter(help="accel-kd-xs, accel-kd-transformer-xs, a home's promoted one, or a checkpoint folder")
    ] = bundled.STUDENT,
    device: Annotated[str | None, Parameter(help="e4, phone, table ... (docs/devices.md); else recognised")] = None,
    mapping: Annotated[Path | None, Parameter(help="what the columns of a table mean (docs/own-recordings.md)")] = None,
    participant_from: Annotated[str | None, Parameter(help="where participants are named, as of ingest")] = None,
    motion_gate: Annotated[MotionGate, Parameter(help="which windows are still enough")] = "strict",
    hop_s: Annotated[float, Parameter(help="seconds from one window to the next")] = 60.0,
    out: Annotated[Path | None, Parameter(help="write all values to this .csv or .parquet file")] = None,
    home: OpenedHome,
) -> int:
    """Read heart rate, SDNN, RMSSD and more from recordings, with 90 % intervals."""
    from accelkd.api.encoders import load_encoder
    from accelkd.api.predictions import predict as predict_recording

    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--out {out} must end in .csv or .parquet")
    read = predict_recording(
        load_encoder(encoder, home=home.root),
        source,
        device=device,
        mapping=mapping,
        participant_from=participant_from,
        motion_gate=motion_gate,
        hop_s=hop_s,
    )
    for note in read.notes:
        print(f"note: {note}", file=sys.stderr)
    for reason in read.left_out[:_SHOWN]:
        print(f"left out: {reason}", file=sys.stderr)
    if len(read.left_out) > _SHOWN:
        print(f"left out: and {len(read.left_out) - _SHOWN} more", file=sys.stderr)
    if out is not None:
        _write(read, out)
    else:
        _print(read)
    return 0 if read.segments.num_rows else 1


def _print(read: Predictions) -> None:
    """One line for each minute and each participant, a column for each target; health targets are counted."""
    import pyarrow as pa
    import pyarrow.compute as pc

    _print_rows(read.segments, ("participant_id", "recording_id", "offset_s"))
    if read.participants.num_rows:
        print()
        shown = pc.is_in(read.participants.column("target"), value_set=pa.array(_SHOWN_OF_PARTICIPANTS))
        _print_rows(read.participants.filter(shown), ("participant_id", "segments"))
        others = read.participants.num_rows - (pc.sum(shown).as_py() or 0)
        if others:
            print(f"{others} probabilities of health targets: --out writes them too")


def _print_rows(table: pa.Table, keys: tuple[str, ...]) -> None:
    rows = table.to_pylist()
    targets = list(dict.fromkeys((row["target"], row["unit"]) for row in rows))
    header = [*keys, *(f"{target} ({unit})" if unit and unit not in target else target for target, unit in targets)]
    by_key: dict[tuple[object, ...], dict[str, str]] = {}
    typical: dict[tuple[object, ...], bool] = {}
    for row in rows:
        key = tuple(row[name] for name in keys)
        by_key.setdefault(key, {})[row["target"]] = _cell(row["value"], row["low"], row["high"])
        typical[key] = row["typical"]
    lines = [header]
    for key, cells in by_key.items():
        shown = [f"{value:g}" if isinstance(value, float) else str(value) for value in key]
        lines.append(
            [*shown, *(cells.get(target, "") for target, _ in targets), "" if typical[key] else "UNLIKE TRAINING"]
        )
    widths = [max(len(line[i]) for line in lines if i < len(line)) for i in range(len(header))]
    for line in lines:
        print("  ".join(cell.ljust(widths[i]) if i < len(widths) else cell for i, cell in enumerate(line)).rstrip())


def _cell(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.2f}" if low is None or high is None else f"{value:.1f} ({low:.1f} to {high:.1f})"


def _write(read: Predictions, out: Path) -> None:
    """All values in one file; what is of a participant has no recording and no offset."""
    import pyarrow as pa
    import pyarrow.csv as csv
    import pyarrow.parquet as pq

    from accelkd.home.files import atomic_path

    table = pa.concat_tables([read.segments, read.participants], promote_options="default")
    with atomic_path(out) as part:
        if out.suffix == ".parquet":
            pq.write_table(table, part)
        else:
            csv.write_csv(table, part)
    print(f"{table.num_rows} values in {out}")


def stream(
    *,
    rate_hz: Annotated[float, Parameter(help="sampling rate of what comes")],
    encoder: Annotated[
        str, Parameter(help="accel-kd-xs, accel-kd-transformer-xs, a home's promoted one, or a checkpoint folder")
    ] = bundled.STUDENT,
    format: Annotated[
        Literal["json", "binary"], Parameter(help="lines of JSON, or frames (docs/on-device.md)")
    ] = "json",
    counts_per_g: Annotated[Positive, Parameter(help="1 for samples in g")] = 1.0,
    hop_s: Annotated[float, Parameter(help="seconds from one segment to the next; they last 60")] = 60.0,
    motion_gate: Annotated[MotionGate, Parameter(help="which segments are still enough")] = "strict",
    listen: Annotated[
        str | None, Parameter(help="answer connections on this loopback address, 127.0.0.1:7070, not standard input")
    ] = None,
    home: OpenedHome,
) -> int:
    """Predict from samples of acceleration as they come."""
    from accelkd.api.encoders import load_encoder
    from accelkd.operations.stream import StreamError, StreamSettings, predict_stream, serve

    loaded = load_encoder(encoder, home=home.root)
    if loaded.modality != "accel":
        raise ValueError(f"{loaded.name} takes {loaded.modality}: streams are of acceleration")
    if loaded.readouts is None:
        raise ValueError(f"{loaded.name} {loaded.model_id} has no readouts: materialize `readouts` in its home")
    settings = StreamSettings(
        rate_hz, loaded.module, loaded.readouts, format, counts_per_g, hop_s=hop_s, gate=motion_gate
    )
    if listen is None:
        try:
            predict_stream(settings, sys.stdin.buffer, sys.stdout.buffer)
        except StreamError as error:
            raise ValueError(f"standard input: {error}") from None
        return 0
    host, _, port = listen.rpartition(":")
    if not port.isdigit():
        raise ValueError(f"--listen {listen} must be an address and a port, such as 127.0.0.1:7070")
    serve(settings, host.strip("[]"), int(port), lambda bound: print(f"listening on {host}:{bound}", flush=True))
    return 0
