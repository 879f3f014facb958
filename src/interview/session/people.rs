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
    /// The identity that the interview was made for, or the first person who came where it was made for nobody.
    interviewee: Option<Identity>,
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
    /// `interviewee`: empty where it will be whoever comes.
    pub fn new(interviewee: Identity) -> Self {
        Self {
            interviewee: Some(interviewee).filter(|identity| !identity.as_str().is_empty()),
            driver: None,
            present: HashMap::new(),
            roles: HashMap::new(),
            consents: HashMap::new(),
            decided: HashMap::new(),
            changes: HashMap::new(),
        }
    }

    /// A person joined. Their role is the token's; without one, it is by whom the interview was made for. True where the
    /// interview had nobody, and now has them.
    pub fn join(&mut self, person: &rooms::Person) -> bool {
        let found = self.interviewee.is_some();
        let role = *self.roles.entry(person.identity.clone()).or_insert_with(|| {
            match person.attributes.get(ROLE_ATTRIBUTE).map(String::as_str) {
                Some("interviewee") => Role::Interviewee,
                Some(_) => Role::Interviewer,
                None if self.interviewee.as_ref() == Some(&person.identity) => Role::Interviewee,
                None if self.interviewee.is_none() && person.human => Role::Interviewee,
                None => Role::Interviewer,
            }
        });
        // The first interviewee holds the floor, and keeps it while they are there.
        if role == Role::Interviewee {
            self.interviewee.get_or_insert_with(|| person.identity.clone());
        }
        let meant = |identity: &Identity| self.interviewee.as_ref() == Some(identity);
        let taken = self.driver.as_ref().is_some_and(|d| meant(d) || self.is_here(d));
        if role == Role::Interviewee && (meant(&person.identity) || !taken) {
            self.driver = Some(person.identity.clone());
        }
        let name = if person.name.is_empty() { "Guest".into() } else { person.name.as_str().into() };
        self.present
            .insert(person.sid.clone(), Person { identity: person.identity.clone(), name, role, active: false });
        !found && self.interviewee.is_some()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn person(identity: &str, role: Option<&str>, human: bool) -> rooms::Person {
        let attributes = role.map(|role| (ROLE_ATTRIBUTE.to_owned(), role.to_owned())).into_iter().collect();
        let (sid, identity) = (format!("PA_{identity}").as_str().into(), identity.into());
        rooms::Person { sid, identity, name: String::new(), attributes, human }
    }

    #[test]
    fn an_interview_that_was_made_for_nobody_is_for_the_first_person_without_another_role() {
        let mut people = People::new("".into());
        for (identity, role, human, found) in [
            ("recorder", None, false, false),
            ("host", Some("interviewer"), true, false),
            ("sam", None, true, true),
            ("eve", None, true, false),
            ("mallory", Some("interviewee"), true, false),
        ] {
            assert_eq!(people.join(&person(identity, role, human)), found, "{identity}");
        }
        assert!(people.drives(&"sam".into()));
        people.leave(&"PA_sam".into());
        people.join(&person("trent", Some("interviewee"), true));
        assert!(people.drives(&"sam".into()), "it is theirs, also while they are away");

        // After a restart it is known whose it is.
        let mut people = People::new("sam".into());
        assert!(!people.join(&person("eve", None, true)) && !people.drives(&"eve".into()));
        assert!(!people.join(&person("sam", None, true)) && people.drives(&"sam".into()));
    }
}
