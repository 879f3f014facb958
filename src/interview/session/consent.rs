//! Consent: first it is stored, then it takes effect.

use super::{
    Session, now, people,
    record::{Write, in_time},
};
use crate::{
    id::Identity,
    interview::{port::RoomPort, wall_ms},
    model::{CONSENT_ATTRIBUTE, ConsentRecord, Purpose},
    rooms::Person,
};

/// How often one person's changes of mind are recorded. Beyond it a withdrawal still counts, a new grant does not.
const CHANGES_MAX: u32 = 200;

/// Why a decision does not count.
#[derive(Debug, thiserror::Error)]
pub enum ConsentError {
    #[error("the notice has changed since it was read: load the page anew, read it and decide again")]
    NoticeChanged,
    #[error("this decision was changed too often: start a new interview to give consent again")]
    TooOften,
    #[error("the decision could not be stored and does not count; try again")]
    NotStored,
}

impl<P: RoomPort> Session<P> {
    /// Records a decision and lets it take effect: the tap is open, or closed, when this returns.
    ///
    /// A grant counts once it is stored, and for the notice that this server gives now. A withdrawal counts at once,
    /// whatever becomes of its record, which is written as soon as the database answers.
    pub(super) async fn decide_consent(
        &mut self,
        identity: &Identity,
        purpose: Purpose,
        granted: bool,
        notice_version: &str,
        source: &str,
    ) -> Result<(), ConsentError> {
        if granted && notice_version != self.setup.notice_version {
            return Err(ConsentError::NoticeChanged);
        }
        if self.people.decision(identity, purpose) == Some(granted) {
            return Ok(());
        }
        let often = self.people.count_change(identity) > CHANGES_MAX;
        if granted && often {
            return Err(ConsentError::TooOften);
        }
        let record = ConsentRecord {
            interview: self.id().clone(),
            identity: identity.clone(),
            purpose,
            granted,
            notice_version: notice_version.to_owned(),
            source: source.to_owned(),
            at_ms: wall_ms(),
        };
        if granted {
            // After every withdrawal that still waits: the last record is what counts after a restart.
            let at = now();
            if !self.record.flush_now(&self.setup.store, at).await {
                return Err(ConsentError::NotStored);
            }
            in_time(self.setup.store.insert_consent(&record)).await.map_err(|error| {
                tracing::error!(interview = %self.id(), %error, "a consent cannot be stored: it does not count");
                ConsentError::NotStored
            })?;
            self.apply_consent(identity, purpose, granted).await;
        } else {
            self.apply_consent(identity, purpose, granted).await;
            self.record.write(Write::Consent(record));
            self.write_record().await;
        }
        let decision = if granted { "granted" } else { "declined" };
        self.setup.metrics.consents.with_label_values(&[purpose.as_str(), decision]).inc();
        tracing::info!(interview = %self.id(), purpose = purpose.as_str(), decision, source, "consent");
        Ok(())
    }

    async fn apply_consent(&mut self, identity: &Identity, purpose: Purpose, granted: bool) {
        self.people.set_consent(identity, purpose, granted);
        if purpose == Purpose::AiInterviewer {
            if !granted {
                self.forget(identity);
            } else if let Some((identity, name)) = self.met.take_if(|(met, _)| met == identity) {
                self.record.write(Write::Interviewee(identity, name));
            }
            self.allow_tap(identity, granted).await;
            self.update_presence();
        }
    }

    pub(super) async fn allow_tap(&self, identity: &Identity, allowed: bool) {
        if let Err(error) = self.setup.port.allow_tap(identity, allowed).await {
            tracing::warn!(interview = %self.id(), %error, allowed, "a tap could not be switched");
        }
    }

    /// Stops listening to a person at once: what is being recognised is dropped.
    fn forget(&mut self, identity: &Identity) {
        let theirs: Vec<u32> =
            self.ears.iter().filter(|(_, e)| e.person.identity == *identity).map(|(n, _)| *n).collect();
        for ear in theirs {
            self.ears.remove(&ear);
            self.heard.remove(&ear);
        }
        if self.people.drives(identity) {
            self.inbox.clear();
            self.detector.forget();
            self.conversation.forget();
        }
    }

    /// Takes up what a person who joins has decided before, in this interview or by their token.
    pub(super) async fn take_up_consents(&mut self, person: &Person) {
        let id = self.id().clone();
        let version = self.setup.notice_version.clone();
        let records = match in_time(self.setup.store.latest_consents(&id, &person.identity)).await {
            Ok(mut records) => {
                // What was granted after another notice was not granted for what this one says.
                records.retain(|r| !r.granted || r.notice_version == version);
                records
            }
            Err(error) => {
                // Without the record nothing is known to be allowed.
                tracing::error!(interview = %id, %error, "consents cannot be read: nobody new is listened to");
                return;
            }
        };
        self.people.load_consents(&person.identity, &records);
        if self.people.consents(&person.identity).listening {
            self.allow_tap(&person.identity, true).await;
        }
        let by_token = person.attributes.get(CONSENT_ATTRIBUTE).map(|a| people::token_purposes(a)).unwrap_or_default();
        for purpose in by_token {
            // The token speaks for the first join; a later decision is not undone by joining again.
            if records.iter().any(|r| r.purpose == purpose) {
                continue;
            }
            if let Err(error) = self.decide_consent(&person.identity, purpose, true, &version, "token").await {
                tracing::warn!(interview = %id, %error, "a consent by token does not count");
            }
        }
    }
}
