//! Consent: first it is stored, then it takes effect.

use super::{Session, people};
use crate::{
    id::Identity,
    interview::{port::RoomPort, wall_ms},
    model::{CONSENT_ATTRIBUTE, ConsentRecord, Purpose},
    rooms::Person,
    store::StoreError,
};

impl<P: RoomPort> Session<P> {
    /// Records a decision and lets it take effect: the tap is open, or closed, when this returns.
    pub(super) async fn decide_consent(
        &mut self,
        identity: &Identity,
        purpose: Purpose,
        granted: bool,
        notice_version: &str,
        source: &str,
    ) -> Result<(), StoreError> {
        // A withdrawal counts from now on, whatever becomes of its record.
        if !granted {
            self.apply_consent(identity, purpose, granted).await;
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
        self.setup.store.insert_consent(&record).await?;
        let decision = if granted { "granted" } else { "declined" };
        self.setup.metrics.consents.with_label_values(&[purpose.as_str(), decision]).inc();
        tracing::info!(interview = %self.id(), purpose = purpose.as_str(), decision, source, "consent");
        if granted {
            self.apply_consent(identity, purpose, granted).await;
        }
        Ok(())
    }

    async fn apply_consent(&mut self, identity: &Identity, purpose: Purpose, granted: bool) {
        self.people.set_consent(identity, purpose, granted);
        if purpose == Purpose::AiInterviewer {
            if !granted {
                self.forget(identity);
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
            self.detector.forget();
        }
    }

    /// Takes up what a person who joins has decided before, in this interview or by their token.
    pub(super) async fn take_up_consents(&mut self, person: &Person) {
        let id = self.id().clone();
        let records = match self.setup.store.latest_consents(&id, &person.identity).await {
            Ok(records) => records,
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
        let version = self.setup.notice_version.clone();
        for purpose in by_token {
            // The token speaks for the first join; a later decision is not undone by joining again.
            if records.iter().any(|r| r.purpose == purpose) {
                continue;
            }
            if let Err(error) = self.decide_consent(&person.identity, purpose, true, &version, "token").await {
                tracing::error!(interview = %id, %error, "a consent cannot be stored: it does not count");
            }
        }
    }
}
