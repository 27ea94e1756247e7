"""Makes the encoders that come with the package: one teacher, several students of simulated people, and their cards.

    python benches/bundled.py train --home /somewhere/with/space
    python benches/bundled.py pack --home /somewhere/with/space --data ../shared/data

Training takes an hour and a half of two cores; interrupted, the same command continues. `--only` names one.
Packing rounds the weights, evaluates them on people whom nobody trained on, and on real recordings, and writes
accelkd/models/bundled. It refuses a student that loses to a constant.
"""

from __future__ import annotations

import argparse
import os
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
from huggingface_hub import ModelCard, ModelCardData
from safetensors.numpy import save_file

from accelkd.api.encoders import Encoder, embed, load_encoder
from accelkd.cohort.training_set import training_set
from accelkd.evaluation.extract import embed as embed_segments
from accelkd.evaluation.probes import LabelledEmbeddings
from accelkd.evaluation.readouts import fit_readouts, predict, write_readouts
from accelkd.home.layout import Home
from accelkd.home.settings import Settings
from accelkd.models.bundled import EXAMPLE, NAMES, STUDENT, TEACHER, bundled_folder
from accelkd.models.encoders import EncoderShape, read_shape
from accelkd.models.transformer import TransformerShape
from accelkd.operations.adopt import adopt
from accelkd.operations.rebuild import rebuild_warehouse
from accelkd.operations.split import split_participants
from accelkd.recordings.ingest import ingest
from accelkd.recordings.labels import LABELS
from accelkd.recordings.simulator import simulate_batch
from accelkd.reports import markdown
from accelkd.reports.predictions import errors_by_group
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import SegmentStore
from accelkd.training.checkpoint import is_complete, read_config, read_metrics, round_checkpoint
from accelkd.training.presets import PRESETS, night_distillation
from accelkd.training.runs import train_encoder
from accelkd.warehouse.load import load_batch
from accelkd.warehouse.read_embeddings import read_embeddings

SEED = 2_026  # other people than those of the demo
SEGMENTS_PER_PARTICIPANT = 8
# (batch, profile, rate, participants)
COHORT = (
    ("easy-64", "easy", 64, 256),
    ("realistic-64", "realistic", 64, 512),
    ("realistic-256", "realistic", 256, 192),
    ("hard-64", "hard", 64, 256),
    ("chest-64", "chest", 64, 256),
)
# People after those: readouts are fitted on four fifths of them, everything is measured on the rest
OTHERS = (
    ("easy-64", "easy", 64, 200),
    ("realistic-64", "realistic", 64, 400),
    ("realistic-256", "realistic", 256, 200),
    ("hard-64", "hard", 64, 100),
    ("chest-64", "chest", 64, 200),
)
STUDENTS: dict[str, tuple[EncoderShape, int, float]] = {  # (shape, steps, peak of the learning rate)
    STUDENT: (PRESETS["night"].student.encoder, 5_600, 4e-3),
    "accel-kd-transformer-xs": (
        TransformerShape(width=64, layers=3, heads=2, mlp=256, stem="convolutional"),
        5_000,
        2e-3,
    ),
}
MIN_CLASSICAL_PEAK = 0.5  # from which on the classical rate is a reference, where there is no other
# Real devices: what travelled with the recording, or else the classical rate
DEVICES = {
    "phone": ("mscardio-phone-scg", "phones on chests"),
    "nilspod": ("biopsykit-nilspod-chest", "a NilsPod on a chest"),
    "polar": ("polar-verity-sense", "a Polar Verity Sense on an arm"),
    "e4": ("stress-predict-e4", "Empatica E4 on wrists"),
}


def cohort(home: Home, batches: tuple[tuple[str, str, int, int], ...], first: int) -> None:
    """Land, segment and split a cohort; what is there stays."""
    Settings(preset="night").save(home)
    for batch_id, profile, rate_hz, participants in batches:
        if not home.batch(batch_id).exists():
            simulate_batch(
                home.landing,
                batch_id,
                participants=participants,
                segments=SEGMENTS_PER_PARTICIPANT,
                seed=SEED,
                profile=profile,
                rate_hz=rate_hz,
                first_participant=first,
                processes=os.cpu_count() or 1,
            )
        if not home.segments(batch_id).exists():
            print(batch_id, segment_batch(home, batch_id), flush=True)
            load_batch(home, batch_id)
        first += participants
    if not home.split.exists():
        split_participants(home)


def train(home: Home, name: str) -> Path:
    """Train one of the encoders, or find it trained."""
    data = training_set(home)
    night = PRESETS["night"]
    run = partial(
        train_encoder,
        data.store,
        data.rows,
        data_version=data.data_version,
        split_version=data.split_version,
        device="cpu",
    )
    if name == TEACHER:
        return run(night.teacher, home.encoder("ppg_teacher"), name="ppg_teacher")
    shape, steps, learning_rate = STUDENTS[name]
    config = replace(night.student, encoder=shape, optimisation=night_distillation(steps, learning_rate))
    return run(config, home.encoder("accel_student"), name="accel_student", teacher=trained(home, TEACHER))


def trained(home: Home, name: str) -> Path:
    """The checkpoint of a name, found by its shape. Raises FileNotFoundError where it has not been trained."""
    encoder = "ppg_teacher" if name == TEACHER else "accel_student"
    shape = PRESETS["night"].teacher.encoder if name == TEACHER else STUDENTS[name][0]
    for folder in sorted(home.encoder(encoder).glob("[!.]*/")):
        if is_complete(folder) and read_shape(read_config(folder)["config"]["encoder"]) == shape:
            return folder
    raise FileNotFoundError(f"{name} has not been trained in {home.root}")


def pack(home: Home, name: str, data: Path) -> None:
    """Evaluate a student beside its teacher, and write it into the package; with STUDENT also the teacher."""
    others = Home(home.root / "others")
    cohort(others, OTHERS, sum(participants for *_, participants in COHORT))
    folders = {"ppg_teacher": rounded(home, TEACHER), "accel_student": rounded(home, name)}
    adopt(others, [*folders.values()])
    rebuild_warehouse(others)
    with duckdb.connect(str(others.published), read_only=True) as connection:
        for encoder, of in (("ppg_teacher", TEACHER), ("accel_student", name)):
            if encoder == "accel_student" or name == STUDENT:
                write_package(others, connection, encoder, of, folders[encoder], data)


def rounded(home: Home, name: str) -> Path:
    """The checkpoint of a name with weights in float16."""
    source = trained(home, name)
    folder = home.root / "rounded" / source.name
    if not is_complete(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(exist_ok=True)
        round_checkpoint(source, folder)
    return folder


def write_package(
    others: Home, connection: duckdb.DuckDBPyConnection, encoder: str, name: str, source: Path, data: Path
) -> None:
    """The folder of a bundled encoder: its checkpoint, readouts of the labels, an example, and its card.

    Raises ValueError for a student whose error of one of the labels is not below that of a constant.
    """
    embeddings = read_embeddings(connection, encoder, test_only=False)
    train = embeddings.take(np.flatnonzero(~embeddings.in_test))
    segments = train.labelled()
    # What a simulator says of age or illness says nothing of real people: readouts of the heart alone
    nobody = LabelledEmbeddings(train.matrix[:0], train.participants[:0], {})
    readouts = fit_readouts(encoder, source.name, segments, nobody, {})
    lost = [readout.target for readout in readouts.of.values() if not readout.held_out < readout.constant]
    if lost and encoder == "accel_student":
        raise ValueError(f"{name} loses to a constant: {', '.join(lost)}")
    target = bundled_folder(name)
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    write_readouts(readouts, target)
    loaded = load_encoder(name)
    write_example(others, connection, loaded, target)
    card = ModelCard.from_template(
        card_data(loaded, name),
        template_path=str(Path(__file__).with_name("bundled_card.md")),
        **facts(connection, loaded, name, data, target),
    )
    card.save(target / "README.md")
    size = sum(path.stat().st_size for path in target.rglob("*"))
    print(f"{name}: {source.name} in {target}, {size / 1e6:.2f} MB", flush=True)


def write_example(others: Home, connection: duckdb.DuckDBPyConnection, encoder: Encoder, target: Path) -> None:
    """A segment of somebody in test, its embedding and what is read from it."""
    store = SegmentStore([others.segments("realistic-64")])
    in_test = {
        name for (name,) in connection.execute("SELECT participant_id FROM split WHERE split = 'test'").fetchall()
    }
    metadata = store.metadata.select(["participant_id", "hr_bpm"]).to_pylist()
    row = next(i for i, of in enumerate(metadata) if of["participant_id"] in in_test and of["hr_bpm"] is not None)
    segment = store.signals(encoder.modality, np.array([row]))[:, : encoder.channels].astype(np.float32)
    embedding = embed(encoder, segment, device="cpu")
    assert encoder.readouts is not None
    values = {readout.target: predict(readout, embedding).value for readout in encoder.readouts.at("segment")}
    save_file({"segment": segment, "embedding": embedding, **values}, target / EXAMPLE)


def card_data(encoder: Encoder, name: str) -> ModelCardData:
    """The head of a card."""
    return ModelCardData(
        license="mit",
        library_name="accelkd",
        model_name=name,
        pipeline_tag="feature-extraction",
        tags=["wearables", "accelerometer" if encoder.modality == "accel" else "ppg", "heart-rate", "simulated-data"],
    )


def facts(
    connection: duckdb.DuckDBPyConnection, encoder: Encoder, name: str, data: Path, target: Path
) -> dict[str, Any]:
    """What stands on a card: every number is measured here or at the training."""
    config, metrics = read_config(target), read_metrics(target)
    shape = read_shape(config["config"]["encoder"])
    people = connection.execute(
        "SELECT count(*) FILTER (split = 'train'), count(*) FILTER (split = 'test') FROM split"
    ).fetchall()[0]
    return {
        "name": name,
        "model_id": encoder.model_id,
        "channels": encoder.channels,
        "modality": "acceleration" if encoder.modality == "accel" else "PPG",
        "width": encoder.width,
        "network": "A Transformer" if isinstance(shape, TransformerShape) else "An EfficientNet",
        "parameters": f"{sum(parameter.numel() for parameter in encoder.module.parameters()):,}",
        "method": "distilled from the bundled `ppg-teacher-xs`"
        if encoder.teacher
        else "pre-trained as a masked autoencoder",
        "steps": f"{metrics['steps']:,} steps of {metrics['batch_size']}",
        "loss": f"{metrics['loss']:.2f}" + (f" (chance {metrics['chance_loss']:.2f})" if encoder.teacher else ""),
        "segments": f"{metrics['segments']:,}",
        "participants": f"{metrics['participants']:,}",
        "cohort": ", ".join(f"{number} {profile} at {rate_hz} Hz" for _, profile, rate_hz, number in COHORT),
        "fitted": people[0],
        "tested": people[1],
        "errors": errors(connection, encoder),
        "cohorts": errors_by_cohort(connection, encoder),
        "groups": "\n".join(errors_by_group(connection, {encoder.name: encoder.model_id})),
        "retrieval": retrieval(connection, encoder),
        "devices": errors_on_devices(encoder, data),
        "is_student": encoder.teacher is not None,
        "better": STUDENT if encoder.teacher is not None and name != STUDENT else None,
    }


def errors(connection: duckdb.DuckDBPyConnection, encoder: Encoder) -> str:
    """Errors and coverage over everybody in test, beside a constant and the classical estimator."""
    rows = connection.execute(
        "SELECT target, probe_results.mae, format('{:.2f} to {:.2f}', probe_results.mae_low, probe_results.mae_high), "
        "pearson_r, constant_mae, if(probe_results.mae_high < constant_mae, 'yes', 'not decided'), classical_mae, "
        "format('{:.1f}', 100 * coverage) "
        "FROM probe_results JOIN fairness_results USING (encoder, model_id, target) "
        "WHERE model_id = ? AND attribute = 'everybody' ORDER BY list_position(?, target)",
        [encoder.model_id, [*LABELS]],
    ).fetchall()
    header = ("", "MAE", "95 %", "r", "constant", "better than it", "classical", "inside the 90 % interval (%)")
    return markdown.table(header, [(f"{LABELS[row[0]].title} ({LABELS[row[0]].unit})", *row[1:]) for row in rows])


def errors_by_cohort(connection: duckdb.DuckDBPyConnection, encoder: Encoder) -> str:
    """Mean absolute errors of each part of the cohort, the same readouts for all."""
    estimates = {label: f"avg(abs(value - {label})) FILTER (target = '{label}')" for label in LABELS}
    rows = connection.execute(
        f"SELECT batch_id, count(DISTINCT participant_id), {', '.join(estimates.values())}, "
        "avg(abs(accel_hr_bpm - hr_bpm)) FILTER (target = 'hr_bpm') "
        "FROM predictions JOIN segments USING (segment_id, participant_id, batch_id) JOIN split USING (participant_id) "
        "WHERE model_id = ? AND split = 'test' GROUP BY ALL ORDER BY ALL",
        [encoder.model_id],
    ).fetchall()
    header = ("cohort", "people", *(f"{label.title} ({label.unit})" for label in LABELS.values()), "classical (bpm)")
    return markdown.table(header, rows)


def retrieval(connection: duckdb.DuckDBPyConnection, encoder: Encoder) -> str:
    """How often a minute of acceleration finds its own PPG, and the reverse."""
    rows = connection.execute(
        "SELECT query_encoder || ' finds ' || key_encoder, top1_percent, chance_top1_percent, mean_rank, "
        "chance_mean_rank, segments FROM retrieval_results "
        "WHERE space = 'projected' AND ? IN (query_model_id, key_model_id) "
        "AND query_model_id IN (SELECT model_id FROM readouts) AND key_model_id IN (SELECT model_id FROM readouts) "
        "ORDER BY ALL",
        [encoder.model_id],
    ).fetchall()
    return markdown.table(("", "top-1 (%)", "chance", "mean rank", "chance", "candidates"), rows)


def errors_on_devices(encoder: Encoder, data: Path) -> str:
    """Heart rate of real recordings, by the readout as it comes: nothing is fitted on them."""
    assert encoder.readouts is not None
    rows = []
    for device, (folder, title) in DEVICES.items():
        with TemporaryDirectory() as scratch:
            home = Home(Path(scratch))
            ingest(device, data / folder, home.landing, device)
            segment_batch(home, device)
            store = SegmentStore([home.segments(device)])
            store = store.subset(store.counts(encoder.modality) == encoder.channels)
            if not len(store):
                continue
            matrix = embed_segments(encoder.module, store, encoder.modality, "cpu")
            names = ("reference_hr_bpm", "hr_bpm", "accel_hr_bpm", "accel_hr_peak")
            device_bpm, ppg_bpm, classical, peak = (
                store.metadata.column(column).to_numpy().astype(np.float64) for column in names
            )
            people = np.asarray(store.metadata.column("participant_id").to_pylist())
        sure = np.where(peak >= MIN_CLASSICAL_PEAK, classical, np.nan)
        reference, of = next(
            (values, of)
            for values, of in ((device_bpm, "the device's"), (ppg_bpm, "PPG's"), (sure, "classical"))
            if np.isfinite(values).any()
        )
        known = np.isfinite(reference)
        read = predict(encoder.readouts.of["hr_bpm"], matrix[known])
        measured = reference[known]
        typical = encoder.readouts.typical.contains(matrix[known])
        error = np.abs(read.value - measured)
        rows.append(
            (
                title,
                f"{known.sum()} of {len(np.unique(people[known]))}",
                of,
                error.mean(),
                error[typical].mean() if typical.any() else None,
                np.abs(np.median(measured) - measured).mean(),
                None if of == "classical" else float(np.nanmean(np.abs(classical[known] - measured))),
                f"{100 * ((read.low <= measured) & (measured <= read.high)).mean():.0f} %",
                f"{100 * typical.mean():.0f} %",
            )
        )
    if not rows:
        return f"No public recording at hand has {encoder.channels} channels of PPG: nothing is known."
    header = ("", "minutes of people", "reference", "MAE (bpm)", "of typical minutes", "their own median", "classical")
    return markdown.table((*header, "inside the interval", "typical"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", choices=("train", "pack"))
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--only", choices=NAMES)
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="real recordings, one folder a device"
    )
    arguments = parser.parse_args()
    home = Home(arguments.home.resolve())
    names = [arguments.only] if arguments.only else [TEACHER, *STUDENTS]
    if arguments.work == "train":
        cohort(home, COHORT, 0)
        for name in names:
            print(name, train(home, name), flush=True)
    for name in names if arguments.work == "pack" else ():
        if name in STUDENTS:
            pack(home, name, arguments.data)


if __name__ == "__main__":
    main()
