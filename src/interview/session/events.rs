//! What happens in the room and at the ears.

use tokio_stream::wrappers::ReceiverStream;

use super::{Ear, Session, captions, now};
use crate::{
    id::{Identity, ParticipantSid, TrackSid},
    interview::{port::RoomPort, usable_name},
    media::TapReader,
    model::{EndReason, Personal},
    rooms::{AgentEvent, Person},
    speech::listener::SpeechEvent,
};

/// Ears of one session at once; a room holds few people. More: the tap is not listened to.
const EARS_MAX: usize = 32;

impl<P: RoomPort> Session<P> {
    pub(super) async fn handle_room(&mut self, event: AgentEvent) {
        match event {
            AgentEvent::Joined(person) => self.handle_joined(person).await,
            AgentEvent::Active { sid } => {
                self.people.activate(&sid);
                self.update_presence();
            }
            AgentEvent::AttributesChanged(person) => self.people.rename(&person.sid, &person.name),
            AgentEvent::Left { sid, .. } => {
                self.people.leave(&sid);
                self.inbox.forget(&sid);
                self.update_presence();
            }
            AgentEvent::TapOpened { sid, identity, track, reader } => self.handle_tap(sid, identity, track, reader),
            // The listener hears the tap out by itself.
            AgentEvent::TapClosed { .. } | AgentEvent::Muted { .. } => {}
            AgentEvent::Data { from, packet, .. } => self.handle_data(&from, *packet).await,
            AgentEvent::Injected { report, at } => self.handle_injected(report, at),
            AgentEvent::RoomClosed => self.end(EndReason::Failed, None),
        }
    }

    async fn handle_joined(&mut self, person: Person) {
        if person.identity == *self.setup.port.identity() {
            return;
        }
        if self.people.join(&person) {
            self.meet(&person);
        }
        self.take_up_consents(&person).await;
        self.update_presence();
    }

    /// The interview was made for whoever comes, and here they are. Nothing is stored of who has not consented to anything.
    fn meet(&mut self, person: &Person) {
        let words = &mut self.setup.words;
        if let (true, Ok(name)) = (words.name.0.is_empty(), usable_name(&person.name)) {
            words.name = name;
        }
        self.met = Some((person.identity.clone(), words.name.clone()));
    }

    fn handle_tap(&mut self, sid: ParticipantSid, identity: Identity, track: TrackSid, reader: TapReader) {
        // A tap that was opened while its consent was being withdrawn is not read.
        let Some(person) = self.people.get(&sid).cloned() else { return };
        if !self.people.consents(&identity).listening || self.ears.len() >= EARS_MAX {
            return;
        }
        let ear = self.ears_made;
        self.ears_made += 1;
        self.heard.insert(ear, ReceiverStream::new((self.setup.listen)(reader)));
        self.ears.insert(ear, Ear { person, track });
    }

    /// Works out whether the interviewee is there and may be listened to, and tells the conversation.
    pub(super) fn update_presence(&mut self) {
        let now = now();
        let (here, active) = self.people.driver_here();
        let listening = self.people.driver_consents().listening;
        self.set_interviewee_here(here);
        if active {
            self.came = true;
            self.left_at = None;
        } else if !here && self.came && self.left_at.is_none() {
            self.left_at = Some(now);
        }
        let waiting = if active && !listening { "consent" } else { "" };
        self.attributes.insert("viva.waiting".into(), waiting.into());
        if active && listening {
            self.conversation.handle_present(now);
        } else {
            self.conversation.handle_absent(now);
        }
    }

    pub(super) async fn handle_heard(&mut self, ear: u32, event: SpeechEvent) {
        let Some(Ear { person, .. }) = self.ears.get(&ear) else { return };
        let now = now();
        let drives = self.people.drives(&person.identity);
        if self.over {
            // Nobody is answered any more: words are only kept.
        } else if drives {
            // The talk first: its answer must not wait for the record.
            self.detector.handle_speech(ear, &event, now);
            self.settle();
        } else {
            self.conversation.handle_other_voice(now);
        }
        match event {
            SpeechEvent::Partial { segment, text } => self.caption(ear, segment, &text, false).await,
            SpeechEvent::Final { segment, started, last_speech, transcript, failed } => {
                self.note_recognition(failed);
                if let (true, false, Some(provider)) = (drives, failed, self.setup.stt_name) {
                    let delay = now.saturating_duration_since(last_speech).as_secs_f64();
                    self.setup.metrics.stt_final_delay.with_label_values(&[provider]).observe(delay);
                }
                if !transcript.text.0.is_empty() {
                    self.keep_words(ear, started, last_speech, &transcript.text);
                    // The line is stored before anybody is told that these were the final words.
                    self.write_record().await;
                    self.caption(ear, segment, &transcript.text, true).await;
                }
            }
            SpeechEvent::Closed => {
                self.ears.remove(&ear);
                self.heard.remove(&ear);
            }
            SpeechEvent::Started { .. } | SpeechEvent::Ended { .. } => {}
        }
    }

    fn note_recognition(&mut self, failed: bool) {
        if self.setup.stt_name.is_some() && self.record.degraded != failed {
            self.record.degraded = failed;
            let recognition = if failed { "degraded" } else { "on" };
            self.attributes.insert("viva.recognition".into(), recognition.into());
        }
    }

    /// Adds what a person said to the transcript, if they consented to that.
    fn keep_words(&mut self, ear: u32, started: std::time::Instant, ended: std::time::Instant, text: &Personal) {
        let Some(ear) = self.ears.get(&ear) else { return };
        if self.people.consents(&ear.person.identity).keeping {
            self.record.add_words(&ear.person, started, ended, text);
        }
    }

    async fn caption(&self, ear: u32, segment: u64, text: &Personal, last: bool) {
        let Some(state) = self.ears.get(&ear) else { return };
        if text.0.is_empty() {
            return;
        }
        let segment = self.record.segment_id(&format!("{ear}-{segment}"));
        let (speaker, sender) = (&state.person.identity, self.setup.port.identity());
        let of = captions::Of { speaker, sender, track: &state.track, segment: &segment };
        self.send(captions::whole(&of, &text.0, last)).await;
    }
}
