"""Result folders with a known truth: the files that a run writes, with numbers that a test chooses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from accelkd.home.files import write_json
from accelkd.recordings.survey import TARGETS
from accelkd.reproduction.paper import LOW_FRACTION, NAMES, NUMBERS
from accelkd.reproduction.results import CONSTANT, SCHEMAS

CONSTANT_MAE = {"hr_bpm": 9.0, "sdnn_ms": 20.0, "rmssd_ms": 21.0, "age": 12.0, "bmi": 5.0}


@dataclass
class Planted:
    """Rows to be written; participants' errors scatter around the planted mean, shared by all encoders."""

    participants: int = 60
    segments: int = 5  # of each participant
    scatter: float = 0.3  # relative, of participants
    own_scatter: float = 0.02  # relative, of one encoder's participants
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: {name: [] for name in SCHEMAS})

    def error(
        self,
        experiment: str,
        target: str,
        mae: float,
        seed: int = 0,
        label_fraction: float = 1.0,
        by_participant: bool = True,
    ) -> None:
        """One probe with this mean absolute error."""
        shared = np.random.default_rng([len(target), 1]).normal(1, self.scatter, self.participants)
        key = [seed, round(1e6 * label_fraction), *experiment.encode()]
        own = np.random.default_rng(key).normal(1, self.own_scatter, self.participants)
        errors = np.abs(shared * own)
        errors *= mae / errors.mean()
        n = 1 if target in ("age", "bmi") else self.segments
        if by_participant:
            self.rows["errors"] += [
                {
                    "experiment": experiment,
                    "seed": seed,
                    "target": target,
                    "label_fraction": label_fraction,
                    "participant_id": f"p{number:04d}",
                    "n": n,
                    "absolute_error_sum": n * value,
                }
                for number, value in enumerate(errors)
            ]
        self.metric(experiment, target, "mae", float(errors.mean()), seed, label_fraction)

    def metric(
        self, experiment: str, target: str, metric: str, value: float | None, seed: int = 0, label_fraction: float = 1.0
    ) -> None:
        """One row of the results."""
        people = target not in ("hr_bpm", "sdnn_ms", "rmssd_ms")
        self.rows["results"].append(
            {
                "experiment": experiment,
                "seed": seed,
                "target": target,
                "level": "participant" if people else "segment",
                "label_fraction": label_fraction,
                "metric": metric,
                "value": value,
                "train_n": round(4_000 * label_fraction),
                "test_n": self.participants * (1 if people else self.segments),
            }
        )

    def errors(self, errors: Mapping[str, Iterable[float]], seeds: Iterable[int] = (0,), spread: float = 0.0) -> None:
        """HR, SDNN and RMSSD of several encoders; each seed is off by up to `spread`, relative."""
        for experiment, values in errors.items():
            for seed in seeds:
                off = 1 + spread * np.random.default_rng([seed, *experiment.encode()]).uniform(-1, 1)
                for target, mae in zip(("hr_bpm", "sdnn_ms", "rmssd_ms"), values, strict=True):
                    self.error(experiment, target, off * mae, seed)

    def constants(self) -> None:
        """The constant predictor."""
        for target, mae in CONSTANT_MAE.items():
            self.metric(CONSTANT, target, "mae", mae)

    def score(self, experiment: str, target: str, separation: float, seed: int = 0) -> None:
        """Scores of a binary target whose two classes are so many standard deviations apart."""
        labels = np.random.default_rng([7, *target.encode()]).random(self.participants) < 0.35
        labels[:2] = True, False
        noise = np.random.default_rng([8, *target.encode()]).normal(size=self.participants)
        own = 0.1 * np.random.default_rng([seed, *experiment.encode()]).normal(size=self.participants)
        scores = separation * labels + noise + own
        self.rows["scores"] += [
            {
                "experiment": experiment,
                "seed": seed,
                "target": target,
                "participant_id": f"p{number:04d}",
                "label": bool(label),
                "score": float(value),
            }
            for number, (label, value) in enumerate(zip(labels, scores, strict=True))
        ]
        yes, no = scores[labels], scores[~labels]
        self.metric(experiment, target, "auc", float((yes[:, None] > no).mean()), seed)

    def health(self, separations: Mapping[str, float]) -> None:
        """All health targets of several encoders."""
        for experiment, separation in separations.items():
            for target in TARGETS:
                self.score(experiment, target, separation)

    def retrieval(self, experiment: str, space: str, top1_percent: float, seed: int = 0) -> None:
        """Retrieval in both directions."""
        for direction in ("ppg_from_accel", "accel_from_ppg"):
            self.rows["retrieval"].append(
                {
                    "experiment": experiment,
                    "teacher": "ppg-mae",
                    "seed": seed,
                    "space": space,
                    "direction": direction,
                    "pools": 100,
                    "participants": 0.63 * self.participants,
                    "segments": 190.0,
                    "top1_percent": top1_percent,
                    "top1_percent_sd": 0.4,
                    "mean_rank": 1 + 94 * (1 - top1_percent / 100),
                    "mean_rank_sd": 0.2,
                    "chance_top1_percent": 0.53,
                    "chance_mean_rank": 95.5,
                }
            )

    def model(self, experiment: str, parameters: int = 6_300_000, seed: int = 0, steps: int = 300) -> None:
        """A trained encoder and its loss curve."""
        contrastive = "cl" in experiment or "kd" in experiment
        self.rows["models"].append(
            {
                "experiment": experiment,
                "seed": seed,
                "model_id": f"{experiment}-{seed}",
                "teacher_model_id": "ppg-mae-0" if "kd" in experiment else None,
                "method": "distillation" if "kd" in experiment else "masked_autoencoding",
                "modality": "ppg" if experiment.startswith("ppg") else "accel",
                "architecture": "transformer",
                "parameters": parameters,
                "width": 256,
                "steps": steps,
                "batch_size": 64,
                "loss": 0.4,
                "chance_loss": 4.16 if contrastive else None,
                "wall_s": 61.5,
                "segments_per_s": 312.2,
                "mfu": None,
                "device": "cpu",
                "precision": "fp32",
                "effective_rank": 21.3,
                "code_version": "abc1234",
            }
        )
        noise = np.random.default_rng([seed, *experiment.encode()]).normal(0, 0.05, 30)
        for number in range(30):
            self.rows["curves"].append(
                {
                    "experiment": experiment,
                    "seed": seed,
                    "step": 10 * number,
                    "loss": float(0.4 + (3.7 if contrastive else 0.6) * np.exp(-number / 8) + noise[number]),
                    "learning_rate": 1e-3,
                }
            )

    def map(self, experiment: str, spread: float) -> None:
        """A t-SNE map of ten participants."""
        rng = np.random.default_rng(3)
        centers = rng.normal(0, 30, (10, 2))
        for participant in range(10):
            for x, y in rng.normal(centers[participant], spread, (20, 2)):
                self.rows["map"].append({"experiment": experiment, "participant": participant, "x": x, "y": y})

    def write(self, folder: Path) -> Path:
        """The files of a run; a file without rows is left out."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, rows in self.rows.items():
            if rows:
                pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMAS[name]), folder / f"{name}.parquet")
        write_json(
            folder / "cohort.json",
            {
                "preset": "planted",
                "profile": "easy",
                "train": {"participants": 240, "segments": 4_800},
                "test": {"participants": self.participants, "segments": self.participants * self.segments},
                "seeds": [0],
                "command": "accelkd reproduce --preset planted",
                "machine": "a test",
                "cores": 2,
            },
        )
        return folder


def like_the_paper() -> Planted:
    """Every experiment with the paper's own figures as the truth, and plausible ones where it prints none."""
    planted = Planted(participants=120)
    planted.constants()
    done: set[tuple[str, str, str, float]] = set()
    for key, value in NUMBERS.items():
        what = key.experiment, key.target, key.metric, key.label_fraction
        if what in done or key.metric == "auc":
            continue
        done.add(what)
        for seed in (0, 1, 2) if key.table in (9, 10, 11) else (0,):
            off = 1 + 0.01 * (seed - 1) * (1 if key.experiment.startswith("accel-kd") else -1)
            if key.metric == "mae":
                planted.error(key.experiment, key.target, off * value, seed, key.label_fraction)
                if key.table in (9, 10, 11) and key.label_fraction == LOW_FRACTION:
                    full = NUMBERS[type(key)(key.table, key.experiment, key.target)]
                    for share, weight in ((0.01, 0.4), (0.1, 0.15)):
                        planted.error(key.experiment, key.target, off * (full + weight * (value - full)), seed, share)
            else:
                planted.metric(key.experiment, key.target, key.metric, value, seed, key.label_fraction)
    planted.errors(
        {
            "kd-size-xs": (1.7, 7.6, 9.4),
            "kd-size-s": (1.4, 7.1, 8.9),
            "kd-size-m": (1.3, 6.8, 8.7),
            "kd-size-l": (1.22, 6.6, 8.5),
            "accel-kd-cl-participant": (2.6, 12.0, 11.9),
        }
    )
    planted.health({"accel-kd-mae": 1.3, "accel-kd-cl": 1.0, "accel-mae": 0.4, "accel-cl": 0.9})
    for experiment, separation in {"accel-kd-mae": 4.0, "accel-kd-cl": 2.8, "accel-mae": 1.6, "accel-cl": 2.6}.items():
        planted.score(experiment, "sex", separation)
    planted.retrieval("accel-kd-mae", "projected", 99.2)
    planted.retrieval("accel-kd-mae", "raw", 97.0)
    planted.retrieval("accel-mae", "procrustes", 3.0)
    sizes = {"kd-size-xs": 800_000, "kd-size-s": 1_200_000, "kd-size-m": 3_300_000, "kd-size-l": 4_800_000}
    for experiment in (*NAMES, *sizes):
        planted.model(experiment, sizes.get(experiment, 6_300_000))
    planted.map("accel-mae", 30.0)
    planted.map("ppg-mae", 6.0)
    planted.map("accel-kd-mae", 8.0)
    return planted
