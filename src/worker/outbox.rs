//! Events on their way to the control plane. The media thread never waits for it.
//!
//! Policy where the control plane is behind: lossy data and speaker levels are dropped at once; everything else waits
//! here in order; when even this is full, the control plane has stood still for long, and what comes is dropped.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::sfu::{DataChannel, Event, EventKind};

/// Events in the channel: a room makes a few dozen a second, mostly data packets.
pub const EVENTS_MAX: usize = 4_096;
/// Events that wait beside it.
const BACKLOG_MAX: usize = 16_384;

pub struct Outbox {
    channel: mpsc::Sender<Event>,
    backlog: VecDeque<Event>,
    pub dropped: u64,
}

impl Outbox {
    pub fn new(channel: mpsc::Sender<Event>) -> Self {
        Self { channel, backlog: VecDeque::new(), dropped: 0 }
    }

    pub fn push(&mut self, event: Event) {
        self.flush();
        let event = if self.backlog.is_empty() {
            match self.channel.try_send(event) {
                Ok(()) => return,
                // Nobody listens any more: the server is going down.
                Err(mpsc::error::TrySendError::Closed(_)) => return,
                Err(mpsc::error::TrySendError::Full(event)) => event,
            }
        } else {
            event
        };
        if is_droppable(&event) || self.backlog.len() >= BACKLOG_MAX {
            self.dropped += 1;
        } else {
            self.backlog.push_back(event);
        }
    }

    /// Hands over what waits, as far as there is room.
    pub fn flush(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(event)) = self.channel.try_send(event) {
                self.backlog.push_front(event);
                return;
            }
        }
    }

    pub fn is_waiting(&self) -> bool {
        !self.backlog.is_empty()
    }
}

fn is_droppable(event: &Event) -> bool {
    matches!(event.kind, EventKind::Speaker { .. } | EventKind::Data { channel: DataChannel::Lossy, .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventKind) -> Event {
        Event { room: "RM_a".into(), participant: "PA_a".into(), kind }
    }

    #[test]
    fn a_full_channel_keeps_order_drops_levels_and_is_bounded() {
        let (tx, mut rx) = mpsc::channel(1);
        let mut outbox = Outbox::new(tx);
        outbox.push(event(EventKind::Connected));
        outbox.push(event(EventKind::Speaker { level: 1.0, active: true }));
        assert_eq!(outbox.dropped, 1);
        outbox.push(event(EventKind::Disconnected));
        assert!(matches!(rx.try_recv().unwrap().kind, EventKind::Connected));
        outbox.flush();
        assert!(matches!(rx.try_recv().unwrap().kind, EventKind::Disconnected));
        for _ in 0..BACKLOG_MAX + 10 {
            outbox.push(event(EventKind::Connected));
        }
        assert_eq!(outbox.dropped, 1 + 9);
    }
}
