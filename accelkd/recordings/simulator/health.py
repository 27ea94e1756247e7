"""Conditions and medications of simulated participants, drawn in an order in which causes precede consequences.

`prevalence` is a rounded share of US adults in the range of self-reports to NHIS, BRFSS and NHANES
(docs/simulator.md); `intercept` was fitted so that a cohort of the simulated ages reaches it. The effects are plausible
log-odds in the directions that the same literature reports, not estimates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from accelkd.recordings.simulator.streams import F64


@dataclass(frozen=True)
class Liability:
    """Log-odds of one condition or medication."""

    prevalence: float
    intercept: float
    age: float = 0.0  # per decade over 45
    male: float = 0.0
    bmi: float = 0.0  # per 5 kg/m² over 27
    stiffness: float = 0.0  # arterial stiffness for age, standard deviations
    unfitness: float = 0.0  # standard deviations
    vagal_loss: float = 0.0  # standard deviations
    smoking: float = 0.0
    causes: Mapping[str, float] = field(default_factory=dict)  # earlier conditions


CONDITIONS: dict[str, Liability] = {
    "blood_pressure": Liability(0.32, -1.05, 0.45, 0.20, 0.45, 0.70, 0.15, 0.10, 0.10),
    "diabetes": Liability(0.10, -3.13, 0.35, 0.15, 0.60, 0.35, 0.30, 0.40, 0.10, {"blood_pressure": 0.6}),
    "cholesterol": Liability(0.30, -1.09, 0.40, 0.15, 0.25, 0.25, 0.10, 0.0, 0.10, {"diabetes": 0.6}),
    "heart_disease": Liability(
        0.045, -4.32, 0.60, 0.60, 0.20, 0.45, 0.25, 0.25, 0.45, {"cholesterol": 0.7, "diabetes": 0.5}
    ),
    "heart_attack": Liability(0.032, -4.25, 0.40, 0.60, 0.10, 0.20, 0.20, 0.20, 0.40, {"heart_disease": 2.2}),
    "artery_disease": Liability(0.020, -5.08, 0.60, 0.20, 0.10, 0.80, 0.30, 0.10, 0.80, {"diabetes": 0.7}),
    "heart_failure": Liability(0.022, -5.13, 0.45, 0.20, 0.40, 0.35, 0.60, 0.50, 0.20, {"heart_disease": 1.6}),
    "stroke_tia": Liability(0.030, -4.30, 0.50, 0.0, 0.10, 0.40, 0.20, 0.10, 0.30, {"blood_pressure": 0.6}),
    "afib": Liability(0.024, -4.65, 0.70, 0.40, 0.35, 0.25, 0.10, 0.0, 0.10, {"heart_failure": 1.2}),
    "heart_rhythm": Liability(0.055, -2.90, 0.15, -0.10, 0.05, 0.05, 0.05, 0.0, 0.05),
    "pacemaker": Liability(
        0.010, -6.01, 0.90, 0.30, 0.0, 0.20, 0.20, causes={"afib": 1.2, "heart_failure": 1.2, "heart_rhythm": 1.0}
    ),
    "kidney": Liability(0.035, -3.72, 0.30, 0.0, 0.10, 0.30, 0.20, 0.20, 0.10, {"diabetes": 0.7}),
    "sleep_apnea": Liability(0.12, -2.55, 0.25, 0.60, 0.75, 0.15, 0.25, 0.10, 0.05),
    "asthma": Liability(0.14, -1.88, -0.05, -0.30, 0.20, 0.0, 0.10, 0.0, 0.10),
    "chronic_bronchitis": Liability(0.050, -3.41, 0.30, -0.10, 0.10, 0.10, 0.40, 0.20, 1.00),
    "allergy": Liability(0.32, -0.92, -0.08, -0.30, 0.05, 0.0, 0.05, 0.0, -0.10, {"asthma": 1.1}),
    "depression": Liability(0.185, -1.64, -0.10, -0.55, 0.15, 0.0, 0.25, 0.30, 0.40),
    "anxiety": Liability(0.19, -1.98, -0.20, -0.55, 0.0, 0.0, 0.10, 0.25, 0.30, {"depression": 1.6}),
    "neuropathy": Liability(0.055, -3.68, 0.40, 0.0, 0.30, 0.30, 0.25, 0.40, 0.20, {"diabetes": 1.2}),
    "arthritis": Liability(0.22, -1.65, 0.65, -0.30, 0.25, 0.10, 0.20, 0.05, 0.10),
    "hip_knee": Liability(0.024, -5.73, 0.85, -0.20, 0.40, 0.0, 0.10, causes={"arthritis": 1.6}),
    "lower_back": Liability(0.20, -1.79, 0.15, -0.05, 0.20, 0.0, 0.30, 0.05, 0.30, {"arthritis": 0.8}),
    "neck_disorder": Liability(
        0.10, -2.80, 0.15, -0.25, 0.05, 0.0, 0.20, 0.05, 0.20, {"arthritis": 0.6, "lower_back": 1.0}
    ),
    "osteoporosis": Liability(0.040, -3.92, 0.70, -1.60, -0.30, 0.20, 0.10, 0.0, 0.10),
    "thyroid": Liability(0.080, -2.71, 0.25, -1.30, 0.10, 0.0, 0.05),
    "cancer": Liability(0.080, -2.92, 0.70, -0.10, 0.0, 0.10, 0.05, 0.0, 0.10),
    "liver": Liability(0.004, -6.34, 0.35, 0.30, 0.35, 0.10, 0.30, 0.30, 0.40, {"diabetes": 0.8}),
    "urinary": Liability(0.070, -3.19, 0.45, -1.30, 0.30, 0.05, 0.30, 0.10, 0.10),
    "hearing": Liability(0.13, -2.26, 0.60, 0.55, 0.0, 0.15, 0.05, 0.0, 0.15),
    "vision": Liability(0.10, -2.47, 0.30, -0.10, 0.05, 0.10, 0.20, 0.05, 0.20, {"diabetes": 0.6}),
}

MEDICATIONS: dict[str, Liability] = {
    "ace_inhibitors": Liability(0.15, -3.22, causes={"blood_pressure": 2.6, "heart_failure": 0.8, "diabetes": 0.5}),
    "beta_blockers": Liability(
        0.095,
        -3.14,
        causes={"blood_pressure": 1.3, "afib": 1.8, "heart_disease": 1.3, "heart_failure": 1.0, "anxiety": 0.3},
    ),
    "calcium_channel_blockers": Liability(0.075, -3.86, 0.10, causes={"blood_pressure": 2.3, "afib": 0.6}),
    "diuretics": Liability(0.090, -3.38, 0.10, -0.20, causes={"blood_pressure": 1.9, "heart_failure": 1.4}),
    "blood_pressure_medication": Liability(
        0.025, -4.93, 0.10, 0.10, stiffness=0.30, causes={"blood_pressure": 1.8, "heart_failure": 1.4, "kidney": 0.8}
    ),
    "anticoagulants": Liability(0.025, -4.25, 0.15, causes={"afib": 3.4, "stroke_tia": 0.9, "cancer": 0.5}),
    "antiplatelets": Liability(
        0.16,
        -2.24,
        0.30,
        causes={"heart_disease": 2.0, "heart_attack": 1.0, "stroke_tia": 1.4, "cholesterol": 0.6},
    ),
    "antidepressants": Liability(0.13, -2.96, 0.0, -0.30, causes={"depression": 2.3, "anxiety": 0.9}),
    "anti_anxiety": Liability(0.055, -3.64, 0.05, -0.20, causes={"anxiety": 2.1}),
    "antipsychotics": Liability(0.018, -4.91, -0.05, 0.0, 0.25, causes={"depression": 1.8, "anxiety": 0.5}),
    "sleep_medication": Liability(0.080, -2.89, 0.10, -0.20, causes={"anxiety": 0.9, "depression": 0.7}),
    "opioid_painkillers": Liability(
        0.055, -3.68, 0.05, -0.10, 0.10, unfitness=0.30, causes={"lower_back": 1.3, "arthritis": 0.6, "cancer": 0.6}
    ),
    "painkillers": Liability(
        0.25,
        -1.48,
        0.0,
        -0.15,
        0.10,
        unfitness=0.10,
        causes={"arthritis": 0.7, "lower_back": 0.6, "neck_disorder": 0.3},
    ),
    "chemotherapy": Liability(0.006, -6.72, 0.0, -0.10, causes={"cancer": 4.0}),
}


def draw_health(uniform: Mapping[str, F64], background: Mapping[str, F64]) -> dict[str, F64]:
    """Conditions and medications by name, 0 or 1 `[participants]`.

    `uniform` holds one uniform number per participant for every name; `background` the `decades` over 45, `male`, `bmi`
    (in fives over 27), `stiffness`, `unfitness`, `vagal_loss` and `smoking`.
    """
    has: dict[str, F64] = {}
    for name, liability in {**CONDITIONS, **MEDICATIONS}.items():
        log_odds = (
            liability.intercept
            + liability.age * background["decades"]
            + liability.male * (background["male"] - 0.5)
            + liability.bmi * background["bmi"]
            + liability.stiffness * background["stiffness"]
            + liability.unfitness * background["unfitness"]
            + liability.vagal_loss * background["vagal_loss"]
            + liability.smoking * background["smoking"]
        )
        for cause, effect in liability.causes.items():
            log_odds = log_odds + effect * has[cause]
        has[name] = (uniform[name] < 1.0 / (1.0 + np.exp(-log_odds))).astype(np.float64)
    return has
