"""One training run: from a store and a configuration to a checkpoint folder, for every method."""

from __future__ import annotations

import hashlib
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch

from accelkd.home.files import recorded_checksum, remove_with_checksum
from accelkd.models.bundled import bundled_folder
from accelkd.models.encoders import AnyEncoder
from accelkd.segments.store import Modality, SegmentStore
from accelkd.training.checkpoint import (
    WEIGHTS,
    EncoderInfo,
    Identity,
    is_complete,
    load_encoder,
    read_weights,
    training_version,
    write_checkpoint,
)
from accelkd.training.data import TrainingData
from accelkd.training.method import EncoderConfig, Inputs, Prepared
from accelkd.training.objective import Objective
from accelkd.training.parallel import barrier, rank
from accelkd.training.signals import DeviceMemoryError, ResidentSignals
from accelkd.training.throughput import peak_flop_per_s
from accelkd.training.trainer import Training, has_bf16, pick_device, train

_NAMES_HASHED = 2**20  # of segments, at a time


def train_encoder(
    store: SegmentStore,
    rows: npt.NDArray[np.intp],
    config: EncoderConfig,
    out: Path,
    *,
    name: str,
    data_version: str,
    split_version: str,
    teacher: Path | None = None,
    device: str = "auto",
    resident: ResidentSignals | None = None,
    stop_at: float = math.inf,
) -> Path:
    """Train the encoder `name` on `rows` of the store; `out` is the folder of its checkpoints.

    A student needs the checkpoint folder of its `teacher`. Returns the checkpoint's folder, without training if the
    same run is complete; resumes an interrupted run. Inside `process_group`, all processes train the same encoder.
    `resident` is a copy of the store on the device, for runs that share one; without it, a run on a GPU copies the
    signals itself. After `stop_at` (`time.monotonic()`) training stops with the weights of that moment. Raises
    ValueError if teacher, data and configuration do not match or no participant has enough segments, DamagedFileError
    for a damaged teacher and NonFiniteLossError if the loss diverges.
    """
    loaded = _teacher(config, teacher, store)
    identity = Identity(
        encoder=name,
        method=config.method,
        modality=config.modality,
        channels=config.channels(store),
        teacher=loaded[1].model_id if loaded else None,
        config=asdict(config) | _started_from(config),
        code_version=training_version(),
        data_version=data_version,
        split_version=split_version,
        segments=_segments_hash(store, rows),
    )
    folder = out / identity.model_id
    if is_complete(folder):
        return folder
    torch_device = pick_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.optimisation.seed)
        prepared = _prepare(store, rows, config, loaded, torch_device, resident)
    _go_on_from(config, prepared.objective)
    state = folder.parent / f".{folder.name}.state.safetensors"
    started = time.perf_counter()
    training = train(
        prepared.objective, prepared.data, config.optimisation, torch_device, state, name, prepared.validation, stop_at
    )
    if rank() == 0:
        metrics = _metrics(training, prepared.data, config, torch_device, time.perf_counter() - started)
        write_checkpoint(folder, identity, prepared.objective, _curve_table(training, metrics), metrics)
        remove_with_checksum(state)
    barrier()
    return folder


def _started_from(config: EncoderConfig) -> dict[str, str]:
    """The start with a hash of its weights, which determine those of the run."""
    if config.start is None:
        return {}
    return {"start": f"{config.start}@{recorded_checksum(bundled_folder(config.start) / WEIGHTS)[:16]}"}


def _go_on_from(config: EncoderConfig, objective: Objective) -> None:
    """Put the weights of the bundled encoder into the objective. Raises ValueError where they do not fit."""
    if config.start is None:
        return
    try:
        objective.load_state_dict(read_weights(bundled_folder(config.start)))
    except RuntimeError as error:
        raise ValueError(f"{config.method} cannot go on from {config.start}: {error}") from None


@dataclass(frozen=True)
class Speed:
    """How fast a configuration trains."""

    segments_per_s: float
    flop_per_segment: float  # of forward and backward
    mfu: float | None  # share of the dense bfloat16 peak of one device; None for one that is not listed
    notes: tuple[str, ...]  # deviations from the configuration


def measure_speed(
    store: SegmentStore,
    rows: npt.NDArray[np.intp],
    config: EncoderConfig,
    *,
    teacher: Path | None = None,
    device: str = "auto",
    resident: ResidentSignals | None = None,
    steps: int = 3,
) -> Speed:
    """How fast this configuration trains, measured over three times `steps` steps, without a checkpoint.

    Compilation happens in the first third, which does not count. Raises like `train_encoder`.
    """
    torch_device = pick_device(device)
    timed = replace(config.optimisation.with_steps(3 * steps), log_every=steps, save_every=10**9)
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as folder:
        prepared = _prepare(store, rows, config, _teacher(config, teacher, store), torch_device, resident)
        training = train(prepared.objective, prepared.data, timed, torch_device, Path(folder) / "state", "measuring")
    speed = statistics.median(training.curve.segments_per_s[1:])
    assert training.flop_per_segment is not None  # None only for a finished run
    return Speed(speed, training.flop_per_segment, _mfu(training.flop_per_segment, speed, torch_device), training.notes)


def _mfu(flop_per_segment: float, segments_per_s: float, device: torch.device) -> float | None:
    peak = peak_flop_per_s(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return None if peak is None else flop_per_segment * segments_per_s / peak


def _teacher(config: EncoderConfig, teacher: Path | None, store: SegmentStore) -> tuple[AnyEncoder, EncoderInfo] | None:
    """The teacher's encoder, if this run starts from one. Raises ValueError if it does not fit."""
    if config.needs_teacher != (teacher is not None):
        raise ValueError(f"{config.method} {'needs a teacher' if config.needs_teacher else 'takes no teacher here'}")
    if teacher is None:
        return None
    encoder, info = load_encoder(teacher)
    if info.modality != "ppg" or info.channels != store.channels("ppg"):
        raise ValueError(
            f"teacher {info.model_id} takes {info.channels} {info.modality} channels, "
            f"the segments have {store.channels('ppg')} PPG channels"
        )
    return encoder, info


def _prepare(
    store: SegmentStore,
    rows: npt.NDArray[np.intp],
    config: EncoderConfig,
    loaded: tuple[AnyEncoder, EncoderInfo] | None,
    device: torch.device,
    resident: ResidentSignals | None,
) -> Prepared:
    config.channels(store)  # before anything is copied
    if resident is None and device.type == "cuda":
        resident = _resident(store, device, config.modalities)
    return config.prepare(Inputs(store, rows, device, resident, loaded[0] if loaded else None))


def _resident(store: SegmentStore, device: torch.device, modalities: Sequence[Modality]) -> ResidentSignals | None:
    """A copy on the device, or, with a message, None if it does not fit: then each batch is read from the disk."""
    try:
        return ResidentSignals(store, device, modalities)
    except DeviceMemoryError as error:
        print(f"reading batches from the disk: {error}", file=sys.stderr, flush=True)
        return None


def _metrics(
    training: Training,
    data: TrainingData,
    config: EncoderConfig,
    device: torch.device,
    wall_s: float,
) -> dict[str, Any]:
    curve = training.curve
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else device.type
    speed = statistics.median(curve.segments_per_s)
    metrics: dict[str, Any] = {
        "trained": config.description,
        "participants": data.sampler.participants,
        "segments": data.sampler.segments,
        "steps": curve.step[-1],
        "batch_size": config.optimisation.batch_size,
        "loss": curve.loss[-1],
        "segments_per_s": speed,
        "wall_s": wall_s,  # of this process: of a resumed run, since it resumed
        "device": name,
        "precision": "bf16" if config.optimisation.precision == "bf16" and has_bf16(device) else "fp32",
        "torch": torch.__version__,
        "notes": "; ".join(training.notes),
    }
    if training.flop_per_segment is not None:
        metrics["flop_per_segment"] = training.flop_per_segment
        mfu = _mfu(training.flop_per_segment, speed, device)
        if mfu is not None:
            metrics["mfu"] = mfu
    if config.chance_is_log_batch_size:
        metrics["chance_loss"] = math.log(config.optimisation.batch_size)
    if curve.validation_error:
        metrics["validation_error"] = min(curve.validation_error)
    return metrics


def _curve_table(training: Training, metrics: dict[str, Any]) -> pa.Table:
    table = pa.table({name: values for name, values in asdict(training.curve).items() if values})
    if "chance_loss" in metrics:
        table = table.append_column("chance_loss", pa.array([metrics["chance_loss"]] * table.num_rows))
    return table


def _segments_hash(store: SegmentStore, rows: npt.NDArray[np.intp]) -> str:
    """Hash of the segments in their order, which matters: the sampler draws by position."""
    digest = hashlib.sha256()
    names = store.metadata.column("segment_id")
    for start in range(0, len(rows), _NAMES_HASHED):
        chunk = names.take(rows[start : start + _NAMES_HASHED]).combine_chunks()
        text = pc.binary_join(pa.ListArray.from_arrays([0, len(chunk)], chunk), "\n")[0]
        digest.update(text.as_buffer())
        digest.update(b"\n")
    return digest.hexdigest()[:16]
