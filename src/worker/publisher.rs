//! The core's plain counters, made into metrics once a second.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::{Counter, IntCounter, local::LocalHistogram};

use crate::{sfu::SfuStats, telemetry::Metrics};

/// How often counters are published; scrapes are rarer.
const INTERVAL: Duration = Duration::from_secs(1);

/// One counter of the core and the metric that it feeds.
type Feed = (fn(&SfuStats) -> u64, IntCounter);

pub struct Publisher {
    metrics: Arc<Metrics>,
    feeds: Vec<Feed>,
    told: SfuStats,
    ticks: LocalHistogram,
    forwards: LocalHistogram,
    /// Media packets that the core had sent at the last tick.
    sent: u64,
    busy: Counter,
    busy_now: Duration,
    due: Instant,
    /// Dropped outside the core: by the kernel or for want of room to the control plane.
    pub dropped: u64,
    dropped_counter: IntCounter,
    /// The same for want of room to a client's TCP connection.
    pub tcp_dropped: u64,
    tcp_dropped_counter: IntCounter,
    /// The same for want of room to another worker.
    pub lane_dropped: u64,
    lane_dropped_counter: IntCounter,
    /// TCP connections that are open now, and those that were told of last.
    pub tcp_connections: usize,
    tcp_told: usize,
}

impl Publisher {
    pub fn new(now: Instant, worker: usize, metrics: Arc<Metrics>) -> Self {
        let worker = worker.to_string();
        let dropped = |reason| metrics.sfu_packets_dropped.with_label_values(&[reason]);
        let packets = |direction, kind| metrics.sfu_packets.with_label_values(&[direction, kind]);
        let bytes = |direction, kind| metrics.sfu_bytes.with_label_values(&[direction, kind]);
        let feeds: Vec<Feed> = vec![
            (|s| s.packets_in[0], packets("in", "audio")),
            (|s| s.packets_in[1], packets("in", "video")),
            (|s| s.packets_out[0], packets("out", "audio")),
            (|s| s.packets_out[1], packets("out", "video")),
            (|s| s.bytes_in[0], bytes("in", "audio")),
            (|s| s.bytes_in[1], bytes("in", "video")),
            (|s| s.bytes_out[0], bytes("out", "audio")),
            (|s| s.bytes_out[1], bytes("out", "video")),
            (|s| s.dropped_malformed, dropped("malformed")),
            (|s| s.dropped_unknown_peer, dropped("unknown_peer")),
            (|s| s.dropped_queue_full, dropped("queue_full")),
            (|s| s.dropped_flood, dropped("flood")),
            (|s| s.dropped_paused, dropped("paused")),
            (|s| s.dropped_layer, dropped("layer")),
            (|s| s.dropped_no_consent, dropped("no_consent")),
            (|s| s.connected[0], metrics.ice_connections.with_label_values(&["udp"])),
            (|s| s.connected[1], metrics.ice_connections.with_label_values(&["tcp"])),
            (|s| s.path_changes[0], metrics.ice_path_changes.with_label_values(&["udp"])),
            (|s| s.path_changes[1], metrics.ice_path_changes.with_label_values(&["tcp"])),
            (|s| s.keyframe_requests_in, metrics.sfu_keyframe_requests.with_label_values(&["in"])),
            (|s| s.keyframe_requests_out, metrics.sfu_keyframe_requests.with_label_values(&["out"])),
            (|s| s.nacks_in, metrics.sfu_nacks.with_label_values(&["in"])),
            (|s| s.nacks_out, metrics.sfu_nacks.with_label_values(&["out"])),
            (|s| s.rebuilt, metrics.sfu_rebuilt_packets.clone()),
            (|s| s.retransmitted_in, metrics.sfu_retransmitted_packets.with_label_values(&["in"])),
            (|s| s.retransmitted_out, metrics.sfu_retransmitted_packets.with_label_values(&["out"])),
            (|s| s.data_tracks_in, metrics.sfu_data_track_packets.with_label_values(&["in"])),
            (|s| s.data_tracks_out, metrics.sfu_data_track_packets.with_label_values(&["out"])),
            (|s| s.lane_packets[0], metrics.sfu_lane_packets.with_label_values(&["in"])),
            (|s| s.lane_packets[1], metrics.sfu_lane_packets.with_label_values(&["out"])),
            (|s| s.injected, metrics.sfu_injected_packets.clone()),
            (|s| s.tapped, metrics.tap_packets.clone()),
            (|s| s.tap_dropped, metrics.tap_packets_dropped.with_label_values(&["speech", "behind"])),
        ];
        Self {
            feeds,
            told: SfuStats::default(),
            forwards: metrics.sfu_forward_duration.local(),
            sent: 0,
            ticks: metrics.worker_tick_duration.with_label_values(&[&worker]).local(),
            busy: metrics.worker_busy_seconds.with_label_values(&[&worker]),
            busy_now: Duration::ZERO,
            due: now + INTERVAL,
            dropped: 0,
            dropped_counter: dropped("queue_full"),
            tcp_dropped: 0,
            tcp_dropped_counter: dropped("tcp_full"),
            lane_dropped: 0,
            lane_dropped_counter: dropped("lane_full"),
            tcp_connections: 0,
            tcp_told: 0,
            metrics,
        }
    }

    pub fn poll_timeout(&self) -> Instant {
        self.due
    }

    /// `flushed`: when the kernel had taken all datagrams of this tick.
    pub fn handle_tick(&mut self, started: Instant, flushed: Instant, ended: Instant, stats: &SfuStats) {
        let sent = stats.packets_out.iter().sum();
        if sent != std::mem::replace(&mut self.sent, sent) {
            self.forwards.observe(flushed.saturating_duration_since(started).as_secs_f64());
        }
        let took = ended.saturating_duration_since(started);
        self.ticks.observe(took.as_secs_f64());
        self.busy_now += took;
        if ended >= self.due {
            self.publish(stats);
            self.due = ended + INTERVAL;
        }
    }

    pub fn publish(&mut self, stats: &SfuStats) {
        self.ticks.flush();
        self.forwards.flush();
        for (read, counter) in &self.feeds {
            counter.inc_by(read(stats).saturating_sub(read(&self.told)));
        }
        // Several workers share the gauge, so each tells what changed.
        self.metrics.taps_open.add(stats.taps_open as i64 - self.told.taps_open as i64);
        let tcp_before = std::mem::replace(&mut self.tcp_told, self.tcp_connections);
        self.metrics.ice_tcp_connections.add(self.tcp_connections as i64 - tcp_before as i64);
        self.dropped_counter.inc_by(std::mem::take(&mut self.dropped));
        self.lane_dropped_counter.inc_by(std::mem::take(&mut self.lane_dropped));
        self.tcp_dropped_counter.inc_by(std::mem::take(&mut self.tcp_dropped));
        self.busy.inc_by(std::mem::take(&mut self.busy_now).as_secs_f64());
        self.told = *stats;
    }
}
