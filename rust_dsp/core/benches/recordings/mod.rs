//! Synthetic recordings: 60 s of 4 PPG channels, 1 dark slot and 3 accelerometer axes, all at one rate.

use std::f64::consts::TAU;

use rust_dsp_core::{Device, InstructionSet, Plan, Recording, Samples};

pub struct Raw {
    pub ppg: [Vec<i32>; 4],
    pub dark: Vec<i32>,
    pub accel: [Vec<f32>; 3],
}

impl Raw {
    /// A pulse, breathing, daylight and noise.
    pub fn new(rate_hz: f64, seed: u64) -> Self {
        let mut random = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut unit = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 11) as f64 / (1_u64 << 53) as f64
        };
        let (heart_hz, daylight_hz) = (0.8 + 0.8 * unit(), 0.1 + 0.9 * unit());
        let samples = (60.0 * rate_hz).round() as usize;
        let mut raw = Self { ppg: Default::default(), dark: Vec::new(), accel: Default::default() };
        for time_s in (0..samples).map(|index| index as f64 / rate_hz) {
            let phase = TAU * (heart_hz * time_s + 0.02 * (TAU * 0.25 * time_s).sin());
            let pulse = phase.cos() + 0.5 * (2.0 * phase + 0.8).cos() + 0.25 * (3.0 * phase + 1.7).cos();
            let daylight = 5e3 * (1.5 + (TAU * daylight_hz * time_s).sin());
            raw.dark.push((daylight + 70.0 * (unit() - 0.5)) as i32);
            for (channel, row) in (0..).map(f64::from).zip(&mut raw.ppg) {
                let level = 2e5 + 4e4 * channel + 1500.0 * (TAU * 0.25 * time_s).sin() + daylight;
                row.push((level - 800.0 * (1.0 + 0.3 * channel) * pulse + 140.0 * (unit() - 0.5)) as i32);
            }
            for (gravity_g, row) in [0.2, -0.4, 0.88].into_iter().zip(&mut raw.accel) {
                row.push((gravity_g + 0.004 * (12.0 * phase).sin() * pulse.max(0.0) + 0.003 * (unit() - 0.5)) as f32);
            }
        }
        raw
    }

    pub fn view(&self) -> Recording<'_> {
        Recording {
            ppg: self.ppg.iter().map(|row| Samples::I32(row)).collect(),
            dark: vec![Samples::I32(&self.dark)],
            accel: self.accel.iter().map(|row| Samples::F32(row)).collect(),
        }
    }
}

pub fn plan(rate_hz: f64, set: InstructionSet) -> Plan {
    let device = Device {
        ppg_rate_hz: Some(rate_hz),
        accel_rate_hz: Some(rate_hz),
        led_offsets_s: vec![0.5 / rate_hz; 4],
        ppg_range: (-1.0, f64::from(1 << 22)),
        ..Device::default()
    };
    Plan::with_instruction_set(device, set).expect("a valid device")
}
