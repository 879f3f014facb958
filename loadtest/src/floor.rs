//! The floor: what one packet costs this machine at least. Copy it, seal it, hand it to the kernel, nothing else; by one
//! thread, to receivers on loopback that are emptied outside of what is measured.

use std::{
    io::{self, IoSlice},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::Duration,
};

use anyhow::{Context, Result};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use nix::sys::socket::{ControlMessage, MsgFlags, SockaddrIn, sendmsg};
use serde::Serialize;

use crate::cpu::thread_cpu;

/// A video packet of 1,100 bytes with its RTP header, extensions and tag.
const DATAGRAM_BYTES: usize = 1_150;
const TAG_BYTES: usize = 16;
const RTP_HEADER_BYTES: usize = 12;
const RECEIVERS: usize = 20;
/// Datagrams of one send with GSO: a frame of video.
const SEGMENTS: usize = 10;
/// Datagrams for each receiver between two emptyings; fits the smallest default buffer.
const PER_RECEIVER: usize = 40;
const BATCHES: usize = 10;
const ROUNDS: usize = 7;

/// Microseconds of CPU time for one datagram; medians.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Floor {
    /// One `sendto` each.
    pub floor_sendto_us: f64,
    /// UDP GSO, 10 to one receiver per call.
    pub floor_gso10_us: f64,
}

impl Floor {
    /// The middle between a measurement before and one after.
    pub fn between(self, other: Self) -> Self {
        Self {
            floor_sendto_us: f64::midpoint(self.floor_sendto_us, other.floor_sendto_us),
            floor_gso10_us: f64::midpoint(self.floor_gso10_us, other.floor_gso10_us),
        }
    }
}

struct Bench {
    sender: UdpSocket,
    receivers: Vec<(UdpSocket, SocketAddr)>,
    key: LessSafeKey,
    payload: Vec<u8>,
    buffer: Vec<u8>,
    sealed: u64,
}

impl Bench {
    fn new() -> Result<Self> {
        let sender = UdpSocket::bind("127.0.0.1:0").context("no UDP socket on loopback")?;
        let receiver = || -> io::Result<_> {
            let socket = UdpSocket::bind("127.0.0.1:0")?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        };
        let receivers = (0..RECEIVERS).map(|_| receiver()).collect::<io::Result<_>>().context("no UDP sockets")?;
        let key = UnboundKey::new(&AES_128_GCM, &[7; 16]).context("no AES-GCM")?;
        let payload = vec![0xa5; DATAGRAM_BYTES - TAG_BYTES];
        let buffer = Vec::with_capacity(SEGMENTS * DATAGRAM_BYTES);
        Ok(Self { sender, receivers, key: LessSafeKey::new(key), payload, buffer, sealed: 0 })
    }

    /// Copies the packet to the buffer's end and seals it there, its RTP header left readable.
    fn seal(&mut self) -> Result<()> {
        self.sealed += 1;
        let mut nonce = [0; NONCE_LEN];
        nonce[4..].copy_from_slice(&self.sealed.to_be_bytes());
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&self.payload);
        let (header, body) = self.buffer[start..].split_at_mut(RTP_HEADER_BYTES);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(&*header), body);
        self.buffer.extend_from_slice(tag.context("sealing failed")?.as_ref());
        Ok(())
    }

    fn sendto(&mut self, receiver: usize) -> Result<()> {
        for _ in 0..SEGMENTS {
            self.buffer.clear();
            self.seal()?;
            self.sender.send_to(&self.buffer, self.receivers[receiver].1).context("sending on loopback failed")?;
        }
        Ok(())
    }

    fn gso(&mut self, receiver: usize) -> Result<()> {
        self.buffer.clear();
        for _ in 0..SEGMENTS {
            self.seal()?;
        }
        let SocketAddr::V4(to) = self.receivers[receiver].1 else { unreachable!("bound to IPv4") };
        let segment = DATAGRAM_BYTES as u16;
        let control = [ControlMessage::UdpGsoSegments(&segment)];
        let slices = [IoSlice::new(&self.buffer)];
        let to = SockaddrIn::from(to);
        sendmsg(self.sender.as_raw_fd(), &slices, &control, MsgFlags::empty(), Some(&to))
            .context("this kernel does not take UDP GSO")?;
        Ok(())
    }

    fn empty_receivers(&self) -> usize {
        let mut buffer = [0; 2_048];
        self.receivers.iter().map(|(socket, _)| std::iter::from_fn(|| socket.recv(&mut buffer).ok()).count()).sum()
    }

    /// Microseconds of this thread for one datagram.
    fn round(&mut self, send: fn(&mut Self, usize) -> Result<()>) -> Result<f64> {
        let (mut spent, mut arrived) = (Duration::ZERO, 0);
        for _ in 0..BATCHES {
            let before = thread_cpu();
            for _ in 0..PER_RECEIVER / SEGMENTS {
                (0..RECEIVERS).try_for_each(|receiver| send(self, receiver))?;
            }
            spent += thread_cpu() - before;
            arrived += self.empty_receivers();
        }
        anyhow::ensure!(arrived > 0, "nothing that was sent on loopback arrived");
        Ok(spent.as_secs_f64() * 1e6 / (BATCHES * PER_RECEIVER * RECEIVERS) as f64)
    }

    fn median(&mut self, send: fn(&mut Self, usize) -> Result<()>) -> Result<f64> {
        let mut rounds = (0..ROUNDS).map(|_| self.round(send)).collect::<Result<Vec<_>>>()?;
        Ok(median(&mut rounds))
    }
}

/// Takes about a fifth of a second.
pub fn measure() -> Result<Floor> {
    let mut bench = Bench::new()?;
    // The first round warms caches and the branch predictor.
    bench.round(Bench::sendto)?;
    Ok(Floor { floor_sendto_us: bench.median(Bench::sendto)?, floor_gso10_us: bench.median(Bench::gso)? })
}

/// The middle value; 0 of none.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_reach_every_receiver() {
        let mut bench = Bench::new().unwrap();
        for receiver in 0..RECEIVERS {
            bench.sendto(receiver).unwrap();
            bench.gso(receiver).unwrap();
        }
        assert_eq!(bench.empty_receivers(), RECEIVERS * 2 * SEGMENTS);
        let floor = measure().unwrap();
        assert!(floor.floor_sendto_us > 0.0 && floor.floor_gso10_us > 0.0, "{floor:?}");
    }

    #[test]
    fn the_middle_is_in_the_middle() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut []), 0.0);
    }
}
