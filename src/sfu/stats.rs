//! Plain counters of one worker's core; published by value once a second by whoever drives it.

use super::MediaKind;

/// Totals since the core was made, but for the gauges at the end. `[audio, video]` where a pair.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SfuStats {
    /// Datagrams handed in and out, of any kind and by any protocol.
    pub datagrams_in: u64,
    pub datagrams_out: u64,
    /// RTP packets that carried media, retransmissions of received ones included.
    pub packets_in: [u64; 2],
    pub packets_out: [u64; 2],
    /// Their payload.
    pub bytes_in: [u64; 2],
    pub bytes_out: [u64; 2],
    /// Datagrams that are no STUN, DTLS, RTP or RTCP, or that the transport refused.
    pub dropped_malformed: u64,
    /// Datagrams from an address or with a user name that belongs to nobody.
    pub dropped_unknown_peer: u64,
    /// Data packets that a receiver had no room for or does not take at their size, or that a sender sent too fast.
    pub dropped_queue_full: u64,
    /// Datagrams and RTP packets of a participant that sends more than it may.
    pub dropped_flood: u64,
    /// Packets of a muted track or to a paused subscription.
    pub dropped_paused: u64,
    /// Packets of a simulcast layer that is not forwarded, or before the first keyframe.
    pub dropped_layer: u64,
    /// Datagrams for clients that were heard no more.
    pub dropped_no_consent: u64,
    /// Transports that came up, and changes of path while they were up, by the path's protocol: `[udp, tcp]`.
    pub connected: [u64; 2],
    pub path_changes: [u64; 2],
    /// Picture loss indications from subscribers and to publishers.
    pub keyframe_requests_in: u64,
    pub keyframe_requests_out: u64,
    /// Negative acknowledgements from subscribers and to publishers.
    pub nacks_in: u64,
    pub nacks_out: u64,
    /// RTX packets from publishers and to subscribers.
    pub retransmitted_in: u64,
    pub retransmitted_out: u64,
    /// Packets of sound that were lost on their way here, and rebuilt from those after them.
    pub rebuilt: u64,
    /// Frames of voices that have no transport.
    pub injected: u64,
    /// Packets copied into taps, and those that a tap had no room for.
    pub tapped: u64,
    pub tap_dropped: u64,
    /// Data packets received from participants, `[reliable, lossy]`.
    pub data_in: [u64; 2],
    /// Packets of data tracks, from publishers and to subscribers.
    pub data_tracks_in: u64,
    pub data_tracks_out: u64,
    /// Packets of tracks that went into lanes and that came out of them.
    pub lane_packets: [u64; 2],
    /// Gauges.
    pub taps_open: u64,
    pub rooms: u64,
    pub transports: u64,
}

impl SfuStats {
    pub(super) fn received(&mut self, kind: MediaKind, bytes: usize) {
        self.packets_in[kind.index()] += 1;
        self.bytes_in[kind.index()] += bytes as u64;
    }

    pub(super) fn sent(&mut self, kind: MediaKind, bytes: usize) {
        self.packets_out[kind.index()] += 1;
        self.bytes_out[kind.index()] += bytes as u64;
    }
}

impl MediaKind {
    /// Position in the pairs of [`SfuStats`].
    pub fn index(self) -> usize {
        match self {
            Self::Audio => 0,
            Self::Video => 1,
        }
    }

    /// RTP clock of the one codec that we forward of this kind.
    pub fn clock_hz(self) -> u32 {
        match self {
            Self::Audio => crate::media::OPUS_CLOCK_HZ,
            Self::Video => 90_000,
        }
    }
}
