//! Profile: every stage of preprocessing run separately, on the tiles of the full pipeline.
//!
//! Only a benchmark runs this; preprocessing itself contains no timers. The full pipeline takes less time than the sum
//! of its stages, because it prefetches samples while it computes.

use std::hint::black_box;
use std::time::Instant;

use super::*;
use crate::validity::Limits;

/// The timed stages in order; the last is the full pipeline.
const STAGES: [&str; 8] = [
    "fetching from memory",
    "validity",
    "conversion and dark subtraction",
    "transposing and line",
    "resampling",
    "band-pass",
    "z-score and writing",
    "full pipeline",
];

/// Seconds per stage for the rows of `recordings` on one thread: the median over `rounds` of each group of eight rows,
/// summed over the groups. All samples must be valid.
///
/// # Errors
/// As [`Plan::preprocess`].
pub fn time_stages(
    plan: &Plan,
    recordings: &[Recording<'_>],
    rounds: usize,
) -> Result<[(&'static str, f64); STAGES.len()], PreprocessError> {
    let rows = |count: fn(&Recording<'_>) -> usize| recordings.first().map_or(0, count);
    let (ppg_rows, accel_rows) = (rows(|recording| recording.ppg.len()), rows(|recording| recording.accel.len()));
    let mut ppg = vec![0_f32; recordings.len() * ppg_rows * OUTPUT_SAMPLES];
    let mut accel = vec![0_f32; recordings.len() * accel_rows * OUTPUT_SAMPLES];
    let mut channels = vec![Channel::UNKNOWN; recordings.len() * (ppg_rows + accel_rows)];
    let (ppg, accel) =
        (Destination { rows: ppg_rows, samples: &mut ppg }, Destination { rows: accel_rows, samples: &mut accel });
    plan.check(recordings, &ppg, &accel)?;

    let (ppg_channels, accel_channels) = channels.split_at_mut(recordings.len() * ppg_rows);
    let mut lists = plan.rows(recordings, (ppg, ppg_channels), (accel, accel_channels));
    let mut workspace = Workspace::default();
    let mut totals_s = [0.0; STAGES.len()];
    for (resampler, rows) in [&plan.ppg_resampler, &plan.accel_resampler].into_iter().zip(&mut lists) {
        let Some(resampler) = resampler else { continue };
        let mut times_s = vec![vec![[0.0; STAGES.len()]; rounds]; rows.len().div_ceil(LANES)];
        for round in 0..rounds {
            for (rows, times_s) in rows.chunks_mut(LANES).zip(&mut times_s) {
                let stages = &mut times_s[round];
                plan.instruction_set.run(Stages { resampler, rows, workspace: &mut workspace, times_s: stages });
                let start = Instant::now();
                plan.instruction_set.run(Process { group: Group { resampler, rows }, workspace: &mut workspace });
                stages[STAGES.len() - 1] = start.elapsed().as_secs_f64();
            }
        }
        for (stage, total_s) in totals_s.iter_mut().enumerate() {
            for times_s in &times_s {
                let mut times_s: Vec<f64> = times_s.iter().map(|stages| stages[stage]).collect();
                times_s.sort_unstable_by(f64::total_cmp);
                *total_s += times_s[rounds / 2];
            }
        }
    }
    Ok(std::array::from_fn(|stage| (STAGES[stage], totals_s[stage])))
}

/// Run one group through every stage but the last, one stage after the other.
struct Stages<'a, 'r, 'w> {
    resampler: &'a Resampler,
    rows: &'r mut [Row<'a, f32>],
    workspace: &'w mut Workspace,
    times_s: &'w mut [f64; STAGES.len()],
}

impl Kernel for Stages<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { resampler, rows, workspace, times_s } = self;
        let buffers = &mut workspace.buffers;
        let (samples, block) = (resampler.samples, resampler.block());
        let blocks = || (0..samples).step_by(block).map(|start| start..(start + block).min(samples));
        let tiles =
            |block: Range<usize>| block.clone().step_by(TILE).map(move |from| from..(from + TILE).min(block.end));
        let sources = sources(rows);
        let start = Instant::now();
        black_box(sources.iter().map(|(samples, _)| fetch(*samples)).sum::<f64>());
        times_s[0] = start.elapsed().as_secs_f64();

        let start = Instant::now();
        let mut valid = true;
        for span in blocks().flat_map(tiles) {
            for (samples, limits) in &sources {
                valid &= all_valid(*samples, limits, &span);
            }
        }
        assert!(valid, "invalid samples take another path: only valid ones can be timed");
        times_s[1] = start.elapsed().as_secs_f64();

        let start = Instant::now();
        let unchecked = Repairs::default();
        let uniform = uniform(rows);
        buffers.dark.clear();
        for span in blocks().flat_map(tiles) {
            load_tiles(lanes, rows, &uniform, span, Some(&unchecked), &mut buffers.rows, &mut buffers.dark);
        }
        times_s[2] = start.elapsed().as_secs_f64();

        let start = Instant::now();
        let mut sums = LineSums::default();
        for block in blocks() {
            buffers.stream.restart(resampler);
            for span in tiles(block) {
                let frames = buffers.stream.push(span.len());
                sums.transpose(lanes, &buffers.rows, frames, span.start, samples);
            }
        }
        let line = sums.line(samples);
        times_s[3] = start.elapsed().as_secs_f64();

        let start = Instant::now();
        buffers.stream.restart(resampler);
        for block in blocks() {
            let last = block.end == samples;
            for span in tiles(block) {
                buffers.stream.push(span.len());
            }
            buffers.stream.resample(lanes, resampler, &mut buffers.signal[..OUTPUT_SAMPLES], last);
        }
        times_s[4] = start.elapsed().as_secs_f64();

        let start = Instant::now();
        let band = |lane: usize| &rows.get(lane).unwrap_or(&rows[0]).stream.band;
        let filters = LaneFilters::new(std::array::from_fn(band));
        let moments = filter(lanes, &filters, &line, &resampler.line_response, &mut buffers.signal);
        times_s[5] = start.elapsed().as_secs_f64();

        let start = Instant::now();
        let scale = Scale::new(&moments, &filters.gain);
        let used = rows.len();
        let mut out: [&mut [f32]; LANES] = Default::default();
        for (out, row) in out.iter_mut().zip(rows.iter_mut()) {
            *out = row.out;
        }
        scale.write(lanes, &buffers.signal[..], &mut buffers.out, [true; LANES], &mut out[..used]);
        times_s[6] = start.elapsed().as_secs_f64();
    }
}

/// The rows and, once per recording, its dark slots, each with its limits.
fn sources<'a>(rows: &[Row<'a, f32>]) -> Vec<(Samples<'a>, &'a Limits)> {
    let mut sources = Vec::new();
    for row in rows {
        if let Some(Ambient { dark, led: 0, .. }) = row.ambient {
            sources.extend(dark.slots().iter().map(|&slot| (slot, &row.stream.limits)));
        }
        sources.push((row.samples, &row.stream.limits));
    }
    sources
}

/// Read one sample of every cache line.
fn fetch(samples: Samples<'_>) -> f64 {
    with_slice!(samples, slice => (0..slice.len()).step_by(64 / size_of_val(&slice[0])).map(|i| samples.at(i)).sum())
}

#[inline(always)]
fn all_valid(samples: Samples<'_>, limits: &Limits, span: &Range<usize>) -> bool {
    with_slice!(samples, slice => match slice[span.start..].first_chunk::<TILE>() {
        Some(tile) => Sample::all_inside(limits, tile), // unrolled
        None => Sample::all_inside(limits, &slice[span.clone()]),
    })
}
