//! Every metric of the server, in one file. Names, units and labels follow the Prometheus rules: base units,
//! `_total` for counters, bounded labels, never a room, a person or free text.

use prometheus::{
    Counter, CounterVec, Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Prefix of every name.
pub const PREFIX: &str = "viva";

/// What a person waits: fine around the 200-700 ms that talk is made of.
const LATENCY_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75,
    0.8, 0.85, 0.9, 0.95, 1.0, 1.1, 1.2, 1.35, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0,
];
/// What the media plane takes: from 10 µs.
const MEDIA_BUCKETS: &[f64] =
    &[0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1];
/// Requests and joins.
const REQUEST_BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

macro_rules! metrics {
    ($($field:ident: $kind:ident($name:literal, $help:literal $(, [$($label:literal),*])? $(, in $buckets:expr)?);)*) => {
        /// All metrics, registered once.
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] pub $field: $kind,)*
        }

        impl Metrics {
            pub fn new() -> Self {
                let registry = Registry::new_custom(Some(PREFIX.to_owned()), None).expect("the prefix is a valid name");
                $(
                    let $field = make!($kind, $name, $help $(, [$($label),*])? $(, $buckets)?);
                    registry.register(Box::new($field.clone())).expect("every name is registered once");
                )*
                Self { registry, $($field,)* }
            }
        }
    };
}

macro_rules! make {
    (Histogram, $name:literal, $help:literal, $buckets:expr) => {
        Histogram::with_opts(HistogramOpts::new($name, $help).buckets($buckets.to_vec())).expect("valid metric")
    };
    (HistogramVec, $name:literal, $help:literal, [$($label:literal),*], $buckets:expr) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &[$($label),*]).expect("valid metric")
    };
    ($kind:ident, $name:literal, $help:literal, [$($label:literal),*]) => {
        $kind::new(Opts::new($name, $help), &[$($label),*]).expect("valid metric")
    };
    ($kind:ident, $name:literal, $help:literal) => {
        $kind::new($name, $help).expect("valid metric")
    };
}

metrics! {
    // Media plane
    sfu_packets: IntCounterVec("sfu_packets_total", "RTP packets received from and sent to participants", ["direction", "kind"]);
    sfu_bytes: IntCounterVec("sfu_bytes_total", "RTP payload bytes received from and sent to participants", ["direction", "kind"]);
    sfu_packets_dropped: IntCounterVec("sfu_packets_dropped_total", "Datagrams and packets dropped, by reason (malformed, unknown_peer, queue_full, flood, tcp_full, lane_full, no_consent, paused, layer)", ["reason"]);
    sfu_forward_duration: Histogram("sfu_forward_duration_seconds", "From a media worker's wake-up until the media packets that it sends on are with the kernel, once for each wake-up that sends any", in MEDIA_BUCKETS);
    sfu_keyframe_requests: IntCounterVec("sfu_keyframe_requests_total", "Picture loss indications received from subscribers (in) and sent to publishers (out)", ["direction"]);
    sfu_nacks: IntCounterVec("sfu_nacks_total", "Packets asked for again by NACK, from subscribers (in) and to publishers (out)", ["direction"]);
    sfu_rebuilt_packets: IntCounter("sfu_rebuilt_packets_total", "Packets of sound that were lost on their way from the publisher, and rebuilt from redundancy");
    sfu_retransmitted_packets: IntCounterVec("sfu_retransmitted_packets_total", "RTX packets received and sent", ["direction"]);
    sfu_data_track_packets: IntCounterVec("sfu_data_track_packets_total", "Packets of data tracks received from publishers and sent to subscribers", ["direction"]);
    sfu_lane_packets: IntCounterVec("sfu_lane_packets_total", "Packets of tracks that are shown in another room: on their way there (in), and arrived (out)", ["direction"]);
    sfu_injected_packets: IntCounter("sfu_injected_packets_total", "Packets of the interviewer's voice handed to the forwarder");
    ice_connections: IntCounterVec("ice_connections_total", "Peer connections that came up, by the protocol of their path (udp, tcp)", ["protocol"]);
    ice_path_changes: IntCounterVec("ice_path_changes_total", "Times that a peer connection went over to another path, by the protocol of the new one (udp, tcp)", ["protocol"]);
    ice_silences: IntCounter("ice_silences_total", "Clients that were made to resume: nothing came from them by UDP any more, while their socket spoke");
    ice_tcp_connections: IntGauge("ice_tcp_connections", "TCP connections for media that are open now, those in reserve included");
    ice_tcp_refused: IntCounterVec("ice_tcp_refused_total", "TCP connections for media that were closed at once: they began with nothing that we gave out (unknown), or there were too many (full)", ["reason"]);
    worker_busy_seconds: CounterVec("worker_busy_seconds_total", "Time that a media worker spent awake", ["worker"]);
    worker_tick_duration: HistogramVec("worker_tick_duration_seconds", "One wake-up of a media worker, from reading to flushing", ["worker"], in MEDIA_BUCKETS);
    tap_packets: IntCounter("tap_packets_total", "Opus packets copied from a participant's track to the interviewer's ear; zero without consent");
    tap_packets_dropped: IntCounterVec("tap_packets_dropped_total", "Tapped packets that were not heard, by reason: the consumer was behind, they came late or twice, or were malformed (behind, late, malformed)", ["consumer", "reason"]);
    taps_open: IntGauge("taps_open", "Taps that are open now");

    // Rooms
    rooms: IntGauge("rooms", "Rooms that are open now");
    participants: IntGaugeVec("participants", "Participants in rooms now (standard, agent)", ["kind"]);
    tracks: IntGaugeVec("tracks", "Published tracks now (audio, video)", ["kind"]);
    participant_joins: IntCounterVec("participant_joins_total", "Joins by protocol and result (ok, resumed, unauthorized, refused, failed)", ["protocol", "result"]);
    join_duration: HistogramVec("join_duration_seconds", "From the request to join until ICE and DTLS are up", ["protocol"], in REQUEST_BUCKETS);
    data_packets: IntCounterVec("data_packets_total", "Data packets routed between participants (reliable, lossy)", ["channel"]);
    signal_messages: IntCounterVec("signal_messages_total", "Signalling messages", ["direction"]);

    // The interviewer: response latency and its stages
    response_latency: Histogram("response_latency_seconds", "From the interviewee's last speech to the first packet of the reply sent", in LATENCY_BUCKETS);
    turn_endpointing_delay: HistogramVec("turn_endpointing_delay_seconds", "From the interviewee's last speech to the decision that the turn is over", ["detector"], in LATENCY_BUCKETS);
    stt_first_partial: HistogramVec("stt_first_partial_seconds", "From the beginning of a stretch of speech to its first interim transcript", ["provider"], in LATENCY_BUCKETS);
    stt_final_delay: HistogramVec("stt_final_delay_seconds", "From the interviewee's last speech to the final transcript", ["provider"], in LATENCY_BUCKETS);
    llm_first_token: HistogramVec("llm_first_token_seconds", "From the decision that the turn is over to the first token of the reply", ["provider"], in LATENCY_BUCKETS);
    llm_first_clause: HistogramVec("llm_first_clause_seconds", "From the first token of the reply to its first clause going to text-to-speech", ["provider"], in LATENCY_BUCKETS);
    llm_tokens: IntCounterVec("llm_tokens_total", "Tokens of replies as the endpoint counts them (prompt, completion); replies that broke off are not counted", ["provider", "model", "kind"]);
    tts_first_audio: HistogramVec("tts_first_audio_seconds", "From the first clause to its first audio", ["provider"], in LATENCY_BUCKETS);
    speech_first_packet: Histogram("speech_first_packet_seconds", "From the first audio of the reply to its first packet sent", in LATENCY_BUCKETS);
    stt_audio_seconds: CounterVec("stt_audio_seconds_total", "Audio given to speech recognition", ["provider"]);
    tts_audio_seconds: CounterVec("tts_audio_seconds_total", "Audio made by text-to-speech", ["provider"]);
    provider_errors: IntCounterVec("provider_errors_total", "Errors of providers by stage (stt, llm, tts) and kind (timeout, unavailable, rejected, malformed)", ["stage", "provider", "kind"]);
    turns: IntCounterVec("turns_total", "Turns of the interviewer by act (greet, ask, probe, repeat, nudge, close)", ["act"]);
    barge_ins: IntCounter("barge_ins_total", "Times a voice stopped the interviewer, noise included");
    false_interruptions: IntCounter("false_interruptions_total", "Times what stopped the interviewer turned out to be no speech");
    interviews_active: IntGauge("interviews_active", "Interviews that are live now");
    interviews: IntCounterVec("interviews_total", "Interviews ended, by reason", ["result"]);
    consents: IntCounterVec("consents_total", "Consent decisions by purpose and decision (granted, declined)", ["purpose", "decision"]);

    // Agents
    agent_workers: IntGaugeVec("agent_workers", "Agent workers that are registered now, by the kind of job that they take (room, publisher, participant)", ["type"]);
    agent_jobs: IntGaugeVec("agent_jobs", "Jobs of agents now: waiting for an agent (pending) or with one (running)", ["state"]);
    agent_jobs_ended: IntCounterVec("agent_jobs_ended_total", "Jobs of agents that ended (success, failed)", ["result"]);

    // Limits
    limited: IntCounterVec("limited_total", "Times that somebody was held to a limit, by limit: clients put out for too many messages (messages), changes of what they say of themselves (metadata), joins and requests of one address (joins_address, requests_address), joins, rooms and participants of one API key (joins_key, rooms_key, participants_key), revoked tokens (revoked)", ["limit"]);

    // Relay
    turn_server_allocations: IntGaugeVec("turn_server_allocations", "Allocations of the relay inside this server now, by how the client reaches it (udp, tcp, tls)", ["transport"]);
    turn_server_bytes: IntCounterVec("turn_server_bytes_total", "Bytes relayed from clients (up) and to clients (down)", ["direction"]);
    turn_server_refused: IntCounterVec("turn_server_refused_total", "Requests refused and datagrams dropped by the relay: wrong or old credentials (unauthorized), a peer that is no media port of this server (peer), too many allocations of one user (quota) or in all (capacity), another transport than UDP (transport), too fast (bitrate), not taken in time (behind), or no TURN (malformed)", ["reason"]);

    // Webhooks
    webhooks: IntCounterVec("webhooks_total", "Events for the integrator's servers, once for each address, by result: delivered, given up after the last attempt or refused (failed), or pushed out of a full queue (dropped)", ["event", "result"]);
    webhooks_waiting: IntGauge("webhooks_waiting", "Events that are waiting for their delivery or under way, over all addresses");

    // Server
    store_query_duration: HistogramVec("store_query_duration_seconds", "Database operations", ["operation"], in REQUEST_BUCKETS);
    http_request_duration: HistogramVec("http_request_duration_seconds", "HTTP requests by route pattern", ["route", "method", "status"], in REQUEST_BUCKETS);
    uptime: Gauge("uptime_seconds", "Time since the server started");
    build_info: GaugeVec("build_info", "Always 1; the version is in the label", ["version"]);
    process_resident_memory: IntGauge("process_resident_memory_bytes", "Resident memory of the server");
    process_cpu: Counter("process_cpu_seconds_total", "User and system CPU time of the server");
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// The Prometheus text format, version 0.0.4.
    pub fn render(&self) -> String {
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "metrics could not be encoded");
        }
        String::from_utf8(out).unwrap_or_default()
    }
}
