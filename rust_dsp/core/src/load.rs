//! Loading: raw samples to double precision, checked and less the ambient light.

use crate::lanes::{Lanes, TILE};
use crate::samples::{Samples, with_slice};
use crate::validity::{Limits, Sample};

/// The ambient light of a run of samples, `before + weight * changes`; both slices have the length of the run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AmbientTerms<'a> {
    pub(crate) before: &'a [f64],
    pub(crate) changes: &'a [f64],
    pub(crate) weight: f64,
}

/// Load the samples from `start` on into `out`, less `ambient`; zeros past the end.
///
/// False if a sample is missing or outside `limits`; without limits always true.
#[inline(always)]
pub(crate) fn load_tile<L: Lanes>(
    lanes: L,
    samples: Samples<'_>,
    start: usize,
    limits: Option<&Limits>,
    ambient: Option<AmbientTerms<'_>>,
    out: &mut [f64],
) -> bool {
    with_slice!(samples, slice => load_padded(lanes, slice, start, limits, ambient, out))
}

#[inline(always)]
fn load_padded<L: Lanes, T: Sample>(
    lanes: L,
    samples: &[T],
    start: usize,
    limits: Option<&Limits>,
    ambient: Option<AmbientTerms<'_>>,
    out: &mut [f64],
) -> bool {
    let from = start.min(samples.len());
    let available = out.len().min(samples.len() - from);
    let (samples, complete) = (&samples[from..from + available], available == out.len());
    let (out, padding) = out.split_at_mut(available);
    padding.fill(0.0);
    // Two copies of the code: the compiler unrolls the one for a tile of constant length.
    let valid = match (samples.as_array::<TILE>(), out.as_mut_array::<TILE>()) {
        (Some(samples), Some(out)) => convert(lanes, samples, limits, ambient, out),
        _ => convert(lanes, samples, limits, ambient, out),
    };
    valid && (complete || limits.is_none())
}

/// Convert samples into as many elements of `out`, less `ambient`. False if a sample is outside `limits`.
#[inline(always)]
pub(crate) fn convert<L: Lanes, T: Sample>(
    lanes: L,
    samples: &[T],
    limits: Option<&Limits>,
    ambient: Option<AmbientTerms<'_>>,
    out: &mut [f64],
) -> bool {
    let valid = limits.is_none_or(|limits| T::all_inside(limits, samples));
    match ambient {
        None => {
            for (value, &sample) in out.iter_mut().zip(samples) {
                *value = sample.into();
            }
        }
        Some(AmbientTerms { before, changes, weight }) => {
            let (before, changes) = (&before[..out.len()], &changes[..out.len()]);
            for (((value, &sample), &before), &change) in out.iter_mut().zip(samples).zip(before).zip(changes) {
                let sample: f64 = sample.into();
                *value = lanes.sub_product_scalar(sample - before, weight, change);
            }
        }
    }
    valid
}
