//! A stream allocates nothing after it was made, whatever it is fed.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use rust_dsp_core::{Device, Gate, InstructionSet, Plan, Signal, Stream, StreamSettings};

thread_local! {
    /// Allocations of this thread.
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on to the system's allocator; counting touches a thread-local number alone, which neither
// allocates nor has a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's obligations are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; `pointer` came from the system's allocator.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A linear congruential generator.
fn unit(random: &mut u64) -> f64 {
    *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*random >> 11) as f64 / (1_u64 << 53) as f64
}

/// Feed three minutes, of which a share of the samples is lost one by one; returns segments and rates.
fn feed(stream: &mut Stream, rates_hz: [f64; 3], lost: [f64; 3], random: &mut u64) -> (usize, usize) {
    let (mut segments, mut rates, mut fed) = (0, 0, [0_usize; 3]);
    let mut chunk = [0.0_f32; 9 * 64];
    for step in 1..=36_000 {
        let time_s = f64::from(step) * 0.005;
        for (signal, kind) in [Signal::Accel, Signal::Ppg, Signal::Dark].into_iter().enumerate() {
            let rows = stream.rows(kind);
            let count = (time_s * rates_hz[signal]) as usize - fed[signal];
            if rows == 0 || count == 0 {
                continue;
            }
            for (i, sample) in chunk[..count * rows].iter_mut().enumerate() {
                let beat = (7.5 * (fed[signal] + i / rows) as f64 / rates_hz[signal]).sin();
                *sample = (0.5 + 0.01 * beat + 0.002 * unit(random)) as f32;
                if unit(random) < lost[signal] {
                    *sample = f32::NAN;
                }
            }
            stream.push_interleaved(kind, &chunk[..count * rows]).expect("room");
            fed[signal] += count;
        }
        while stream.next_segment().is_some() {
            segments += 1;
            rates += usize::from(stream.heart_rate().hr_bpm.is_finite());
        }
    }
    (segments, rates)
}

#[test]
fn nothing_is_allocated_after_set_up() {
    for set in InstructionSet::available() {
        for (rates_hz, channels, slots) in [
            ([50.0, 0.0, 0.0], 0, vec![0.0]),
            ([419.73, 49.97, 49.97], 1, vec![0.0]),
            ([100.0, 100.0, 100.0], 9, vec![0.0, 0.003]),
            ([31.25, 64.0, 8.0], 2, vec![0.0, 0.002]),
            ([25.0, 128.0, 3.0], 2, vec![0.02]),
        ] {
            let dark = rates_hz[2] > 0.0;
            let device = Device {
                accel_rate_hz: Some(rates_hz[0]),
                ppg_rate_hz: (channels > 0).then_some(rates_hz[1]),
                dark_rate_hz: dark.then_some(rates_hz[2]),
                dark_offsets_s: slots,
                ..Device::default()
            };
            let plan = Plan::with_instruction_set(device, set).expect("a plan");
            let settings = StreamSettings {
                ppg_channels: Some(channels),
                dark,
                hop_s: 12.0,
                gate: Gate::Strict,
                ..StreamSettings::default()
            };
            // Nothing lost, gaps that are filled, every other dark sample lost in each slot, and more lost than is filled
            for lost in [[0.0; 3], [0.01, 0.015, 0.01], [0.0, 0.0, 0.5], [0.5, 0.5, 0.9]] {
                let mut stream = Stream::new(plan.clone(), settings).expect("a stream");
                let before = ALLOCATIONS.get();
                let (segments, rates) = feed(&mut stream, rates_hz, lost, &mut 1);
                assert_eq!(ALLOCATIONS.get() - before, 0, "{rates_hz:?} Hz, lost {lost:?}, {set:?}");
                assert!(segments >= 10);
                assert_eq!(rates > 0, lost[0] < 0.1, "{rates_hz:?} Hz, lost {lost:?}");
            }
        }
    }
}
