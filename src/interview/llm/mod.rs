//! Language models: one small trait, one file per provider.

pub mod openai;

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{LlmConfig, LlmKind};
use crate::{model::Personal, speech::ProviderError, telemetry::Metrics};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PromptRole {
    System,
    Interviewer,
    Interviewee,
}

#[derive(Clone, Debug)]
pub struct Prompt {
    pub messages: Vec<(PromptRole, Personal)>,
    pub max_tokens: u32,
    pub temperature: f32,
}

pub trait LlmProvider: Send + Sync {
    /// Short and bounded: it is a metric label.
    fn name(&self) -> &'static str;
    /// Streams the reply as pieces of text. Must not block. Dropping the receiver cancels the request. The channel ends
    /// after the last piece, or after an error.
    fn reply(&self, prompt: Prompt) -> mpsc::Receiver<Result<Personal, ProviderError>>;
}

/// The provider that the configuration asks for; `None`: the scripted interviewer.
pub fn from_config(config: &LlmConfig, metrics: &Metrics) -> Result<Option<Arc<dyn LlmProvider>>, String> {
    Ok(match config.provider {
        LlmKind::Scripted => None,
        LlmKind::Openai => Some(Arc::new(openai::OpenAi::new(config, metrics)?)),
    })
}
