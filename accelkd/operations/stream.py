"""Predictions from acceleration as it comes: samples in, a line of JSON for each minute out.

The signal processing is that of a device (`rust_dsp.Stream`), the numbers are those of `accelkd predict`. One sample
after the other is read, processed and answered before the next is read: who writes faster than that, or does not read
the answers, has to wait, and memory is bounded whatever comes.
"""

from __future__ import annotations

import json
import math
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import numpy.typing as npt
import torch

import rust_dsp
from accelkd.evaluation.readouts import Readouts, predict
from accelkd.home.settings import MotionGate
from accelkd.models.encoders import AnyEncoder
from accelkd.recordings.limits import RATES_HZ
from accelkd.segments.schema import ACCEL_AXES

Format = Literal["json", "binary"]
MAX_LINE_BYTES = 1_000_000  # of JSON
MAX_FRAME_SAMPLES = 65_536  # of a binary frame
MAX_LOST_S = 3_600.0  # in one piece: longer, and another stream has begun
MAX_CONNECTIONS = 8
HEADER = struct.Struct("<II")  # of a frame: its samples, and samples that were lost before it


class StreamError(ValueError):
    """What was read is not what the format says; the text names line or frame and rule."""


@dataclass(frozen=True)
class Chunk:
    """Samples `[3, samples]` that came together, and how many were lost before them."""

    samples: npt.NDArray[np.float32]
    lost: int
    time_s: float | None  # of the first sample, since 1970; None where it was not said


@dataclass(frozen=True, eq=False)
class StreamSettings:
    """What every stream is read by. Raises ValueError for a rate that cannot be resampled, or no counts."""

    rate_hz: float
    module: AnyEncoder  # of acceleration
    readouts: Readouts
    format: Format = "json"
    counts_per_g: float = 1.0  # of the samples; 1: they are in g
    hop_s: float = 60.0
    gate: MotionGate = "strict"

    def __post_init__(self) -> None:
        if not RATES_HZ[0] <= self.rate_hz <= RATES_HZ[1]:
            raise ValueError(f"rate_hz must be {RATES_HZ[0]:g} to {RATES_HZ[1]:g} Hz, found {self.rate_hz:g}")
        if not (math.isfinite(self.counts_per_g) and self.counts_per_g > 0):
            raise ValueError(f"counts_per_g must be positive, found {self.counts_per_g:g}")


def predict_stream(settings: StreamSettings, reader: BinaryIO, writer: BinaryIO) -> None:
    """Read samples until they end, and write one line of JSON for each segment, as soon as it is whole.

    A line has `segment`, `offset_s` (from the first sample), `time` (of its start, where the samples' times are known),
    `reason` why it has no prediction, or null, `typical`, `hr_classical_bpm`, and for each target `value`, `low` and
    `high`. What is not in the format ends the stream with a line `{"error": ...}` and StreamError.
    """
    stream = rust_dsp.Stream(rust_dsp.Plan(accel_rate_hz=settings.rate_hz), hop_s=settings.hop_s, gate=settings.gate)
    chunks = _json_chunks(reader) if settings.format == "json" else _binary_chunks(reader)
    clock = _Clock(settings.rate_hz)
    try:
        for chunk in chunks:
            lost = clock.lost(chunk)
            if lost:
                _answer(settings, stream.gap(accel=lost), clock, writer)
            _answer(settings, stream.push(accel=chunk.samples / np.float32(settings.counts_per_g)), clock, writer)
        _answer(settings, stream.end(), clock, writer)
    except StreamError as error:
        _write(writer, {"error": str(error)})
        raise


def serve(settings: StreamSettings, host: str, port: int, ready: Callable[[int], None]) -> None:
    """Answer connections on the loopback, each as a stream of its own, until the process ends.

    Not more than 8 at a time; another one is answered with an error. A stream that breaks costs no other. `ready` is
    called with the port, which is a free one where `port` is 0. Raises ValueError for a host that others can reach:
    there is no login and no encryption.
    """
    if host not in ("127.0.0.1", "::1", "localhost"):
        raise ValueError(
            f"{host} can be reached by others: listen on 127.0.0.1, and put a proxy with a login before it"
        )
    room = threading.Semaphore(MAX_CONNECTIONS)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if not room.acquire(blocking=False):
                _write(cast(BinaryIO, self.wfile), {"error": f"{MAX_CONNECTIONS} streams are open: try again later"})
                return
            try:
                predict_stream(settings, cast(BinaryIO, self.rfile), cast(BinaryIO, self.wfile))
            except (StreamError, ConnectionError):
                pass  # the other side has been answered, or is gone
            finally:
                room.release()

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Server((host, port), Handler) as server:
        ready(server.server_address[1])
        server.serve_forever()


class _Clock:
    """Counts samples, and compares their number with the times that travel with them."""

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._samples = 0
        self.started_s: float | None = None  # of the first sample, since 1970

    def lost(self, chunk: Chunk) -> int:
        """Samples lost before a chunk: as it says, or as its time does. Raises StreamError where time goes back."""
        lost = chunk.lost
        if chunk.time_s is not None:
            if self.started_s is None:
                self.started_s = chunk.time_s - self._samples / self._rate_hz
            late = round((chunk.time_s - self.started_s) * self._rate_hz) - self._samples
            if late < -max(1.0, self._rate_hz):  # jitter of a second is the sender's
                raise StreamError(f"time goes back by {-late / self._rate_hz:.3f} s: begin another stream")
            lost = max(lost, late if late > 1 else 0)
        if lost > MAX_LOST_S * self._rate_hz:
            raise StreamError(f"{lost / self._rate_hz:.0f} s are lost, more than {MAX_LOST_S:g}: begin another stream")
        self._samples += lost + chunk.samples.shape[1]
        return lost

    def time(self, offset_s: float) -> str | None:
        if self.started_s is None:
            return None
        return datetime.fromtimestamp(self.started_s + offset_s, UTC).isoformat(timespec="milliseconds")


def _answer(settings: StreamSettings, segments: list[rust_dsp.Segment], clock: _Clock, writer: BinaryIO) -> None:
    for segment in segments:
        line: dict[str, Any] = {
            "segment": segment.number,
            "offset_s": segment.offset_s,
            "time": clock.time(segment.offset_s),
            "reason": segment.reason,
            "hr_classical_bpm": segment.hr_bpm,
        }
        if segment.reason is None:
            line |= _read(settings, segment.accel)
        _write(writer, line)


def _read(settings: StreamSettings, accel: npt.NDArray[np.float32]) -> dict[str, Any]:
    """What an encoder reads in one segment `[3, 3840]`."""
    with torch.inference_mode():
        # Rounded as the segment store rounds, so that the numbers are the pipeline's
        signals = torch.from_numpy(accel.astype(np.float16).astype(np.float32))[None]
        embedding = settings.module(signals).float().numpy()
    line: dict[str, Any] = {"typical": bool(settings.readouts.typical.contains(embedding)[0])}
    for readout in settings.readouts.at("segment"):
        read = predict(readout, embedding)
        line[readout.target] = {name: float(getattr(read, name)[0]) for name in ("value", "low", "high")}
    return line


def _write(writer: BinaryIO, line: dict[str, Any]) -> None:
    writer.write(json.dumps(line).encode() + b"\n")
    writer.flush()


def _json_chunks(reader: BinaryIO) -> Iterator[Chunk]:
    """Lines such as {"accel": [[x, y, z], ...], "lost": 0, "time_s": 1764000000.0}, the last two of them optional."""
    number = 0
    while line := reader.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) == MAX_LINE_BYTES:
            raise StreamError(f"line {number} is longer than {MAX_LINE_BYTES:,} bytes")
        if line.strip():
            yield _json_chunk(line, number)


def _json_chunk(line: bytes, number: int) -> Chunk:
    try:
        content = json.loads(line)
        unknown = content.keys() - {"accel", "lost", "time_s"}
        rows = np.asarray(
            [[math.nan if value is None else value for value in row] for row in content.get("accel", [])], np.float32
        )
        lost, time_s = content.get("lost", 0), content.get("time_s")
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise StreamError(f"line {number} is no object of JSON with numbers in `accel`: {error}") from None
    if unknown:
        raise StreamError(f"line {number} has {', '.join(sorted(unknown))}; known are accel, lost and time_s")
    if rows.size and (rows.ndim != 2 or rows.shape[1] != ACCEL_AXES):
        raise StreamError(f"line {number}: accel must be a list of [x, y, z], found shape {list(rows.shape)}")
    if not isinstance(lost, int) or isinstance(lost, bool) or lost < 0:
        raise StreamError(f"line {number}: lost must be a number of samples, found {lost!r}")
    if time_s is not None and not (isinstance(time_s, int | float) and 0 <= time_s < 1e11):
        raise StreamError(f"line {number}: time_s must be seconds since 1970, found {time_s!r}")
    return Chunk(np.ascontiguousarray(rows.reshape(-1, ACCEL_AXES).T), lost, time_s)


def _binary_chunks(reader: BinaryIO) -> Iterator[Chunk]:
    """Frames: two little-endian uint32, samples and samples lost before them; then float32 x, y, z of each sample."""
    number = 0
    while header := _exactly(reader, HEADER.size, f"frame {number + 1}"):
        number += 1
        samples, lost = HEADER.unpack(header)
        if samples > MAX_FRAME_SAMPLES:
            raise StreamError(f"frame {number} has {samples:,} samples, more than {MAX_FRAME_SAMPLES:,}")
        size = samples * ACCEL_AXES * 4
        body = _exactly(reader, size, f"frame {number}") if size else b""
        if len(body) < size:
            raise StreamError(f"frame {number} ends before its {samples:,} samples do")
        rows = np.frombuffer(body, "<f4").reshape(-1, ACCEL_AXES)
        yield Chunk(np.ascontiguousarray(rows.T, np.float32), lost, None)


def _exactly(reader: BinaryIO, size: int, what: str) -> bytes:
    """So many bytes; none at the end of the stream. Raises StreamError where it ends amid them."""
    parts = b""
    while len(parts) < size:
        part = reader.read(size - len(parts))
        if not part:
            if parts:
                raise StreamError(f"{what} is cut off: {len(parts)} of {size} bytes")
            break
        parts += part
    return parts
