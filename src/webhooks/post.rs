//! One attempt: a signed request, and what its answer means.

use std::{future::Future, sync::Arc, time::Duration};

use reqwest::{Client, StatusCode, Url, header, redirect};

use super::{Config, Hook, retry::Attempt};
use crate::auth::{ApiKeys, Claims};

/// What LiveKit's receivers expect.
const CONTENT_TYPE: &str = "application/webhook+json";
/// How long a signature is good. Each attempt has its own.
const SIGNATURE_TTL: Duration = Duration::from_secs(5 * 60);

/// Makes one attempt to tell the address of this number.
pub(super) trait Post: Send + Sync + 'static {
    fn post(&self, address: usize, hook: &Hook) -> impl Future<Output = Attempt> + Send;
}

pub(super) struct HttpPost {
    client: Client,
    urls: Vec<Url>,
    keys: Arc<ApiKeys>,
    /// Which of the keys signs; `None`: the first.
    key: Option<String>,
}

impl HttpPost {
    pub fn new(config: &Config, keys: Arc<ApiKeys>) -> Result<Self, String> {
        let client = Client::builder()
            .timeout(Duration::from_millis(config.timeout_ms))
            // A receiver that moved is a change of the configuration: a redirect could lead anywhere.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("viva/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("the HTTP client of webhooks cannot be set up: {error}"))?;
        let urls =
            config.urls.iter().map(|address| address.url().map_err(|mistake| format!("webhooks.urls {mistake}")));
        let key = Some(config.api_key.clone()).filter(|key| !key.is_empty());
        Ok(Self { client, urls: urls.collect::<Result<_, _>>()?, keys, key })
    }
}

impl Post for HttpPost {
    async fn post(&self, address: usize, hook: &Hook) -> Attempt {
        let claims = Claims { sha256: hook.sha256.clone(), ..Claims::default() };
        let token = match self.keys.mint_by(self.key.as_deref(), claims, SIGNATURE_TTL) {
            Ok(token) => token,
            Err(error) => return Attempt::Refused { reason: error.to_string() },
        };
        let request = self
            .client
            .post(self.urls[address].clone())
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .header(header::AUTHORIZATION, token)
            .body(hook.body.clone());
        match request.send().await {
            Ok(response) => answered(response.status(), response.headers()),
            // In our own words: those of the error may hold the address.
            Err(error) => Attempt::Failed { reason: cause(&error).to_owned(), after: None },
        }
    }
}

fn answered(status: StatusCode, headers: &header::HeaderMap) -> Attempt {
    let reason = || format!("status {}", status.as_u16());
    if status.is_success() {
        return Attempt::Delivered;
    }
    if status != StatusCode::TOO_MANY_REQUESTS && !status.is_server_error() {
        return Attempt::Refused { reason: reason() };
    }
    // Its other form, a date, is rare; the usual pause stands in for it.
    let after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    Attempt::Failed { reason: reason(), after: after.map(Duration::from_secs) }
}

fn cause(error: &reqwest::Error) -> &'static str {
    match error {
        e if e.is_timeout() => "no answer in time",
        e if e.is_connect() => "no connection",
        _ => "the connection broke off",
    }
}
