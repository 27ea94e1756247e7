//! Fuzzing: any shape, rate, length and value must give finite rows or an error, never a panic.
//!
//! `PROPTEST_CASES=1000000 cargo test --release --test fuzz` runs more cases; docs/signal-processing.md has the results.

use std::sync::LazyLock;

use proptest::prelude::*;
use rust_dsp_core::{
    Destination, Device, InstructionSet, OUTPUT_SAMPLES, Plan, PlanError, Recording, Samples, SegmentSamples, Status,
    label,
};

/// Plans for different devices on every instruction set; shared, because creating one takes longer than using it.
static PLANS: LazyLock<Vec<Plan>> = LazyLock::new(|| {
    let unlimited = (f64::NEG_INFINITY, f64::INFINITY);
    let devices = [
        (20.0, 25.0, None, vec![0.0], unlimited),
        (64.0, 32.0, None, vec![0.0], (-1e6, 1e6)),
        (64.0, 64.0, Some(8.0), vec![0.0, 0.01], unlimited),
        (54.75, 51.705, None, vec![0.003], unlimited),
        (50.0, 50.0, Some(3.0), vec![0.1], (0.0, 65535.0)),
        (125.0, 100.0, Some(62.5), vec![0.0, 0.004, 0.02], unlimited),
        (128.0, 20.0, None, vec![0.001, 0.0], (-32768.0, 32767.0)),
        (256.0, 256.0, None, vec![0.0], (0.0, 524288.0)),
    ];
    let plan = |(device, set): (usize, InstructionSet)| {
        let (ppg_rate_hz, accel_rate_hz, dark_rate_hz, dark_offsets_s, ppg_range) = devices[device].clone();
        let device = Device {
            ppg_rate_hz: Some(ppg_rate_hz),
            accel_rate_hz: Some(accel_rate_hz),
            dark_rate_hz,
            led_offsets_s: Vec::new(),
            dark_offsets_s,
            ppg_range,
            accel_range: (-16.0, 16.0),
        };
        Plan::with_instruction_set(device, set).expect("a plan")
    };
    (0..devices.len()).flat_map(|device| InstructionSet::available().map(move |set| (device, set))).map(plan).collect()
});

/// Samples of a row in one of the four types.
#[derive(Clone, Debug)]
enum Values {
    I16(Vec<i16>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

impl Values {
    fn samples(&self) -> Samples<'_> {
        match self {
            Self::I16(values) => Samples::I16(values),
            Self::I32(values) => Samples::I32(values),
            Self::F32(values) => Samples::F32(values),
            Self::F64(values) => Samples::F64(values),
        }
    }
}

/// Noise of some size around some level, with runs of other values.
#[derive(Clone, Debug)]
struct Row {
    kind: u8,
    level: f64,
    size: f64,
    seed: u32,
    runs: Vec<(f64, u16, f64)>, // start as a fraction of the row, length, value
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -1e5..1e5,
        2 => any::<f64>(),
        1 => prop::sample::select(vec![
            f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, 0.0, -0.0,
            524288.0, 65535.0, 32767.0, -32768.0, 16.0, 3e38, 1e150, 1e308,
        ]),
    ]
}

fn row() -> impl Strategy<Value = Row> {
    let runs = prop::collection::vec((0.0..1.0, prop_oneof![3 => 0..20_u16, 1 => 0..5000_u16], value()), 0..4);
    (0..4_u8, value(), value(), any::<u32>(), runs).prop_map(|(kind, level, size, seed, runs)| Row {
        kind,
        level,
        size,
        seed,
        runs,
    })
}

impl Row {
    fn values(&self, len: usize) -> Values {
        let mut state = self.seed;
        let mut values: Vec<f64> = (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                self.level + self.size * (f64::from(state) / f64::from(u32::MAX) - 0.5)
            })
            .collect();
        for &(fraction, run, value) in &self.runs {
            let start = (fraction * len as f64) as usize;
            let end = (start + usize::from(run)).min(len);
            values[start..end].fill(value);
        }
        match self.kind {
            0 => Values::I16(values.iter().map(|&y| y as i16).collect()),
            1 => Values::I32(values.iter().map(|&y| y as i32).collect()),
            2 => Values::F32(values.iter().map(|&y| y as f32).collect()),
            _ => Values::F64(values),
        }
    }
}

fn view(rows: &[Values]) -> Vec<Samples<'_>> {
    rows.iter().map(Values::samples).collect()
}

/// Length of a row in windows: mostly 1, near 1, or anything.
fn length() -> impl Strategy<Value = f64> {
    prop_oneof![3 => Just(1.0), 2 => 0.98..1.02, 1 => 0.0..1.2, 1 => Just(0.0)]
}

proptest! {
    #[test]
    fn any_recording_gives_finite_rows(
        plan in any::<prop::sample::Index>(),
        ppg in prop::collection::vec(row(), 0..3),
        dark in prop::option::of(row()),
        accel in prop::collection::vec(row(), 0..2),
        lengths in (length(), length(), length()),
    ) {
        let plan = plan.get(&PLANS);
        let device = plan.device();
        let (ppg_rate_hz, accel_rate_hz) = (device.ppg_rate_hz.unwrap_or(64.0), device.accel_rate_hz.unwrap_or(64.0));
        let values = |rows: &[Row], rate_hz: f64, windows: f64| -> Vec<Values> {
            rows.iter().map(|row| row.values((60.0 * rate_hz * windows + 0.5) as usize)).collect()
        };
        let dark: Vec<Row> = dark.map_or(Vec::new(), |row| vec![row; device.dark_offsets_s.len()]);
        let ppg = values(&ppg, ppg_rate_hz, lengths.0);
        let dark = values(&dark, device.dark_rate_hz.unwrap_or(ppg_rate_hz), lengths.1);
        let accel = values(&accel, accel_rate_hz, lengths.2);
        let recording = Recording { ppg: view(&ppg), dark: view(&dark), accel: view(&accel) };

        let mut z_ppg = vec![f32::NAN; ppg.len() * OUTPUT_SAMPLES];
        let mut z_accel = vec![f32::NAN; accel.len() * OUTPUT_SAMPLES];
        let (mut channels, accel_channels) = plan
            .preprocess(
                &[recording],
                Destination { rows: ppg.len(), samples: &mut z_ppg },
                Destination { rows: accel.len(), samples: &mut z_accel },
                1,
            )
            .expect("a recording of the right shape");
        channels.extend(accel_channels);
        for (z, channel) in z_ppg.chunks(OUTPUT_SAMPLES).chain(z_accel.chunks(OUTPUT_SAMPLES)).zip(&channels) {
            prop_assert!(z.iter().all(|y| y.is_finite()), "{channel:?}");
            prop_assert!((0.0..=1.0).contains(&channel.missing));
            if channel.status == Status::GOOD {
                let mean: f64 = z.iter().map(|&y| f64::from(y)).sum::<f64>() / z.len() as f64;
                let power: f64 = z.iter().map(|&y| f64::from(y).powi(2)).sum::<f64>() / z.len() as f64;
                prop_assert!(mean.abs() < 1e-4 && (power - 1.0).abs() < 1e-4, "mean {mean}, power {power}");
            } else {
                prop_assert!(z.iter().all(|&y| y == 0.0));
            }
        }
        if let Some(z) = z_ppg.chunks(OUTPUT_SAMPLES).next() {
            let label = label(SegmentSamples::F32(z), None);
            prop_assert!(label.beat_index.len() == label.beat_s.len());
            prop_assert!((0.0..=1.0).contains(&label.agreement));
        }
    }

    #[test]
    fn any_device_gives_a_plan_or_an_error(rate_hz in prop_oneof![18.0..2100.0, any::<f64>()], low: f64, high: f64) {
        let device = Device { accel_rate_hz: Some(rate_hz), accel_range: (low, high), ..Device::default() };
        match Plan::new(device) {
            Ok(_) => prop_assert!((20.0..=2048.0).contains(&rate_hz) && low < high),
            Err(PlanError::Rate { .. }) => prop_assert!(low < high),
            Err(PlanError::Range { .. }) => prop_assert!(low.partial_cmp(&high) != Some(std::cmp::Ordering::Less)),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
