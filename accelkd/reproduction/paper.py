"""The paper's numbers as data: Abbaspourazad et al., "Wearable Accelerometer Foundation Models for Health via Knowledge
Distillation". Each number has its table. Where tables contradict one another, each number is kept as its own table
prints it; `INCONSISTENCIES` lists the contradictions.

Experiments and targets have this project's names. Mean absolute errors are in bpm, ms, years and kg/m².
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from accelkd.recordings.labels import LABELS
from accelkd.recordings.survey import TARGETS

LOW_FRACTION = 0.001  # of the training labels: the smallest share in figure 2
SEGMENT_TARGETS = tuple(LABELS)
NAMES = {  # of the encoders, as the paper writes them
    "accel-supervised": "Accel-supervised",
    "accel-mae": "Accel-MAE",
    "accel-cl": "Accel-CL",
    "accel-kd-mae": "Accel-KD via PPG-MAE",
    "accel-kd-cl": "Accel-KD via PPG-CL",
    "ppg-mae": "PPG-MAE",
    "ppg-cl": "PPG-CL",
}


@dataclass(frozen=True)
class Key:
    """What a number of the paper measures, and the table that prints it."""

    table: int
    experiment: str
    target: str
    metric: str = "mae"
    label_fraction: float = 1.0


# Tables 9 to 11: MAE, RMSE, Pearson's R, each with all labels and with 0.1 % of them
_PROBES = {
    (9, "hr_bpm"): {
        "accel-supervised": (1.60, 3.94, 4.28, 7.76, 0.87, 0.30),
        "accel-mae": (4.47, 4.72, 7.63, 7.90, 0.70, 0.67),
        "accel-cl": (2.33, 2.54, 4.58, 4.80, 0.89, 0.88),
        "accel-kd-mae": (1.19, 1.34, 3.12, 3.20, 0.96, 0.95),
        "accel-kd-cl": (1.37, 1.58, 3.45, 3.56, 0.94, 0.93),
        "ppg-mae": (0.34, 0.36, 0.55, 0.59, 0.99, 0.98),
        "ppg-cl": (1.20, 1.28, 1.63, 1.74, 0.98, 0.97),
    },
    (10, "sdnn_ms"): {
        "accel-supervised": (7.82, 22.38, 14.86, 32.30, 0.77, 0.12),
        "accel-mae": (14.31, 15.38, 22.74, 23.80, 0.47, 0.42),
        "accel-cl": (9.93, 10.64, 16.47, 17.23, 0.72, 0.70),
        "accel-kd-mae": (6.54, 6.95, 12.62, 13.11, 0.84, 0.83),
        "accel-kd-cl": (7.16, 8.04, 13.21, 14.04, 0.82, 0.80),
        "ppg-mae": (4.46, 4.92, 7.51, 8.07, 0.94, 0.93),
        "ppg-cl": (7.17, 7.55, 11.09, 11.72, 0.87, 0.86),
    },
    (11, "rmssd_ms"): {
        "accel-supervised": (9.61, 22.60, 18.74, 36.01, 0.70, 0.08),
        "accel-mae": (15.70, 17.00, 27.03, 28.17, 0.40, 0.35),
        "accel-cl": (10.95, 12.39, 19.83, 21.01, 0.68, 0.64),
        "accel-kd-mae": (8.47, 9.17, 16.70, 17.33, 0.77, 0.75),
        "accel-kd-cl": (8.42, 9.57, 16.82, 17.63, 0.76, 0.74),
        "ppg-mae": (6.34, 7.05, 11.18, 12.00, 0.90, 0.88),
        "ppg-cl": (8.02, 8.71, 13.67, 14.86, 0.85, 0.83),
    },
}

# Table 2: mean absolute error of age and of BMI, AUC of biological sex
_DEMOGRAPHICS = {
    "accel-kd-mae": (4.04, 2.48, 0.99),
    "accel-kd-cl": (4.74, 2.82, 0.97),
    "accel-mae": (7.73, 3.84, 0.87),
    "accel-cl": (4.96, 2.62, 0.98),
}

# Table 13: MAE of HR, SDNN, RMSSD, each with all labels and with 0.1 % of them
_TRANSFORMER_CL = {
    "accel-cl": (2.33, 2.54, 9.93, 10.54, 10.95, 12.39),
    "ppg-cl": (1.20, 1.28, 7.17, 7.55, 8.02, 8.71),
    "accel-kd-cl": (1.37, 1.58, 7.16, 8.04, 8.42, 9.57),
    "accel-cl-transformer": (2.28, 2.48, 9.81, 10.43, 10.87, 12.09),
    "ppg-cl-transformer": (1.13, 1.20, 7.23, 7.58, 8.08, 8.73),
    "accel-kd-cl-transformer": (1.41, 1.59, 7.17, 7.92, 8.67, 9.67),
}

# Tables of ablations: MAE of HR, SDNN, RMSSD with all labels
_ABLATIONS = {
    3: {"simultaneous-random-lambda-1": (2.36, 9.68, 11.30), "accel-kd-mae": (1.21, 6.58, 8.40)},
    14: {"ppg-cl-participant": (2.51, 12.24, 11.76), "ppg-cl": (1.21, 6.58, 8.40)},
    15: {"ppg-mae-1-channel": (0.39, 5.04, 7.30), "ppg-mae": (0.34, 4.46, 6.34)},
    16: {"ppg-mae-16-layers": (0.34, 5.05, 7.52), "ppg-mae": (0.34, 4.46, 6.34)},
    17: {
        "kd-augment-none": (1.76, 6.98, 8.82),
        "accel-kd-mae": (1.21, 6.58, 8.40),
        "kd-augment-cut-out": (1.38, 6.96, 8.51),
        "kd-augment-gaussian-noise": (1.29, 6.66, 8.84),
        "kd-augment-magnitude-warp": (1.76, 6.97, 8.96),
        "kd-augment-channel-permute": (1.79, 6.77, 8.67),
        "kd-augment-time-warp": (1.84, 10.47, 12.83),
    },
    18: {
        "kd-lambda-0": (1.25, 6.80, 8.78),
        "kd-lambda-0.25": (1.26, 6.69, 8.59),
        "kd-lambda-0.5": (1.25, 6.77, 8.68),
        "kd-lambda-0.75": (1.19, 6.80, 8.78),
        "accel-kd-mae": (1.21, 6.58, 8.40),
    },
    19: {
        "simultaneous-random-lambda-0": (2.81, 11.01, 12.55),
        "simultaneous-random-lambda-0.5": (2.59, 10.37, 11.90),
        "simultaneous-random-lambda-1": (2.36, 9.68, 11.30),
        "simultaneous-pretrained-lambda-0": (2.73, 10.97, 12.56),
        "simultaneous-pretrained-lambda-0.5": (2.61, 10.29, 11.89),
        "simultaneous-pretrained-lambda-1": (2.23, 9.63, 11.06),
        "kd-lambda-0": (1.25, 6.80, 8.78),
        "kd-lambda-0.5": (1.25, 6.77, 8.68),
        "accel-kd-mae": (1.21, 6.58, 8.40),
    },
}

# Table 12: AUC of Accel-KD via PPG-MAE with its stars against Accel-CL, Accel-KD via PPG-CL, Accel-MAE, Accel-CL
HEALTH_ENCODERS = ("accel-kd-mae", "accel-kd-cl", "accel-mae", "accel-cl")
_HEALTH = {
    "ace_inhibitors": (0.802, "***", 0.794, 0.731, 0.791),
    "active_alcohol": (0.681, "***", 0.675, 0.616, 0.665),
    "active_smoker": (0.810, "***", 0.801, 0.735, 0.784),
    "afib": (0.816, "***", 0.804, 0.765, 0.798),
    "allergy": (0.652, "***", 0.648, 0.619, 0.644),
    "anti_anxiety": (0.713, "***", 0.707, 0.641, 0.696),
    "antipsychotics": (0.796, "***", 0.785, 0.705, 0.767),
    "anticoagulants": (0.818, "***", 0.809, 0.759, 0.801),
    "antidepressants": (0.795, "***", 0.782, 0.685, 0.761),
    "antiplatelets": (0.784, "***", 0.781, 0.732, 0.776),
    "anxiety": (0.767, "***", 0.759, 0.679, 0.747),
    "artery_disease": (0.880, "*", 0.869, 0.822, 0.873),
    "arthritis": (0.781, "***", 0.773, 0.733, 0.774),
    "asthma": (0.634, "***", 0.630, 0.596, 0.621),
    "beta_blockers": (0.759, "***", 0.747, 0.690, 0.736),
    "blood_pressure": (0.798, "***", 0.789, 0.732, 0.787),
    "blood_pressure_medication": (0.710, "***", 0.697, 0.651, 0.694),
    "calcium_channel_blockers": (0.772, "***", 0.759, 0.703, 0.757),
    "cancer": (0.800, "***", 0.791, 0.743, 0.793),
    "chemotherapy": (0.735, "***", 0.704, 0.626, 0.714),
    "cholesterol": (0.755, "***", 0.747, 0.703, 0.746),
    "chronic_bronchitis": (0.725, "***", 0.725, 0.683, 0.714),
    "depression": (0.740, "***", 0.735, 0.665, 0.722),
    "diabetes": (0.829, "***", 0.818, 0.767, 0.810),
    "diuretics": (0.756, "***", 0.747, 0.701, 0.743),
    "hearing": (0.719, "***", 0.713, 0.676, 0.709),
    "heart_attack": (0.835, "*", 0.832, 0.771, 0.831),
    "heart_disease": (0.857, "***", 0.845, 0.801, 0.843),
    "heart_failure": (0.857, "n.s.", 0.838, 0.789, 0.855),
    "heart_rhythm": (0.678, "***", 0.664, 0.634, 0.663),
    "hip_knee": (0.844, "*", 0.842, 0.790, 0.841),
    "kidney": (0.694, "***", 0.687, 0.646, 0.678),
    "liver": (0.729, "***", 0.713, 0.615, 0.696),
    "lower_back": (0.685, "***", 0.681, 0.651, 0.674),
    "neck_disorder": (0.724, "***", 0.717, 0.676, 0.714),
    "neuropathy": (0.802, "***", 0.793, 0.747, 0.791),
    "opioid_painkillers": (0.769, "***", 0.763, 0.667, 0.748),
    "osteoporosis": (0.854, "***", 0.849, 0.807, 0.851),
    "pacemaker": (0.910, "***", 0.884, 0.835, 0.885),
    "painkillers": (0.602, "***", 0.599, 0.578, 0.597),
    "sleep_apnea": (0.798, "***", 0.798, 0.729, 0.783),
    "sleep_medication": (0.673, "***", 0.661, 0.622, 0.652),
    "stroke_tia": (0.790, "n.s.", 0.779, 0.743, 0.789),
    "thyroid": (0.750, "***", 0.746, 0.712, 0.743),
    "urinary": (0.799, "***", 0.790, 0.748, 0.787),
    "vision": (0.657, "***", 0.655, 0.627, 0.651),
}
HEALTH_STARS = {target: row[1] for target, row in _HEALTH.items()}

# Tables 20, 21 and 23; sleep apnea is in table 12 alone, without a number of participants
HEALTH_PARTICIPANTS = {name: target.paper_participants for name, target in TARGETS.items()}


@dataclass(frozen=True)
class Retrieval:
    """A row of table 1 or 8: mean and standard deviation over 100 pools."""

    table: int
    experiment: str
    direction: str
    top1_percent: float
    top1_percent_sd: float
    mean_rank: float
    mean_rank_sd: float


RETRIEVAL = (
    Retrieval(1, "accel-kd-mae", "ppg_from_accel", 99.17, 0.23, 1.02, 0.01),
    Retrieval(1, "accel-mae", "ppg_from_accel", 0.18, 0.03, 2808.86, 68.95),
    Retrieval(8, "accel-kd-mae", "accel_from_ppg", 99.17, 0.23, 1.02, 0.01),
    Retrieval(8, "accel-mae", "accel_from_ppg", 0.31, 0.04, 2311.50, 60.74),
)
RETRIEVAL_CHANCE = (0.01, 9551.64)  # top-1 in percent, mean rank: the same in both tables
RETRIEVAL_POOL = (1_000, 19)  # participants of a pool, mean segments of each (section 5.1)

COHORT = {  # table 6 and section 4.1
    "participants": 172_318,
    "segments": 19_993_427,
    "calendar_days_per_participant": 84.12,
    "time_span_days": 1_439,
    "train_percent": 80,
}


@dataclass(frozen=True)
class Size:
    """A column of table 7."""

    width: int
    layers: int
    mlp: int
    heads: int
    parameters: int


SIZES = {
    "kd-size-xs": Size(128, 4, 512, 4, 800_000),
    "kd-size-s": Size(128, 6, 512, 4, 1_200_000),
    "kd-size-m": Size(192, 6, 1024, 6, 3_300_000),
    "kd-size-l": Size(256, 6, 1024, 8, 4_800_000),
    "accel-kd-mae": Size(256, 8, 1024, 8, 6_300_000),
}
PARAMETERS_16_LAYERS = 12_700_000  # appendix A.3 and table 16

INCONSISTENCIES = (
    "The main result is 1.19 / 6.54 / 8.47 in tables 9 to 11 and 1.21 / 6.58 / 8.40 in tables 3, 14, 17, 18 and "
    "19: two runs.",
    "Table 14 is captioned PPG-CL, but its right column is Accel-KD via PPG-MAE's 1.21 / 6.58 / 8.40 and not PPG-CL's "
    "1.20 / 7.17 / 8.02 of tables 9 to 11: which model its left column measures is open. Both readings are run here.",
    "Accel-CL's SDNN with 0.1 % of the labels is 10.64 in table 10 and 10.54 in table 13.",
    "Table 18 prints the same SDNN and RMSSD (6.80, 8.78) at λ = 0 and at λ = 0.75.",
    "The text says that the distilled encoders predict demographics better than the uni-modal ones; in table 2 "
    "Accel-KD via PPG-CL is behind Accel-CL for BMI (2.82 against 2.62) and for sex (0.97 against 0.98).",
    "The caption of table 12 says that the distilled encoders are consistently better; Accel-KD via PPG-CL is behind "
    "Accel-CL on eight of its 46 targets.",
    "Accel-KD via PPG-CL reads SDNN as well as its own teacher (7.16 against 7.17, table 10).",
    "The caption of table 12 defines its levels of significance in another notation than its rows use; read here as "
    "`***` below 5e-4, `**` below 5e-3, `*` below 5e-2.",
    "The test set is about 17.5K participants in section 5.1, 20 % of 172,318 (34,464) by section 4.1, and 11K to 27K "
    "in tables 20 to 23. Sleep apnea is in table 12 only.",
    "Figure 4 prints no numbers; the ordering in its text is all that can be compared.",
)


def number(table: int, experiment: str, target: str, metric: str = "mae", label_fraction: float = 1.0) -> float:
    """The number that a table prints. Raises KeyError if the table has none."""
    return NUMBERS[Key(table, experiment, target, metric, label_fraction)]


def _numbers() -> Iterator[tuple[Key, float]]:
    for (table, target), rows in _PROBES.items():
        for experiment, probes in rows.items():
            for metric, (every, few) in zip(("mae", "rmse", "pearson_r"), _pairs(probes), strict=True):
                yield Key(table, experiment, target, metric), every
                yield Key(table, experiment, target, metric, LOW_FRACTION), few
    for experiment, traits in _DEMOGRAPHICS.items():
        for (target, metric), value in zip((("age", "mae"), ("bmi", "mae"), ("sex", "auc")), traits, strict=True):
            yield Key(2, experiment, target, metric), value
    for experiment, row in _TRANSFORMER_CL.items():
        for target, (every, few) in zip(SEGMENT_TARGETS, _pairs(row), strict=True):
            yield Key(13, experiment, target), every
            yield Key(13, experiment, target, "mae", LOW_FRACTION), few
    for table, ablation in _ABLATIONS.items():
        for experiment, errors in ablation.items():
            for target, value in zip(SEGMENT_TARGETS, errors, strict=True):
                yield Key(table, experiment, target), value
    for target, (best, _, *others) in _HEALTH.items():
        for experiment, value in zip(HEALTH_ENCODERS, (best, *others), strict=True):
            yield Key(12, experiment, target, "auc"), value


def _pairs(row: tuple[float, ...]) -> Iterator[tuple[float, float]]:
    return zip(row[::2], row[1::2], strict=True)


NUMBERS = dict(_numbers())
