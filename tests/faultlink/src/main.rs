//! A link with faults between two network namespaces, by a TUN device in each: netem is not in every kernel.
//!
//! `faultlink A B DEVICE SEED` makes DEVICE in both and says `ready`. Then each line that comes in sets what is wrong with
//! packets on their way to one end, as `to-b loss=10 delay=20` (see [`direction::Faults`]), or asks for `counts`.
//! It ends when its input does, and the devices with it. Needs root. What is random is so by the seed, each direction apart.

mod direction;
mod tun;

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    error::Error,
    io::{self, Read, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use direction::Direction;
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

const PACKET_BYTES_MAX: usize = 65_536;
/// Read from one device in a row, so that none starves the other.
const BATCH: usize = 64;
/// A line of input longer than this is no fault of ours.
const LINE_BYTES_MAX: usize = 4_096;

/// Under way: when it comes out, its number (for those that come out together), where, and what.
type InFlight = Reverse<(Duration, u64, usize, Vec<u8>)>;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [a, b, device, seed] = &args[..] else { return Err("usage: faultlink A B DEVICE SEED".into()) };
    let seed: u64 = seed.parse().map_err(|_| "the seed is a number")?;
    let mut ends = [tun::open(a, device)?, tun::open(b, device)?];
    // By where a packet comes out.
    let mut directions = [Direction::new(seed), Direction::new(seed ^ u64::MAX)];
    let mut under_way = BinaryHeap::<InFlight>::new();
    let (mut number, mut input, mut buffer) = (0, String::new(), vec![0; PACKET_BYTES_MAX]);
    let began = Instant::now();
    println!("ready");
    io::stdout().flush()?;
    loop {
        while under_way.peek().is_some_and(|Reverse((at, ..))| *at <= began.elapsed()) {
            let Some(Reverse((_, _, end, packet))) = under_way.pop() else { break };
            // A full device is a full network.
            drop(ends[end].write(&packet));
        }
        let wait = under_way.peek().map(|Reverse((at, ..))| TimeSpec::from(at.saturating_sub(began.elapsed())));
        let readable = wait_for(&ends, wait)?;
        for from in [0, 1].into_iter().filter(|from| readable[*from]) {
            for _ in 0..BATCH {
                let Ok(bytes) = ends[from].read(&mut buffer) else { break };
                for at in directions[1 - from].handle_packet(began.elapsed(), bytes) {
                    number += 1;
                    under_way.push(Reverse((at, number, 1 - from, buffer[..bytes].to_vec())));
                }
            }
        }
        if readable[2] {
            let bytes = io::stdin().lock().read(&mut buffer)?;
            if bytes == 0 || input.len() > LINE_BYTES_MAX {
                return Ok(());
            }
            input.push_str(&String::from_utf8_lossy(&buffer[..bytes]));
            while let Some(end) = input.find('\n') {
                let line: String = input.drain(..=end).collect();
                obey(line.trim(), &mut directions)?;
            }
        }
    }
}

/// Which of the two devices and the input have something.
fn wait_for(ends: &[std::fs::File; 2], wait: Option<TimeSpec>) -> Result<[bool; 3], nix::Error> {
    let stdin = io::stdin();
    let mut fds = [ends[0].as_fd(), ends[1].as_fd(), stdin.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    match ppoll(&mut fds, wait, None) {
        Ok(_) | Err(nix::Error::EINTR) => Ok(fds.map(|fd| fd.any().unwrap_or(false))),
        Err(error) => Err(error),
    }
}

fn obey(line: &str, directions: &mut [Direction; 2]) -> Result<(), Box<dyn Error>> {
    let (what, faults) = line.split_once(' ').unwrap_or((line, ""));
    match what {
        "to-a" => directions[0].faults = faults.parse()?,
        "to-b" => directions[1].faults = faults.parse()?,
        "counts" => {
            let [a, b] = [&directions[0].counts, &directions[1].counts]
                .map(|counts| format!("[{}, {}, {}]", counts.taken, counts.lost, counts.full));
            println!("{{\"to_a\": {a}, \"to_b\": {b}}}");
            io::stdout().flush()?;
        }
        _ => return Err(format!("`{what}` is none of to-a, to-b, counts").into()),
    }
    Ok(())
}
