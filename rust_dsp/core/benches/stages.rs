//! Profile of preprocessing by stage, as a table: `cargo bench --features stages --bench stages`.

mod recordings;

use recordings::{Raw, plan};
use rust_dsp_core::{InstructionSet, time_stages};

const RECORDINGS: usize = 64;
const ROUNDS: usize = 25;

fn main() {
    for rate_hz in [256.0, 64.0] {
        let raws: Vec<Raw> = (0..).take(RECORDINGS).map(|seed| Raw::new(rate_hz, seed)).collect();
        let recordings: Vec<_> = raws.iter().map(Raw::view).collect();
        let set = InstructionSet::detect();
        let stages = time_stages(&plan(rate_hz, set), &recordings, ROUNDS).expect("recordings of the right shape");
        let [separate @ .., (_, pipeline_s)] = stages;
        let sum_s: f64 = separate.iter().map(|(_, stage_s)| stage_s).sum();
        println!("\n### Stages of `preprocess` at {rate_hz} Hz, {set:?}, each run separately\n");
        println!("|  | µs per recording | share of the full pipeline |\n|---|---|---|");
        for (name, stage_s) in separate.into_iter().chain([("sum of stages", sum_s), ("full pipeline", pipeline_s)]) {
            let (recording_us, share) = (stage_s / RECORDINGS as f64 * 1e6, 100.0 * stage_s / pipeline_s);
            println!("| {name} | {recording_us:.1} | {share:.0} % |");
        }
    }
}
