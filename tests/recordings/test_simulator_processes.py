"""The processes behind a simulated recording: people, rhythm, light, and the arithmetic that they share."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import rust_dsp
from accelkd.recordings.devices import DEVICES
from accelkd.recordings.simulator.beats import Rhythm, draw_rhythm, reference
from accelkd.recordings.simulator.circle import KERNEL_S, response, samples, slot_phases, train
from accelkd.recordings.simulator.health import CONDITIONS, MEDICATIONS
from accelkd.recordings.simulator.movements import draw_movements
from accelkd.recordings.simulator.optics import draw_optics, sample_optics
from accelkd.recordings.simulator.participants import Traits, draw_traits
from accelkd.recordings.simulator.profiles import PROFILES
from accelkd.recordings.simulator.recoil import draw_recoil, sample_recoil
from accelkd.recordings.simulator.streams import participant_stream, uniform_rows, white_noise


@pytest.fixture(scope="module")
def people() -> Traits:
    return draw_traits(3, 0, 40_000)


@pytest.fixture(scope="module")
def rhythm(people: Traits) -> Rhythm:
    return draw_rhythm(participant_stream(3, 0, 0), people.rows(np.arange(2_000)), 1.0)


# People


@pytest.mark.parametrize("name", [*CONDITIONS, *MEDICATIONS])
def test_prevalence_is_as_published(people: Traits, name: str) -> None:
    published = {**CONDITIONS, **MEDICATIONS}[name].prevalence
    chance = 4.0 * np.sqrt(published / len(people.male))
    assert abs(people.health[name].mean() - published) < 0.03 * published + chance


def test_arteries_stiffen_and_variability_falls_with_age(people: Traits) -> None:
    def at(age: float, trait: np.ndarray) -> float:
        return float(np.median(trait[np.abs(people.age_years - age) < 3.0]))

    assert at(25, people.pulse_wave_velocity_m_s) == pytest.approx(6.2, abs=0.4)
    assert at(75, people.pulse_wave_velocity_m_s) == pytest.approx(11.0, abs=0.8)
    assert at(70, people.ln_rmssd) - at(25, people.ln_rmssd) == pytest.approx(np.log(0.5), abs=0.15)


def test_beta_blockers_slow_the_heart(people: Traits) -> None:
    hypertensive = people.health["blood_pressure"] > 0
    treated = people.health["beta_blockers"] > 0
    rate = people.heart_rate_bpm
    assert rate[hypertensive & treated].mean() - rate[hypertensive & ~treated].mean() == pytest.approx(-8.0, abs=1.0)


@pytest.mark.parametrize(
    ("cause", "consequence"),
    [("blood_pressure", "ace_inhibitors"), ("heart_disease", "heart_failure"), ("cancer", "chemotherapy")],
)
def test_causes_come_before_consequences(people: Traits, cause: str, consequence: str) -> None:
    has = people.health[cause] > 0
    assert people.health[consequence][has].mean() > 3.0 * people.health[consequence][~has].mean()


def test_a_person_does_not_depend_on_the_cohort() -> None:
    many, some = draw_traits(9, 0, 50), draw_traits(9, 30, 5)
    assert (many.pulse_wave_velocity_m_s[30:35] == some.pulse_wave_velocity_m_s).all()
    assert (many.recoil_shape[30:35] == some.recoil_shape).all()


# Rhythm


def test_heart_rate_and_variability_follow_the_traits(people: Traits, rhythm: Rhythm) -> None:
    heart = reference(rhythm, np.full(2_000, 60.0))
    regular = ~rhythm.atrial_fibrillation & (people.pace_bpm[:2_000] == 0) & (people.ectopic_per_min[:2_000] < 1)
    assert np.abs(heart.hr_bpm - rhythm.heart_rate_bpm)[regular].mean() < 1.5
    ratio = np.log(heart.rmssd_ms)[regular] - people.ln_rmssd[:2_000][regular]
    assert np.median(ratio) == pytest.approx(0.0, abs=0.15)
    assert np.corrcoef(np.log(heart.rmssd_ms)[regular], people.ln_rmssd[:2_000][regular])[0, 1] > 0.7
    assert np.median(heart.rmssd_ms[rhythm.atrial_fibrillation]) > 4.0 * np.median(heart.rmssd_ms[regular])


def test_ectopic_beats_are_early_and_followed_by_a_pause(rhythm: Rhythm) -> None:
    row, beat = np.nonzero(rhythm.ectopic[:, 2:-1] & ~rhythm.atrial_fibrillation[:, None])
    beat += 2
    typical = np.median(rhythm.interval_s, axis=1)[row]
    assert len(row) > 100
    assert np.median(rhythm.interval_s[row, beat] / typical) == pytest.approx(0.66, abs=0.05)
    assert np.median(rhythm.interval_s[row, beat + 1] / typical) == pytest.approx(1.34, abs=0.06)


def test_beats_cover_the_whole_recording(rhythm: Rhythm) -> None:
    assert (rhythm.beat_s[:, 0] < 0.5).all()
    assert (rhythm.beat_s.max(axis=1) > 61.0).all()
    np.testing.assert_allclose(np.diff(rhythm.beat_s, axis=1), rhythm.interval_s[:, 1:], atol=1e-9)


def test_reference_is_what_its_name_says(rhythm: Rhythm) -> None:
    heart = reference(rhythm, np.full(2_000, 30.0))
    i = int(np.flatnonzero(rhythm.ectopic[:, 5:20].any(axis=1))[0])
    beats = [b for b in zip(rhythm.beat_s[i], rhythm.ectopic[i], strict=True) if 0.0 <= b[0] < 30.0]
    intervals = [(b[0] - a[0], not (a[1] or b[1])) for a, b in pairwise(beats)]
    normal = [length for length, ok in intervals if ok]
    differences = [b[0] - a[0] for a, b in pairwise(intervals) if a[1] and b[1]]
    assert heart.hr_bpm[i] == pytest.approx(60.0 / np.mean([length for length, _ in intervals]))
    assert heart.sdnn_ms[i] == pytest.approx(1000.0 * np.std(normal, ddof=1))
    assert heart.rmssd_ms[i] == pytest.approx(1000.0 * np.sqrt(np.mean(np.square(differences))))


# Light and recoil


def test_dark_samples_at_their_own_instants_take_the_ambient_light_away(people: Traits) -> None:
    """Light with and without ambient light, all else equal: what is left of it after preprocessing."""
    device = DEVICES["sim-wrist-64"]
    wearers = people.rows(np.arange(8))

    def light(ambient_counts: float) -> np.ndarray:
        rng = participant_stream(1, 0, 0)
        profile = replace(PROFILES["easy"], ambient_counts=ambient_counts, movements_per_min=0.0, ppg_noise=0.001)
        rhythm = draw_rhythm(rng, wearers, 1.0)
        movements = draw_movements(rng, 8, 0.0, 1.0)
        optics = draw_optics(rng, wearers, rhythm, movements, profile, (*device.led_offsets_s, 0.0))
        # Mains flicker at 120 Hz folds to 8 Hz in both slots, with phases that no interpolation can know
        optics = replace(optics, flicker_counts=np.zeros(8))
        return sample_optics(rng, optics, [], 64)

    def processed(raw: np.ndarray, dark: bool, offsets_s: tuple[float, ...]) -> np.ndarray:
        plan = rust_dsp.Plan(ppg_rate_hz=64, accel_rate_hz=64, dark_rate_hz=64, led_offsets_s=offsets_s)
        clean = plan.preprocess(raw[:, :4], dark=raw[:, 4:] if dark else None)
        return np.asarray(clean.ppg * clean.ppg_ac_level[:, :, None])

    truth = processed(light(0.0), False, device.led_offsets_s)
    lit = light(80_000.0)

    def remaining(dark: bool, offsets_s: tuple[float, ...]) -> float:
        return float(np.sqrt(np.square(processed(lit, dark, offsets_s) - truth).mean()))

    untreated = remaining(False, device.led_offsets_s)
    treated = remaining(True, device.led_offsets_s)
    assert untreated > 0.3 * truth.std()
    assert treated < 0.01 * untreated
    assert treated < 0.5 * remaining(True, (0.0,) * 4)


@pytest.mark.parametrize("rate_hz", [64, 256])
def test_sensor_noise_has_the_density_of_its_profile(people: Traits, rate_hz: int) -> None:
    """Above what the body does: a difference over one sample minus that of a recording with no noise."""
    wearers = people.rows(np.arange(8))

    def accel(noise_mg: float) -> np.ndarray:
        rng = participant_stream(1, 0, 0)
        profile = replace(PROFILES["easy"], sensor_noise_mg=noise_mg)
        rhythm = draw_rhythm(rng, wearers, 1.0)
        movements = draw_movements(rng, 8, 1.0, profile.movement_mg)
        recoil = draw_recoil(rng, wearers, rhythm, movements, profile)
        return sample_recoil(rng, recoil, movements.courses(rate_hz), rate_hz)

    noise_g = (accel(1.0) - accel(0.0)).std()
    assert noise_g == pytest.approx(0.001 * np.sqrt(rate_hz / 64.0), rel=0.15)


# Arithmetic


@pytest.mark.parametrize("rate_hz", [64, 256])
def test_a_train_of_waves_is_their_sum(rate_hz: int) -> None:
    rng = np.random.default_rng(0)
    beat_s = np.sort(rng.uniform(-1.5, 61.0, (2, 70)), axis=1)
    weight = rng.uniform(0.5, 1.5, (2, 70))

    def wave(t: np.ndarray) -> np.ndarray:
        return np.exp(-0.5 * np.square((t - 0.2) / 0.03)) - 0.4 * np.exp(-0.5 * np.square((t - 0.4) / 0.05))

    offset_s = 0.3 / rate_hz
    spectrum = train(beat_s, weight)[:, None] * response(np.tile(wave(KERNEL_S).astype(np.float32), (2, 1, 1)))
    summed = samples(spectrum * slot_phases((offset_s,)), rate_hz)[:, 0]
    time_s = np.arange(60 * rate_hz) / rate_hz + offset_s
    expected = (weight[:, :, None] * wave(time_s - beat_s[:, :, None])).sum(axis=1)
    np.testing.assert_allclose(summed, expected, atol=2e-3)


def test_noise_is_normal_and_white() -> None:
    noise = white_noise(participant_stream(0, 0, 0), (3, 333_333)).astype(np.float64)
    assert noise.shape == (3, 333_333)
    assert noise.mean() == pytest.approx(0.0, abs=0.005)
    assert noise.std() == pytest.approx(1.0, abs=0.003)
    assert (noise**4).mean() == pytest.approx(3.0, abs=0.03)
    assert np.abs(np.corrcoef([noise[0, :-1], noise[0, 1:], noise[1, 1:], noise[2, 1:]]) - np.eye(4)).max() < 0.01


def test_streams_can_be_entered_anywhere() -> None:
    rows = uniform_rows(7, 0, 100, 8)
    assert (uniform_rows(7, 60, 10, 8) == rows[60:70]).all()
    assert len(np.unique(rows)) == rows.size
    with pytest.raises(ValueError, match="multiple of 4"):
        uniform_rows(7, 0, 1, 6)
    first = [participant_stream(7, p, b).random() for p in range(3) for b in range(3)]
    assert len(set(first)) == 9
