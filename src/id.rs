//! Identifiers. All are cheap to clone and safe to log, but for [`Identity`], which integrators may fill
//! with an e-mail address: its `Debug` prints nothing.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn new(value: impl Into<Arc<str>>) -> Self {
                Self(value.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(value: &str) -> Self {
                Self(value.into())
            }
        }

        impl From<String> for $name {
            fn from(value: String) -> Self {
                Self(value.into())
            }
        }
    };
}

macro_rules! printable {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

id!(
    /// The name by which clients ask for a room; chosen by the integrator.
    RoomName
);
id!(
    /// One life of a room, `RM_…`.
    RoomSid
);
id!(
    /// One life of a participant in a room, `PA_…`; LiveKit clients check the prefix.
    ParticipantSid
);
id!(
    /// A published track, `TR_…`; LiveKit clients check the prefix.
    TrackSid
);
id!(
    /// A published data track, `DTR_…`; LiveKit clients check the prefix.
    DataTrackSid
);
id!(
    /// Who a participant is, from the token's `sub`. May be personal data: never logged.
    Identity
);
id!(
    /// An interview, a ULID.
    InterviewId
);
id!(
    /// What was told to webhooks once, `EV_…`: the same in every attempt.
    HookId
);
id!(
    /// A program that runs agents, while its socket stands, `AW_…`.
    AgentWorkerId
);
id!(
    /// That an agent was asked for in a room, `AD_…`.
    DispatchId
);
id!(
    /// One agent's work in a room, `AJ_…`.
    JobId
);
printable!(
    RoomName,
    RoomSid,
    ParticipantSid,
    TrackSid,
    DataTrackSid,
    InterviewId,
    HookId,
    AgentWorkerId,
    DispatchId,
    JobId
);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity(…)")
    }
}

/// Random part of a sid: 12 characters of 31 that cannot be confused, 59 bits.
fn random_suffix() -> String {
    use rand::Rng;
    const ALPHABET: &[u8] = b"23456789ABCDEFGHJKMNPQRSTUVWXYZ";
    let mut rng = rand::rng();
    (0..12).map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())] as char).collect()
}

impl RoomSid {
    pub fn random() -> Self {
        format!("RM_{}", random_suffix()).into()
    }
}

impl ParticipantSid {
    pub fn random() -> Self {
        format!("PA_{}", random_suffix()).into()
    }
}

impl TrackSid {
    pub fn random() -> Self {
        format!("TR_{}", random_suffix()).into()
    }
}

impl DataTrackSid {
    pub fn random() -> Self {
        format!("DTR_{}", random_suffix()).into()
    }
}

impl InterviewId {
    pub fn random() -> Self {
        ulid::Ulid::new().to_string().into()
    }
}

impl AgentWorkerId {
    pub fn random() -> Self {
        format!("AW_{}", random_suffix()).into()
    }
}

impl DispatchId {
    pub fn random() -> Self {
        format!("AD_{}", random_suffix()).into()
    }
}

impl JobId {
    pub fn random() -> Self {
        format!("AJ_{}", random_suffix()).into()
    }
}

impl HookId {
    /// In order of time, and unlike any other for as long as an integrator may keep it.
    pub fn random() -> Self {
        format!("EV_{}", ulid::Ulid::new()).into()
    }
}
