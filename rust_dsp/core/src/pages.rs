//! Samples in the pages of a Parquet column, `list<list<float>>`, where no list is empty and nothing is null.
//!
//! General readers decode two levels per sample, which costs more than the samples themselves. Of recordings they are
//! long runs of equal levels, so here they cost next to nothing. Whatever else a page may hold is left to such readers:
//! every function returns `None` for what it does not expect, whatever the bytes are.

use crate::lanes::{InstructionSet, Kernel, Lanes};

/// A page of samples in a column chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where its compressed body starts in the chunk.
    pub start: usize,
    /// Bytes of the compressed body.
    pub compressed: usize,
    /// Bytes of the body.
    pub uncompressed: usize,
    /// Samples.
    pub samples: usize,
    /// Whether the bytes of the samples are split into four streams (`BYTE_STREAM_SPLIT`) or not (`PLAIN`).
    pub is_split: bool,
}

/// The pages of a column chunk, if all are data pages of version 1.
pub fn pages(chunk: &[u8]) -> Option<Vec<Page>> {
    let (mut pages, mut at) = (Vec::new(), 0);
    while at < chunk.len() {
        let mut header = Thrift { bytes: chunk, at };
        let mut page = Page { start: 0, compressed: 0, uncompressed: 0, samples: 0, is_split: false };
        let mut is_data = false;
        header.fields(&mut |header, number, kind| {
            match (number, kind) {
                (1, I32) => (header.integer()? == 0).then_some(())?, // a data page
                (2, I32) => page.uncompressed = header.size()?,
                (3, I32) => page.compressed = header.size()?,
                (5, STRUCT) => header.fields(&mut |header, number, kind| {
                    match (number, kind) {
                        (1, I32) => page.samples = header.size()?,
                        (2, I32) => {
                            page.is_split = [(0, false), (9, true)].into_iter().find_map({
                                let encoding = header.integer()?;
                                move |(number, is_split)| (number == encoding).then_some(is_split)
                            })?
                        }
                        (3 | 4, I32) => (header.integer()? == 3).then_some(())?, // levels in runs
                        _ => header.skip(kind, MAX_DEPTH)?,
                    }
                    is_data = true;
                    Some(())
                })?,
                _ => header.skip(kind, MAX_DEPTH)?,
            }
            Some(())
        })?;
        page.start = header.at;
        at = header.at.checked_add(page.compressed)?;
        (is_data && page.samples > 0 && at <= chunk.len()).then_some(())?;
        pages.push(page);
    }
    Some(pages)
}

/// Read the body of a page, uncompressed: its samples into `out`, which they fill; where channels start among all
/// samples, of which `before` precede this page, onto `channels`; and which of all channels are the first of a
/// recording onto `recordings`. `complete` is the definition level of a sample that is there.
pub fn read_page(
    body: &[u8],
    is_split: bool,
    complete: u8,
    before: usize,
    out: &mut [f32],
    channels: &mut Vec<i32>,
    recordings: &mut Vec<i32>,
) -> Option<()> {
    let (repetition, body) = sized(body)?;
    let (definition, values) = sized(body)?;
    runs(repetition, 2, out.len(), &mut |at, count, level| {
        match level {
            2 => return Some(()),
            0 | 1 => {}
            _ => return None,
        }
        for at in at..at + count {
            if level == 0 {
                recordings.push(i32::try_from(channels.len()).ok()?);
            }
            channels.push(i32::try_from(before + at).ok()?);
        }
        Some(())
    })?;
    runs(definition, u8::BITS as usize - complete.leading_zeros() as usize, out.len(), &mut |_, _, level| {
        (level == complete).then_some(())
    })?;
    (values.len() == 4 * out.len()).then_some(())?;
    if is_split {
        InstructionSet::detect().run(Join { values, out });
    } else {
        for (out, bytes) in out.iter_mut().zip(values.as_chunks().0) {
            *out = f32::from_le_bytes(*bytes);
        }
    }
    Some(())
}

/// Kernel that joins the bytes of samples: first their lowest ones, then the next.
struct Join<'a> {
    values: &'a [u8],
    out: &'a mut [f32],
}

impl Kernel for Join<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Self { values, out } = self;
        let (a, b) = values.split_at(2 * out.len());
        let ((a, b), (c, d)) = (a.split_at(out.len()), b.split_at(out.len()));
        for ((((out, &a), &b), &c), &d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *out = f32::from_le_bytes([a, b, c, d]);
        }
    }
}

/// Bytes after their length, and what follows.
fn sized(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*size) as usize)
}

/// Call `each` with position, length and level of every run of the first `count` levels of `bits` bits (RLE hybrid).
fn runs(bytes: &[u8], bits: usize, count: usize, each: &mut impl FnMut(usize, usize, u8) -> Option<()>) -> Option<()> {
    let (mut levels, mut at) = (Thrift { bytes, at: 0 }, 0);
    while at < count {
        let header = levels.varint()?;
        let len = usize::try_from(header >> 1).ok()?;
        if header & 1 == 0 {
            let len = len.min(count - at);
            each(at, len, levels.byte()?)?;
            at += len;
            continue;
        }
        for _ in 0..len {
            let packed = levels.take(bits)?;
            let packed = (0..bits).fold(0, |all, byte| all | u64::from(packed[byte]) << (8 * byte));
            for number in 0..8.min(count - at) {
                each(at, 1, (packed >> (bits * number)) as u8 & ((1 << bits) - 1))?;
                at += 1;
            }
        }
        (len > 0).then_some(())?;
    }
    Some(())
}

const I32: u8 = 5;
const STRUCT: u8 = 12;
/// Structures inside of each other; statistics in a header are the second one.
const MAX_DEPTH: usize = 4;

/// Bytes of Thrift's compact protocol, as far as page headers need it.
struct Thrift<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Thrift<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(count)?)?;
        self.at += count;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn integer(&mut self) -> Option<i64> {
        self.varint().map(|value| (value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn size(&mut self) -> Option<usize> {
        usize::try_from(self.integer()?).ok()
    }

    /// Call `each` with number and type of every field of a structure.
    fn fields(&mut self, each: &mut dyn FnMut(&mut Self, i64, u8) -> Option<()>) -> Option<()> {
        let mut number = 0;
        loop {
            let byte = self.byte()?;
            match (byte >> 4, byte & 0xf) {
                (_, 0) => return Some(()),
                (0, _) => number = self.integer()?,
                (step, _) => number = number.wrapping_add(step.into()),
            }
            each(self, number, byte & 0xf)?;
        }
    }

    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            1 | 2 => {} // a truth value is its type
            3 => drop(self.byte()?),
            4..=6 => drop(self.varint()?),
            7 => drop(self.take(8)?),
            8 => {
                let count = usize::try_from(self.varint()?).ok()?;
                self.take(count)?;
            }
            STRUCT => {
                let depth = depth.checked_sub(1)?;
                self.fields(&mut |fields, _, kind| fields.skip(kind, depth))?;
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(body: &[u8], samples: usize) -> Option<(Vec<f32>, Vec<i32>, Vec<i32>)> {
        let (mut out, mut channels, mut recordings) = (vec![0.0; samples], Vec::new(), Vec::new());
        read_page(body, false, 4, 0, &mut out, &mut channels, &mut recordings)?;
        Some((out, channels, recordings))
    }

    #[test]
    fn a_page_is_two_recordings_with_two_channels_and_one() {
        // 0 2 1 2 0 2 in a packed group of eight, and six times 4 in a run
        let mut body = vec![3, 0, 0, 0, 3, 0b1001_1000, 0b0000_1000, 2, 0, 0, 0, 12, 4];
        (0..6).for_each(|sample| body.extend((sample as f32).to_le_bytes()));
        let expected = (vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0], vec![0, 2, 4], vec![0, 2]);
        assert_eq!(read(&body, 6), Some(expected));
        assert_eq!(read(&body, 5), None);
        body[12] = 3; // null
        assert_eq!(read(&body, 6), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_pages_or_none(chunk: Vec<u8>, samples in 0_usize..100) {
            let _ = pages(&chunk);
            let _ = read(&chunk, samples);
        }
    }
}
