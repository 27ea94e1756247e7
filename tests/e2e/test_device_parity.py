"""One recording, two ways: the pipeline, and a device that has the exported package and the streaming form alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

import accelkd
import rust_dsp
from accelkd.evaluation.participant_probes import mean_embeddings
from accelkd.evaluation.probes import LabelledEmbeddings
from accelkd.evaluation.readouts import fit_readouts, write_readouts
from accelkd.home.layout import Home
from accelkd.operations.export import export_encoder
from accelkd.operations.portable import Format
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import SegmentStore
from tests.support.homes import checkpoint, simulate

COUNTS_PER_G = 4096
BATCH = "sim-a"
Floats = npt.NDArray[np.floating]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Simulated minutes, segmented, and an untrained student with readouts of the heart rate."""
    home = Home(tmp_path_factory.mktemp("home"))
    simulate(home, BATCH, participants=24, segments=3)
    segment_batch(home, BATCH)
    model_id = checkpoint(home, "accel_student")
    folder = home.checkpoint("accel_student", model_id)
    store = SegmentStore([home.segments(BATCH)])
    matrix = accelkd.embed(accelkd.load_encoder(folder), store.signals("accel"))
    people = np.asarray(store.metadata.column("participant_id").to_pylist(), np.str_)
    rates = store.metadata.column("hr_bpm").to_numpy().astype(np.float64)
    names, means = mean_embeddings(matrix, people)
    segments = LabelledEmbeddings(matrix, people, {"hr_bpm": rates})
    write_readouts(fit_readouts("accel_student", model_id, segments, LabelledEmbeddings(means, names, {}), {}), folder)
    return home


def on_device(package: Path, form: Format, counts: Floats, rate_hz: float) -> tuple[Floats, list[dict[str, float]]]:
    """Embeddings and heart rates of raw counts `[3, samples]`, as a phone does: with the files of the package alone."""
    stream = rust_dsp.Stream(rust_dsp.Plan(accel_rate_hz=rate_hz))
    finished = []
    for start in range(0, counts.shape[1], 17):  # as a sensor's buffer comes
        finished += stream.push(accel=np.ascontiguousarray(counts[:, start : start + 17] / COUNTS_PER_G, np.float32))
    finished += stream.end()
    inputs = np.stack([segment.accel for segment in finished if segment.reason is None])
    described = json.loads((package / "preprocessing.json").read_text())
    model = package / described["model"]["file"]
    if form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(model)
        (embeddings,) = session.run([described["output"]["name"]], {described["input"]["name"]: inputs})
    else:
        from executorch.runtime import Runtime

        method = Runtime.get().load_program(model).load_method("forward")
        embeddings = np.concatenate([method.execute([torch.from_numpy(row[None])])[0].numpy() for row in inputs])
    with safe_open(package / described["readouts"], framework="numpy") as file:
        (readout,) = json.loads(file.metadata()["readouts"])["of"]
        arrays = {name: file.get_tensor(f"hr_bpm.{name}") for name in ("mean", "scale", "weights", "spread_weights")}
    rates = []
    for embedding in embeddings:
        x = (embedding - arrays["mean"]) / arrays["scale"]
        value = np.clip(readout["intercept"] + x @ arrays["weights"], *readout["label_range"])
        spread = np.exp(np.clip(readout["spread_intercept"] + x @ arrays["spread_weights"], *readout["spread_range"]))
        low, high = (value + quantile * spread for quantile in readout["quantiles"])
        rates.append({"value": value, "low": min(value, max(0.0, low)), "high": max(value, high)})
    return embeddings, rates


@pytest.mark.parametrize("form", ["onnx", "executorch"])
def test_a_device_reads_what_the_pipeline_reads(home: Home, tmp_path: Path, form: Format) -> None:
    pytest.importorskip("onnxruntime" if form == "onnx" else "executorch", reason=f"the extra {form} is not installed")
    package = tmp_path / "package"
    folder = next(home.encoder("accel_student").glob("*/model.safetensors")).parent
    export_encoder(home, folder, package, to=form)
    table = pq.read_table(sorted((home.batch(BATCH) / "recordings").glob("*.parquet"))[0]).slice(0, 4)
    rate_hz: float = table["accel_rate_hz"][0].as_py()
    accel = np.concatenate([np.array(row.as_py(), np.float64) for row in table["accel"] if len(row[0]) >= 3840], axis=1)
    counts = np.rint(accel * COUNTS_PER_G)
    # The pipeline reads them as a logger's file
    file = tmp_path / "counts.csv"
    lines = [f"{number / rate_hz!r},{x:.0f},{y:.0f},{z:.0f}" for number, (x, y, z) in enumerate(counts.T)]
    file.write_text("time,x,y,z\n" + "\n".join(lines) + "\n")
    mapping = tmp_path / "mapping.toml"
    mapping.write_text(
        '[files]\npattern = "*.csv"\n[time]\ncolumn = "time"\nunit = "s"\n[accel]\n'
        f'columns = ["x", "y", "z"]\nunit = "counts"\ncounts_per_g = {COUNTS_PER_G}\n'
    )
    encoder = accelkd.load_encoder(folder)
    read: list[dict[str, Any]] = accelkd.predict(encoder, file, mapping=mapping).segments.to_pylist()
    windows = accelkd.preprocess(accel=counts / COUNTS_PER_G, rate_hz=rate_hz)
    expected = accelkd.embed(encoder, windows.signals[windows.usable])
    embeddings, rates = on_device(package, form, counts, rate_hz)
    assert len(embeddings) == len(expected) == len(read) >= 2
    assert np.abs(embeddings - expected).max() < 1e-3 * np.sqrt(np.square(expected).mean())
    for there, here in zip(rates, read, strict=True):
        for name in ("value", "low", "high"):
            assert there[name] == pytest.approx(here[name], abs=0.1)
