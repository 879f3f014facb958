//! Settings of the interviewer.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::auth::Secret;

/// How interviews are held.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// When a turn of the interviewee is over.
    pub endpointing: Endpointing,
    /// When the interviewee's voice stops the interviewer's.
    pub interruption: Interruption,
    /// What happens when nobody says anything.
    pub silence: Silence,
    /// Who words what the interviewer says.
    pub llm: LlmConfig,
    /// Longest interview, seconds; the interviewer then says goodbye.
    pub max_duration_secs: u64,
    /// How long the interviewer waits for the interviewee to come, seconds.
    pub no_show_secs: u64,
    /// How long an interviewee who left may come back and go on, seconds.
    pub return_grace_secs: u64,
    /// Folder of the interview plans, one YAML file each.
    pub plans_dir: PathBuf,
    /// Folder of the personas, one YAML file each.
    pub personas_dir: PathBuf,
    /// Whether anybody may start a practice interview from the page. `--dev` turns it on.
    pub public_practice: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpointing: Endpointing::default(),
            interruption: Interruption::default(),
            silence: Silence::default(),
            llm: LlmConfig::default(),
            max_duration_secs: 3600,
            no_show_secs: 1800,
            return_grace_secs: 60,
            plans_dir: "config/plans".into(),
            personas_dir: "config/personas".into(),
            public_practice: false,
        }
    }
}

/// The delays after the interviewee's last speech.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Endpointing {
    /// Silence that ends a turn whose words look finished, ms.
    pub min_delay_ms: u64,
    /// Silence that ends a turn of which only the voice is known (recognition is off or failed), ms: longer, since a
    /// pause to think cannot be told from an end.
    pub voice_only_delay_ms: u64,
    /// Silence that ends any turn, ms: also one that stops in mid-sentence or whose words are still awaited.
    pub max_delay_ms: u64,
}

impl Default for Endpointing {
    fn default() -> Self {
        Self { min_delay_ms: 500, voice_only_delay_ms: 1500, max_delay_ms: 3000 }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Interruption {
    /// Whether the interviewee may interrupt the interviewer by talking.
    pub enabled: bool,
    /// Voice that counts as an interruption, ms. Shorter sounds, as "mm-hm", do not stop the interviewer.
    pub min_speech_ms: u64,
}

impl Default for Interruption {
    fn default() -> Self {
        Self { enabled: true, min_speech_ms: 250 }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Silence {
    /// Silence after which the interviewer says, once a question, that there is time, seconds; 0 = never.
    pub nudge_after_secs: u64,
    /// Silence after that until the interviewer goes on to the next question, seconds; 0 = never.
    pub move_on_after_secs: u64,
}

impl Default for Silence {
    fn default() -> Self {
        Self { nudge_after_secs: 20, move_on_after_secs: 40 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LlmKind {
    /// No model: the plan's own words.
    #[default]
    Scripted,
    /// Any endpoint that speaks OpenAI's streaming chat completions.
    Openai,
}

/// The language model that words the interviewer's turns. What the next turn is, the plan decides, never the model.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LlmConfig {
    /// `scripted` or `openai`.
    pub provider: LlmKind,
    /// Base address, as `http://127.0.0.1:11434/v1`.
    pub url: String,
    /// Name of the model, as the endpoint knows it.
    pub model: String,
    /// Sent as a bearer token; empty = none.
    pub api_key: Secret,
    /// Longest wait for the first token, ms; the scripted words are spoken then.
    pub timeout_ms: u64,
    /// Longest time for the whole reply, ms.
    pub total_timeout_ms: u64,
    /// Longest reply, tokens.
    pub max_tokens: u32,
    /// Sampling temperature, 0 to 2.
    pub temperature: f32,
}

impl Default for LlmConfig {
    fn default() -> Self {
        Self {
            provider: LlmKind::Scripted,
            url: String::new(),
            model: String::new(),
            api_key: Secret::default(),
            timeout_ms: 2500,
            total_timeout_ms: 20_000,
            max_tokens: 200,
            temperature: 0.4,
        }
    }
}
