//! Properties of the heart's recoil for any rate, unit and order of the axes, through the public interface.

use std::f64::consts::TAU;

use half::f16;
use proptest::prelude::*;
use rust_dsp_core::{OUTPUT_SAMPLES, RECOIL_BAND_HZ, Recoil, Samples, SegmentSamples, recoil, recoil_batch};

/// A linear congruential generator: fast, and the same on every platform.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// Acceleration of three axes in g: gravity, a burst of 7 Hz of 2 mg after each beat, noise of `noise_mg`.
fn beats(hr_bpm: f64, rate_hz: f64, duration_s: f64, noise_mg: f64, seed: u64) -> Vec<Vec<f64>> {
    let mut random = Random(seed);
    let phase = random.unit();
    [0.4, 1.0, 0.7]
        .iter()
        .map(|gain| {
            (0..(duration_s * rate_hz) as usize)
                .map(|i| {
                    let since_s = ((i as f64 / rate_hz * hr_bpm / 60.0 + phase).fract()) * 60.0 / hr_bpm;
                    let burst = 2.0 * gain * (-since_s / 0.08).exp() * (TAU * 7.0 * since_s).sin();
                    gain + 1e-3 * (burst + noise_mg * (random.unit() - 0.5))
                })
                .collect()
        })
        .collect()
}

fn rate(axes: &[Vec<f64>], rate_hz: f64) -> Recoil {
    let axes: Vec<Samples<'_>> = axes.iter().map(|axis| Samples::F64(axis)).collect();
    recoil(&axes, rate_hz, RECOIL_BAND_HZ).expect("a band")
}

fn is_none(recoil: Recoil) -> bool {
    recoil.hr_bpm.is_nan() && recoil.peak.is_nan()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_rate_of_the_beats_is_recovered_at_any_rate(
        hr_bpm in 40.0..180.0_f64, rate_hz in 25.0..450.0_f64, noise_mg in 0.0..0.5_f64, seed: u64,
    ) {
        let estimate = rate(&beats(hr_bpm, rate_hz, 60.0, noise_mg, seed), rate_hz);
        prop_assert!((estimate.hr_bpm - hr_bpm).abs() < 0.02 * hr_bpm, "{hr_bpm} {estimate:?}");
        prop_assert!((0.3..=1.0).contains(&estimate.peak), "{estimate:?}");
    }

    #[test]
    fn unit_sign_and_order_of_the_axes_do_not_count(hr_bpm in 45.0..150.0_f64, exponent in -20..20_i32, seed: u64) {
        let axes = beats(hr_bpm, 64.0, 30.0, 1.0, seed);
        let expected = rate(&axes, 64.0);
        let scaled: Vec<Vec<f64>> = axes
            .iter()
            .rev()
            .map(|axis| axis.iter().map(|y| -y * f64::from(exponent).exp2()).collect())
            .collect();
        let estimate = rate(&scaled, 64.0);
        prop_assert!((estimate.hr_bpm - expected.hr_bpm).abs() < 1e-6 && (estimate.peak - expected.peak).abs() < 1e-6);
    }

    #[test]
    fn any_samples_give_a_rate_in_range_or_none(
        samples in prop::collection::vec(prop_oneof![Just(0.0_f32), any::<f32>(), -1.0..1.0_f32], 0..1500), rate_hz in 23.0..99.0_f64,
    ) {
        let estimate = recoil(&[Samples::F32(&samples)], rate_hz, RECOIL_BAND_HZ).expect("a band");
        let in_range = (30.0..=220.0).contains(&estimate.hr_bpm) && (0.0..=1.0).contains(&estimate.peak);
        prop_assert!(is_none(estimate) || in_range, "{estimate:?}");
    }

    #[test]
    fn batches_are_the_same_as_single_segments_in_every_type(hr_bpm in 45.0..150.0_f64, seed: u64, threads in 0_usize..4) {
        let axes: Vec<Vec<f64>> = (0..3).flat_map(|row| beats(hr_bpm + f64::from(row), 64.0, 60.0, 0.5, seed)).collect();
        let scale: Vec<f64> = (0..9).map(|row| 0.5 + f64::from(row)).collect();
        let half: Vec<Vec<f16>> = axes.iter().map(|axis| axis.iter().map(|&y| f16::from_f64(1e3 * (y - axis[0]))).collect()).collect();
        for segments in [
            axes.iter().map(|axis| SegmentSamples::F64(axis)).collect::<Vec<_>>(),
            half.iter().map(|axis| SegmentSamples::F16(axis)).collect(),
        ] {
            let batch = recoil_batch(&segments, Some(&scale), 3, RECOIL_BAND_HZ, threads).expect("rates");
            prop_assert_eq!(batch.len(), 3);
            for (row, estimate) in batch.iter().enumerate() {
                prop_assert!((estimate.hr_bpm - hr_bpm - row as f64).abs() < 2.0, "{estimate:?}");
            }
        }
        let scaled: Vec<Vec<f64>> = axes[..3].iter().zip(&scale).map(|(axis, factor)| axis.iter().map(|y| y * factor).collect()).collect();
        let segments: Vec<_> = axes.iter().map(|axis| SegmentSamples::F64(axis)).collect();
        let batch = recoil_batch(&segments, Some(&scale), 3, RECOIL_BAND_HZ, threads).expect("rates");
        prop_assert_eq!(batch[0], rate(&scaled, 64.0));
    }
}

#[test]
fn what_is_flat_short_or_broken_has_no_rate() {
    let mut axes = beats(70.0, 64.0, 60.0, 0.5, 1);
    assert!(!is_none(rate(&axes, 64.0)));
    assert!(is_none(rate(&axes.iter().map(|axis| axis[..600].to_vec()).collect::<Vec<_>>(), 64.0)));
    assert!(is_none(rate(&[vec![1.0; OUTPUT_SAMPLES], vec![-0.3; OUTPUT_SAMPLES]], 64.0)));
    assert!(is_none(rate(&[], 64.0)));
    axes[1][7] = f64::NAN;
    assert!(is_none(rate(&axes, 64.0)));
    let zeros = vec![f16::ZERO; OUTPUT_SAMPLES];
    let batch = recoil_batch(&[SegmentSamples::F16(&zeros); 3], None, 3, RECOIL_BAND_HZ, 1).expect("rates");
    assert!(is_none(batch[0]));
}

#[test]
fn a_band_above_half_the_rate_is_an_error() {
    let axis = vec![0.0; 6000];
    let error = recoil(&[Samples::F64(&axis)], 64.0, (18.0, 44.0)).expect_err("no band");
    assert_eq!(
        error.to_string(),
        "band_hz must rise from at least 0.05 to below half of the rate of 64 Hz, found 18 to 44"
    );
}
