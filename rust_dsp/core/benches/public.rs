//! The public interface, on one thread: `cargo bench --bench public`.

mod recordings;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use recordings::{Raw, plan};
use rust_dsp_core::{Destination, Gate, InstructionSet, OUTPUT_SAMPLES, Plan, Recording, Samples, SegmentSamples};

const RECORDINGS: usize = 16;

fn main() {
    divan::main();
}

fn raws(rate_hz: f64) -> Vec<Raw> {
    (0..).take(RECORDINGS).map(|seed| Raw::new(rate_hz, seed)).collect()
}

/// Preprocess into `ppg` and `accel`.
fn run(plan: &Plan, recordings: &[Recording<'_>], ppg: &mut [f32], accel: &mut [f32]) {
    let (ppg, accel) = (Destination { rows: 4, samples: ppg }, Destination { rows: 3, samples: accel });
    black_box(plan.preprocess(recordings, ppg, accel, 1).expect("recordings of the right shape"));
}

fn rates_and_sets() -> impl Iterator<Item = (f64, InstructionSet)> {
    let rates_hz = [256.0, 125.0, 64.0, 50.0].into_iter();
    rates_hz.flat_map(|rate_hz| InstructionSet::available().map(move |set| (rate_hz, set)))
}

#[divan::bench(args = rates_and_sets())]
fn preprocess(bencher: Bencher<'_, '_>, (rate_hz, set): (f64, InstructionSet)) {
    let (plan, raws) = (plan(rate_hz, set), raws(rate_hz));
    let recordings: Vec<_> = raws.iter().map(Raw::view).collect();
    let mut ppg = vec![0.0; RECORDINGS * 4 * OUTPUT_SAMPLES];
    let mut accel = vec![0.0; RECORDINGS * 3 * OUTPUT_SAMPLES];
    bencher.counter(ItemsCount::new(RECORDINGS)).bench_local(|| run(&plan, &recordings, &mut ppg, &mut accel));
}

/// Windows of one hour.
#[divan::bench]
fn windows(bencher: Bencher<'_, '_>) {
    let (rate_hz, raw) = (50.0, Raw::new(50.0, 0));
    let hour: Vec<Vec<f32>> = raw.accel.iter().map(|row| row.repeat(60)).collect();
    let accel: Vec<_> = hour.iter().map(|row| Samples::F32(row)).collect();
    let plan = plan(rate_hz, InstructionSet::detect());
    bencher.bench_local(|| plan.windows(Some(hour[0].len()), None, Some(&accel), 60.0, 0.0, Gate::Strict));
}

#[divan::bench]
fn label(bencher: Bencher<'_, '_>) {
    let raws = raws(64.0);
    let recordings: Vec<_> = raws.iter().map(Raw::view).collect();
    let mut z = vec![0.0; RECORDINGS * 4 * OUTPUT_SAMPLES];
    let mut accel = vec![0.0; RECORDINGS * 3 * OUTPUT_SAMPLES];
    run(&plan(64.0, InstructionSet::detect()), &recordings, &mut z, &mut accel);
    bencher.counter(ItemsCount::new(RECORDINGS * 4)).bench_local(|| {
        for segment in z.chunks_exact(OUTPUT_SAMPLES) {
            black_box(rust_dsp_core::label(SegmentSamples::F32(segment), None));
        }
    });
}
