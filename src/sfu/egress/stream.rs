//! One stream that a receiver gets: its names, its counters, and what it sent of late.

use std::time::{Duration, Instant};

use str0m::media::Mid;

use super::{Outgoing, PADDING_BYTES, history::History, rtcp::SenderInfo};
use crate::sfu::{MediaKind, extensions::ExtensionIds};

/// Which stream of an egress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamKey {
    index: usize,
    /// Another stream may come to the same place.
    ssrc: u32,
}

impl StreamKey {
    pub(super) fn new(index: usize, ssrc: u32) -> Self {
        Self { index, ssrc }
    }

    pub(super) fn of(self, streams: &mut [Option<Stream>]) -> Option<&mut Stream> {
        streams.get_mut(self.index)?.as_mut().filter(|stream| stream.ssrc() == self.ssrc)
    }
}

/// As it was negotiated.
pub struct StreamOptions {
    pub mid: Mid,
    pub kind: MediaKind,
    pub ssrc: u32,
    /// Of its retransmissions, and a payload type of those: padding goes there, too.
    pub rtx: Option<(u32, u8)>,
    pub ids: ExtensionIds,
}

/// What a packet is sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Media,
    /// Once more, in the stream of retransmissions.
    Again,
    /// The same, and nobody asked.
    Filler,
    /// Nothing but padding, in the same.
    Padding,
}

pub(super) struct Stream {
    options: StreamOptions,
    /// The receiver reports on it, and on its retransmissions: it knows which section they are of.
    confirmed: [bool; 2],
    packets: u32,
    octets: u32,
    /// RTP time of the newest packet, and when that was captured.
    newest: Option<(u32, Instant)>,
    rtx_seq: u64,
    history: History,
    /// The last sender report: the middle of its NTP time, and when it left.
    reported: Option<(u32, Instant)>,
}

/// The fixed part of an RTP header (RFC 3550 section 5.1).
pub(super) struct Header {
    marker: bool,
    padded: bool,
    pt: u8,
    /// Extended.
    pub seq: u64,
    time: u32,
    pub ssrc: u32,
}

impl Header {
    pub fn write(&self, out: &mut Vec<u8>, extensions: &[u8]) {
        let first = 0x80 | u8::from(self.padded) << 5 | u8::from(!extensions.is_empty()) << 4;
        out.extend_from_slice(&[first, u8::from(self.marker) << 7 | self.pt & 0x7f]);
        out.extend_from_slice(&(self.seq as u16).to_be_bytes());
        out.extend_from_slice(&self.time.to_be_bytes());
        out.extend_from_slice(&self.ssrc.to_be_bytes());
        out.extend_from_slice(extensions);
    }
}

impl Stream {
    pub fn new(options: StreamOptions) -> Self {
        Self {
            options,
            confirmed: [false; 2],
            packets: 0,
            octets: 0,
            newest: None,
            rtx_seq: 0,
            history: History::default(),
            reported: None,
        }
    }

    pub fn renegotiate(&mut self, options: StreamOptions) {
        self.options = options;
    }

    pub fn mid(&self) -> Mid {
        self.options.mid
    }

    pub fn ssrc(&self) -> u32 {
        self.options.ssrc
    }

    pub fn ids(&self) -> &ExtensionIds {
        &self.options.ids
    }

    pub fn is_named(&self, ssrc: u32) -> bool {
        self.options.ssrc == ssrc || self.options.rtx.is_some_and(|(rtx, _)| rtx == ssrc)
    }

    /// `None` where it cannot be sent so.
    pub fn header(&mut self, packet: &Outgoing, shape: Shape) -> Option<Header> {
        let Outgoing { marker, time, .. } = *packet;
        if shape == Shape::Media {
            let (pt, seq, ssrc) = (packet.pt, packet.seq, self.options.ssrc);
            return Some(Header { marker, padded: false, pt, seq, time, ssrc });
        }
        let (ssrc, padding_pt) = self.options.rtx?;
        let pt = if shape == Shape::Padding { padding_pt } else { packet.rtx? };
        self.rtx_seq += 1;
        let padded = shape == Shape::Padding;
        Some(Header { marker: marker && !padded, padded, pt, seq: self.rtx_seq, time, ssrc })
    }

    /// The section's name, with the number of its extension, while the receiver may not know it.
    pub fn name_to_tell(&self, shape: Shape) -> Option<(u8, Mid)> {
        let confirmed = self.confirmed[usize::from(shape != Shape::Media)];
        self.options.ids.mid.filter(|_| !confirmed).map(|id| (id, self.options.mid))
    }

    pub fn handle_sent(&mut self, now: Instant, packet: Outgoing) {
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(packet.payload.len() as u32);
        if self.newest.is_none_or(|(time, _)| packet.time.wrapping_sub(time) < u32::MAX / 2) {
            self.newest = Some((packet.time, packet.captured));
        }
        if self.options.rtx.is_some() && packet.rtx.is_some() {
            self.history.push(now, packet);
        }
    }

    pub fn again(&mut self, now: Instant, seq: u16, spacing: Duration) -> Option<Outgoing> {
        self.history.again(now, seq, spacing)
    }

    pub fn expire(&mut self, now: Instant) {
        self.history.expire(now);
    }

    /// What a probe can be filled with: what was sent, as that may be of use, or nothing.
    pub fn filling(&self, key: StreamKey, now: Instant) -> Option<(Outgoing, Shape)> {
        if let Some(newest) = self.history.newest().filter(|it| it.payload.len() > usize::from(PADDING_BYTES)) {
            return Some((newest.clone(), Shape::Filler));
        }
        let time = self.newest.map_or(0, |(time, _)| time);
        self.options.rtx.map(|_| (Outgoing::empty(key, time, now), Shape::Padding))
    }

    /// What the receiver says of it; gives the round trip where that can be told (RFC 3550 section 6.4.1).
    pub fn handle_reception(&mut self, now: Instant, ssrc: u32, last_sr: u32, delay: u32) -> Option<Duration> {
        self.confirmed[usize::from(ssrc != self.options.ssrc)] = true;
        let (_, at) = self.reported.filter(|(ntp, _)| *ntp == last_sr)?;
        let held = Duration::from_secs_f64(f64::from(delay) / 65_536.0);
        now.saturating_duration_since(at).checked_sub(held)
    }

    /// RTP time that belongs to `now`, packets and octets sent so far; `None` before the first.
    pub fn report(&mut self, now: Instant, ntp: u64) -> Option<SenderInfo> {
        let (time, captured) = self.newest?;
        self.reported = Some(((ntp >> 16) as u32, now));
        let since = now.saturating_duration_since(captured).as_micros() * u128::from(self.options.kind.clock_hz());
        let rtp_time = time.wrapping_add((since / 1_000_000) as u32);
        Some(SenderInfo { rtp_time, packets: self.packets, octets: self.octets })
    }
}
