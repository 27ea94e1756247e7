"""Simulated participants: demographics, latent physiology, health, and the cardiovascular traits that follow from them.

Every trait is a function of the participant's row of uniform numbers and of fixed reference constants, never of cohort
statistics: the first n participants are the same in every cohort.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtri

from accelkd.recordings.simulator.health import CONDITIONS, MEDICATIONS, draw_health
from accelkd.recordings.simulator.streams import F64, uniform_rows

RECOIL_WAVES = 6

# Columns of the table of uniform numbers, one per drawn quantity. Append new names: the others must keep their columns.
_COLUMNS = [
    "sex",
    "age",
    "height",
    "bmi",
    "smoker",
    "former_smoker",
    "alcohol",
    "unfitness",
    "vagal_loss",
    "stiffness",
    "heart_rate",
    "lf_hf",
    "breathing",
    "stroke_volume",
    "recoil_gain",
    "pre_ejection",
    "perfusion",
    "melanin",
    "ectopy",
    "tremor",
    "tremor_hz",
    "af_burden",
    "strap",
    "pace",
    "dicrotic",
    "upstroke",
    "ejection",
    "runoff",
    "breathing_gain",
    "recoil_time",
    "reflection",
]
_COLUMNS += [f"recoil_shape_{wave}" for wave in range(RECOIL_WAVES)] + [*CONDITIONS, *MEDICATIONS]
_WIDTH = 128


@dataclass(frozen=True)
class Traits:
    """Traits of participants, or of the participant of each recording: arrays `[rows]`, `recoil_shape` `[rows, 6]`."""

    male: F64
    age_years: F64
    height_m: F64
    bmi_kg_m2: F64
    smoker: F64
    former_smoker: F64
    drinks_weekly: F64  # alcohol at least twice a week
    health: dict[str, F64]  # conditions and medications, 0 or 1
    # Heart and nerves
    heart_rate_bpm: F64  # at rest, during the day
    ln_rmssd: F64  # of RMSSD in ms
    lf_hf: F64  # power of the slow over the respiratory rhythm
    breathing_hz: F64
    ectopic_per_min: F64
    af_burden: F64  # share of minutes in atrial fibrillation
    pace_bpm: F64  # of a pacemaker; 0 without one
    # Arteries and pulse wave
    pulse_wave_velocity_m_s: F64  # carotid to femoral
    pre_ejection_s: F64
    ejection_s: F64
    upstroke_s: F64
    runoff_s: F64
    reflection: F64
    dicrotic: F64
    perfusion: F64
    melanin: F64
    breathing_gain: F64
    # Recoil and movement
    recoil_gain: F64
    recoil_time: F64
    recoil_shape: F64
    tremor_gain: F64
    tremor_hz: F64
    strap: F64  # tightness

    def rows(self, index: npt.NDArray[np.intp]) -> Traits:
        """The traits of the rows `index`, which may repeat."""
        arrays = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "health"}
        return replace(self, health={name: has[index] for name, has in self.health.items()}, **arrays)


def draw_traits(seed: int, first: int, count: int) -> Traits:
    """Traits of the participants `first` to `first + count` of the cohort `seed`."""
    table = uniform_rows(seed, first, count, _WIDTH)
    uniform = dict(zip(_COLUMNS, table.T, strict=False))
    normal = {name: ndtri(np.clip(column, 1e-6, 1.0 - 1e-6)) for name, column in uniform.items()}

    male = (uniform["sex"] < 0.5).astype(np.float64)
    age = 18.0 + 72.0 * betaincinv(2.0, 3.2, uniform["age"])  # mean 45.7, sd 14
    decades = (age - 45.0) / 10.0
    height = np.where(male > 0, 1.76 + 0.070 * normal["height"], 1.63 + 0.065 * normal["height"])
    bmi = np.clip(np.exp(np.log(27.0) + 0.03 * decades + 0.19 * normal["bmi"]), 16.0, 55.0)
    fives = (bmi - 27.0) / 5.0
    weight = bmi * height**2
    smoker = (uniform["smoker"] < 0.13).astype(np.float64)
    former = (1.0 - smoker) * (uniform["former_smoker"] < np.clip(0.22 + 0.06 * decades, 0.02, 0.6))
    drinks = (uniform["alcohol"] < 0.30 + 0.06 * male).astype(np.float64)
    unfitness = 0.9 * normal["unfitness"] + 0.30 * fives + 0.10 * decades
    vagal_loss = normal["vagal_loss"]
    stiffness = normal["stiffness"]
    has = draw_health(
        uniform,
        {
            "decades": decades,
            "male": male,
            "bmi": fives,
            "stiffness": stiffness,
            "unfitness": unfitness,
            "vagal_loss": vagal_loss,
            "smoking": smoker,
        },
    )

    # Carotid-femoral velocity rises from 6.2 m/s at 25 to 11 m/s at 75 years (Reference Values for Arterial Stiffness'
    # Collaboration, Eur Heart J 2010, 31:2338).
    velocity = np.clip(
        5.6
        + 0.00100 * age**2
        + 0.45 * stiffness * (0.6 + age / 100.0)
        + 0.15 * fives
        + 0.45 * (has["blood_pressure"] - 0.3)
        + 0.35 * has["diabetes"]
        + 0.2 * smoker
        - 0.25 * has["ace_inhibitors"],
        4.5,
        17.0,
    )
    stiff = velocity - 7.5
    heart_rate = np.clip(
        64.0
        + 2.25 * (1.0 - 2.0 * male)
        + 3.2 * unfitness
        + 6.0 * normal["heart_rate"]
        + 3.0 * smoker
        + 2.0 * has["depression"]
        + 3.0 * has["antidepressants"]
        + 3.0 * has["antipsychotics"]
        + 4.0 * has["heart_failure"]
        + 4.0 * has["chemotherapy"]
        + 2.5 * has["diabetes"]
        - 3.0 * has["calcium_channel_blockers"] * has["afib"]  # verapamil or diltiazem
        - 8.0 * has["beta_blockers"],
        42.0,
        105.0,
    )
    # RMSSD halves from 25 to 70 years (Umetani et al., JACC 1998, 31:593), and falls with heart rate, diabetic
    # neuropathy and antidepressants (Licht et al., Arch Gen Psychiatry 2008, 65:1358).
    ln_rmssd = (
        3.45
        - 0.16 * decades
        - 0.40 * vagal_loss
        - 0.10 * unfitness
        - 0.012 * (heart_rate - 64.0)
        - 0.20 * has["diabetes"]
        - 0.25 * has["heart_failure"]
        - 0.10 * has["depression"]
        - 0.18 * has["antidepressants"]
        + 0.10 * has["beta_blockers"]
    )
    stroke_volume = np.clip(
        76.0 + 8.0 * (male - 0.5) - 3.6 * unfitness + 9.0 * normal["stroke_volume"] - 14.0 * has["heart_failure"],
        35.0,
        130.0,
    )
    return Traits(
        male=male,
        age_years=age,
        height_m=height,
        bmi_kg_m2=bmi,
        smoker=smoker,
        former_smoker=former,
        drinks_weekly=drinks,
        health=has,
        heart_rate_bpm=heart_rate,
        ln_rmssd=ln_rmssd,
        lf_hf=np.exp(0.45 + 0.40 * normal["lf_hf"] + 0.10 * decades),
        breathing_hz=np.clip(
            0.25 + 0.035 * normal["breathing"] + 0.012 * fives + 0.02 * has["chronic_bronchitis"], 0.13, 0.42
        ),
        ectopic_per_min=np.exp(
            -2.2 + normal["ectopy"] + 0.35 * decades + 2.0 * has["heart_rhythm"] + 0.6 * has["heart_failure"]
        ),
        af_burden=has["afib"] * uniform["af_burden"] ** 1.5,
        pace_bpm=has["pacemaker"] * np.where(uniform["pace"] < 0.5, 60.0, 70.0),
        pulse_wave_velocity_m_s=velocity,
        pre_ejection_s=np.clip(0.095 + 0.010 * normal["pre_ejection"] + 0.012 * has["heart_failure"], 0.06, 0.16),
        ejection_s=np.clip(
            0.300 + 0.022 * (0.5 - male) + 0.009 * normal["ejection"] - 0.012 * has["heart_failure"], 0.24, 0.35
        ),
        # Each of the following depends weakly on age, sex or weight, beneath independent noise
        upstroke_s=np.clip(0.060 + 0.0045 * decades + 0.0042 * normal["upstroke"], 0.038, 0.10),
        runoff_s=np.clip(0.115 + 0.010 * fives + 0.004 * (male - 0.5) + 0.0065 * normal["runoff"], 0.07, 0.19),
        reflection=np.clip(
            0.42 + 0.035 * stiff + 0.07 * normal["reflection"] - 0.03 * (height - 1.70) / 0.1, 0.1, 0.95
        ),
        dicrotic=0.16
        - 0.022 * decades
        + 0.018 * normal["dicrotic"]
        - 0.015 * smoker
        - 0.015 * has["diabetes"]
        - 0.02 * has["artery_disease"],
        perfusion=np.exp(0.30 * normal["perfusion"] + 0.12 * male - 0.08 * fives - 0.15 * has["artery_disease"]),
        melanin=uniform["melanin"],
        breathing_gain=np.exp(0.24 * fives + 0.18 * normal["breathing_gain"]),
        recoil_gain=stroke_volume
        / 76.0
        * (weight / 80.0) ** -0.6
        * np.exp(0.22 * normal["recoil_gain"])
        * np.clip(1.0 - 0.06 * decades, 0.5, 1.4),
        recoil_time=(weight / 80.0) ** 0.14 * (height / 1.70) ** 0.5 * np.exp(0.030 * normal["recoil_time"]),
        recoil_shape=np.stack([normal[f"recoil_shape_{wave}"] for wave in range(RECOIL_WAVES)], axis=1),
        tremor_gain=np.exp(0.35 * normal["tremor"] + 0.12 * decades),
        tremor_hz=np.clip(9.0 + 1.2 * normal["tremor_hz"], 5.5, 12.5),
        strap=np.exp(0.25 * normal["strap"]),
    )
