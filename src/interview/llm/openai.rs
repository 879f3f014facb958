//! Any endpoint that speaks OpenAI's streaming chat completions.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_openai::{
    Client,
    config::OpenAIConfig,
    error::OpenAIError,
    middleware::ReqwestService,
    types::chat::{
        ChatCompletionRequestAssistantMessage, ChatCompletionRequestMessage, ChatCompletionRequestSystemMessage,
        ChatCompletionRequestUserMessage, ChatCompletionResponseStream, ChatCompletionStreamOptions, CompletionUsage,
        CreateChatCompletionRequest, FinishReason,
    },
};
use futures::StreamExt;
use prometheus::IntCounter;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use super::{LlmProvider, Prompt, PromptRole};
use crate::{
    interview::LlmConfig,
    model::Personal,
    speech::{ProviderError, ProviderErrorKind},
    telemetry::Metrics,
};

const NAME: &str = "openai";
/// Longest wait for a connection: a server that does not answer at all is found out before the first token is due.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest reply taken, characters; a model that does not stop is stopped. The client crate reads ahead without a bound
/// of its own, so the stream is read as it comes, and dropped at this length.
const REPLY_CHARS_MAX: usize = 4000;
/// Pieces that wait to be spoken, one of them the error. Never full: no piece is empty.
const PIECES_MAX: usize = REPLY_CHARS_MAX + 1;
/// How long the count of tokens may come after the reply's end. Nobody waits for it.
const USAGE_WITHIN: Duration = Duration::from_secs(2);

pub struct OpenAi {
    client: Arc<Client<OpenAIConfig>>,
    model: String,
    first_token: Duration,
    total: Duration,
    tokens: Tokens,
    /// The endpoint may not know the wish for a count of tokens: it has refused a request that had it.
    uncounted: Arc<AtomicBool>,
}

/// What the endpoint says that it read and wrote.
#[derive(Clone)]
struct Tokens {
    prompt: IntCounter,
    completion: IntCounter,
}

impl OpenAi {
    /// Checks the settings; connects to nothing yet.
    pub fn new(config: &LlmConfig, metrics: &Metrics) -> Result<Self, String> {
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
        let tokens = |kind| metrics.llm_tokens.with_label_values(&[NAME, config.model.as_str(), kind]);
        Ok(Self {
            // The plain service, without the crate's retries: the scripted words are ready at once, a second try is not.
            client: Arc::new(Client::with_config(openai).with_http_service(ReqwestService::new(http))),
            model: config.model.clone(),
            first_token: Duration::from_millis(config.timeout_ms),
            total: Duration::from_millis(config.total_timeout_ms),
            tokens: Tokens { prompt: tokens("prompt"), completion: tokens("completion") },
            uncounted: Arc::default(),
        })
    }
}

impl LlmProvider for OpenAi {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reply(&self, prompt: Prompt) -> mpsc::Receiver<Result<Personal, ProviderError>> {
        let (tx, rx) = mpsc::channel(PIECES_MAX);
        let (client, tokens, uncounted) = (self.client.clone(), self.tokens.clone(), self.uncounted.clone());
        let request = request(&self.model, prompt, !uncounted.load(Ordering::Relaxed));
        let started = Instant::now();
        let (first_token, total) = (started + self.first_token, started + self.total);
        tokio::spawn(async move {
            let ended = tokio::select! {
                // Dropping the request closes its connection, which stops the endpoint.
                () = tx.closed() => return,
                ended = stream(&client, request, first_token.min(total), total, &tx) => ended,
            };
            let rest = match ended {
                Ok(rest) => rest,
                Err(Broken { error, rest, unfit }) => {
                    if unfit {
                        uncounted.store(true, Ordering::Relaxed);
                    }
                    // A reader that has gone by now has no use for it.
                    let _ = tx.try_send(Err(error));
                    rest
                }
            };
            drop(tx);
            if let Some(rest) = rest
                && let Some(usage) = rest.usage().await
            {
                tokens.prompt.inc_by(usage.prompt_tokens.into());
                tokens.completion.inc_by(usage.completion_tokens.into());
            }
        });
        rx
    }
}

#[allow(deprecated)] // `max_tokens`: what endpoints other than OpenAI's own understand.
fn request(model: &str, prompt: Prompt, counted: bool) -> CreateChatCompletionRequest {
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
        stream_options: counted
            .then_some(ChatCompletionStreamOptions { include_usage: Some(true), include_obfuscation: None }),
        ..CreateChatCompletionRequest::default()
    }
}

/// What is left of a stream after the reply's end.
struct Rest {
    stream: ChatCompletionResponseStream,
    usage: Option<CompletionUsage>,
}

impl Rest {
    /// The count of tokens: some endpoints send it with the end, others after it, others not at all.
    async fn usage(mut self) -> Option<CompletionUsage> {
        let until = Instant::now() + USAGE_WITHIN;
        while let Ok(Some(Ok(chunk))) = timeout_at(until, self.stream.next()).await {
            self.usage = chunk.usage.or(self.usage);
        }
        self.usage
    }
}

/// A reply that cannot be used as it is.
struct Broken {
    error: ProviderError,
    /// Where its end came all the same.
    rest: Option<Rest>,
    /// The endpoint did not understand the request.
    unfit: bool,
}

impl From<ProviderError> for Broken {
    fn from(error: ProviderError) -> Self {
        Self { error, rest: None, unfit: false }
    }
}

/// Passes the reply on. Done only where the model says that it has said everything: a question that was cut off must be
/// completed by others. Gives the stream back, since the count of tokens comes after the end.
async fn stream(
    client: &Client<OpenAIConfig>,
    request: CreateChatCompletionRequest,
    first_token: Instant,
    total: Instant,
    tx: &mpsc::Sender<Result<Personal, ProviderError>>,
) -> Result<Option<Rest>, Broken> {
    let late = |what: &str| error(ProviderErrorKind::Timeout, what);
    let mut stream = timeout_at(first_token, client.chat().create_stream(request))
        .await
        .map_err(|_| late("no answer in time"))?
        .map_err(|e| Broken { unfit: is_unfit(&e), ..classify(&e).into() })?;
    let mut chars = 0;
    loop {
        let deadline = if chars == 0 { first_token } else { total };
        let next = timeout_at(deadline, stream.next())
            .await
            .map_err(|_| late(if chars == 0 { "no first token in time" } else { "the reply did not end in time" }))?;
        let Some(chunk) = next else {
            // The stream's own end mark is not told apart from a cut by the client crate; a finish reason is.
            return Err(error(ProviderErrorKind::Unavailable, "the reply broke off").into());
        };
        let chunk = chunk.map_err(|e| classify(&e))?;
        for choice in chunk.choices {
            if let Some(piece) = choice.delta.content.filter(|p| !p.is_empty()) {
                chars += piece.chars().count();
                if chars > REPLY_CHARS_MAX {
                    return Err(error(ProviderErrorKind::Malformed, "the reply does not end").into());
                }
                if tx.send(Ok(Personal(piece))).await.is_err() {
                    return Ok(None);
                }
            }
            if let Some(reason) = choice.finish_reason {
                let rest = Some(Rest { stream, usage: chunk.usage });
                return match unfinished(reason, chars) {
                    None => Ok(rest),
                    Some(error) => Err(Broken { error, rest, unfit: false }),
                };
            }
        }
    }
}

/// Why a reply of so many characters that ended for this reason is not whole.
fn unfinished(reason: FinishReason, chars: usize) -> Option<ProviderError> {
    let (kind, why) = match reason {
        FinishReason::Stop if chars > 0 => return None,
        FinishReason::Stop => (ProviderErrorKind::Malformed, "the reply is empty"),
        FinishReason::Length => (ProviderErrorKind::Malformed, "the reply was cut off: see interview.llm.max_tokens"),
        FinishReason::ContentFilter => (ProviderErrorKind::Rejected, "the endpoint's filter cut the reply off"),
        FinishReason::ToolCalls | FinishReason::FunctionCall => {
            (ProviderErrorKind::Malformed, "the model calls a tool, and there is none")
        }
    };
    Some(error(kind, why))
}

fn error(kind: ProviderErrorKind, message: &str) -> ProviderError {
    ProviderError { provider: NAME, kind, message: message.to_owned() }
}

fn is_unfit(e: &OpenAIError) -> bool {
    matches!(e, OpenAIError::ApiError(api) if matches!(api.status_code.as_u16(), 400 | 422))
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
