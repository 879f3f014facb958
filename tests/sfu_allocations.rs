//! Forwarding takes no memory from the allocator, however many receive.

mod sfu_harness;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use sfu_harness::{Sim, vp8};
use viva::sfu::MediaKind;

thread_local! {
    static TAKEN: Cell<u64> = const { Cell::new(0) };
}

/// The system's, with a count of what each thread takes.
struct Counting;

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's own promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's own promise.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's own promise.
        unsafe { System.realloc(place, layout, size) }
    }
}

fn count() {
    let _ = TAKEN.try_with(|taken| taken.set(taken.get() + 1));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FRAMES: u32 = 200;
const PACKETS_PER_FRAME: usize = 5;

/// Allocations and datagrams sent, for the same film to so many receivers, once it flows.
fn film_to(receivers: usize) -> (u64, usize) {
    let mut sim = Sim::new(1);
    sim.meter = Some(|| TAKEN.get());
    let anna = sim.join();
    for _ in 0..receivers {
        sim.join();
    }
    sim.connect();
    let camera = sim.publish(anna, MediaKind::Video, "camera");
    sim.run_ms(500);
    let mut total = (0, 0);
    for frame in 0..FRAMES {
        let packet = |part: usize| {
            let payload = vp8(frame == 0, part == 0, frame as u16, &[7; 1_000]);
            (frame * 1_800, part + 1 == PACKETS_PER_FRAME, payload)
        };
        let spent = sim.burst(anna, &camera, &(0..PACKETS_PER_FRAME).map(packet).collect::<Vec<_>>());
        // Until queues and histories have the size that they keep.
        if frame >= FRAMES / 2 {
            total = (total.0 + spent.metered, total.1 + spent.datagrams);
        }
    }
    total
}

#[test]
fn forwarding_takes_no_memory_however_many_receive() {
    let (few, to_one) = film_to(1);
    let (many, to_many) = film_to(21);
    let packets = FRAMES as usize / 2 * PACKETS_PER_FRAME;
    assert!(to_one >= packets && to_many >= 21 * packets, "{to_one} and {to_many} datagrams");
    // What comes in costs some for each packet: its payload, in which all receivers share. Timers and lists of twenty more
    // receivers may grow once in a while.
    let more = many.saturating_sub(few);
    assert!(more * 100 < (to_many - to_one) as u64, "{more} allocations for {} packets more", to_many - to_one);
    assert!(few < 6 * packets as u64, "{few} allocations for {packets} packets that came in");
}
