//! Gaps: short invalid runs are replaced by a straight line; long or frequent ones reject the row.

use crate::validity::Status;

/// Longest gap that is filled, in seconds.
pub const MAX_GAP_S: f64 = 0.25;
/// Largest accepted fraction of invalid samples.
pub const MAX_MISSING: f64 = 0.02;

/// A straight line that replaces the samples `start..start + len`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Patch {
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) first: f64,
    pub(crate) step: f64,
}

impl Patch {
    pub(crate) fn at(self, index: usize) -> f64 {
        self.first + self.step * (index - self.start) as f64
    }

    /// Overwrite the part of `values` (samples `start..`) that the patch covers.
    pub(crate) fn apply(self, start: usize, values: &mut [f64]) {
        let from = self.start.max(start);
        let to = (self.start + self.len).min(start + values.len());
        for index in from..to {
            values[index - start] = self.at(index);
        }
    }
}

/// Result of the gap rules for one row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Gaps {
    pub(crate) status: Status,
    /// Fraction of invalid samples.
    pub(crate) missing: f64,
    /// In order of time; complete only where the status is good.
    pub(crate) patches: Vec<Patch>,
}

impl Gaps {
    /// Reserve for any row of `len` samples: no row with more patches than invalid samples may be good.
    pub(crate) fn reserve(&mut self, len: usize) {
        self.patches.clear();
        self.patches.reserve_exact((MAX_MISSING * len as f64) as usize + 1);
    }

    /// Memory of the patches, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.patches.capacity() * size_of::<Patch>()
    }
}

/// Apply the gap rules to `len` samples at `rate_hz`, given whether sample `index` is valid and its value.
///
/// `patches` is the memory for those of the result.
pub(crate) fn find_gaps(
    len: usize,
    rate_hz: f64,
    mut patches: Vec<Patch>,
    valid: impl Fn(usize) -> bool,
    value: impl Fn(usize) -> f64,
) -> Gaps {
    let max_run = MAX_GAP_S * rate_hz + 1e-9;
    let (mut status, mut invalid) = (Status::GOOD, 0);
    patches.clear();
    let mut last_valid: Option<usize> = None;
    // The step past the end closes a run that reaches it.
    for index in 0..=len {
        let at_end = index == len;
        if !at_end && !valid(index) {
            continue;
        }
        let start = last_valid.map_or(0, |last| last + 1);
        let run = index - start;
        if run > 0 {
            invalid += run;
            if run as f64 > max_run {
                status = status.union(Status::GAP);
            }
            if invalid as f64 / len as f64 > MAX_MISSING {
                status = status.union(Status::MISSING);
            }
            if status == Status::GOOD {
                let next_valid = (!at_end).then_some(index);
                patches.push(bridge(start, run, last_valid.map(&value), next_valid.map(&value)));
            }
        }
        last_valid = Some(index);
    }
    if invalid == len {
        status = Status::GAP.union(Status::MISSING);
    }
    Gaps { status, missing: invalid as f64 / len as f64, patches }
}

/// The line between the neighbours of a run; at an edge of the recording the nearest value.
fn bridge(start: usize, len: usize, before: Option<f64>, after: Option<f64>) -> Patch {
    let nearest = before.or(after).unwrap_or(0.0);
    let step = match (before, after) {
        (Some(before), Some(after)) => (after - before) / (len + 1) as f64,
        _ => 0.0,
    };
    Patch { start, len, first: nearest + step, step }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gaps(valid: &[bool], rate_hz: f64) -> Gaps {
        find_gaps(valid.len(), rate_hz, Vec::new(), |i| valid[i], |i| i as f64)
    }

    #[test]
    fn fills_short_gaps_with_lines_and_edges_with_the_nearest_value() {
        let mut valid = vec![true; 1000];
        valid[0] = false;
        valid[10..13].fill(false);
        valid[999] = false;
        let gaps = gaps(&valid, 64.0);
        assert_eq!(gaps.status, Status::GOOD);
        assert_eq!(gaps.missing, 0.005);
        let mut values = vec![f64::NAN; 1000];
        gaps.patches.iter().for_each(|patch| patch.apply(0, &mut values));
        assert_eq!(values[0], 1.0);
        assert_eq!(values[10..13], [10.0, 11.0, 12.0]);
        assert_eq!(values[999], 998.0);
    }

    #[test]
    fn sixteen_samples_at_64_hz_are_a_short_gap_and_seventeen_a_long_one() {
        for (run, status) in [(16, Status::GOOD), (17, Status::GAP)] {
            let mut valid = vec![true; 3840];
            valid[100..100 + run].fill(false);
            assert_eq!(gaps(&valid, 64.0).status, status);
        }
    }

    #[test]
    fn two_percent_are_accepted_and_more_rejected() {
        let mut valid = vec![true; 100];
        valid[10] = false;
        valid[20] = false;
        assert_eq!(gaps(&valid, 64.0).status, Status::GOOD);
        valid[30] = false;
        assert_eq!(gaps(&valid, 64.0).status, Status::MISSING);
    }

    #[test]
    fn nothing_valid_is_both() {
        let gaps = gaps(&[false; 10], 1000.0);
        assert_eq!(gaps.status, Status::GAP.union(Status::MISSING));
        assert_eq!(gaps.missing, 1.0);
    }

    #[test]
    fn patches_apply_to_any_part_of_a_row() {
        let patch = Patch { start: 5, len: 10, first: 50.0, step: 1.0 };
        let mut tile = [0.0; 4];
        patch.apply(12, &mut tile);
        assert_eq!(tile, [57.0, 58.0, 59.0, 0.0]);
        patch.apply(20, &mut tile);
        assert_eq!(tile, [57.0, 58.0, 59.0, 0.0]);
    }
}
