//! Any endpoint that speaks OpenAI's streaming chat completions.

use std::{sync::Arc, time::Duration};

use async_openai::{
    Client,
    config::OpenAIConfig,
    error::OpenAIError,
    middleware::ReqwestService,
    types::chat::{
        ChatCompletionRequestAssistantMessage, ChatCompletionRequestMessage, ChatCompletionRequestSystemMessage,
        ChatCompletionRequestUserMessage, CreateChatCompletionRequest,
    },
};
use futures::StreamExt;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{LlmProvider, Prompt, PromptRole};
use crate::{
    interview::LlmConfig,
    model::Personal,
    speech::{ProviderError, ProviderErrorKind},
};

const NAME: &str = "openai";
/// Pieces that wait to be spoken. Full: the stream is read later, and the endpoint waits.
const PIECES_MAX: usize = 64;
/// Longest wait for a connection: a server that does not answer at all is found out before the first token is due.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest reply taken, characters; a model that does not stop is stopped.
const REPLY_CHARS_MAX: usize = 4000;

pub struct OpenAi {
    client: Arc<Client<OpenAIConfig>>,
    model: String,
    first_token: Duration,
    total: Duration,
}

impl OpenAi {
    /// Checks the settings; connects to nothing yet.
    pub fn new(config: &LlmConfig) -> Result<Self, String> {
        if reqwest::Url::parse(&config.url).map_or(true, |u| !matches!(u.scheme(), "http" | "https")) {
            return Err(format!(
                "interview.llm.url `{}` is not usable: write the base address, as http://127.0.0.1:11434/v1",
                config.url
            ));
        }
        if config.model.is_empty() {
            return Err("interview.llm.model is empty: write the model's name, as the endpoint knows it".into());
        }
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|e| format!("the HTTP client of interview.llm cannot be made: {e}"))?;
        let openai =
            OpenAIConfig::new().with_api_base(config.url.trim_end_matches('/')).with_api_key(config.api_key.expose());
        Ok(Self {
            // The plain service, without the crate's retries: the scripted words are ready at once, a second try is not.
            client: Arc::new(Client::with_config(openai).with_http_service(ReqwestService::new(http))),
            model: config.model.clone(),
            first_token: Duration::from_millis(config.timeout_ms),
            total: Duration::from_millis(config.total_timeout_ms),
        })
    }
}

impl LlmProvider for OpenAi {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reply(&self, prompt: Prompt) -> mpsc::Receiver<Result<Personal, ProviderError>> {
        let (tx, rx) = mpsc::channel(PIECES_MAX);
        let client = self.client.clone();
        let request = request(&self.model, prompt);
        let started = Instant::now();
        let (first_token, total) = (started + self.first_token, started + self.total);
        tokio::spawn(async move {
            let cancelled = tx.clone();
            tokio::select! {
                // Dropping the request closes its connection, which stops the endpoint.
                () = cancelled.closed() => {}
                result = stream(&client, request, first_token.min(total), total, &tx) => {
                    if let Err(error) = result {
                        let _ = tx.send(Err(error)).await;
                    }
                }
            }
        });
        rx
    }
}

#[allow(deprecated)] // `max_tokens`: what endpoints other than OpenAI's own understand.
fn request(model: &str, prompt: Prompt) -> CreateChatCompletionRequest {
    let messages = prompt
        .messages
        .into_iter()
        .map(|(role, text)| match role {
            PromptRole::System => {
                ChatCompletionRequestMessage::System(ChatCompletionRequestSystemMessage::from(text.0.as_str()))
            }
            PromptRole::Interviewer => {
                ChatCompletionRequestMessage::Assistant(ChatCompletionRequestAssistantMessage::from(text.0.as_str()))
            }
            PromptRole::Interviewee => {
                ChatCompletionRequestMessage::User(ChatCompletionRequestUserMessage::from(text.0.as_str()))
            }
        })
        .collect();
    CreateChatCompletionRequest {
        model: model.to_owned(),
        messages,
        max_tokens: Some(prompt.max_tokens),
        temperature: Some(prompt.temperature),
        stream: Some(true),
        ..CreateChatCompletionRequest::default()
    }
}

async fn stream(
    client: &Client<OpenAIConfig>,
    request: CreateChatCompletionRequest,
    first_token: Instant,
    total: Instant,
    tx: &mpsc::Sender<Result<Personal, ProviderError>>,
) -> Result<(), ProviderError> {
    let late = |what: &str| error(ProviderErrorKind::Timeout, what);
    let mut stream = timeout_at(first_token, client.chat().create_stream(request))
        .await
        .map_err(|_| late("no answer in time"))?
        .map_err(|e| classify(&e))?;
    let mut chars = 0;
    loop {
        let deadline = if chars == 0 { first_token } else { total };
        let next = timeout_at(deadline, stream.next())
            .await
            .map_err(|_| late(if chars == 0 { "no first token in time" } else { "the reply did not end in time" }))?;
        let Some(chunk) = next else {
            // The stream's own end mark is not told apart from a cut by the client crate; a finish reason is.
            return Err(error(ProviderErrorKind::Unavailable, "the reply broke off"));
        };
        let chunk = chunk.map_err(|e| classify(&e))?;
        for choice in chunk.choices {
            if let Some(piece) = choice.delta.content.filter(|p| !p.is_empty()) {
                chars += piece.chars().count();
                if tx.send(Ok(Personal(piece))).await.is_err() {
                    return Ok(());
                }
            }
            if choice.finish_reason.is_some() || chars >= REPLY_CHARS_MAX {
                return if chars == 0 {
                    Err(error(ProviderErrorKind::Malformed, "the reply is empty"))
                } else {
                    Ok(())
                };
            }
        }
    }
}

fn error(kind: ProviderErrorKind, message: &str) -> ProviderError {
    ProviderError { provider: NAME, kind, message: message.to_owned() }
}

/// Only the kind and the status go on: messages of endpoints may quote the prompt.
fn classify(e: &OpenAIError) -> ProviderError {
    match e {
        OpenAIError::ApiError(api) => {
            let status = api.status_code.as_u16();
            let kind = match status {
                408 | 429 | 500..=599 => ProviderErrorKind::Unavailable,
                _ => ProviderErrorKind::Rejected,
            };
            error(kind, &format!("status {status}"))
        }
        OpenAIError::Reqwest(e) if e.is_timeout() => error(ProviderErrorKind::Timeout, "connecting took too long"),
        OpenAIError::Reqwest(_) => error(ProviderErrorKind::Unavailable, "the connection failed"),
        OpenAIError::StreamError(_) => error(ProviderErrorKind::Unavailable, "the stream broke"),
        OpenAIError::JSONDeserialize(..) => error(ProviderErrorKind::Malformed, "a chunk is not what it should be"),
        _ => error(ProviderErrorKind::Malformed, "the answer is not what it should be"),
    }
}
