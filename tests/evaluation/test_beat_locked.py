"""Beat-locked averages: power where beats shake the sensor, false alarms where they do not, and the verdict."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from accelkd.evaluation.beat_locked import Agreement, agreement, beat_lock, verdict

Floats = npt.NDArray[np.float64]
RATE_HZ = 64.0
NOTHING = Agreement(0, None, None)


def beats(rng: np.random.Generator) -> Floats:
    """Beats of a minute, of a random rate, that vary by 3 %."""
    interval_s = rng.uniform(0.5, 1.1)
    instants = np.cumsum(interval_s * (1 + 0.03 * rng.standard_normal(140))) + rng.uniform(0, 1)
    return np.asarray(instants[instants < 60])


def acceleration(rng: np.random.Generator, beat_s: Floats, wave_mg: float) -> Floats:
    """Noise of 2 mg on three axes, of another strength in each second, and a wave after each beat."""
    time_s = np.arange(3840) / RATE_HZ
    noise = np.cumsum(rng.standard_normal((3, 3842)), axis=1)
    noise = noise[:, 2:] - noise[:, :-2]
    noise *= 2e-3 / noise.std() * np.repeat(rng.choice([0.5, 1, 2], 60), 64)
    since_s = time_s - beat_s[np.maximum(np.searchsorted(beat_s, time_s, "right") - 1, 0)]
    wave = np.exp(-np.abs(since_s) / 0.08) * np.sin(2 * np.pi * 7 * since_s)
    return np.asarray(noise + 1e-3 * wave_mg * np.array([[0.5], [1.0], [0.2]]) * wave)


def test_beats_that_shake_the_sensor_are_locked() -> None:
    rng = np.random.default_rng(0)
    minutes = [(beat_s := beats(rng), acceleration(rng, beat_s, 5.0)) for _ in range(20)]
    locks = [beat_lock(accel, RATE_HZ, beat_s) for beat_s, accel in minutes]
    assert all(lock is not None and lock.locked for lock in locks)
    delayed = [beat_lock(accel, RATE_HZ, beat_s + 0.2) for beat_s, accel in minutes]  # as a wrist's pulse is
    assert sum(lock is not None and lock.locked for lock in delayed) >= 19
    assert np.median([lock.rms_mg for lock in locks if lock]) == pytest.approx(0.5, rel=0.2)


def test_other_peoples_beats_are_locked_in_one_minute_of_a_hundred() -> None:
    rng = np.random.default_rng(1)
    locks = [beat_lock(acceleration(rng, beats(rng), 2.0), RATE_HZ, beats(rng)) for _ in range(1500)]
    p_values = np.array([lock.p_value for lock in locks if lock])
    assert len(p_values) == 1500
    assert (p_values < 0.01).mean() == pytest.approx(0.01, abs=0.006)
    assert (p_values < 0.5).mean() == pytest.approx(0.5, abs=0.04)


def test_the_unit_and_a_shift_of_both_change_no_p_value() -> None:
    rng = np.random.default_rng(2)
    beat_s = beats(rng)
    accel = acceleration(rng, beat_s, 1.0)
    lock = beat_lock(accel, RATE_HZ, beat_s)
    scaled = beat_lock(1e-3 * accel, RATE_HZ, beat_s)
    assert lock is not None
    assert scaled is not None
    assert scaled.p_value == lock.p_value
    assert scaled.rms_mg == pytest.approx(1e-3 * lock.rms_mg)


def test_what_cannot_be_tested() -> None:
    rng = np.random.default_rng(3)
    beat_s = beats(rng)
    accel = acceleration(rng, beat_s, 1.0)
    assert beat_lock(accel, RATE_HZ, beat_s[:19]) is None
    assert beat_lock(accel, RATE_HZ, np.concatenate([beat_s[:19], [np.nan, -1.0, 70.0]])) is None
    assert beat_lock(accel[:, :639], RATE_HZ, np.linspace(0, 9, 25)) is None
    assert beat_lock(0 * accel, RATE_HZ, beat_s) is None
    accel[0, 0] = np.nan
    assert beat_lock(accel, RATE_HZ, beat_s) is None


def test_agreement_is_counted_against_all_other_pairs() -> None:
    first = np.array([60.0, 70.0, 80.0, np.nan, 90.0])
    second = np.array([62.0, 81.0, 79.0, 50.0, np.nan])
    assert agreement(first, second) == Agreement(3, 2 / 3, 1 / 6)
    assert agreement(first[:1], second[:1]) == Agreement(1, 1.0, None)
    assert agreement(first[3:], second[3:]) == NOTHING


@pytest.mark.parametrize(
    ("tested", "locked", "false_alarms", "bands", "expected"),
    [
        (7, 7, 0.0, NOTHING, "carries"),
        (15, 15, None, NOTHING, "carries"),
        (22, 10, 0.01, NOTHING, "carries"),
        (127, 3, 0.01, NOTHING, "carries nothing"),
        (5000, 100, 0.01, NOTHING, "carries nothing"),  # sure, and of no use
        (20, 2, 0.1, NOTHING, "not decidable"),  # other people's beats do as well
        (6, 0, None, NOTHING, "not decidable"),
        (0, 0, None, NOTHING, "not decidable"),
        (0, 0, None, Agreement(226, 0.79, 0.18), "carries"),
        (0, 0, None, Agreement(226, 0.2, 0.18), "not decidable"),
        (0, 0, None, Agreement(10, 1.0, 0.18), "not decidable"),
        (30, 0, 0.0, Agreement(226, 0.79, 0.18), "carries nothing"),  # beats say more than bands
    ],
)
def test_verdicts(tested: int, locked: int, false_alarms: float | None, bands: Agreement, expected: str) -> None:
    carries, reason = verdict(tested, locked, false_alarms, bands)
    assert carries == expected
    assert reason
