//! Who is in the room, and what they consented to.

use std::{collections::HashMap, str::FromStr};

use crate::{
    id::{Identity, ParticipantSid},
    model::{ConsentRecord, Personal, Purpose, ROLE_ATTRIBUTE, Role},
    rooms,
};

/// A person's consents, as they stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Consents {
    /// The AI may listen.
    pub listening: bool,
    /// What they say may be kept.
    pub keeping: bool,
}

impl Consents {
    pub fn set(&mut self, purpose: Purpose, granted: bool) {
        match purpose {
            Purpose::AiInterviewer => self.listening = granted,
            Purpose::Transcription => self.keeping = granted,
        }
    }
}

#[derive(Clone)]
pub(super) struct Person {
    pub identity: Identity,
    pub name: Personal,
    pub role: Role,
    pub active: bool,
}

pub(super) struct People {
    /// The identity that the interview was made for.
    interviewee: Identity,
    /// Whose speech drives the talk; `None` until an interviewee comes.
    driver: Option<Identity>,
    present: HashMap<ParticipantSid, Person>,
    /// Roles as they were at the first join: a person may change their own attributes afterwards.
    roles: HashMap<Identity, Role>,
    consents: HashMap<Identity, Consents>,
    /// Decisions on record, the latest of each purpose.
    decided: HashMap<(Identity, Purpose), bool>,
    /// How often a person has changed their mind.
    changes: HashMap<Identity, u32>,
}

impl People {
    pub fn new(interviewee: Identity) -> Self {
        Self {
            interviewee,
            driver: None,
            present: HashMap::new(),
            roles: HashMap::new(),
            consents: HashMap::new(),
            decided: HashMap::new(),
            changes: HashMap::new(),
        }
    }

    /// A person joined. Their role is the token's; without one, it is by whom the interview was made for.
    pub fn join(&mut self, person: &rooms::Person) {
        let role = *self.roles.entry(person.identity.clone()).or_insert_with(|| {
            match person.attributes.get(ROLE_ATTRIBUTE).map(String::as_str) {
                Some("interviewee") => Role::Interviewee,
                Some(_) => Role::Interviewer,
                None if person.identity == self.interviewee => Role::Interviewee,
                None => Role::Interviewer,
            }
        });
        // The first interviewee holds the floor, and keeps it while they are there.
        let taken = self.driver.as_ref().is_some_and(|d| *d == self.interviewee || self.is_here(d));
        if role == Role::Interviewee && (person.identity == self.interviewee || !taken) {
            self.driver = Some(person.identity.clone());
        }
        let name = if person.name.is_empty() { "Guest".into() } else { person.name.as_str().into() };
        self.present
            .insert(person.sid.clone(), Person { identity: person.identity.clone(), name, role, active: false });
    }

    pub fn leave(&mut self, sid: &ParticipantSid) {
        self.present.remove(sid);
    }

    pub fn activate(&mut self, sid: &ParticipantSid) {
        if let Some(person) = self.present.get_mut(sid) {
            person.active = true;
        }
    }

    pub fn rename(&mut self, sid: &ParticipantSid, name: &str) {
        if let Some(person) = self.present.get_mut(sid).filter(|_| !name.is_empty()) {
            person.name = name.into();
        }
    }

    pub fn get(&self, sid: &ParticipantSid) -> Option<&Person> {
        self.present.get(sid)
    }

    pub fn drives(&self, identity: &Identity) -> bool {
        self.driver.as_ref() == Some(identity)
    }

    pub fn is_here(&self, identity: &Identity) -> bool {
        self.present.values().any(|p| p.identity == *identity)
    }

    /// Whether the interviewee is in the room, and whether media flows.
    pub fn driver_here(&self) -> (bool, bool) {
        let mut theirs = self.present.values().filter(|p| Some(&p.identity) == self.driver.as_ref()).peekable();
        (theirs.peek().is_some(), theirs.any(|p| p.active))
    }

    pub fn driver_consents(&self) -> Consents {
        self.driver.as_ref().map(|d| self.consents(d)).unwrap_or_default()
    }

    pub fn consents(&self, identity: &Identity) -> Consents {
        self.consents.get(identity).copied().unwrap_or_default()
    }

    pub fn set_consent(&mut self, identity: &Identity, purpose: Purpose, granted: bool) {
        self.consents.entry(identity.clone()).or_default().set(purpose, granted);
        self.decided.insert((identity.clone(), purpose), granted);
    }

    /// What this person has decided last, if anything.
    pub fn decision(&self, identity: &Identity, purpose: Purpose) -> Option<bool> {
        self.decided.get(&(identity.clone(), purpose)).copied()
    }

    /// Counts a change of mind, and says the how manyth it is.
    pub fn count_change(&mut self, identity: &Identity) -> u32 {
        let changes = self.changes.entry(identity.clone()).or_default();
        *changes += 1;
        *changes
    }

    pub fn load_consents(&mut self, identity: &Identity, records: &[ConsentRecord]) {
        for record in records {
            self.set_consent(identity, record.purpose, record.granted);
        }
    }

    /// Everybody who may be listened to.
    pub fn listened_to(&self) -> Vec<Identity> {
        self.consents.iter().filter(|(_, c)| c.listening).map(|(i, _)| i.clone()).collect()
    }
}

/// Purposes in the token attribute; unknown ones are left out.
pub(super) fn token_purposes(attribute: &str) -> Vec<Purpose> {
    attribute.split(',').filter_map(|p| Purpose::from_str(p.trim()).ok()).collect()
}
