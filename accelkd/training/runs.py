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
import torch

from accelkd.home.files import remove_with_checksum
from accelkd.models.encoders import AnyEncoder, build_encoder
from accelkd.models.transformer import Encoder
from accelkd.segments.schema import ACCEL_AXES
from accelkd.segments.store import Modality, SegmentStore
from accelkd.training.checkpoint import (
    EncoderInfo,
    Identity,
    Method,
    is_complete,
    load_encoder,
    training_version,
    write_checkpoint,
)
from accelkd.training.configs import (
    ContrastiveConfig,
    DistillationConfig,
    EncoderConfig,
    MaskedAutoencodingConfig,
    SupervisedConfig,
)
from accelkd.training.contrastive import Contrastive
from accelkd.training.data import TrainingData
from accelkd.training.distillation import Distillation, frozen
from accelkd.training.masked_autoencoding import MaskedAutoencoder
from accelkd.training.objective import Objective
from accelkd.training.parallel import barrier, rank
from accelkd.training.randomness import bits, derive
from accelkd.training.signals import DeviceMemoryError, ResidentSignals, to_device
from accelkd.training.supervised import Supervised
from accelkd.training.throughput import peak_flop_per_s
from accelkd.training.trainer import Training, Validation, compile_encoders, compiles, has_bf16, pick_device, train

_CHUNK_SIZE = 256  # segments that early stopping evaluates at a time
_MAX_VALIDATED = 8_192  # segments that early stopping evaluates: its cost does not grow with the cohort


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
        method=_method(config),
        modality=config.modality,
        channels=_channels(config, store),
        teacher=loaded[1].model_id if loaded else None,
        config=asdict(config),
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
        objective, data, validation = _prepare(store, rows, config, loaded, torch_device, resident)
    state = folder.parent / f".{folder.name}.state.safetensors"
    started = time.perf_counter()
    training = train(objective, data, config.optimisation, torch_device, state, name, validation, stop_at)
    if rank() == 0:
        metrics = _metrics(training, data, config, identity, torch_device, time.perf_counter() - started)
        write_checkpoint(folder, identity, objective, _curve_table(training, metrics), metrics)
        remove_with_checksum(state)
    barrier()
    return folder


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
        objective, data, _ = _prepare(store, rows, config, _teacher(config, teacher, store), torch_device, resident)
        training = train(objective, data, timed, torch_device, Path(folder) / "state", "measuring")
    speed = statistics.median(training.curve.segments_per_s[1:])
    assert training.flop_per_segment is not None  # None only for a finished run
    return Speed(speed, training.flop_per_segment, _mfu(training.flop_per_segment, speed, torch_device), training.notes)


def _mfu(flop_per_segment: float, segments_per_s: float, device: torch.device) -> float | None:
    peak = peak_flop_per_s(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    return None if peak is None else flop_per_segment * segments_per_s / peak


def _method(config: EncoderConfig) -> Method:
    match config:
        case MaskedAutoencodingConfig():
            return "masked_autoencoding"
        case ContrastiveConfig():
            return "contrastive"
        case DistillationConfig():
            return "distillation" if config.teacher == "frozen" else "simultaneous"
        case SupervisedConfig():
            return "supervised"


def _channels(config: EncoderConfig, store: SegmentStore) -> int:
    channels = store.channels(config.modality)
    if isinstance(config, MaskedAutoencodingConfig) and config.modality == "ppg" and config.ppg_channels is not None:
        if config.ppg_channels > channels:
            raise ValueError(f"{config.ppg_channels} PPG channels requested, the segments have {channels}")
        return config.ppg_channels
    return channels


def _teacher(config: EncoderConfig, teacher: Path | None, store: SegmentStore) -> tuple[AnyEncoder, EncoderInfo] | None:
    """The teacher's encoder, if this run starts from one. Raises ValueError if it does not fit."""
    needed = isinstance(config, DistillationConfig) and config.teacher_encoder is None
    if needed != (teacher is not None):
        raise ValueError(f"{_method(config)} {'needs a teacher' if needed else 'takes no teacher here'}")
    if teacher is None:
        return None
    encoder, info = load_encoder(teacher)
    if info.modality != "ppg" or info.channels != store.ppg_channels:
        raise ValueError(
            f"teacher {info.model_id} takes {info.channels} {info.modality} channels, "
            f"the segments have {store.ppg_channels} PPG channels"
        )
    return encoder, info


def _prepare(
    store: SegmentStore,
    rows: npt.NDArray[np.intp],
    config: EncoderConfig,
    loaded: tuple[AnyEncoder, EncoderInfo] | None,
    device: torch.device,
    resident: ResidentSignals | None,
) -> tuple[Objective, TrainingData, Validation | None]:
    """The objective with its fresh weights, its training data, and its early stopping, if any."""
    modalities: list[Modality] = ["ppg", "accel"] if isinstance(config, DistillationConfig) else [config.modality]
    channels = _channels(config, store)
    if resident is None and device.type == "cuda":
        resident = _resident(store, device, modalities)
    match config:
        case MaskedAutoencodingConfig():
            encoder = Encoder(channels, config.encoder)
            objective: Objective = MaskedAutoencoder(encoder, config.decoder, config.kept_tokens, config.modality)
        case ContrastiveConfig():
            objective = Contrastive(build_encoder(channels, config.encoder), config)
        case DistillationConfig():
            student = build_encoder(ACCEL_AXES, config.encoder)
            if loaded is not None:
                teacher = loaded[0].to(device)
            else:
                assert config.teacher_encoder is not None  # checked by _teacher
                teacher = build_encoder(store.ppg_channels, config.teacher_encoder)
            if config.teacher == "frozen" and compiles(device, config.optimisation):
                compile_encoders(teacher)
            function = frozen(teacher) if config.teacher == "frozen" else teacher.train()
            objective = Distillation(function, teacher.shape.width, student, config)
        case SupervisedConfig():
            return _prepare_supervised(store, rows, config, device, resident)
    return objective, TrainingData(store, rows, modalities, device, resident=resident), None


def _resident(store: SegmentStore, device: torch.device, modalities: Sequence[Modality]) -> ResidentSignals | None:
    """A copy on the device, or, with a message, None if it does not fit: then each batch is read from the disk."""
    try:
        return ResidentSignals(store, device, modalities)
    except DeviceMemoryError as error:
        print(f"reading batches from the disk: {error}", file=sys.stderr, flush=True)
        return None


def _prepare_supervised(
    store: SegmentStore,
    rows: npt.NDArray[np.intp],
    config: SupervisedConfig,
    device: torch.device,
    resident: ResidentSignals | None,
) -> tuple[Objective, TrainingData, Validation]:
    targets = store.metadata.column(config.target).to_numpy()[rows].astype(np.float64)
    if not np.isfinite(targets).all():
        raise ValueError(f"{int((~np.isfinite(targets)).sum())} of {len(rows)} segments have no {config.target}")
    participants = store.metadata.column("participant_id").take(rows).to_pylist()
    held_out = _held_out(participants, config.validation_share, config.optimisation.seed)
    fitted = targets[~held_out]
    objective = Supervised(
        build_encoder(_channels(config, store), config.encoder),
        config.modality,
        mean=float(fitted.mean()),
        sd=float(fitted.std()) or 1.0,
    )
    data = TrainingData(store, rows[~held_out], [config.modality], device, fitted, min_segments=1, resident=resident)
    validated, expected = rows[held_out][:_MAX_VALIDATED], targets[held_out][:_MAX_VALIDATED]

    def error() -> float:
        """Mean absolute error over the held-out training participants."""
        regressor = objective.regressor.eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, len(validated), _CHUNK_SIZE):
                part = validated[start : start + _CHUNK_SIZE]
                if resident is None:
                    signals = to_device(store.signals(config.modality, part), device)
                else:
                    signals = resident.take(config.modality, to_device(part.astype(np.int64), device))
                parts.append(regressor(signals.float()).double())
        objective.train()
        return float(np.abs(torch.cat(parts).cpu().numpy() - expected).mean())

    return objective, data, Validation(error, config.patience)


def _held_out(participants: Sequence[str], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Which rows belong to the participants held out for early stopping: at least one, and never all."""
    names = np.unique(np.asarray(participants))
    if len(names) < 2:
        raise ValueError("early stopping needs labels of at least two training participants")
    number = min(max(1, round(share * len(names))), len(names) - 1)
    order = np.argsort(bits(derive(torch.zeros(1, dtype=torch.int64), seed), len(names))[0].numpy())
    return np.isin(np.asarray(participants), names[order[:number]])


def _metrics(
    training: Training,
    data: TrainingData,
    config: EncoderConfig,
    identity: Identity,
    device: torch.device,
    wall_s: float,
) -> dict[str, Any]:
    curve = training.curve
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else device.type
    speed = statistics.median(curve.segments_per_s)
    metrics: dict[str, Any] = {
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
    if identity.method in ("contrastive", "distillation", "simultaneous"):
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
    for segment_id in store.metadata.column("segment_id").take(rows).to_pylist():
        digest.update(segment_id.encode() + b"\n")
    return digest.hexdigest()[:16]
