//! The end of a session: last words are heard out and stored before anybody is told that it is over.

use std::time::Duration;

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};
use tokio_stream::StreamExt;

use super::{Ending, Session, now};
use crate::{
    interview::{conversation::AgentState, port::RoomPort, wall_ms},
    model::EndReason,
    speech::speaker::SpeakerEvent,
};

/// How long recognition of the last words is awaited: as long as a recogniser with its second try takes by default.
const LAST_WORDS_MAX: Duration = Duration::from_secs(18);
/// How long the account of what the interviewer was just saying is awaited.
const LAST_REPLY_MAX: Duration = Duration::from_secs(1);
/// How long the interviewer stays after the end is told, so that pages see it.
const LINGER: Duration = Duration::from_secs(2);

impl<P: RoomPort> Session<P> {
    pub(super) async fn finish(mut self) {
        let ending = self.ending.take();
        self.over = true;
        self.stop_talking().await;
        self.hear_out().await;
        let at = now();
        self.record.finish(&self.setup.store, at).await;
        self.active = None;
        match ending {
            Some(Ending::Over(reason, waiting)) => self.tell_end(reason, waiting).await,
            // The interview goes on when the server is back.
            Some(Ending::Shutdown) | None => {}
        }
        self.setup.port.leave().await;
    }

    async fn stop_talking(&mut self) {
        for reply in self.replies.keys().copied().collect::<Vec<_>>() {
            self.drop_reply(reply);
        }
        let until = Instant::now() + LAST_REPLY_MAX;
        while !self.replies.is_empty() {
            match timeout_at(until, self.setup.mouth_events.recv()).await {
                Ok(Some(event @ SpeakerEvent::Finished { .. })) => self.handle_mouth(event).await,
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Closes all taps and waits for the words that were in them.
    async fn hear_out(&mut self) {
        for identity in self.people.listened_to() {
            self.allow_tap(&identity, false).await;
        }
        let until = Instant::now() + LAST_WORDS_MAX;
        while !self.heard.is_empty() {
            match timeout_at(until, self.heard.next()).await {
                Ok(Some((ear, event))) => self.handle_heard(ear, event).await,
                Ok(None) => return,
                Err(_) => {
                    tracing::warn!(interview = %self.id(), "the last words were not recognised in time");
                    return;
                }
            }
        }
    }

    async fn tell_end(&mut self, reason: EndReason, waiting: Vec<oneshot::Sender<()>>) {
        let id = self.id().clone();
        if let Err(error) = self.setup.store.set_ended(&id, reason, wall_ms()).await {
            tracing::error!(interview = %id, %error, "the end of an interview could not be stored");
        }
        self.setup.metrics.interviews.with_label_values(&[reason.as_str()]).inc();
        tracing::info!(interview = %id, reason = reason.as_str(), asked = self.cursor.asked(), "interview ended");
        for done in waiting {
            // Who asked may have gone away.
            let _ = done.send(());
        }
        self.attributes.insert("lk.agent.state".into(), AgentState::Idle.as_str().into());
        self.attributes.insert("viva.ended".into(), reason.as_str().into());
        self.flush().await;
        tokio::time::sleep(LINGER).await;
    }
}
