//! Streaming against the batch form: the same segments, bit for bit, however the samples come.

use std::f64::consts::TAU;

use proptest::prelude::*;
use rust_dsp_core::{
    Channel, Destination, Device, Gate, InstructionSet, OUTPUT_SAMPLES, Plan, RECOIL_BAND_HZ, Reason, Recording,
    Samples, SegmentSamples, Signal, Status, Stream, StreamError, StreamSettings, recoil_batch,
};

/// A linear congruential generator: fast, and the same on every platform.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// A long recording `[rows][samples]` of acceleration, PPG and dark slots; empty without the signal.
#[derive(Clone, Debug)]
struct Long([Vec<Vec<f32>>; 3]);

impl Long {
    /// A pulse with noise, `holes` of random length with lost samples, and movement in one minute of two.
    fn new(plan: &Plan, ppg_channels: usize, dark: bool, duration_s: f64, holes: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut rows = |count: usize, rate_hz: Option<f64>, level: f64, amplitude: f64| -> Vec<Vec<f32>> {
            let rate_hz = rate_hz.unwrap_or(0.0);
            let len = (duration_s * rate_hz) as usize;
            (0..count)
                .map(|row| {
                    let mut samples: Vec<f32> = (0..len)
                        .map(|i| {
                            let time_s = i as f64 / rate_hz;
                            let moving = if (time_s / 60.0) as usize % 2 == 1 { 20.0 } else { 1.0 };
                            let beat = (TAU * 1.2 * time_s).sin() + moving * 0.3 * (random.unit() - 0.5);
                            (level * (1.0 + row as f64) + amplitude * beat) as f32
                        })
                        .collect();
                    for _ in 0..if len > 0 { holes } else { 0 } {
                        let (start, longest) = ((random.unit() * len as f64) as usize, 0.4 * rate_hz);
                        let hole = 1 + (random.unit().powi(3) * longest) as usize;
                        samples[start..(start + hole).min(len)].fill(f32::NAN);
                    }
                    samples
                })
                .collect()
        };
        let device = plan.device();
        let slots = if dark { device.dark_offsets_s.len() } else { 0 };
        Self([
            rows(if device.accel_rate_hz.is_some() { 3 } else { 0 }, device.accel_rate_hz, 0.3, 0.02),
            rows(ppg_channels, device.ppg_rate_hz, 1e5, 700.0),
            rows(slots, device.dark_rate_hz.or(device.ppg_rate_hz), 5e3, 40.0),
        ])
    }

    fn len(&self, signal: usize) -> usize {
        self.0[signal].first().map_or(0, Vec::len)
    }
}

/// What both forms say of a segment.
#[derive(Debug)]
struct Row {
    offset_s: f64,
    starts: [u64; 3],
    motion: [f64; 2],
    lies_still: bool,
    kept: bool,
    accel: Vec<f32>,
    ppg: Vec<f32>,
    channels: Vec<Channel>,
    hr_bpm: f64,
}

impl Row {
    fn bits(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let channels: Vec<_> = self
            .channels
            .iter()
            .map(|c| (c.status.0, c.level.to_bits(), c.ac_level.to_bits(), c.missing.to_bits()))
            .collect();
        let samples: Vec<u32> = self.accel.iter().chain(&self.ppg).map(|z| z.to_bits()).collect();
        (
            self.offset_s.to_bits(),
            self.starts,
            self.motion.map(f64::to_bits),
            (self.lies_still, self.kept),
            channels,
            samples,
            self.hr_bpm.to_bits(),
        )
    }
}

/// The windows of the whole recording, each preprocessed by itself.
fn batch(plan: &Plan, long: &Long, settings: &StreamSettings) -> Vec<Row> {
    let [accel, ppg, dark] = &long.0;
    let samples = |rows: &[Vec<f32>]| -> Vec<Samples<'static>> {
        rows.iter().map(|row| Samples::F32(row.clone().leak())).collect()
    };
    let axes = samples(accel);
    let given = |rows: &Vec<Vec<f32>>| rows.first().map(Vec::len);
    let windows = plan
        .windows(
            given(ppg),
            given(dark),
            given(accel).map(|_| &axes[..]),
            settings.hop_s,
            settings.accel_start_s,
            settings.gate,
        )
        .expect("windows");
    let device = plan.device();
    windows
        .into_iter()
        .map(|window| {
            let cut = |rows: &[Vec<f32>], start: usize, rate_hz: Option<f64>| -> Vec<Vec<f32>> {
                let len = (60.0 * rate_hz.unwrap_or(0.0) + 0.5).floor() as usize;
                rows.iter().map(|row| row[start..(start + len).min(row.len())].to_vec()).collect()
            };
            let accel = cut(accel, window.accel_start, device.accel_rate_hz);
            let ppg = cut(ppg, window.ppg_start, device.ppg_rate_hz);
            let dark = cut(dark, window.dark_start, device.dark_rate_hz.or(device.ppg_rate_hz));
            let view = |rows: &'static [Vec<f32>]| rows.iter().map(|row| Samples::F32(row)).collect();
            let recording =
                Recording { ppg: view(ppg.clone().leak()), dark: view(dark.leak()), accel: view(accel.clone().leak()) };
            let mut ppg_out = vec![0.0; ppg.len() * OUTPUT_SAMPLES];
            let mut accel_out = vec![0.0; accel.len() * OUTPUT_SAMPLES];
            let (ppg_channels, mut channels) = plan
                .preprocess(
                    &[recording],
                    Destination { rows: ppg.len(), samples: &mut ppg_out },
                    Destination { rows: accel.len(), samples: &mut accel_out },
                    1,
                )
                .expect("rows of the plan");
            let hr_bpm = if accel.is_empty() {
                f64::NAN
            } else {
                let scale: Vec<f64> = channels.iter().map(|channel| channel.ac_level).collect();
                let rows: Vec<_> = accel_out.chunks(OUTPUT_SAMPLES).map(SegmentSamples::F32).collect();
                recoil_batch(&rows, Some(&scale), 3, RECOIL_BAND_HZ, 1).expect("a rate")[0].hr_bpm
            };
            channels.extend(ppg_channels);
            Row {
                offset_s: window.offset_s,
                starts: [window.accel_start, window.ppg_start, window.dark_start].map(|start| start as u64),
                motion: [window.motion_median_g, window.motion_p95_g],
                lies_still: window.lies_still,
                kept: window.kept,
                accel: accel_out,
                ppg: ppg_out,
                channels,
                hr_bpm,
            }
        })
        .collect()
}

/// The same recording in random chunks.
fn streamed(plan: &Plan, long: &Long, settings: StreamSettings, longest_s: f64, seed: u64) -> Vec<Row> {
    let mut stream = Stream::new(plan.clone(), settings).expect("a stream");
    let memory = stream.memory_bytes();
    let (mut random, mut at, mut rows) = (Random(seed), [0_usize; 3], Vec::new());
    let mut fetch = |stream: &mut Stream| {
        while let Some(segment) = stream.next_segment() {
            let segment = segment.clone();
            rows.push(Row {
                offset_s: segment.offset_s,
                starts: [segment.accel_start, segment.ppg_start, segment.dark_start],
                motion: [segment.motion_median_g, segment.motion_p95_g],
                lies_still: segment.lies_still,
                kept: segment.kept,
                accel: segment.accel.into(),
                ppg: segment.ppg.into(),
                channels: segment.accel_channels.iter().chain(&segment.ppg_channels).copied().collect(),
                hr_bpm: stream.heart_rate().hr_bpm,
            });
        }
    };
    while (0..3).any(|signal| at[signal] < long.len(signal)) {
        for (number, signal) in [Signal::Accel, Signal::Ppg, Signal::Dark].into_iter().enumerate() {
            let remaining = long.len(number) - at[number];
            if remaining == 0 {
                continue;
            }
            let chunk = (random.unit().powi(2) * longest_s * 300.0) as usize;
            let count = chunk.min(stream.room(signal)).min(remaining);
            let part: Vec<&[f32]> = long.0[number].iter().map(|row| &row[at[number]..][..count]).collect();
            let lost = part.iter().all(|row| row.iter().all(|sample| sample.is_nan()));
            match (chunk % 3, lost) {
                (_, true) => stream.gap(signal, count),
                (0, _) => stream.push(signal, &part),
                _ => {
                    let frames: Vec<f32> = (0..count).flat_map(|i| part.iter().map(move |row| row[i])).collect();
                    stream.push_interleaved(signal, &frames)
                }
            }
            .expect("room for the chunk");
            at[number] += count;
        }
        fetch(&mut stream);
    }
    stream.end();
    fetch(&mut stream);
    assert_eq!(stream.memory_bytes(), memory);
    rows
}

fn rate_hz() -> impl Strategy<Value = f64> {
    prop_oneof![
        prop::sample::select(vec![20.0, 25.0, 31.25, 32.0, 49.97, 50.0, 64.0, 100.0, 125.0, 128.0, 256.0, 419.73]),
        20.0..300.0_f64,
    ]
}

/// Devices with acceleration, PPG or both; with the dark rate and whether there are dark slots.
fn device() -> impl Strategy<Value = (Device, bool)> {
    let slots = prop::sample::select(vec![vec![0.0], vec![0.0, 0.004], vec![0.011]]);
    let dark_rate_hz = prop::option::of(prop::sample::select(vec![3.0, 8.0, 25.0, 62.5]));
    (rate_hz(), rate_hz(), 0..4_usize, slots, dark_rate_hz, any::<bool>()).prop_map(
        |(ppg_rate_hz, accel_rate_hz, kind, dark_offsets_s, dark_rate_hz, dark)| {
            let device = Device {
                ppg_rate_hz: (kind != 0).then_some(ppg_rate_hz),
                accel_rate_hz: match kind {
                    1 => None,
                    2 => Some(ppg_rate_hz),
                    _ => Some(accel_rate_hz),
                },
                dark_rate_hz: if kind == 0 { None } else { dark_rate_hz },
                dark_offsets_s,
                ppg_range: (0.0, 524_288.0),
                accel_range: (-16.0, 16.0),
                ..Device::default()
            };
            (device, dark && kind != 0)
        },
    )
}

fn equal(streamed: &[Row], batch: &[Row]) -> Result<(), TestCaseError> {
    prop_assert_eq!(streamed.len(), batch.len());
    for (streamed, batch) in streamed.iter().zip(batch) {
        let equal = streamed.bits() == batch.bits();
        prop_assert!(equal, "{} s: {:?} and {:?}", batch.offset_s, streamed.channels, batch.channels);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn segments_are_those_of_the_batch_form_bit_for_bit(
        (device, dark) in device(), channels in 1..10_usize, hop_s in prop_oneof![Just(60.0), 1.0..60.0_f64, 60.0..100.0_f64],
        accel_start_s in -2.0..2.0_f64, extra_s in 0.0..90.0_f64, holes in 0..5_usize, longest_s in 0.05..8.0_f64, seed: u64,
        set in prop::sample::select(InstructionSet::available().collect::<Vec<_>>()),
    ) {
        let plan = Plan::with_instruction_set(device.clone(), set).expect("a plan");
        let channels = if device.ppg_rate_hz.is_some() { channels } else { 0 };
        let long = Long::new(&plan, channels, dark, 63.0 + extra_s, holes, seed);
        // Below 10 s the segments of a case are many: enough of them, in little time
        let hop_s = if hop_s < 10.0 { hop_s.max(extra_s / 12.0) } else { hop_s };
        let settings = StreamSettings {
            ppg_channels: Some(channels), dark, hop_s, accel_start_s, gate: Gate::Loose, slack_s: 4.0,
        };
        equal(&streamed(&plan, &long, settings, longest_s, seed), &batch(&plan, &long, &settings))?;
    }
}

#[test]
fn the_highest_rate_and_a_hop_of_a_second_are_equal_too() {
    for (rate_hz, hop_s, duration_s) in [(2048.0, 60.0, 122.0), (1999.9, 7.0, 80.0), (31.25, 1.0, 75.0)] {
        let device = Device { accel_rate_hz: Some(rate_hz), ..Device::default() };
        let plan = Plan::new(device).expect("a plan");
        let settings = StreamSettings { hop_s, ..StreamSettings::default() };
        let long = Long::new(&plan, 0, false, duration_s, 2, 5);
        let rows = batch(&plan, &long, &settings);
        assert!(rows.len() > 1);
        equal(&streamed(&plan, &long, settings, 2.0, 3), &rows).expect("equal rows");
    }
}

fn accel_stream(settings: StreamSettings) -> Stream {
    let device = Device { accel_rate_hz: Some(50.0), accel_range: (-8.0, 8.0), ..Device::default() };
    Stream::new(Plan::new(device).expect("a plan"), settings).expect("a stream")
}

/// Interleaved counts of three axes at 50 Hz, 1000 to the g.
fn counts(samples: usize) -> Vec<i32> {
    let mut random = Random(1);
    (0..samples)
        .flat_map(|i| [0, 1000, 200].map(|g| g + (i % 40) as i32))
        .map(|c| c + (4.0 * random.unit()) as i32)
        .collect()
}

#[test]
fn a_segment_is_there_with_its_last_sample() {
    let mut stream = accel_stream(StreamSettings { hop_s: 10.0, ..StreamSettings::default() });
    let mut starts = Vec::new();
    for (sample, frame) in counts(4000).chunks(3).enumerate() {
        stream.push_counts(Signal::Accel, frame, 1e-3).expect("room");
        if let Some(segment) = stream.next_segment() {
            assert_eq!(segment.accel_start + 3000, sample as u64 + 1);
            assert_eq!(segment.reason, None);
            starts.push(segment.offset_s);
        }
    }
    assert_eq!(starts, [0.0, 10.0, 20.0]);
}

#[test]
fn long_gaps_are_segments_with_their_reason_and_cost_no_memory() {
    let mut stream = accel_stream(StreamSettings::default());
    stream.push_counts(Signal::Accel, &counts(3000)[..3 * 1500], 1e-3).expect("room");
    let (mut lost, mut reasons) = (50 * 3600, Vec::new());
    while lost > 0 {
        let part = lost.min(stream.room(Signal::Accel));
        stream.gap(Signal::Accel, part).expect("room");
        lost -= part;
        while let Some(segment) = stream.next_segment() {
            reasons.push((segment.reason, segment.accel_channels[0].status));
        }
    }
    assert_eq!(reasons.len(), 60);
    let all = Status(Status::GAP.0 | Status::MISSING.0);
    assert_eq!(reasons[0], (Some(Reason::AccelGap), all));
    assert!(reasons[1..].iter().all(|reason| *reason == (Some(Reason::AccelMissing), all)));
    assert!(stream.heart_rate().hr_bpm.is_nan());
}

#[test]
fn what_does_not_fit_is_an_error_and_nothing_is_taken() {
    let mut stream = accel_stream(StreamSettings { slack_s: 1.0, ..StreamSettings::default() });
    assert_eq!(stream.room(Signal::Accel), 3050);
    let error = stream.gap(Signal::Accel, 3051).expect_err("too many");
    assert_eq!(error, StreamError::Full { signal: "accel", room: 3050, samples: 3051 });
    assert_eq!(stream.room(Signal::Accel), 3050);
    assert_eq!(stream.push(Signal::Ppg, &[&[1.0]]), Err(StreamError::NoSignal("ppg")));
    assert_eq!(stream.push_interleaved(Signal::Accel, &[1.0]), Err(StreamError::Ragged("accel")));
    assert_eq!(stream.push(Signal::Accel, &[&[1.0], &[1.0], &[]]), Err(StreamError::Ragged("accel")));
    let rows = StreamError::Rows { signal: "accel", expected: 3, actual: 1 };
    assert_eq!(stream.push(Signal::Accel, &[&[1.0]]), Err(rows));
    stream.end();
    assert_eq!(stream.gap(Signal::Accel, 1), Err(StreamError::Ended));
    assert!(stream.next_segment().is_none());

    let device = Device { ppg_rate_hz: Some(50.0), accel_rate_hz: Some(50.0), ..Device::default() };
    let plan = Plan::new(device).expect("a plan");
    let stream = Stream::new(plan.clone(), StreamSettings::default()).expect("a stream");
    assert_eq!(stream.check_ahead([50 * 600, 50 * 596, 0]), Ok(()));
    let ahead = stream.check_ahead([50 * 606, 50 * 596, 0]).expect_err("ten seconds");
    assert_eq!(ahead.to_string(), "accel would be 6.0 s ahead of another signal: more than slack_s allows");
    for settings in [
        StreamSettings { hop_s: 0.0, ..StreamSettings::default() },
        StreamSettings { accel_start_s: f64::NAN, ..StreamSettings::default() },
        StreamSettings { slack_s: 0.5, ..StreamSettings::default() },
        StreamSettings { ppg_channels: Some(0), ..StreamSettings::default() },
    ] {
        assert!(Stream::new(plan.clone(), settings).is_err(), "{settings:?}");
    }
}
