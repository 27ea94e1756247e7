"""`accelkd stream`: the numbers of `accelkd predict`, as samples come, in bounded memory and with clear errors."""

from __future__ import annotations

import io
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import pytest

import accelkd
from accelkd.evaluation.participant_probes import mean_embeddings
from accelkd.evaluation.probes import LabelledEmbeddings
from accelkd.evaluation.readouts import fit_readouts, write_readouts
from accelkd.home.layout import Home
from accelkd.operations.stream import HEADER, MAX_CONNECTIONS, StreamError, StreamSettings, predict_stream, serve
from tests.support.homes import checkpoint

RATE_HZ = 50
Samples = npt.NDArray[np.float32]


def rest(minutes: float, seed: int = 0) -> Samples:
    """A wrist at rest, `[3, samples]` in g."""
    noise = np.random.default_rng(seed).standard_normal((3, int(60 * minutes * RATE_HZ)))
    return (np.array([[0.1], [0.2], [0.97]]) + 0.002 * noise).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained student with readouts of noise."""
    home = Home(tmp_path_factory.mktemp("home"))
    model_id = checkpoint(home, "accel_student")
    folder = home.checkpoint("accel_student", model_id)
    encoder = accelkd.load_encoder(folder)
    center = accelkd.embed(encoder, accelkd.preprocess(accel=rest(3), rate_hz=RATE_HZ).signals).mean(axis=0)
    people = np.repeat([f"e{number:02d}" for number in range(30)], 4)
    matrix = (center + 0.1 * np.random.default_rng(1).standard_normal((len(people), len(center)))).astype(np.float32)
    names, means = mean_embeddings(matrix, people)
    segments = LabelledEmbeddings(matrix, people, {"hr_bpm": 70 + 30 * matrix[:, 0].astype(np.float64)})
    readouts = fit_readouts("accel_student", model_id, segments, LabelledEmbeddings(means, names, {}), {})
    write_readouts(readouts, folder)
    return folder


@pytest.fixture
def settings(folder: Path) -> StreamSettings:
    return settings_of(folder)


def settings_of(folder: Path, **options: Any) -> StreamSettings:
    encoder = accelkd.load_encoder(folder)
    assert encoder.readouts is not None
    return StreamSettings(RATE_HZ, encoder.module, encoder.readouts, **options)


def json_lines(accel: Samples, size: int = 25, **first: object) -> bytes:
    """Samples as lines of so many; `first` is added to the first one."""
    lines = [{"accel": accel[:, start : start + size].T.tolist()} for start in range(0, accel.shape[1], size)]
    lines[0] |= first
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def frames(accel: Samples, size: int = 37) -> bytes:
    parts = [accel[:, start : start + size] for start in range(0, accel.shape[1], size)]
    return b"".join(HEADER.pack(part.shape[1], 0) + part.T.astype("<f4").tobytes() for part in parts)


def answers(settings: StreamSettings, content: bytes) -> list[dict[str, Any]]:
    out = io.BytesIO()
    predict_stream(settings, io.BytesIO(content), out)
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("form", ["json", "binary"])
def test_a_stream_gives_the_numbers_of_predict(folder: Path, form: str) -> None:
    accel = rest(3.2)
    read = accelkd.predict(accelkd.load_encoder(folder), accelkd.preprocess(accel=accel, rate_hz=RATE_HZ, hop_s=30))
    expected = read.segments.to_pylist()
    content = json_lines(accel) if form == "json" else frames(accel)
    lines = answers(settings_of(folder, format=form, hop_s=30.0), content)
    assert [line["offset_s"] for line in lines] == [row["offset_s"] for row in expected] == [0, 30, 60, 90, 120]
    for line, row in zip(lines, expected, strict=True):
        for name in ("value", "low", "high"):
            assert line["hr_bpm"][name] == pytest.approx(row[name], rel=1e-5)
        assert line["typical"] == row["typical"]
        assert line["time"] is None


def test_counts_are_scaled_and_times_travel(folder: Path) -> None:
    accel = rest(1.1)
    counts = np.rint(accel * np.float32(4096))
    (line,) = answers(settings_of(folder, counts_per_g=4096.0), json_lines(counts, time_s=1_764_000_000.25))
    (same,) = answers(settings_of(folder), json_lines(counts / np.float32(4096)))
    assert line["time"] == "2025-11-24T16:00:00.250+00:00"
    assert line["hr_bpm"] == same["hr_bpm"]


def test_lost_samples_are_known_by_number_and_by_time(settings: StreamSettings) -> None:
    accel = rest(3)
    first, second = accel[:, : 70 * RATE_HZ], accel[:, 75 * RATE_HZ :]  # five seconds are lost
    by_number = json_lines(first) + json_lines(second, lost=5 * RATE_HZ)
    by_time = json_lines(first, time_s=1000.0) + json_lines(second, time_s=1075.0)
    for content in (by_number, by_time):
        assert [line["reason"] for line in answers(settings, content)] == [None, "accel_gap", None]
    jittered = json_lines(first, time_s=1000.0) + json_lines(accel[:, 70 * RATE_HZ :], time_s=1070.02)
    assert [line["reason"] for line in answers(settings, jittered)] == [None, None, None]


def test_movement_has_its_reason_and_no_prediction(settings: StreamSettings) -> None:
    accel = rest(2)
    accel[:, : 60 * RATE_HZ] += np.random.default_rng(0).standard_normal((3, 60 * RATE_HZ)).astype(np.float32)
    moving, still = answers(settings, json_lines(accel))
    assert moving["reason"] == "motion"
    assert "hr_bpm" not in moving
    assert still["reason"] is None
    assert "hr_bpm" in still


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"what\n", "line 1 is no object of JSON"),
        (b"[1, 2]\n", "line 1 is no object of JSON"),
        (b'{"accel": [[1, 2]]}\n', r"line 1: accel must be a list of \[x, y, z\], found shape \[1, 2\]"),
        (b'{"accel": [[1, 2, 3]], "acel": 1}\n', "line 1 has acel; known are accel, lost and time_s"),
        (b'{"accel": [[1, 2, 3]], "lost": -1}\n', "line 1: lost must be a number of samples, found -1"),
        (b'{"lost": 10000000}\n', "200000 s are lost, more than 3600"),
        (b'{"accel": [[1, 2, 3]], "time_s": "now"}\n', "line 1: time_s must be seconds since 1970"),
        (json_lines(rest(0.1), time_s=1000.0) + json_lines(rest(0.1), time_s=900.0), "time goes back by 106.000 s"),
    ],
)
def test_what_is_not_in_the_format_is_answered_and_ends_the_stream(
    settings: StreamSettings, content: bytes, message: str
) -> None:
    out = io.BytesIO()
    with pytest.raises(StreamError, match=message):
        predict_stream(settings, io.BytesIO(content), out)
    assert "error" in json.loads(out.getvalue().splitlines()[-1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\1\0\0", "frame 1 is cut off: 3 of 8 bytes"),
        (struct.pack("<II", 2, 0) + bytes(12), "frame 1 is cut off: 12 of 24 bytes"),
        (struct.pack("<II", 2, 0), "frame 1 ends before its 2 samples do"),
        (struct.pack("<II", 10**9, 0), "frame 1 has 1,000,000,000 samples, more than 65,536"),
    ],
)
def test_a_frame_that_is_cut_off_or_too_large_ends_the_stream(folder: Path, content: bytes, message: str) -> None:
    with pytest.raises(StreamError, match=message):
        predict_stream(settings_of(folder, format="binary"), io.BytesIO(content), io.BytesIO())


def test_who_does_not_read_has_to_wait(folder: Path) -> None:
    """Memory stays bounded: when the answers are not read, nothing more is taken; nothing is lost either."""
    settings = settings_of(folder, format="binary", hop_s=0.5, gate="off")
    (into, feed), (drain, out) = os.pipe(), os.pipe()
    content = frames(rest(9), size=500)
    sent = [0]

    def write() -> None:
        with os.fdopen(feed, "wb", buffering=0) as raw:
            while sent[0] < len(content):
                sent[0] += raw.write(content[sent[0] : sent[0] + 4096]) or 0

    def process() -> None:
        with os.fdopen(into, "rb") as reader, os.fdopen(out, "wb") as writer:
            predict_stream(settings, reader, writer)

    threads = [threading.Thread(target=write, daemon=True), threading.Thread(target=process, daemon=True)]
    for thread in threads:
        thread.start()
    before = -1
    while sent[0] != before:
        before = sent[0]
        time.sleep(1.0)
    assert before < len(content)  # it waits
    with os.fdopen(drain, "rb") as reader:
        lines = [json.loads(line) for line in reader]
    for thread in threads:
        thread.join(timeout=30)
    assert sent[0] == len(content)
    assert [line["segment"] for line in lines] == list(range(2 * 8 * 60 + 1))


def _connect(port: int) -> tuple[socket.socket, BinaryIO]:
    connection = socket.create_connection(("127.0.0.1", port), timeout=30)
    return connection, connection.makefile("rb")


def test_connections_are_answered_each_for_itself(settings: StreamSettings) -> None:
    bound: list[int] = []
    listening = threading.Event()

    def ready(port: int) -> None:
        bound.append(port)
        listening.set()

    threading.Thread(target=serve, args=(settings, "127.0.0.1", 0, ready), daemon=True).start()
    assert listening.wait(timeout=10)
    good, good_answers = _connect(bound[0])
    bad, bad_answers = _connect(bound[0])
    bad.sendall(b"nonsense\n")
    assert "error" in json.loads(bad_answers.readline())
    assert bad_answers.readline() == b""
    good.sendall(json_lines(rest(1)))
    good.shutdown(socket.SHUT_WR)
    assert json.loads(good_answers.readline())["segment"] == 0
    assert good_answers.readline() == b""
    many = [_connect(bound[0]) for _ in range(MAX_CONNECTIONS + 1)]
    many[0][0].sendall(b"")
    assert json.loads(many[-1][1].readline())["error"] == f"{MAX_CONNECTIONS} streams are open: try again later"
    for connection, _ in [*many, (good, None), (bad, None)]:
        connection.close()


def test_nobody_else_is_listened_to(settings: StreamSettings) -> None:
    for host in ("0.0.0.0", "", "192.168.1.2", "example.org"):
        with pytest.raises(ValueError, match="can be reached by others"):
            serve(settings, host, 0, print)


def test_the_command_reads_standard_input(folder: Path) -> None:
    command = [sys.executable, "-m", "accelkd.cli", "stream", "--rate-hz", str(RATE_HZ), "--encoder", f"{folder}/"]
    done = subprocess.run(command, input=json_lines(rest(1)), capture_output=True, timeout=120, check=True)
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["hr_bpm"]["low"] <= json.loads(line)["hr_bpm"]["high"]
    broken = subprocess.run(command, input=b"what\n", capture_output=True, timeout=120, check=False)
    assert broken.returncode == 2
    assert broken.stderr.startswith(b"accelkd: standard input: line 1 is no object of JSON")
