"""The numbers of docs/real-data.md on people: what encoders read from phones that lie on chests (MSCardio).

    python benches/people.py ../shared/data --home /somewhere/with/space --student accel-kd-xs

The student is one that comes with the package, or that of a home (a path).

Every number is measured on people whom neither the probe nor, where an encoder is trained on phones, the encoder has
seen: three folds, each of other people. There is no PPG and no ECG; the reference of the heart rate is that of the
heart sounds in the raw acceleration (18 to 44 Hz), of which segments, 1 to 20 Hz, hold the lower edge at most. What was
trained is kept in the home, so that a run that was cut off goes on; seeds are fixed. It prints the tables as Markdown.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import tables
import torch

import rust_dsp
from accelkd.api.encoders import load_encoder
from accelkd.evaluation.evidence import auc_interval, error_interval, undecided_area, undecided_error
from accelkd.evaluation.extract import embed_in_batches
from accelkd.evaluation.participant_probes import CONTINUOUS, mean_embeddings, probe_participants
from accelkd.evaluation.probes import LabelledEmbeddings, mean_absolute_error, pearson_r, probe_segments
from accelkd.evaluation.readouts import Readout, predict
from accelkd.evaluation.significance import auc
from accelkd.home.files import remove_with_checksum
from accelkd.home.layout import Home
from accelkd.models.bundled import NAMES
from accelkd.models.encoders import AnyEncoder, build_encoder
from accelkd.operations.sensor_check import HEART_SOUND_HZ
from accelkd.recordings.ingest import ingest
from accelkd.segments.schema import DURATION_S
from accelkd.segments.segment import segment_batch
from accelkd.segments.store import SegmentStore
from accelkd.training.contrastive import Contrastive, ContrastiveConfig
from accelkd.training.data import TrainingData
from accelkd.training.masked_autoencoding import MaskedAutoencodingConfig
from accelkd.training.method import Inputs
from accelkd.training.objective import Objective
from accelkd.training.optimisation import Optimisation, efficientnet_optimisation
from accelkd.training.presets import preset
from accelkd.training.signals import to_device
from accelkd.training.supervised import Supervised
from accelkd.training.trainer import train

FOLDER, DEVICE = "mscardio-phone-scg", "phone"
HOP_S = 5.0  # recordings last 90 to 100 s: windows overlap, and people are what is counted
FOLDS = 3  # every person is held out once; more folds take as many more trainings
MIN_PEAK = 0.5
UNLIKE_BPM = 10.0
SEED = 0
TARGETS = ("age", "bmi", "sex")
CPU = torch.device("cpu")

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Cohort:
    """The still windows of all people; arrays have a row for each."""

    store: SegmentStore
    people: npt.NDArray[np.str_]
    folds: npt.NDArray[np.intp]
    sounds_bpm: Floats  # rate of the heart sounds, the reference
    sounds_peak: Floats
    recoil_bpm: Floats  # of the classical estimator, 4 to 11 Hz
    recoil_peak: Floats
    of_person: Mapping[str, Mapping[str, float]]  # age, BMI and sex (1 male) by person, where known

    @property
    def sure(self) -> npt.NDArray[np.bool_]:
        """Windows in which both bands have a high peak: there the reference is as good as it gets."""
        return self.clear & (self.recoil_peak >= MIN_PEAK)

    @property
    def clear(self) -> npt.NDArray[np.bool_]:
        """Windows in which the heart sounds have a high peak, whatever the recoil is like."""
        return self.sounds_peak >= MIN_PEAK

    def training(self, fold: int) -> Rows:
        """Windows of the people of all other folds."""
        return np.flatnonzero(self.folds != fold)


def cohort(home: Home, data: Path) -> Cohort:
    """Ingest the phones, cut still windows, and take the rate of the heart sounds from the raw acceleration."""
    print(f"<!-- {str(ingest(DEVICE, data / FOLDER, home.landing, DEVICE)).splitlines()[3]} -->")
    still = segment_batch(home, DEVICE)
    whole = segment_batch(home, DEVICE, hop_s=HOP_S)
    store = SegmentStore([home.segments(DEVICE)])
    metadata = store.metadata
    people = np.asarray(metadata.column("participant_id").to_pylist(), np.str_)
    sounds = np.full((2, len(store)), np.nan)
    for rows, window, rate_hz in _raw_windows(home, store):
        sounds[:, rows] = rust_dsp.recoil_rate(window, rate_hz, band_hz=HEART_SOUND_HZ)
    recoil_bpm, recoil_peak = (
        metadata.column(name).to_numpy().astype(np.float64) for name in ("accel_hr_bpm", "accel_hr_peak")
    )
    names = np.random.default_rng(SEED).permutation(np.unique(people)).tolist()
    fold_of = {name: number % FOLDS for number, name in enumerate(names)}
    facts = pq.read_table(home.batch(DEVICE) / "participants.parquet").to_pylist()
    of_person = {
        fact["participant_id"]: {
            "age": _number(fact["age_years"]),
            "bmi": _number(fact["bmi_kg_m2"]),
            "sex": _number(None if fact["sex"] is None else fact["sex"] == "male"),
        }
        for fact in facts
    }
    result = Cohort(
        store=store,
        people=people,
        folds=np.array([fold_of[name] for name in people.tolist()], np.intp),
        sounds_bpm=sounds[0],
        sounds_peak=sounds[1],
        recoil_bpm=recoil_bpm,
        recoil_peak=recoil_peak,
        of_person=of_person,
    )
    tables.header("windows", "number", "people")
    tables.row("whole windows side by side, strict gate", still.segments, still.participants)
    tables.row(f"every {HOP_S:g} s, strict gate", whole.segments, whole.participants)
    unlike = result.clear & (np.abs(sounds[0] - recoil_bpm) > UNLIKE_BPM)
    for name, chosen in (
        (f"peak of the heart sounds at least {MIN_PEAK}", result.clear),
        (f"of these, rates of the bands more than {UNLIKE_BPM:g} bpm apart", unlike),
        (f"peaks of both bands at least {MIN_PEAK}", result.sure),
    ):
        tables.row(name, chosen.sum(), len(np.unique(people[chosen])))
    if unlike.any():
        sides = (float(np.median(rates[unlike])) for rates in (sounds[0], recoil_bpm))
        print("\nWhere they are apart, medians of {:.0f} bpm (heart sounds) and {:.0f} bpm (recoil)".format(*sides))
    return result


def _raw_windows(home: Home, store: SegmentStore) -> Iterator[tuple[int, npt.NDArray[np.float32], float]]:
    """(row of the store, raw acceleration [3, samples] in g, its rate) of every segment."""
    recordings = store.metadata.column("recording_id").to_pylist()
    offsets_s = store.metadata.column("offset_s").to_pylist()
    of_recording: dict[str, list[int]] = {}
    for row, name in enumerate(recordings):
        of_recording.setdefault(name, []).append(row)
    for path in sorted((home.batch(DEVICE) / "recordings").glob("*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(1, columns=["recording_id", "accel_rate_hz", "accel"]):
            name, rate_hz = batch["recording_id"][0].as_py(), batch["accel_rate_hz"][0].as_py()
            if name in of_recording:
                accel = batch["accel"][0].values.flatten().to_numpy().reshape(3, -1)
                for row in of_recording[name]:
                    start = round(offsets_s[row] * rate_hz)
                    yield row, accel[:, start : start + round(DURATION_S * rate_hz)], rate_hz


def _number(value: float | bool | None) -> float:
    return np.nan if value is None else float(value)


Start = Callable[[], AnyEncoder]  # a fresh copy of the encoder that a training starts from


@dataclass(frozen=True)
class Row:
    """An encoder of the tables: frozen, or trained on the phones of the training people of each fold."""

    name: str
    origin: str  # of the weights that it starts from
    start: Start
    contrastive: ContrastiveConfig | None = None
    masked: MaskedAutoencodingConfig | None = None
    supervised: Optimisation | None = None  # on the reference; it predicts the heart rate itself, without a probe
    readout: Readout | None = None  # of the heart rate, as it came: nothing is fitted on phones

    @property
    def trained(self) -> bool:
        return any((self.contrastive, self.masked, self.supervised))


def rows_of(student: str | None) -> list[Row]:
    """What is compared; without a student, what does not need it."""
    scratch_preset = preset("scratch")
    assert isinstance(scratch_preset.teacher, MaskedAutoencodingConfig)
    masked = replace(scratch_preset.teacher, modality="accel")
    shape = scratch_preset.student.encoder
    masked = replace(masked, optimisation=masked.optimisation.with_steps(800))
    contrastive = ContrastiveConfig("accel", masked.encoder, replace(masked.optimisation.with_steps(300), log_every=10))
    scratch, transformer = (("random", partial(_random, network)) for network in (shape, masked.encoder))
    rows = [
        Row("random weights, EfficientNet", *scratch),
        Row("random weights, Transformer", *transformer),
        Row("contrastive on phones, Transformer", *transformer, contrastive=contrastive),
        Row("masked autoencoding on phones, Transformer", *transformer, masked=masked),
        Row("supervised on phones, EfficientNet", *scratch, supervised=_short(100, 1e-3)),
    ]
    if student is None:
        return rows
    trained = load_encoder(student) if student in NAMES else load_encoder("accel_student", home=student)
    fresh = trained.model_id, partial(copy.deepcopy, trained.module)
    readout = None if trained.readouts is None else trained.readouts.of["hr_bpm"]
    further = ContrastiveConfig("accel", trained.module.shape, _short(100, 1e-3))
    return [
        Row("student of simulated people, EfficientNet", *fresh),
        *([] if readout is None else [Row("that student, its own readout", *fresh, readout=readout)]),
        Row("that student, then supervised on phones", *fresh, supervised=_short(100, 1e-3)),
        *rows[:-1],
        Row("that student, then contrastive on phones", *fresh, contrastive=further),
        rows[-1],
    ]


def _short(steps: int, learning_rate: float) -> Optimisation:
    schedule = efficientnet_optimisation(steps=steps, batch_size=16, learning_rate=learning_rate)
    return replace(schedule, precision="fp32", log_every=10, save_every=50)


def _random(shape: object) -> AnyEncoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build_encoder(3, shape)  # type: ignore[arg-type]  # a partial hides which of the two shapes it is


def outputs(row: Row, people: Cohort, fold: int, folder: Path) -> npt.NDArray[np.float32]:
    """Embeddings `[windows, width]` of all windows, or predictions `[windows, 1]`, NaN but for the fold's people.

    What is trained is trained on the others.
    """
    windows = people.store.metadata.column("segment_id").to_pylist(), people.folds.tolist()
    method = row.contrastive, row.masked, row.supervised
    digest = hashlib.sha256(f"{row.name} {row.origin} {method} {windows}".encode()).hexdigest()
    path = folder / f"{digest[:12]}-{fold if row.trained else 'all'}.npy"
    if path.exists():
        return np.asarray(np.load(path))
    started = time.perf_counter()
    encoder = row.start()
    module: torch.nn.Module = encoder
    training = people.training(fold)
    if row.trained:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            objective, data, optimisation = _prepared(row, encoder, people, training)
        curve = train(objective, data, optimisation, CPU, path.with_suffix(".state"), f"{row.name}, fold {fold}").curve
        loss = f", loss {curve.loss[0]:.2f} to {curve.loss[-1]:.2f}"
        module = _trained(objective)
    else:
        loss = ""

    wanted = np.flatnonzero(people.folds == fold) if row.supervised else np.arange(len(people.store))

    def load(start: int, stop: int) -> torch.Tensor:
        return to_device(people.store.signals("accel", wanted[start:stop]), CPU).float()

    values = embed_in_batches(module, len(wanted), load, CPU, row.name).numpy()
    out = np.full((len(people.store), values.shape[1]), np.nan, np.float32)
    out[wanted] = values
    np.save(path, out)
    remove_with_checksum(path.with_suffix(".state"))
    print(f"<!-- {row.name}, fold {fold}: {time.perf_counter() - started:.0f} s{loss} -->", flush=True)
    return out


def _trained(objective: Objective) -> torch.nn.Module:
    """What training leaves: the encoder, or the regressor that predicts the heart rate itself."""
    if isinstance(objective, Supervised):
        return _Column(objective.regressor)
    assert isinstance(objective.encoder, torch.nn.Module)
    return objective.encoder


class _Column(torch.nn.Module):
    """A regressor whose predictions `[batch]` are `[batch, 1]`."""

    def __init__(self, regressor: torch.nn.Module) -> None:
        super().__init__()
        self.regressor = regressor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        predicted: torch.Tensor = self.regressor(x)
        return predicted[:, None]


def _prepared(
    row: Row, encoder: AnyEncoder, people: Cohort, training: Rows
) -> tuple[Objective, TrainingData, Optimisation]:
    """The objective of a method with its encoder, its batches of the training people, and its schedule."""
    data = partial(TrainingData, people.store, modalities=["accel"], device=CPU)
    if row.masked:
        prepared = row.masked.prepare(Inputs(people.store, training, CPU, None, None))
        return prepared.objective, prepared.data, row.masked.optimisation
    if row.contrastive:
        return Contrastive(encoder, row.contrastive), data(rows=training), row.contrastive.optimisation
    assert row.supervised
    labelled = training[people.sure[training]]
    target = people.sounds_bpm[labelled]
    objective = Supervised(encoder, "accel", mean=float(target.mean()), sd=float(target.std()))
    return objective, data(rows=labelled, targets=target, min_segments=1), row.supervised


def heart_rate(people: Cohort, everything: Mapping[str, list[npt.NDArray[np.float32]]], rows: list[Row]) -> None:
    """Error against the heart sounds: probes are fitted on the sure windows of the other folds."""
    print("\nHeart rate against that of the heart sounds, bpm:")
    tables.header("encoder", "both peaks high", "95 % interval", "r", "verdict", "sounds' peak high", "95 % interval")
    constant = np.empty(len(people.people))
    for fold in range(FOLDS):
        training = people.training(fold)
        constant[people.folds == fold] = np.median(people.sounds_bpm[training[people.sure[training]]])
    predicted = {"constant: the median of the others": constant, "classical, 4 to 11 Hz": people.recoil_bpm}
    for row in rows:
        predicted[row.name] = (
            _own_predictions(people, everything[row.name])
            if row.supervised
            else predict(row.readout, everything[row.name][0]).value
            if row.readout
            else _probed_rates(people, everything[row.name])
        )
    for name, estimate in predicted.items():
        cells: list[object] = []
        for chosen in (people.sure, people.clear):
            measured, estimated = people.sounds_bpm[chosen], estimate[chosen]
            error = np.abs(measured - estimated)
            bounds = error_interval(error, people.people[chosen])
            cells += [f"{error.mean():.2f}", _text(bounds)]
            if chosen is not people.clear and len(cells) == 2:
                r = pearson_r(measured, estimated)
                number = len(np.unique(people.people[chosen]))
                without = mean_absolute_error(measured, constant[chosen])
                reason = undecided_error(number, number, bounds, without)
                cells += [
                    "" if r is None or estimate is constant else f"{r:.2f}",
                    "" if estimate is constant else _verdict(bounds, without, reason),
                ]
        tables.row(name, *cells)


def _probed_rates(people: Cohort, embeddings: list[npt.NDArray[np.float32]]) -> Floats:
    """Predictions of a ridge on the sure windows of the other folds, for every window."""
    out = np.empty(len(people.people))
    for fold, matrix in enumerate(embeddings):
        training = people.training(fold)
        sides = (training[people.sure[training]], np.flatnonzero(people.folds == fold))
        # hr_bpm is the name of the target; of the test side every window needs a value to be predicted
        target = (people.sounds_bpm[sides[0]], np.zeros(len(sides[1])))
        probe = probe_segments(
            *(
                LabelledEmbeddings(matrix[rows], people.people[rows], {"hr_bpm": values})
                for rows, values in zip(sides, target, strict=True)
            )
        )
        out[sides[1]] = probe["hr_bpm", 1.0].predicted
    return out


def _own_predictions(people: Cohort, predictions: list[npt.NDArray[np.float32]]) -> Floats:
    out = np.empty(len(people.people))
    for fold, values in enumerate(predictions):
        out[people.folds == fold] = values[people.folds == fold, 0]
    return out


def about_people(people: Cohort, everything: Mapping[str, list[npt.NDArray[np.float32]]], rows: list[Row]) -> None:
    """Age, BMI and sex from the mean embedding of each person, by the pipeline's probes on participants."""
    print("\nAge, BMI and sex from the mean embedding of each person:")
    tables.header("encoder", "target", "people", "result", "95 % interval", "constant", "verdict")
    for row in rows:
        if row.supervised or row.readout:
            continue
        for target in TARGETS:
            tables.row(row.name, *_about(people, everything[row.name], target))


def _about(people: Cohort, embeddings: list[npt.NDArray[np.float32]], target: str) -> tuple[object, ...]:
    measured, predicted, folds, medians = [], [], [], []
    for fold, matrix in enumerate(embeddings):
        names, means = mean_embeddings(matrix, people.people)
        values = np.array([people.of_person[name][target] for name in names.tolist()])
        test = np.isin(names, people.people[people.folds == fold])
        probe = probe_participants(
            *(LabelledEmbeddings(means[side], names[side], {target: values[side]}) for side in (~test, test))
        )[target]
        measured.append(probe.measured)
        predicted.append(probe.predicted)
        folds.append(np.full(len(probe.measured), fold))
        medians.append(np.full(len(probe.measured), np.nanmedian(values[~test])))
    y, estimate, constant = (np.concatenate(part) for part in (measured, predicted, medians))
    number = len(y)
    if target in CONTINUOUS:
        error = np.abs(y - estimate)
        bounds = error_interval(error, np.arange(number).astype(np.str_))
        without = mean_absolute_error(y, constant)
        reason = undecided_error(number - number // FOLDS, number, bounds, without)
        unit = CONTINUOUS[target]
        return (
            target,
            number,
            f"{error.mean():.2f} {unit}",
            _text(bounds),
            f"{without:.2f}",
            _verdict(bounds, without, reason),
        )
    # Of each fold on its own: its probe has an intercept of its own, which people of other folds do not share
    areas = [
        (auc(part == 1, score), part) for part, score in zip(measured, predicted, strict=True) if 0 < part.mean() < 1
    ]
    pairs = [float(part.sum() * (len(part) - part.sum())) for _, part in areas]
    area = float(np.average([area for area, _ in areas], weights=pairs))
    yes = int(y.sum())
    bounds = auc_interval(area, yes, number - yes)
    reason = undecided_area((yes, number - yes), (yes, number - yes), bounds)
    verdict = reason or ("better" if bounds[0] > 0.5 else "not better than 0.5")
    return f"{target} ({yes} male)", number, f"AUC {area:.2f}", _text(bounds), "0.50", verdict


def _verdict(bounds: tuple[float, float] | None, constant: float, reason: str | None) -> str:
    if reason or bounds is None:
        return f"not decidable: {reason or 'too few people'}"
    return "better than the constant" if bounds[1] < constant else "worse" if bounds[0] > constant else "no difference"


def _text(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.2f} to {bounds[1]:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with one subfolder per dataset")
    parser.add_argument("--home", type=Path, required=True, help="folder for the home that this makes")
    parser.add_argument("--student", help="accel-kd-xs, or the path of a home in which a student is promoted")
    parser.add_argument(
        "--frozen", action="store_true", help="leave out what is trained on phones: a minute, not twenty"
    )
    arguments = parser.parse_args()
    started = time.perf_counter()
    home = Home(arguments.home)
    people = cohort(home, arguments.data)
    folder = home.root / "outputs"
    folder.mkdir(exist_ok=True)
    rows = [row for row in rows_of(arguments.student) if not (arguments.frozen and row.trained)]
    everything = {row.name: [outputs(row, people, fold, folder) for fold in range(FOLDS)] for row in rows}
    heart_rate(people, everything, rows)
    about_people(people, everything, rows)
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
