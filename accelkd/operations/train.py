"""Training one encoder of the pipeline on what a home holds: what the assets and `accelkd train` both call."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelkd.cohort.split import read_split, split_version
from accelkd.cohort.training_set import NothingToTrainOnError, TrainingSet, refuse_too_few, training_set
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.models.bundled import TEACHER, bundled_folder
from accelkd.models.specs import ENCODERS, EncoderSpec, encoder_spec
from accelkd.operations.repair import repairing
from accelkd.operations.share import bring_training_set, collect_trained, hand_in_trained, share_home
from accelkd.recordings.arrivals import refused, superseded
from accelkd.registry.history import candidate_checkpoint, make_candidate, promoted_models
from accelkd.registry.trained_on import is_adopted, read_trained_on, whose_segments, write_trained_on
from accelkd.segments.store import Modality, SegmentStore

if TYPE_CHECKING:
    from accelkd.training.method import EncoderConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainedEncoder:
    """A candidate, and what it was trained on."""

    encoder: str
    folder: Path  # of its checkpoint
    training_set: TrainingSet | None  # None where it was trained elsewhere and adopted
    warnings: tuple[str, ...] = ()  # of devices whose accelerometer carries nothing, or another preset than was chosen


def train_candidate(
    home: Home,
    encoder: str,
    *,
    preset: str | None = None,
    steps: int | None = None,
    learning_rate: float | None = None,
    seed: int | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> TrainedEncoder:
    """Train an encoder on the training participants' segments, and record it as the candidate for promotion.

    A segment takes part if it has the encoder's modality, and for a student also that of its teacher. A student learns
    from the candidate of its teacher. The checkpoint's name is a hash of configuration, code, data and split: what is
    there already is used again, and an interrupted training continues. `preset` overrides the home's; `steps`,
    `learning_rate` and `seed` override the preset's. Damaged segments are repaired first. Inside `process_group`, all
    processes train and the first one records. Needs no warehouse; where there is one, devices whose accelerometer
    carries nothing of the heart are logged before the training begins. Where one of the encoders has nothing to be
    trained on, those that were adopted stay. Where segments or teacher do not fit the bundled weights that a preset
    goes on from, its encoder is trained from nothing, with a warning. With more than one of `workers` (else the
    variable ACCELKD_TRAINING_WORKERS), so many processes of a Ray cluster train it together; they need the home.

    Raises LookupError for an encoder that is none of ENCODERS, NothingToTrainOnError where no segment has the
    modalities, FileNotFoundError without segments, a split or the teacher's candidate, ValueError for a preset that is
    none, and what `train_encoder` raises.
    """
    from accelkd.training.parallel import barrier, rank, world_size  # import torch
    from accelkd.training.presets import adjusted
    from accelkd.training.presets import preset as named_preset
    from accelkd.training.runs import train_encoder

    spec = encoder_spec(encoder)
    chosen = named_preset(preset or Settings.load(home).preset)
    config = chosen.config(spec)
    teacher = None if spec.teacher is None else candidate_checkpoint(home, spec.teacher)
    if (models := promoted_models(home)) and is_adopted(home, encoder, models[encoder]) and nothing_to_train_on(home):
        make_candidate(home, encoder, models[encoder], read_split(home.split).num_rows)
        return TrainedEncoder(encoder, home.checkpoint(encoder, models[encoder]), None)
    selected = repairing(home, partial(training_set, home, modalities_of(spec)))
    warnings = _sensor_warnings(home, selected.batch_ids) if spec.modality == "accel" else []
    if chosen.otherwise and (reason := _cannot_go_on(config, selected.store, teacher)):
        warnings.append(f"{reason}: {encoder} is trained by the preset {chosen.otherwise}")
        config = named_preset(chosen.otherwise).config(spec)
    for warning in warnings if rank() == 0 else []:
        logger.warning(warning)
    workers = workers or int(os.environ.get("ACCELKD_TRAINING_WORKERS", "1"))
    if workers > 1 and world_size() == 1:
        from accelkd.training.workers import on_workers

        options = {"preset": preset, "steps": steps, "learning_rate": learning_rate, "seed": seed, "device": device}
        share_home(home)
        on_workers(partial(_train_in_group, replace(home, is_alive=None), encoder, options), workers, device=device)
        collect_trained(home, encoder)
    folder = train_encoder(  # which finds what the workers have trained
        selected.store,
        selected.rows,
        adjusted(config, steps=steps, learning_rate=learning_rate, seed=seed),
        home.encoder(encoder),
        name=encoder,
        data_version=selected.data_version,
        split_version=selected.split_version,
        teacher=teacher,
        device=device,
    )
    if rank() == 0:
        write_trained_on(home, encoder, folder.name, whose_segments(selected), selected.batch_ids)
        make_candidate(home, encoder, folder.name, read_split(home.split).num_rows)
    barrier()
    return TrainedEncoder(encoder, folder, selected, tuple(warnings))


def _train_in_group(home: Home, encoder: str, options: Mapping[str, Any]) -> None:
    """What each worker does: everything, as under `torchrun`; with a store, in the folder of its own machine."""
    from accelkd.training.parallel import rank  # imports torch

    if home.store is not None:
        home = replace(Home.from_environment(), run_id=home.run_id)
        bring_training_set(home)
    trained = train_candidate(home, encoder, **options)
    if rank() == 0:
        hand_in_trained(home, encoder, trained.folder.name)


def _cannot_go_on(config: EncoderConfig, store: SegmentStore, teacher: Path | None) -> str | None:
    """Why training cannot go on from the bundled encoder that the configuration starts from; None if it can."""
    from accelkd.training.checkpoint import read_config  # imports torch

    if config.start is None:
        return None
    start = read_config(bundled_folder(config.start))
    channels = config.channels(store)
    if (start["modality"], start["channels"]) != (config.modality, channels):
        return (
            f"{config.start} takes {start['channels']} {start['modality']} channels, "
            f"the segments have {channels} of {config.modality}"
        )
    if teacher is None:
        return None
    taught = read_config(teacher)
    is_bundled = taught["model_id"] == start["teacher"]
    if is_bundled or str(taught["config"].get("start")).startswith(f"{TEACHER}@"):
        return None
    return f"{config.start} learned from {TEACHER}, and {taught['model_id']} did not go on from that"


def _sensor_warnings(home: Home, batch_ids: Sequence[str]) -> list[str]:
    """What the warehouse says of the sensors; nothing that prevents it stops a training."""
    try:
        from accelkd.warehouse.sensors import sensor_warnings  # imports duckdb, which a machine that trains may lack
    except ModuleNotFoundError:
        return []
    try:
        return sensor_warnings(home, batch_ids)
    except Exception as error:
        logger.warning("whether the accelerometers carry the heart is not known: %s", error)
        return []


def modalities_of(spec: EncoderSpec) -> tuple[Modality, ...]:
    """What a segment needs for the training of an encoder: its own input, and that of its teacher."""
    learned_from = [] if spec.teacher is None else [encoder_spec(spec.teacher).modality]
    return tuple(dict.fromkeys([spec.modality, *learned_from]))


def nothing_to_train_on(home: Home) -> str | None:
    """Why one of the encoders has nobody to be trained on here, and what to do; None where all have.

    Raises like `training_set` for other reasons.
    """
    try:
        for spec in ENCODERS:
            refuse_too_few(home, modalities_of(spec))
    except NothingToTrainOnError as error:
        return str(error)
    return None


def train_all(home: Home, *, preset: str | None = None, device: str = "auto") -> Iterator[TrainedEncoder]:
    """Train every encoder of the pipeline, teachers before their students. Takes and raises like `train_candidate`."""
    for spec in ENCODERS:
        yield train_candidate(home, spec.name, preset=preset, device=device)


def load_candidate(home: Home, encoder: str) -> None:
    """Load a candidate into the warehouse, with those of its batches, split and teacher that are not there yet.

    Raises FileNotFoundError without a candidate, and what the loaders raise.
    """
    from accelkd.operations.embed import load_missing_models  # imports duckdb, as what follows
    from accelkd.training.checkpoint import read_config  # imports torch
    from accelkd.warehouse.inspect import loaded_batches, loaded_split_version
    from accelkd.warehouse.load import load_batch, load_model, load_split

    folder = candidate_checkpoint(home, encoder)
    model_id = folder.name
    _, batch_ids = read_trained_on(home, encoder, model_id)
    unusable = superseded(home).keys() | refused(home).keys()  # since it was trained
    for batch_id in sorted(set(batch_ids) - loaded_batches(home) - unusable):
        repairing(home, partial(load_batch, home, batch_id), [batch_id])
    if loaded_split_version(home) != split_version(read_split(home.split)):
        load_split(home)
    teacher, taught_by = encoder_spec(encoder).teacher, read_config(folder)["teacher"]
    if teacher is not None:  # of an adopted student another one than was trained here
        load_missing_models(home, {teacher: taught_by})
    load_model(home, encoder, model_id, batch_ids)
