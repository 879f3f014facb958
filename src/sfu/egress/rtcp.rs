//! What receivers report, read from a compound RTCP packet in place (RFC 3550, 4585, 5104; transport-wide feedback by
//! draft-holmer-rmcat-transport-wide-cc-extensions-01, REMB by draft-alvestrand-rmcat-remb-03), and our own sender
//! reports rewritten in it. Pure, and nothing is allocated. What reports mean is for others to say.
//!
//! What is malformed ends the reading; what came before it counts.

use std::{iter, mem, time::Duration};

pub const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
pub const GOODBYE: u8 = 203;
pub const EXTENDED_REPORT: u8 = 207;
const TRANSPORT_LAYER: u8 = 205;
const PAYLOAD_SPECIFIC: u8 = 206;
/// Kinds of the two above.
const NACK: u8 = 1;
const TRANSPORT_WIDE: u8 = 15;
const PICTURE_LOSS: u8 = 1;
const FULL_INTRA_REQUEST: u8 = 4;
const APPLICATION_LAYER: u8 = 15;

const REPORT_BLOCK_BYTES: usize = 24;
const FIR_ENTRY_BYTES: usize = 8;
/// Packets that the transport-wide feedback of one compound may be about: a run of lost ones takes two bytes, whatever its
/// length, and who reports ten thousand times a second must not keep us busy. 100 Mbit/s, reported each 100 ms, are about 1,000;
/// what is beyond the limit is left out.
const STATUSES_MAX: u16 = 2_048;

/// The unit of times in transport-wide feedback.
const REFERENCE_US: i64 = 64_000;
const DELTA_US: i64 = 250;

/// Something that a compound packet says.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(clippy::enum_variant_names, reason = "a reception report is the standard's word")]
pub enum Report<'a> {
    /// How a stream of ours is received; from receiver reports, and from sender reports of who also sends.
    ReceptionReport {
        ssrc: u32,
        /// Of the packets since the last report.
        fraction_lost: f32,
        /// Of all, less those that came twice.
        packets_lost: i32,
        /// With the rollovers that the receiver saw.
        highest_seq: u32,
        /// In the stream's RTP time.
        jitter: u32,
        /// The middle of our last sender report's NTP time; 0 where there was none.
        last_sr: u32,
        /// In units of 1/65536 s.
        delay_since_last_sr: u32,
    },
    Nack {
        media_ssrc: u32,
        lost: Lost<'a>,
    },
    TransportFeedback(TransportFeedback<'a>),
    Remb {
        bps: u64,
    },
    /// By either of two ways.
    KeyframeRequest {
        media_ssrc: u32,
    },
    /// A packet that says nothing of the above; a sender report is one, too, before its reception reports.
    Other {
        payload_type: u8,
    },
}

/// What a compound packet says, in its order.
pub fn read(compound: &[u8]) -> impl Iterator<Item = Report<'_>> {
    Reader { rest: compound, blocks: &[], entries: &[], statuses_left: STATUSES_MAX }
}

/// One RTCP packet of a compound.
struct Packet<'a> {
    /// A number of items, or which kind it is.
    count: u8,
    payload_type: u8,
    /// After the first four bytes, without padding.
    body: &'a [u8],
}

/// Takes the first packet off.
fn split(compound: &[u8]) -> Option<(Packet<'_>, &[u8])> {
    let &[first, payload_type, ..] = compound else { return None };
    let bytes = packet_bytes(compound)?;
    let (packet, rest) = compound.split_at_checked(bytes)?;
    let mut body = packet.get(4..)?;
    if first & 0x20 != 0 {
        let padding = usize::from(*body.last()?);
        body = body.get(..body.len().checked_sub(padding)?).filter(|_| padding > 0)?;
    }
    Some((Packet { count: first & 0x1f, payload_type, body }, rest))
}

/// The whole length of the first packet.
fn packet_bytes(compound: &[u8]) -> Option<usize> {
    let header = compound.first_chunk::<4>().filter(|header| header[0] >> 6 == 2)?;
    Some(4 * (usize::from(u16::from_be_bytes([header[2], header[3]])) + 1))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

struct Reader<'a> {
    /// Packets not looked at.
    rest: &'a [u8],
    /// Of the packet at hand, report blocks and FIR entries not yet said.
    blocks: &'a [u8],
    entries: &'a [u8],
    statuses_left: u16,
}

impl<'a> Reader<'a> {
    /// What a packet says; `Some(None)` where it is well-formed and says nothing by itself.
    fn packet(&mut self, packet: &Packet<'a>) -> Option<Option<Report<'a>>> {
        let Packet { count, payload_type, body } = *packet;
        let blocks = |at| body.get(at..)?.get(..usize::from(count) * REPORT_BLOCK_BYTES);
        let other = Report::Other { payload_type };
        Some(match (payload_type, count) {
            (SENDER_REPORT, _) => {
                self.blocks = blocks(24)?;
                Some(other)
            }
            (RECEIVER_REPORT, _) => {
                self.blocks = blocks(4)?;
                None
            }
            (TRANSPORT_LAYER, NACK) => Some(Report::Nack { media_ssrc: u32_at(body, 4)?, lost: Lost(body.get(8..)?) }),
            (TRANSPORT_LAYER, TRANSPORT_WIDE) => {
                let found = TransportFeedback::new(body, self.statuses_left)?;
                self.statuses_left -= found.count;
                Some(Report::TransportFeedback(found))
            }
            (PAYLOAD_SPECIFIC, PICTURE_LOSS) => Some(Report::KeyframeRequest { media_ssrc: u32_at(body, 4)? }),
            (PAYLOAD_SPECIFIC, FULL_INTRA_REQUEST) => {
                self.entries = body.get(8..)?;
                None
            }
            (PAYLOAD_SPECIFIC, APPLICATION_LAYER) if body.get(8..12) == Some(b"REMB") => {
                Some(Report::Remb { bps: remb(u32_at(body, 12)?) })
            }
            _ => Some(other),
        })
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Report<'a>;

    fn next(&mut self) -> Option<Report<'a>> {
        loop {
            if let Some((block, rest)) = self.blocks.split_first_chunk() {
                self.blocks = rest;
                return Some(reception_report(block));
            }
            if let Some((entry, rest)) = self.entries.split_first_chunk::<FIR_ENTRY_BYTES>() {
                self.entries = rest;
                return u32_at(entry, 0).map(|media_ssrc| Report::KeyframeRequest { media_ssrc });
            }
            // What is malformed takes the rest along.
            let (packet, rest) = split(mem::take(&mut self.rest))?;
            let said = self.packet(&packet)?;
            self.rest = rest;
            if said.is_some() {
                return said;
            }
        }
    }
}

fn reception_report(block: &[u8; REPORT_BLOCK_BYTES]) -> Report<'static> {
    let [ssrc, loss, highest_seq, jitter, last_sr, delay_since_last_sr] = words(block);
    Report::ReceptionReport {
        ssrc,
        fraction_lost: (loss >> 24) as f32 / 256.0,
        // 24 bits, signed.
        packets_lost: (loss << 8).cast_signed() >> 8,
        highest_seq,
        jitter,
        last_sr,
        delay_since_last_sr,
    }
}

fn words(block: &[u8; REPORT_BLOCK_BYTES]) -> [u32; REPORT_BLOCK_BYTES / 4] {
    std::array::from_fn(|n| u32::from_be_bytes([block[4 * n], block[4 * n + 1], block[4 * n + 2], block[4 * n + 3]]))
}

/// Number of SSRCs, exponent, mantissa: 8, 6 and 18 bits.
fn remb(word: u32) -> u64 {
    let (exponent, mantissa) = (word >> 18 & 0x3f, word & 0x3_ffff);
    u64::try_from(u128::from(mantissa) << exponent).unwrap_or(u64::MAX)
}

/// Sequence numbers that a receiver misses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost<'a>(&'a [u8]);

impl<'a> Lost<'a> {
    /// In the packet's order: each entry is a number and a mask of the sixteen after it.
    pub fn numbers(self) -> impl Iterator<Item = u16> + 'a {
        let entries = self.0.chunks_exact(4);
        entries.flat_map(|entry| {
            let (first, mask) = (u16::from_be_bytes([entry[0], entry[1]]), u16::from_be_bytes([entry[2], entry[3]]));
            let after = (0..16).filter(move |bit| mask & (1 << bit) != 0);
            iter::once(first).chain(after.map(move |bit| first.wrapping_add(bit + 1)))
        })
    }
}

/// Which packets of a transport came, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportFeedback<'a> {
    base: u16,
    /// Packets that this is about.
    count: u16,
    reference: i32,
    /// Counts the feedback packets themselves.
    pub feedback_count: u8,
    chunks: &'a [u8],
    /// When those that came did, each after the one before it.
    deltas: &'a [u8],
}

impl<'a> TransportFeedback<'a> {
    fn new(body: &'a [u8], count_max: u16) -> Option<Self> {
        let (head, rest) = body.get(8..)?.split_first_chunk::<8>()?;
        let [base, count] = [[head[0], head[1]], [head[2], head[3]]].map(u16::from_be_bytes);
        let reference = i32::from_be_bytes([head[4], head[5], head[6], 0]) >> 8;
        let (mut left, mut used) = (usize::from(count), 0);
        for chunk in rest.chunks_exact(2) {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(Chunk::new(chunk).len());
            used += 2;
        }
        let (chunks, deltas) = rest.split_at_checked(used)?;
        Some(Self { base, count: count.min(count_max), reference, feedback_count: head[7], chunks, deltas })
    }

    /// Each packet's number and, where it came, when by the receiver's clock. That clock began anywhere and begins anew
    /// after 2^24 of these. One of these is added to its times, which are signed: so deltas never lead below zero.
    pub fn packets(&self) -> impl Iterator<Item = (u16, Option<Duration>)> + 'a {
        let symbols = self.chunks.chunks_exact(2).flat_map(|chunk| Chunk::new(chunk).symbols());
        let (base, mut deltas) = (self.base, self.deltas);
        let mut micros = (i64::from(self.reference) + (1 << 24)) * REFERENCE_US;
        (0..self.count).zip(symbols).map_while(move |(n, symbol)| {
            let number = base.wrapping_add(n);
            let delta = match symbol {
                NOT_RECEIVED => return Some((number, None)),
                SMALL_DELTA => {
                    let (delta, rest) = deltas.split_first()?;
                    deltas = rest;
                    i64::from(*delta)
                }
                LARGE_DELTA => {
                    let (delta, rest) = deltas.split_first_chunk()?;
                    deltas = rest;
                    i64::from(i16::from_be_bytes(*delta))
                }
                _ => return None,
            };
            micros += delta * DELTA_US;
            Some((number, Some(Duration::from_micros(u64::try_from(micros).unwrap_or(0)))))
        })
    }
}

/// What became of a packet; there is one more that means nothing.
const NOT_RECEIVED: u16 = 0;
const SMALL_DELTA: u16 = 1;
const LARGE_DELTA: u16 = 2;

/// Two bytes of transport-wide feedback, about one packet or many.
#[derive(Clone, Copy)]
enum Chunk {
    Run {
        symbol: u16,
        length: u16,
    },
    /// Received or not, the first the highest of fourteen bits.
    OneBit(u16),
    /// Seven symbols.
    TwoBits(u16),
}

impl Chunk {
    fn new(bytes: &[u8]) -> Self {
        let word = bytes.first_chunk().map_or(0, |word| u16::from_be_bytes(*word));
        match word >> 14 {
            0 | 1 => Self::Run { symbol: word >> 13 & 3, length: word & 0x1fff },
            2 => Self::OneBit(word),
            _ => Self::TwoBits(word),
        }
    }

    fn len(self) -> usize {
        match self {
            Self::Run { length, .. } => length.into(),
            Self::OneBit(_) => 14,
            Self::TwoBits(_) => 7,
        }
    }

    fn symbols(self) -> impl Iterator<Item = u16> {
        (0..self.len()).map(move |n| match self {
            Self::Run { symbol, .. } => symbol,
            Self::OneBit(bits) => bits >> (13 - n) & 1,
            Self::TwoBits(bits) => bits >> (12 - 2 * n) & 3,
        })
    }
}

/// What a sender report says of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// The stream's, at the report's NTP time.
    pub rtp_time: u32,
    pub packets: u32,
    pub octets: u32,
}

/// Has `rewrite` look at each sender report, by SSRC and NTP time, and writes what it gives into it. The time stays.
pub fn for_each_sender_report(mut compound: &mut [u8], mut rewrite: impl FnMut(u32, u64) -> Option<SenderInfo>) {
    while let Some(bytes) = packet_bytes(compound) {
        let Some((packet, rest)) = mem::take(&mut compound).split_at_mut_checked(bytes) else { return };
        compound = rest;
        let Some((head, info)) = packet.split_at_mut_checked(16).filter(|(head, _)| head[1] == SENDER_REPORT) else {
            continue;
        };
        let [ssrc, seconds, fraction] = [4, 8, 12].map(|at| u32_at(head, at).unwrap_or_default());
        let Some(place) = info.first_chunk_mut::<12>() else { continue };
        if let Some(SenderInfo { rtp_time, packets, octets }) =
            rewrite(ssrc, u64::from(seconds) << 32 | u64::from(fraction))
        {
            let words = [rtp_time, packets, octets].map(u32::to_be_bytes);
            place.copy_from_slice(words.as_flattened());
        }
    }
}

#[cfg(test)]
mod tests;
