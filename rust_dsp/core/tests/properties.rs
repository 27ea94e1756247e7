//! Properties of preprocessing for any recording, through the public interface and on every instruction set.

use std::f64::consts::TAU;

use half::f16;
use proptest::prelude::*;
use rust_dsp_core::{
    Channel, Destination, Device, Gate, InstructionSet, OUTPUT_SAMPLES, OutputSample, Plan, Recording, Samples, Status,
};

/// PPG `[channels][samples]`, dark and accelerometer of one recording.
#[derive(Clone, Debug, Default)]
struct Raw {
    ppg: Vec<Vec<f64>>,
    dark: Vec<Vec<f64>>,
    accel: Vec<Vec<f64>>,
}

impl Raw {
    /// A pulse with noise at the given rates.
    fn pulse(ppg_rate_hz: f64, accel_rate_hz: f64, seed: u64) -> Self {
        let mut random = Random(seed);
        let heart_hz = 0.8 + random.unit();
        let mut rows = |count: usize, rate_hz: f64, level: f64, amplitude: f64, noise: f64| -> Vec<Vec<f64>> {
            let samples = (60.0 * rate_hz + 0.5).floor() as usize;
            let phase = random.unit();
            (0..count)
                .map(|row| {
                    (0..samples)
                        .map(|i| {
                            let beat = (TAU * (heart_hz * i as f64 / rate_hz + phase)).sin();
                            level * (1.0 + row as f64) + amplitude * beat + noise * (random.unit() - 0.5)
                        })
                        .collect()
                })
                .collect()
        };
        Self {
            ppg: rows(4, ppg_rate_hz, 1e5, 700.0, 100.0),
            dark: rows(1, ppg_rate_hz, 5e3, 40.0, 10.0),
            accel: rows(3, accel_rate_hz, 0.3, 0.004, 0.002),
        }
    }

    fn view(&self) -> Recording<'_> {
        Recording { ppg: samples(&self.ppg), dark: samples(&self.dark), accel: samples(&self.accel) }
    }
}

fn samples(rows: &[Vec<f64>]) -> Vec<Samples<'_>> {
    rows.iter().map(|row| Samples::F64(row)).collect()
}

/// A linear congruential generator: fast, and the same on every platform.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

fn plan(ppg_rate_hz: f64, accel_rate_hz: f64, set: InstructionSet) -> Plan {
    let device = Device {
        ppg_rate_hz: Some(ppg_rate_hz),
        accel_rate_hz: Some(accel_rate_hz),
        led_offsets_s: (0..4).map(|led| f64::from(led + 1) / 5.0 / ppg_rate_hz).collect(),
        ..Device::default()
    };
    Plan::with_instruction_set(device, set).expect("a plan")
}

/// Rows of the PPG, rows of the accelerometer (both recording after recording), and their channels.
fn run<T: OutputSample>(plan: &Plan, recordings: &[Recording<'_>], threads: usize) -> (Vec<T>, Vec<T>, Vec<Channel>) {
    let (ppg_rows, accel_rows) = (recordings[0].ppg.len(), recordings[0].accel.len());
    let mut ppg = vec![T::default(); recordings.len() * ppg_rows * OUTPUT_SAMPLES];
    let mut accel = vec![T::default(); recordings.len() * accel_rows * OUTPUT_SAMPLES];
    let (mut channels, accel_channels) = plan
        .preprocess(
            recordings,
            Destination { rows: ppg_rows, samples: &mut ppg },
            Destination { rows: accel_rows, samples: &mut accel },
            threads,
        )
        .expect("preprocessed");
    channels.extend(accel_channels);
    (ppg, accel, channels)
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

const RATES_HZ: [(f64, f64); 8] = [
    (256.0, 256.0),
    (64.0, 32.0),
    (125.0, 125.0),
    (50.0, 50.0),
    (54.75, 51.705),
    (128.0, 100.0),
    (512.0, 64.0),
    (2048.0, 20.0),
];

#[test]
fn every_instruction_set_agrees_with_the_portable_one() {
    for (ppg_rate_hz, accel_rate_hz) in RATES_HZ {
        let mut raw = Raw::pulse(ppg_rate_hz, accel_rate_hz, 1);
        let clean = raw.clone();
        raw.ppg[1][100..103].fill(f64::NAN); // takes the path of the repairs
        for raw in [clean, raw] {
            let portable = run::<f32>(&plan(ppg_rate_hz, accel_rate_hz, InstructionSet::Portable), &[raw.view()], 1);
            for set in InstructionSet::available() {
                let (ppg, accel, channels) = run::<f32>(&plan(ppg_rate_hz, accel_rate_hz, set), &[raw.view()], 1);
                assert!(largest_difference(&ppg, &portable.0) < 5e-7, "{set:?} at {ppg_rate_hz} Hz");
                assert!(largest_difference(&accel, &portable.1) < 5e-7, "{set:?} at {accel_rate_hz} Hz");
                for (channel, other) in channels.iter().zip(&portable.2) {
                    assert_eq!((channel.status, channel.missing), (other.status, other.missing));
                    approx::assert_relative_eq!(channel.level, other.level, max_relative = 1e-12);
                    approx::assert_relative_eq!(channel.ac_level, other.ac_level, max_relative = 1e-9);
                }
            }
        }
    }
}

#[test]
fn a_batch_does_not_depend_on_threads_and_order() {
    for (ppg_rate_hz, accel_rate_hz) in [(256.0, 256.0), (64.0, 32.0)] {
        let raws: Vec<_> = (0..11).map(|seed| Raw::pulse(ppg_rate_hz, accel_rate_hz, seed)).collect();
        let plan = plan(ppg_rate_hz, accel_rate_hz, InstructionSet::detect());
        let forward: Vec<_> = raws.iter().map(Raw::view).collect();
        let backward: Vec<_> = raws.iter().rev().map(Raw::view).collect();
        let serial = run::<f32>(&plan, &forward, 1);
        for threads in [0, 2, 3, 16] {
            assert_eq!(run::<f32>(&plan, &forward, threads), serial, "{threads} threads");
        }
        let reversed = run::<f32>(&plan, &backward, 1);
        for (number, raw) in raws.iter().enumerate() {
            let single = run::<f32>(&plan, &[raw.view()], 1);
            let rows_of = |all: &[f32], rows: usize, recording: usize| {
                all[recording * rows * OUTPUT_SAMPLES..][..rows * OUTPUT_SAMPLES].to_vec()
            };
            assert_eq!(rows_of(&serial.0, 4, number), single.0);
            assert_eq!(rows_of(&serial.1, 3, number), single.1);
            assert_eq!(rows_of(&reversed.0, 4, raws.len() - 1 - number), single.0);
        }
    }
}

#[test]
fn half_precision_is_the_rounded_single_precision() {
    let raw = Raw::pulse(64.0, 64.0, 3);
    let plan = plan(64.0, 64.0, InstructionSet::detect());
    let (single, _, _) = run::<f32>(&plan, &[raw.view()], 1);
    let (half, _, _) = run::<f16>(&plan, &[raw.view()], 1);
    assert!(single.iter().zip(&half).all(|(single, half)| f16::from_f32(*single) == *half));
}

#[test]
fn every_sample_type_gives_the_same_rows() {
    let counts: Vec<i16> = Raw::pulse(128.0, 128.0, 5).ppg[0].iter().map(|y| (y - 1e5) as i16).collect();
    let wide: Vec<i32> = counts.iter().map(|&y| y.into()).collect();
    let single: Vec<f32> = counts.iter().map(|&y| y.into()).collect();
    let double: Vec<f64> = counts.iter().map(|&y| y.into()).collect();
    let recording = Recording {
        ppg: vec![Samples::I16(&counts), Samples::I32(&wide), Samples::F32(&single), Samples::F64(&double)],
        ..Recording::default()
    };
    let (ppg, _, _) = run::<f32>(&plan(128.0, 128.0, InstructionSet::detect()), &[recording], 1);
    for row in ppg.chunks(OUTPUT_SAMPLES) {
        assert_eq!(row, &ppg[..OUTPUT_SAMPLES]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn z_does_not_depend_on_scale_and_offset(
        scale in 1e-3..1e3_f64, sign in prop_oneof![Just(1.0), Just(-1.0)], offset in -1e5..1e5, seed: u64,
    ) {
        let raw = Raw { dark: Vec::new(), ..Raw::pulse(64.0, 64.0, seed) };
        let mut changed = raw.clone();
        changed.ppg.iter_mut().flatten().for_each(|y| *y = (*y - 1e5) * scale * sign + offset);
        let plan = plan(64.0, 64.0, InstructionSet::detect());
        let (z, _, channels) = run::<f32>(&plan, &[raw.view()], 1);
        let (changed_z, _, changed_channels) = run::<f32>(&plan, &[changed.view()], 1);
        let rows = z.chunks(OUTPUT_SAMPLES).zip(changed_z.chunks(OUTPUT_SAMPLES));
        for ((row, changed_row), channel) in rows.zip(&changed_channels) {
            // A signal that is too small relative to its offset counts as flat.
            prop_assume!(channel.status == Status::GOOD);
            let upright: Vec<f32> = changed_row.iter().map(|y| y * sign as f32).collect();
            prop_assert!(largest_difference(row, &upright) < 2e-6);
        }
        for (channel, changed) in channels[..4].iter().zip(&changed_channels[..4]) {
            prop_assert!((changed.ac_level / (channel.ac_level * scale) - 1.0).abs() < 1e-7);
        }
    }

    /// Z-scores times AC levels are the filtered signals less their means, and both are linear.
    #[test]
    fn filtering_is_linear(a in -3.0..3.0_f64, b in -3.0..3.0_f64, seed: u64, rates in 0..RATES_HZ.len() - 1) {
        prop_assume!((a * b).abs() > 1e-2);
        let (ppg_rate_hz, _) = RATES_HZ[rates];
        let mut raw = Raw { dark: Vec::new(), accel: Vec::new(), ..Raw::pulse(ppg_rate_hz, 64.0, seed) };
        let mut random = Random(seed);
        raw.ppg[1].iter_mut().for_each(|y| *y = 500.0 * random.unit());
        raw.ppg[2] = raw.ppg[0].iter().zip(&raw.ppg[1]).map(|(x, y)| a * x + b * y).collect();
        let (z, _, channels) = run::<f32>(&plan(ppg_rate_hz, 64.0, InstructionSet::detect()), &[raw.view()], 1);
        let filtered = |row: usize, i: usize| f64::from(z[row * OUTPUT_SAMPLES + i]) * channels[row].ac_level;
        let tolerance = 1e-5 * channels[..3].iter().map(|channel| channel.ac_level).sum::<f64>();
        for i in (0..OUTPUT_SAMPLES).step_by(7) {
            prop_assert!((filtered(2, i) - a * filtered(0, i) - b * filtered(1, i)).abs() < tolerance);
        }
    }

    /// A sensor's measured rate is any number: a sine of 5 Hz stays one, at 64 Hz.
    #[test]
    fn every_rate_is_resampled(rate_hz in 20.0..2048.0_f64) {
        let device = Device { accel_rate_hz: Some(rate_hz), ..Device::default() };
        let plan = Plan::new(device).expect("a plan for every rate");
        let samples = (60.0 * rate_hz + 0.5).floor() as usize;
        let axis: Vec<f64> = (0..samples).map(|i| (TAU * 5.0 * i as f64 / rate_hz).sin()).collect();
        let raw = Raw { ppg: Vec::new(), dark: Vec::new(), accel: vec![axis.clone(), axis.clone(), axis] };
        let (_, z, _) = run::<f32>(&plan, &[raw.view()], 1);
        for second in 5..55 {
            let error = |i: usize| (f64::from(z[i]) / 2_f64.sqrt() - (TAU * 5.0 * i as f64 / 64.0).sin()).abs();
            let worst = (second * 64..(second + 1) * 64).map(error).fold(0.0, f64::max);
            prop_assert!(worst < 0.25, "{worst} at {second} s of {rate_hz} Hz"); // 1e-4 of 60 s: 0.19 of an amplitude
        }
    }

    #[test]
    fn windows_of_a_long_recording_are_aligned_in_time(hop_s in 5.0..90.0_f64, start_s in -3.0..3.0_f64, rates in 0..RATES_HZ.len() - 2) {
        let (ppg_rate_hz, accel_rate_hz) = RATES_HZ[rates];
        let tripled = |rows: Vec<Vec<f64>>| -> Vec<Vec<f64>> { rows.into_iter().map(|row| row.repeat(3)).collect() };
        let raw = Raw::pulse(ppg_rate_hz, accel_rate_hz, 9);
        let raw = Raw { ppg: tripled(raw.ppg), dark: tripled(raw.dark), accel: tripled(raw.accel) };
        let plan = plan(ppg_rate_hz, accel_rate_hz, InstructionSet::detect());
        let recording = raw.view();
        let windows = plan
            .windows(
                Some(recording.ppg[0].len()),
                Some(recording.dark[0].len()),
                Some(&recording.accel),
                hop_s,
                start_s,
                Gate::Off,
            )
            .expect("windows");
        let expected = 1 + ((120.0 - start_s.abs() + 0.25) / hop_s) as usize;
        prop_assert!(windows.len().abs_diff(expected) <= 1, "{} windows, expected {expected}", windows.len());
        for (number, window) in windows.iter().enumerate() {
            prop_assert_eq!(window.offset_s, start_s.max(0.0) + number as f64 * hop_s);
            let ppg_s = window.ppg_start as f64 / ppg_rate_hz;
            let accel_s = window.accel_start as f64 / accel_rate_hz + start_s;
            prop_assert!((ppg_s - window.offset_s).abs() <= 0.5 / ppg_rate_hz + 1e-9);
            prop_assert!((accel_s - window.offset_s).abs() <= 0.5 / accel_rate_hz + 1e-9);
        }
    }
}

#[test]
fn a_mismatch_is_an_error_that_names_the_recording() {
    let raw = Raw::pulse(64.0, 64.0, 1);
    let plan = plan(64.0, 64.0, InstructionSet::detect());
    let good = raw.view();
    let mut incomplete = raw.view();
    incomplete.ppg.pop();
    let mut ppg = vec![0_f32; 2 * 4 * OUTPUT_SAMPLES];
    let mut accel = vec![0_f32; 2 * 3 * OUTPUT_SAMPLES];
    let error = plan
        .preprocess(
            &[good, incomplete],
            Destination { rows: 4, samples: &mut ppg },
            Destination { rows: 3, samples: &mut accel },
            1,
        )
        .expect_err("three channels of four");
    assert_eq!(error.to_string(), "recording 1: ppg has 3 rows, expected 4");
}

#[test]
fn a_flat_row_is_zero_with_the_flat_status() {
    let mut raw = Raw::pulse(64.0, 64.0, 1);
    raw.ppg[2].fill(7.0);
    raw.dark.clear();
    let (ppg, _, channels) = run::<f32>(&plan(64.0, 64.0, InstructionSet::detect()), &[raw.view()], 1);
    assert_eq!(channels[2].status, Status::FLAT);
    assert_eq!(channels[2].level, 7.0);
    assert!(ppg[2 * OUTPUT_SAMPLES..3 * OUTPUT_SAMPLES].iter().all(|&z| z == 0.0));
}
