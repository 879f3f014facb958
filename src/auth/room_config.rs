//! The room that a token makes where there is none yet: LiveKit's claim `roomConfig`.

use std::{collections::HashMap, fmt};

use serde::{Deserialize, Deserializer, Serialize};

/// Agents that one configuration may send into a room.
pub const ROOM_AGENTS_MAX: usize = 16;
/// Longest name of an agent, in bytes.
const AGENT_NAME_BYTES_MAX: usize = 256;
/// Longest metadata of a dispatch with its attributes, in bytes.
const AGENT_METADATA_BYTES_MAX: usize = 64 * 1024;

/// What a room is made with. Zero and empty mean: as the server's configuration says. Fields of LiveKit's
/// `RoomConfiguration` that are not here are ignored. `Debug` shows no texts.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RoomConfig {
    /// The configuration's own name; not the room's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Seconds.
    #[serde(deserialize_with = "number", skip_serializing_if = "is_zero")]
    pub empty_timeout: u32,
    /// Seconds.
    #[serde(deserialize_with = "number", skip_serializing_if = "is_zero")]
    pub departure_timeout: u32,
    #[serde(deserialize_with = "number", skip_serializing_if = "is_zero")]
    pub max_participants: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<RoomAgent>,
}

/// An agent that is sent into a room: by a token, with the making of the room, or by a dispatch of its own.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RoomAgent {
    /// Empty: agents without a name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub agent_name: String,
    /// For the agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// For the agent, beside the metadata.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub attributes: HashMap<String, String>,
}

impl fmt::Debug for RoomConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomConfig").field("agents", &self.agents).finish_non_exhaustive()
    }
}

impl fmt::Debug for RoomAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoomAgent").field("metadata_bytes", &self.metadata.len()).finish_non_exhaustive()
    }
}

impl RoomAgent {
    /// Whether it is within bounds; the text says what is not.
    pub fn check(&self) -> Result<(), &'static str> {
        let attributes: usize = self.attributes.iter().map(|(key, value)| key.len() + value.len()).sum();
        if self.agent_name.len() > AGENT_NAME_BYTES_MAX {
            return Err("the agent's name is longer than 256 bytes");
        }
        if self.metadata.len() + attributes > AGENT_METADATA_BYTES_MAX {
            return Err("an agent's metadata and attributes may have 64 KiB");
        }
        Ok(())
    }
}

/// Whether these agents may be sent into one room; the text says why not.
pub fn check_agents(agents: &[RoomAgent]) -> Result<(), &'static str> {
    if agents.len() > ROOM_AGENTS_MAX {
        return Err("a room may be made with 16 agents");
    }
    agents.iter().try_for_each(RoomAgent::check)
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// Proto3's JSON form lets numbers be text.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Number(u32),
        Text(String),
    }
    match Number::deserialize(deserializer)? {
        Number::Number(number) => Ok(number),
        Number::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_read_as_livekits_sdks_write_it() {
        let config: RoomConfig = serde_json::from_str(
            r#"{"name": "big", "emptyTimeout": 10, "departureTimeout": "20", "maxParticipants": 3, "metadata": "m",
                "egress": {"room": {}}, "minPlayoutDelay": 5, "syncStreams": true, "tags": {"a": "b"},
                "agents": [{"agentName": "viva-interviewer", "metadata": "{}", "restartPolicy": "JRP_NEVER"}, {}]}"#,
        )
        .unwrap();
        assert_eq!((config.empty_timeout, config.departure_timeout, config.max_participants), (10, 20, 3));
        assert_eq!(config.agents.len(), 2);
        assert_eq!(
            (config.agents[0].agent_name.as_str(), config.agents[0].metadata.as_str()),
            ("viva-interviewer", "{}")
        );
        assert_eq!(config.agents[1], RoomAgent::default());
        let again: RoomConfig = serde_json::from_str(&serde_json::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn what_is_no_number_and_what_is_too_large_is_refused() {
        for text in [r#"{"emptyTimeout": -1}"#, r#"{"emptyTimeout": "soon"}"#, r#"{"maxParticipants": 4294967296}"#] {
            assert!(serde_json::from_str::<RoomConfig>(text).is_err(), "{text}");
        }
        let agent = |name: usize, metadata: usize| RoomAgent {
            agent_name: "n".repeat(name),
            metadata: "m".repeat(metadata),
            ..RoomAgent::default()
        };
        assert!(check_agents(&vec![agent(256, 64 * 1024); ROOM_AGENTS_MAX]).is_ok());
        assert!(check_agents(&vec![agent(1, 1); ROOM_AGENTS_MAX + 1]).is_err());
        assert!(check_agents(&[agent(257, 0)]).is_err());
        assert!(check_agents(&[agent(1, 64 * 1024 + 1)]).is_err());
    }

    #[test]
    fn debug_output_shows_no_texts() {
        let agent = RoomAgent { metadata: "born in 1815".into(), agent_name: "grace".into(), ..RoomAgent::default() };
        let config = RoomConfig { metadata: "born in 1815".into(), agents: vec![agent], ..RoomConfig::default() };
        let shown = format!("{config:?}");
        assert!(!shown.contains("1815") && !shown.contains("grace"), "{shown}");
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_panics(text in ".{0,200}") {
            let _ = serde_json::from_str::<RoomConfig>(&text);
        }
    }
}
