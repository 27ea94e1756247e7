//! A segment of a stream against the batch form: `cargo bench --bench stream`. Both on one thread, one in turn with the
//! other, so that the ratio is of one run.

#[expect(dead_code, reason = "shared with the other benchmarks")]
mod recordings;

use std::hint::black_box;
use std::time::Instant;

use recordings::Raw;
use rust_dsp_core::{
    Destination, Device, Gate, InstructionSet, OUTPUT_SAMPLES, Plan, Recording, Samples, Signal, Stream, StreamSettings,
};

const ROUNDS: usize = 200;
/// Windows of a batch: enough to fill its groups of eight rows.
const WINDOWS: usize = 8;

/// Acceleration `[axes][samples]` of some minutes.
fn minutes(rate_hz: f64) -> [Vec<f32>; 3] {
    let raws: Vec<Raw> = (0..).take(WINDOWS).map(|seed| Raw::new(rate_hz, seed)).collect();
    std::array::from_fn(|axis| raws.iter().flat_map(|raw| raw.accel[axis].iter().copied()).collect())
}

/// Windows and z-scores of all minutes.
fn batch(plan: &Plan, rows: &[Vec<f32>; 3], out: &mut [f32]) {
    let axes = rows.each_ref().map(|row| Samples::F32(row));
    let windows = plan.windows(None, None, Some(&axes), 60.0, 0.0, Gate::Strict).expect("windows");
    let len = rows[0].len() / WINDOWS;
    let cut = |start: usize| axes.iter().map(|axis| axis.window(start, len)).collect();
    let recordings: Vec<_> =
        windows.iter().map(|window| Recording { accel: cut(window.accel_start), ..Recording::default() }).collect();
    let ppg = Destination { rows: 0, samples: &mut [] };
    let accel = Destination { rows: 3, samples: out };
    black_box(plan.preprocess(&recordings, ppg, accel, 1).expect("recordings of the right shape"));
}

/// The same from chunks of half a second; returns the segments.
fn streamed(stream: &mut Stream, rows: &[Vec<f32>; 3], chunk: usize) -> usize {
    let mut segments = 0;
    for from in (0..rows[0].len()).step_by(chunk) {
        let to = (from + chunk).min(rows[0].len());
        stream.push(Signal::Accel, &rows.each_ref().map(|row| &row[from..to])).expect("room");
        while let Some(segment) = stream.next_segment() {
            black_box(segment);
            segments += 1;
        }
    }
    segments
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    println!("| rate, instructions | stream, µs a segment | batch, µs | ratio | heart rate, µs | memory, kB |");
    println!("|---|---|---|---|---|---|");
    for rate_hz in [50.0, 100.0, 256.0] {
        for set in InstructionSet::available() {
            let device = Device { accel_rate_hz: Some(rate_hz), ..Device::default() };
            let plan = Plan::with_instruction_set(device, set).expect("a plan");
            let rows = minutes(rate_hz);
            let mut out = vec![0.0; WINDOWS * 3 * OUTPUT_SAMPLES];
            let mut stream = Stream::new(plan.clone(), StreamSettings::default()).expect("a stream");
            let (mut stream_us, mut batch_us, mut rate_us) = (Vec::new(), Vec::new(), Vec::new());
            let us = |start: Instant| start.elapsed().as_secs_f64() * 1e6;
            for _ in 0..ROUNDS {
                let start = Instant::now();
                assert_eq!(streamed(&mut stream, &rows, (rate_hz / 2.0) as usize), WINDOWS);
                stream_us.push(us(start) / WINDOWS as f64);
                let start = Instant::now();
                batch(&plan, &rows, &mut out);
                batch_us.push(us(start) / WINDOWS as f64);
                let start = Instant::now();
                black_box(stream.heart_rate());
                rate_us.push(us(start));
            }
            let (stream_us, batch_us, rate_us) = (median(stream_us), median(batch_us), median(rate_us));
            let (ratio, memory_kb) = (stream_us / batch_us, stream.memory_bytes() as f64 / 1e3);
            println!(
                "| {rate_hz} Hz, {set:?} | {stream_us:.0} | {batch_us:.0} | {ratio:.2} | {rate_us:.0} | {memory_kb:.0} |"
            );
        }
    }
}
