//! Preprocessing: raw windows of many recordings to z-scored rows at 64 Hz.
//!
//! Rows of one sampling rate are taken eight at a time, whatever recordings they belong to, and stream in blocks from
//! memory through dark subtraction and resampling; the filters then run over the 64 Hz signal.

use std::cell::RefCell;

use rayon::iter::{IntoParallelIterator, ParallelIterator};
use thiserror::Error;

use crate::OUTPUT_SAMPLES;
use crate::bandpass::{BUFFER, LaneFilters, filter};
use crate::dark::{Dark, DarkRepair, DarkTile};
use crate::detrend::LineSums;
use crate::gaps::{Gaps, find_gaps};
use crate::lanes::{Frame, Kernel, LANES, Lanes, TILE, Tile};
use crate::plan::{Plan, Stream};
use crate::resample::{self, Resampler};
use crate::samples::Samples;
use crate::threads;
use crate::validity::Status;
use crate::zscore::{OutputSample, Scale};

/// The first 60 s of one recording; all rows of a stream have one length. Streams that are not there are empty.
#[derive(Clone, Debug, Default)]
pub struct Recording<'a> {
    /// PPG channels.
    pub ppg: Vec<Samples<'a>>,
    /// Dark slots, in the order of the plan's offsets.
    pub dark: Vec<Samples<'a>>,
    /// Accelerometer axes.
    pub accel: Vec<Samples<'a>>,
}

/// What became of one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Channel {
    /// Good, or why the row is all zeros.
    pub status: Status,
    /// Mean of the window before detrending (DC level), in units of the samples; NaN where a gap rejects the row.
    pub level: f64,
    /// Standard deviation of the band-passed signal (AC level), likewise.
    pub ac_level: f64,
    /// Fraction of invalid samples.
    pub missing: f64,
}

/// Where the rows of one stream go: 3840 samples each, recording after recording.
#[derive(Debug)]
pub struct Destination<'a, T> {
    /// Rows per recording.
    pub rows: usize,
    /// `recordings × rows × 3840`.
    pub samples: &'a mut [T],
}

/// Why a batch cannot be preprocessed.
#[derive(Debug, Error)]
pub enum PreprocessError {
    /// Samples of a stream that the plan has no rate for.
    #[error("the plan has no {0}_rate_hz, but there is {0}")]
    NoRate(&'static str),
    /// A recording with another number of rows than the batch or the plan.
    #[error("recording {recording}: {stream} has {found} rows, expected {expected}")]
    Rows {
        /// Index in the batch.
        recording: usize,
        /// "ppg", "dark" or "accel".
        stream: &'static str,
        /// Rows that it should have.
        expected: usize,
        /// Rows that it has.
        found: usize,
    },
    /// The place for the output has another size than the batch.
    #[error("the output of {stream} has {found} samples, expected {expected}")]
    Output {
        /// "ppg" or "accel".
        stream: &'static str,
        /// Samples that it should have.
        expected: usize,
        /// Samples that it has.
        found: usize,
    },
    /// The operating system gives no thread.
    #[error("no thread pool: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

/// One row on its way.
#[derive(Debug)]
struct Row<'a, T> {
    samples: Samples<'a>,
    stream: &'a Stream,
    /// The dark slots and the row's channel among the LEDs.
    dark: Option<(Dark<'a>, usize)>,
    out: &'a mut [T],
    channel: &'a mut Channel,
}

/// Up to eight rows of one sampling rate.
struct Group<'a, 'r, T> {
    resampler: &'a Resampler,
    rows: &'r mut [Row<'a, T>],
}

impl Plan {
    /// Preprocess a batch: PPG rows into `ppg`, accelerometer rows into `accel`, and what became of each.
    ///
    /// `threads` 0 means all cores. The result does not depend on it, nor on the order of the recordings.
    pub fn preprocess<T: OutputSample>(
        &self,
        recordings: &[Recording<'_>],
        ppg: Destination<'_, T>,
        accel: Destination<'_, T>,
        threads: usize,
    ) -> Result<(Vec<Channel>, Vec<Channel>), PreprocessError> {
        self.check(recordings, &ppg, &accel)?;
        let unknown = Channel { status: Status::GOOD, level: f64::NAN, ac_level: f64::NAN, missing: f64::NAN };
        let mut ppg_channels = vec![unknown; recordings.len() * ppg.rows];
        let mut accel_channels = vec![unknown; recordings.len() * accel.rows];

        // Rows in the order of the recordings, each list of one sampling rate
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let mut ppg_places = ppg.samples.chunks_exact_mut(OUTPUT_SAMPLES).zip(&mut ppg_channels);
        let mut accel_places = accel.samples.chunks_exact_mut(OUTPUT_SAMPLES).zip(&mut accel_channels);
        for (number, recording) in recordings.iter().enumerate() {
            let dark = match &self.dark {
                Some(schedule) if !recording.dark.is_empty() => {
                    Some(Dark { slots: &recording.dark, schedule, recording: number })
                }
                _ => None,
            };
            if let Some(stream) = &self.ppg {
                for (led, (&samples, (out, channel))) in recording.ppg.iter().zip(&mut ppg_places).enumerate() {
                    first.push(Row { samples, stream, dark: dark.map(|dark| (dark, led)), out, channel });
                }
            }
            if let Some(stream) = &self.accel {
                let rows = if self.accel_resampler.is_some() { &mut second } else { &mut first };
                for (&samples, (out, channel)) in recording.accel.iter().zip(&mut accel_places) {
                    rows.push(Row { samples, stream, dark: None, out, channel });
                }
            }
        }

        let mut groups = Vec::new();
        for (resampler, rows) in [(&self.ppg_resampler, &mut first), (&self.accel_resampler, &mut second)] {
            if let Some(resampler) = resampler {
                groups.extend(rows.chunks_mut(LANES).map(|rows| Group { resampler, rows }));
            }
        }
        match threads::pool(threads, groups.len())? {
            None => groups.into_iter().for_each(|group| self.process(group)),
            Some(pool) => pool.install(|| groups.into_par_iter().for_each(|group| self.process(group))),
        }
        Ok((ppg_channels, accel_channels))
    }

    fn check<T>(
        &self,
        recordings: &[Recording<'_>],
        ppg: &Destination<'_, T>,
        accel: &Destination<'_, T>,
    ) -> Result<(), PreprocessError> {
        let leds = self.device().led_offsets_s.len();
        let slots = self.device().dark_offsets_s.len();
        for (number, recording) in recordings.iter().enumerate() {
            let rows = |stream, expected: usize, found: usize| {
                let error = PreprocessError::Rows { recording: number, stream, expected, found };
                if expected == found { Ok(()) } else { Err(error) }
            };
            if self.ppg.is_none() && !(recording.ppg.is_empty() && recording.dark.is_empty()) {
                return Err(PreprocessError::NoRate("ppg"));
            }
            if self.accel.is_none() && !recording.accel.is_empty() {
                return Err(PreprocessError::NoRate("accel"));
            }
            rows("ppg", ppg.rows, recording.ppg.len())?;
            if leds > 0 && !recording.ppg.is_empty() {
                rows("ppg", leds, recording.ppg.len())?;
            }
            if !recording.dark.is_empty() {
                rows("dark", slots, recording.dark.len())?;
            }
            rows("accel", accel.rows, recording.accel.len())?;
        }
        for (stream, destination) in [("ppg", ppg), ("accel", accel)] {
            let expected = recordings.len() * destination.rows * OUTPUT_SAMPLES;
            let found = destination.samples.len();
            if found != expected {
                return Err(PreprocessError::Output { stream, expected, found });
            }
        }
        Ok(())
    }

    fn process<T: OutputSample>(&self, group: Group<'_, '_, T>) {
        WORKSPACE.with_borrow_mut(|workspace| self.instruction_set.run(Process { group, workspace }));
    }
}

thread_local! {
    /// Kept from group to group, so that nothing is allocated per recording.
    static WORKSPACE: RefCell<Workspace> = RefCell::default();
}

/// What a thread needs besides input and output: about 300 kB at 256 Hz.
struct Workspace {
    stream: resample::Stream,
    signal: Box<[Frame; BUFFER]>,
    rows: Tile<f64>,
    out: Tile<f32>,
    dark: DarkTile,
}

impl Default for Workspace {
    fn default() -> Self {
        let signal = vec![Frame::default(); BUFFER].into_boxed_slice();
        Self {
            stream: resample::Stream::default(),
            signal: signal.try_into().unwrap_or_else(|_| unreachable!("BUFFER frames were allocated")),
            rows: Tile::default(),
            out: Tile::default(),
            dark: DarkTile::default(),
        }
    }
}

struct Process<'a, 'r, 'w, T> {
    group: Group<'a, 'r, T>,
    workspace: &'w mut Workspace,
}

/// What a row with invalid samples needs.
struct Repair<'d> {
    gaps: Gaps,
    dark: Option<&'d DarkRepair>,
}

/// A sample is invalid: the rows have to be looked at one by one.
struct Invalid;

impl<T: OutputSample> Kernel for Process<'_, '_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Process { group: Group { resampler, rows }, workspace } = self;
        // Nearly all groups are free of invalid samples, so find out on the way.
        let (sums, gaps) = match ingest(lanes, resampler, rows, None, workspace) {
            Ok(sums) => (sums, None),
            Err(Invalid) => {
                let darks = dark_repairs(rows);
                let repairs: Vec<_> =
                    rows.iter().map(|row| repair(row, &darks, resampler, &mut workspace.dark)).collect();
                let sums = ingest(lanes, resampler, rows, Some(&repairs), workspace);
                let sums = sums.unwrap_or_else(|Invalid| unreachable!("repaired rows are not checked"));
                (sums, Some(repairs.into_iter().map(|repair| repair.gaps).collect::<Vec<_>>()))
            }
        };

        let band = |lane: usize| &rows.get(lane).unwrap_or(&rows[0]).stream.band;
        let filters = LaneFilters::new(std::array::from_fn(band));
        let line = sums.line(resampler.samples);
        let moments = filter(lanes, &filters, &line, &resampler.line_response, &mut workspace.signal);
        let scale = Scale::new(&moments, &filters.gain);

        let mut good = [false; LANES];
        for (lane, row) in rows.iter_mut().enumerate() {
            let (status, missing) =
                gaps.as_ref().map_or((Status::GOOD, 0.0), |gaps| (gaps[lane].status, gaps[lane].missing));
            *row.channel = if status != Status::GOOD {
                Channel { status, level: f64::NAN, ac_level: f64::NAN, missing }
            } else {
                let flat = scale.is_flat(lane, line.peak.0[lane]);
                let status = if flat { Status::FLAT } else { Status::GOOD };
                Channel { status, level: line.mean.0[lane], ac_level: scale.ac_level[lane], missing }
            };
            good[lane] = row.channel.status == Status::GOOD;
        }
        let used = rows.len();
        let mut out: [&mut [T]; LANES] = Default::default();
        for (place, row) in out.iter_mut().zip(rows.iter_mut()) {
            *place = row.out;
        }
        scale.write(lanes, &workspace.signal[..], &mut workspace.out, good, &mut out[..used]);
    }
}

/// Stream the rows through dark subtraction and resampling into `workspace.signal`, and sum up their lines.
///
/// Without repairs stops at the first block with an invalid sample.
#[inline(always)]
fn ingest<L: Lanes, T>(
    lanes: L,
    resampler: &Resampler,
    rows: &[Row<'_, T>],
    repairs: Option<&[Repair<'_>]>,
    workspace: &mut Workspace,
) -> Result<LineSums, Invalid> {
    let mut sums = LineSums::default();
    workspace.stream.restart(resampler);
    workspace.dark.clear();
    workspace.rows = Tile::default();
    let (samples, block) = (resampler.samples, resampler.block());
    for start in (0..samples).step_by(block) {
        let end = (start + block).min(samples);
        if repairs.is_none() && !rows.iter().all(|row| is_clean(row, start, end - start)) {
            return Err(Invalid);
        }
        for from in (start..end).step_by(TILE) {
            let count = TILE.min(end - from);
            for (lane, row) in rows.iter().enumerate() {
                let tile = &mut workspace.rows.0[lane][..count];
                match repairs.map(|repairs| &repairs[lane]) {
                    None => bring(row, None, from, tile, &mut workspace.dark),
                    Some(repair) if repair.gaps.status == Status::GOOD => {
                        bring(row, repair.dark, from, tile, &mut workspace.dark);
                        repair.gaps.patches.iter().for_each(|patch| patch.apply(from, tile));
                    }
                    Some(_) => {} // rejected: the lane stays zero
                }
            }
            let frames = workspace.stream.push(count);
            lanes.transpose_in(&workspace.rows, frames);
            sums.add(lanes, &frames[..count], from, samples);
        }
        workspace.stream.resample(lanes, resampler, &mut workspace.signal[..OUTPUT_SAMPLES], end == samples);
    }
    Ok(sums)
}

/// Samples `from..` of a row, without the ambient light.
#[inline(always)]
fn bring<T>(row: &Row<'_, T>, repair: Option<&DarkRepair>, from: usize, tile: &mut [f64], dark_tile: &mut DarkTile) {
    row.samples.convert(from, tile);
    if let Some((dark, led)) = row.dark {
        dark_tile.subtract(dark, repair, led, from, tile);
    }
}

/// Whether all samples of a stretch of a row are there, valid, and surrounded by valid dark samples.
#[inline(always)]
fn is_clean<T>(row: &Row<'_, T>, start: usize, len: usize) -> bool {
    row.samples.all_valid(start, len, row.stream.limits)
        && row.dark.is_none_or(|(dark, led)| dark.all_usable(led, start, len, row.stream.limits))
}

/// The dark slots of every recording among the rows, with what is wrong with them.
fn dark_repairs<T>(rows: &[Row<'_, T>]) -> Vec<(usize, DarkRepair)> {
    let mut repairs: Vec<(usize, DarkRepair)> = Vec::new();
    for row in rows {
        if let Some((dark, _)) = row.dark
            && repairs.iter().all(|&(recording, _)| recording != dark.recording)
        {
            repairs.push((dark.recording, dark.repair(row.stream.limits)));
        }
    }
    repairs
}

/// Judge one row sample by sample.
fn repair<'d, T>(
    row: &Row<'_, T>,
    darks: &'d [(usize, DarkRepair)],
    resampler: &Resampler,
    dark_tile: &mut DarkTile,
) -> Repair<'d> {
    let Stream { rate_hz, limits, .. } = *row.stream;
    let raw_valid = |index: usize| index < row.samples.len() && limits.inside(row.samples.at(index));
    let Some((dark, led)) = row.dark else {
        let gaps = find_gaps(resampler.samples, rate_hz, raw_valid, |index| row.samples.at(index));
        return Repair { gaps, dark: None };
    };
    let repair = darks.iter().find(|(recording, _)| *recording == dark.recording).map(|(_, repair)| repair);
    let usable = |index: usize| repair.is_none_or(|repair| repair.usable(dark.schedule.led_time_s(led, index)));
    dark_tile.clear();
    let dark_tile = RefCell::new(dark_tile);
    let gaps = find_gaps(
        resampler.samples,
        rate_hz,
        |index| raw_valid(index) && usable(index),
        |index| row.samples.at(index) - dark_tile.borrow_mut().ambient(dark, repair, led, index),
    );
    Repair { gaps, dark: repair }
}
