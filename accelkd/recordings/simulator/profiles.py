"""Named difficulties: how well the heart's recoil stands out of what disturbs it."""

from __future__ import annotations

from dataclasses import dataclass

from accelkd.recordings.simulator.placements import CHEST, WRIST, Placement


@dataclass(frozen=True)
class Profile:
    """Knobs of one difficulty. Amplitudes are medians over recordings; accelerations in thousandths of g (mg)."""

    j_wave_mg: float  # the recoil's largest wave at the wrist
    coupling_spread: float  # log-sd of the recoil from minute to minute: posture, strap, support of the arm
    coupling_lost_share: float  # share of minutes in which the recoil hardly reaches the wrist
    coupling_lost_gain: float  # remaining gain in those
    wave_jitter: float  # log-sd of the single recoil waves from minute to minute
    sensor_noise_mg: float  # white noise per axis, rms in 0 to 32 Hz
    tremor_mg: float  # rms of physiological tremor
    vibration_share: float  # share of minutes with an ambient vibration
    vibration_mg: float  # its rms
    movements_per_min: float  # small movements
    movement_mg: float  # their size
    breathing_tilt_mg: float  # gravity's swing with breathing
    ppg_noise: float  # white noise of the first optical channel, relative to the pulse
    ppg_artefact: float  # how much of a movement reaches the optical channels, relative to the pulse
    ambient_counts: float  # ambient light
    heart_rate_spread: float  # widens (above 1) the heart rates between and within participants
    fault_share: float  # share of recordings with a fault of the device or its wearing
    placement: Placement = WRIST  # of the accelerometer; the light is always the wrist's


PROFILES = {
    # For two cores and a few minutes: the recoil is well above its noise
    "easy": Profile(
        j_wave_mg=9.0,
        coupling_spread=0.25,
        coupling_lost_share=0.02,
        coupling_lost_gain=0.12,
        wave_jitter=0.08,
        sensor_noise_mg=0.25,
        tremor_mg=0.12,
        vibration_share=0.05,
        vibration_mg=0.3,
        movements_per_min=0.15,
        movement_mg=5.0,
        breathing_tilt_mg=2.0,
        ppg_noise=0.02,
        ppg_artefact=0.15,
        ambient_counts=6_000.0,
        heart_rate_spread=1.15,
        fault_share=0.015,
    ),
    "realistic": Profile(
        j_wave_mg=6.0,
        coupling_spread=0.45,
        coupling_lost_share=0.10,
        coupling_lost_gain=0.12,
        wave_jitter=0.20,
        sensor_noise_mg=0.45,
        tremor_mg=0.35,
        vibration_share=0.20,
        vibration_mg=0.5,
        movements_per_min=0.5,
        movement_mg=7.0,
        breathing_tilt_mg=2.0,
        ppg_noise=0.03,
        ppg_artefact=0.25,
        ambient_counts=9_000.0,
        heart_rate_spread=1.0,
        fault_share=0.02,
    ),
    "hard": Profile(
        j_wave_mg=1.8,
        coupling_spread=0.55,
        coupling_lost_share=0.10,
        coupling_lost_gain=0.12,
        wave_jitter=0.35,
        sensor_noise_mg=0.7,
        tremor_mg=0.6,
        vibration_share=0.30,
        vibration_mg=0.8,
        movements_per_min=0.8,
        movement_mg=7.0,
        breathing_tilt_mg=2.0,
        ppg_noise=0.03,
        ppg_artefact=0.25,
        ambient_counts=12_000.0,
        heart_rate_spread=1.0,
        fault_share=0.03,
    ),
    # A sensor that lies on the chest of a resting person: large waves of the heart itself, breathing, little tremor
    "chest": Profile(
        j_wave_mg=9.0,
        coupling_spread=0.45,
        coupling_lost_share=0.05,
        coupling_lost_gain=0.12,
        wave_jitter=0.20,
        sensor_noise_mg=0.8,
        tremor_mg=0.15,
        vibration_share=0.20,
        vibration_mg=0.5,
        movements_per_min=0.5,
        movement_mg=7.0,
        breathing_tilt_mg=8.0,
        ppg_noise=0.03,
        ppg_artefact=0.25,
        ambient_counts=9_000.0,
        heart_rate_spread=1.0,
        fault_share=0.02,
        placement=CHEST,
    ),
}
