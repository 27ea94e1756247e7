"""Checkpoints: one folder for each trained encoder, named by a hash of its inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from accelkd.home.behaviour import code_version
from accelkd.home.files import atomic_path, is_intact, sha256_json, verify_checksum, write_checksum, write_json
from accelkd.models.encoders import AnyEncoder, build_encoder, read_shape
from accelkd.models.heads import ProjectionHead
from accelkd.models.regressor import Regressor
from accelkd.segments.store import Modality

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
METRICS = "metrics.json"
CURVE = "training.parquet"
CARD = "CARD.md"
_EXPORTED = ("encoder.", "regressor.", "teacher_head.", "student_head.")
# Presets choose configurations, which are part of an identity; throughput counts operations
_NO_INFLUENCE = ("accelkd.training.presets", "accelkd.training.throughput", "accelkd.training.workers")


@dataclass(frozen=True)
class Identity:
    """Everything that determines a checkpoint's weights; its hash is the model's id."""

    encoder: str  # 'ppg_teacher', 'accel_student', or the name of an experiment's encoder
    method: str  # of accelkd.training.method
    modality: Modality
    channels: int
    teacher: str | None  # model id of the teacher, for a student
    config: Mapping[str, Any]  # the method's configuration as a dictionary
    code_version: str
    data_version: str
    split_version: str
    segments: str  # hash of the ids of the training segments, in their order

    @property
    def model_id(self) -> str:
        return sha256_json(asdict(self))[:16]


@dataclass(frozen=True)
class EncoderInfo:
    """What is needed to use an encoder."""

    model_id: str
    encoder: str
    modality: Modality
    channels: int
    width: int  # of the embedding
    teacher: str | None


def training_version() -> str:
    """Version of the code that, with configuration and data, determines a checkpoint's weights."""
    return code_version("accelkd.models", "accelkd.training", exclude=_NO_INFLUENCE)


def write_checkpoint(
    folder: Path,
    identity: Identity,
    module: nn.Module,
    curve: pa.Table,
    metrics: Mapping[str, Any],
) -> None:
    """Write the folder atomically. `module` is the trained objective: the encoder and its training heads."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    _write(folder, identity.model_id, identity, weights, curve, metrics)


def _write(
    folder: Path,
    model_id: str,
    identity: Identity,
    weights: dict[str, Tensor],
    curve: pa.Table,
    metrics: Mapping[str, Any],
) -> None:
    with atomic_path(folder) as part:
        part.mkdir()
        save_file(weights, part / WEIGHTS)
        write_json(part / CONFIG, {"model_id": model_id, **asdict(identity)})
        write_json(part / METRICS, dict(metrics))
        pq.write_table(curve, part / CURVE)
        (part / CARD).write_text(_card(identity, weights, metrics), encoding="utf-8")
        for name in (WEIGHTS, CONFIG, METRICS, CURVE):
            write_checksum(part / name)


def export_weights(checkpoint: Path, target: Path) -> None:
    """Write a checkpoint as one small file: the encoder and its projection heads, rounded to float16.

    Configuration and metrics become the file's metadata. Statistics of batch normalisation stay in float32.
    """
    weights = {name: tensor for name, tensor in load_file(checkpoint / WEIGHTS).items() if name.startswith(_EXPORTED)}
    metadata = {CONFIG: json.dumps(read_config(checkpoint)), METRICS: json.dumps(read_metrics(checkpoint))}
    with atomic_path(target) as part:
        save_file(_rounded(weights), part, metadata=metadata)


def round_checkpoint(checkpoint: Path, target: Path) -> None:
    """Write a checkpoint again as the folder `target`, with matrices rounded to float16.

    It keeps its model id; its notes record that the weights are rounded.
    """
    config, metrics = read_config(checkpoint), read_metrics(checkpoint)
    identity = Identity(**{name: value for name, value in config.items() if name != "model_id"})
    metrics["notes"] = "; ".join(filter(None, [metrics.get("notes"), "weights rounded to float16"]))
    curve = pq.read_table(checkpoint / CURVE)
    _write(target, config["model_id"], identity, _rounded(read_weights(checkpoint)), curve, metrics)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All weights of a checkpoint, the encoder's and its training heads'. Raises DamagedFileError."""
    verify_checksum(folder / WEIGHTS)
    return load_file(folder / WEIGHTS)


def _rounded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices in float16; biases, scales and statistics of normalisation stay in float32."""
    return {name: tensor.half() if tensor.dim() > 1 else tensor for name, tensor in weights.items()}


def import_weights(source: Path, out: Path) -> Path:
    """Restore a checkpoint from a file of `export_weights`; returns its folder in `out`, its encoder's checkpoints.

    It has the model id of the exported checkpoint; its notes record that the weights are rounded. Raises ValueError for
    a file that holds no exported checkpoint.
    """
    config, metrics, weights = _read_exported(source)
    identity = Identity(**{name: value for name, value in config.items() if name != "model_id"})
    folder = out / str(config["model_id"])
    if not is_complete(folder):
        metrics["notes"] = "; ".join(
            filter(None, [metrics.get("notes"), f"weights rounded to float16 in {source.name}"])
        )
        curve = pa.table({"step": [metrics["steps"]], "loss": [metrics["loss"]], "learning_rate": [0.0]})
        _write(folder, str(config["model_id"]), identity, weights, curve, metrics)
    return folder


def read_exported_config(source: Path) -> dict[str, Any]:
    """Configuration and identity in a file of `export_weights`. Raises ValueError for a file that is none."""
    return _read_exported(source)[0]


def _read_exported(source: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, Tensor]]:
    """Configuration, metrics and weights."""
    try:
        with safe_open(source, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: _to_float32(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118  (no mapping)
        return json.loads(metadata[CONFIG]), json.loads(metadata[METRICS]), weights
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{source} holds no exported checkpoint: {error}") from None


def _to_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.float16 else tensor


def is_complete(folder: Path) -> bool:
    """Whether all files of the checkpoint exist and match their checksums."""
    return all(is_intact(folder / name) for name in (WEIGHTS, CONFIG, METRICS, CURVE))


def read_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's configuration and identity. Raises FileNotFoundError if there is no checkpoint."""
    config: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    return config


def read_metrics(folder: Path) -> dict[str, Any]:
    """Metrics of the training: length, last loss, speed, device. Raises FileNotFoundError if there is no checkpoint."""
    metrics: dict[str, Any] = json.loads((folder / METRICS).read_text(encoding="utf-8"))
    return metrics


def load_encoder(folder: Path) -> tuple[AnyEncoder, EncoderInfo]:
    """The encoder of a checkpoint in evaluation mode, on the CPU: `[batch, channels, 3840]` to `[batch, width]`.

    Raises FileNotFoundError where there is no checkpoint, DamagedFileError where its files are not those written.
    """
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} holds no checkpoint: there is no {CONFIG} in it")
    verify_checksum(folder / CONFIG)
    raw = read_config(folder)
    shape = read_shape(raw["config"]["encoder"])
    encoder = build_encoder(raw["channels"], shape)
    encoder.load_state_dict(_part(folder, "regressor.encoder" if raw["method"] == "supervised" else "encoder"))
    info = EncoderInfo(
        raw["model_id"], raw["encoder"], raw["modality"], raw["channels"], shape.width, teacher=raw["teacher"]
    )
    return encoder.eval(), info


def load_regressor(folder: Path) -> Regressor:
    """The encoder and head of a supervised checkpoint in evaluation mode: segments to the target in its unit.

    Raises ValueError for a checkpoint that was trained by another method.
    """
    raw = read_config(folder)
    if raw["method"] != "supervised":
        raise ValueError(f"{folder} was trained by {raw['method']}: it predicts no target")
    regressor = Regressor(build_encoder(raw["channels"], read_shape(raw["config"]["encoder"])))
    regressor.load_state_dict(_part(folder, "regressor"))
    return regressor.eval()


def load_heads(folder: Path) -> tuple[ProjectionHead, ProjectionHead]:
    """The projection heads of a student's checkpoint in evaluation mode: the teacher's and the student's.

    They map embeddings `[batch, width]` to the space `[batch, 128]` in which the two were trained to agree. Raises
    ValueError for a checkpoint without both heads.
    """
    heads = []
    for name in ("teacher_head", "student_head"):
        weights = _part(folder, name)
        if not weights:
            raise ValueError(f"{folder} holds no projection heads: only a distilled student has them")
        head = ProjectionHead(weights["0.weight"].shape[1])
        head.load_state_dict(weights)
        heads.append(head.eval())
    return heads[0], heads[1]


def _part(folder: Path, name: str) -> dict[str, Tensor]:
    """The weights under one attribute of the trained module. Raises DamagedFileError."""
    weights = read_weights(folder)
    return {key.removeprefix(f"{name}."): tensor for key, tensor in weights.items() if key.startswith(f"{name}.")}


def _card(identity: Identity, weights: Mapping[str, Tensor], metrics: Mapping[str, Any]) -> str:
    parameters = sum(
        tensor.numel() for name, tensor in weights.items() if name.startswith(("encoder.", "regressor.encoder."))
    )
    method = str(metrics.get("trained", f"by {identity.method}")).format(
        teacher=f"`{identity.teacher}`" if identity.teacher else "random weights"
    )
    rows = {
        "input": f"{identity.modality}, {identity.channels} channels × 60 s at 64 Hz, z-scored per channel",
        "output": f"{identity.config['encoder']['width']}-dimensional embedding",
        "parameters of the encoder": f"{parameters:,}",
        **({"went on from": f"`{identity.config['start']}`"} if identity.config.get("start") else {}),
        "trained on": f"{metrics['segments']:,} segments of {metrics['participants']:,} participants",
        "steps × batch": f"{metrics['steps']:,} × {metrics['batch_size']}",
        "last loss": f"{metrics['loss']:.4f}",
        "data version": f"`{identity.data_version}`",
        "split version": f"`{identity.split_version}`",
        "code version": f"`{identity.code_version}`",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    return (
        f"# {identity.encoder} `{identity.model_id}`\n\n"
        f"Trained {method}; Abbaspourazad et al., *Wearable Accelerometer Foundation Models for "
        f"Health via Knowledge Distillation*.\n\n"
        f"| | |\n|---|---|\n{table}\n\n"
        f"All settings are in `{CONFIG}`, the loss curve in `{CURVE}`. Meant for research on low-motion wrist segments "
        "prepared as above; it is no medical device, and nothing is known about recordings unlike its training data.\n"
    )
