//! Access tokens in LiveKit's form: a JWT signed by HS256 with an API key's secret.
//!
//! Invariant: whatever [`ApiKeys::verify`] returns was signed by a secret of ours, with HS256 and nothing else, and is
//! within its time.

mod room_config;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use self::room_config::{ROOM_AGENTS_MAX, RoomAgent, RoomConfig, check_agents};
use crate::id::{Identity, RoomName};

/// How far our clock and the minting clock may differ, in seconds. LiveKit allows one minute.
const LEEWAY_SECS: u64 = 60;
/// Longest token that is looked at, in bytes. Attributes and metadata are inside; URLs above 64 KiB are refused anyway.
const TOKEN_BYTES_MAX: usize = 48 * 1024;
/// What a refreshed token is good for at least: a client reconnects with the newest one, sent every five minutes.
pub const REFRESH_TTL: Duration = Duration::from_secs(10 * 60);
/// What a token is good for where its maker does not say.
pub const DEFAULT_TTL: Duration = Duration::from_secs(6 * 60 * 60);

/// A password or key. `Debug` and `Serialize` print `***`, so that neither a log nor a printed configuration shows it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The value itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(if self.is_empty() { "" } else { "***" })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

/// Who may mint tokens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// API keys and their secrets. The first in alphabetical order signs the tokens that this server makes itself.
    pub keys: BTreeMap<String, Secret>,
}

/// Why a token was refused. The text goes to the client: it names no secret and no person.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("no access token: send it as `access_token` in the query or as `Authorization: Bearer`")]
    Missing,
    #[error("the access token is malformed")]
    Malformed,
    #[error("the access token is signed by a method other than HS256")]
    Algorithm,
    #[error("the access token was made with an API key that this server does not know")]
    UnknownKey,
    #[error("the access token's signature does not match: was it made with the right secret?")]
    Signature,
    #[error("the access token has no expiry")]
    NoExpiry,
    #[error("the access token has expired: ask for a new one")]
    Expired,
    #[error("the access token is not valid yet: check the clock of the machine that made it")]
    NotYetValid,
    #[error("no API key is configured (auth.keys)")]
    NoKeys,
}

/// The `video` claim: what the holder may do. `None` in the three-valued permissions means what LiveKit means by
/// absence; use the methods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Grants {
    #[serde(skip_serializing_if = "is_false")]
    pub room_create: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_list: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_record: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_admin: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_join: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub room: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    /// `camera`, `microphone`, `screen_share`, `screen_share_audio`; empty = every source.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    #[serde(skip_serializing_if = "is_false")]
    pub ingress_admin: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub hidden: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub recorder: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub agent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe_metrics: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_manage_agent_session: Option<bool>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub destination_room: String,
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Grants {
    /// What a participant of a call gets: join this room, publish, subscribe, send data, change own metadata.
    pub fn participant(room: &RoomName) -> Self {
        Self {
            room_join: true,
            room: room.as_str().to_owned(),
            can_publish: Some(true),
            can_subscribe: Some(true),
            can_publish_data: Some(true),
            can_update_own_metadata: Some(true),
            ..Self::default()
        }
    }

    pub fn can_publish(&self) -> bool {
        self.can_publish.unwrap_or(true)
    }

    pub fn can_subscribe(&self) -> bool {
        self.can_subscribe.unwrap_or(true)
    }

    /// Absent means: as [`Grants::can_publish`].
    pub fn can_publish_data(&self) -> bool {
        self.can_publish_data.unwrap_or_else(|| self.can_publish())
    }

    pub fn can_update_own_metadata(&self) -> bool {
        self.can_update_own_metadata.unwrap_or(false)
    }

    /// The room that the holder may join; `None` where the grant does not say so.
    pub fn joins(&self) -> Option<RoomName> {
        (self.room_join && !self.room.is_empty()).then(|| RoomName::from(self.room.as_str()))
    }
}

/// The claims of an access token. `Debug` shows no personal data.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Claims {
    /// The API key.
    pub iss: String,
    /// The identity.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sub: String,
    /// Stands in for an absent `sub`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// Not good before, Unix seconds; 0 = always.
    pub nbf: u64,
    /// Good until, Unix seconds.
    pub exp: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub attributes: HashMap<String, String>,
    /// `standard`, `agent`, `egress`, `ingress`, `sip`; empty = standard.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Base64 of the SHA-256 of a webhook's body.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    #[serde(rename = "video", skip_serializing_if = "is_default")]
    pub grants: Grants,
    /// What the room is made with, where a join by this token makes it.
    #[serde(rename = "roomConfig", skip_serializing_if = "Option::is_none")]
    pub room_config: Option<RoomConfig>,
    /// The same by a name in the server's configuration; `room_config` goes over it.
    #[serde(rename = "roomPreset", skip_serializing_if = "String::is_empty")]
    pub room_preset: String,
}

fn is_default(grants: &Grants) -> bool {
    *grants == Grants::default()
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims")
            .field("nbf", &self.nbf)
            .field("exp", &self.exp)
            .field("kind", &self.kind)
            .field("grants", &self.grants)
            .finish_non_exhaustive()
    }
}

impl Claims {
    /// Claims of somebody; the key and the times are set by [`ApiKeys::mint`].
    pub fn new(identity: &Identity, grants: Grants) -> Self {
        Self { sub: identity.as_str().to_owned(), grants, ..Self::default() }
    }

    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    pub fn with_attribute(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.insert(key.into(), value.into());
        self
    }

    /// Who the holder is: `sub`, else `jti`; `None` where both are empty.
    pub fn identity(&self) -> Option<Identity> {
        [&self.sub, &self.jti].into_iter().find(|s| !s.is_empty()).map(|s| Identity::from(s.as_str()))
    }
}

/// The server's API keys.
#[derive(Clone, Debug, Default)]
pub struct ApiKeys {
    keys: BTreeMap<String, Secret>,
}

impl ApiKeys {
    pub fn new(keys: BTreeMap<String, Secret>) -> Self {
        Self { keys }
    }

    /// The pair that LiveKit's development mode has: `devkey` and `secret`.
    pub fn dev() -> Self {
        Self::new(BTreeMap::from([("devkey".to_owned(), Secret::new("secret"))]))
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Signs `claims` with our first key; sets `iss`, `nbf` and `exp`.
    pub fn mint(&self, claims: Claims, ttl: Duration) -> Result<String, AuthError> {
        self.mint_at(claims, ttl, unix_now())
    }

    /// As [`ApiKeys::mint`], with the key of this name, if one is named.
    pub fn mint_by(&self, key: Option<&str>, claims: Claims, ttl: Duration) -> Result<String, AuthError> {
        match key {
            None => self.mint(claims, ttl),
            Some(key) => {
                let secret = self.keys.get(key).ok_or(AuthError::UnknownKey)?;
                issue(key, secret, claims, ttl, unix_now())
            }
        }
    }

    fn mint_at(&self, claims: Claims, ttl: Duration, now: u64) -> Result<String, AuthError> {
        let (key, secret) = self.keys.first_key_value().ok_or(AuthError::NoKeys)?;
        issue(key, secret, claims, ttl, now)
    }

    /// A token with the same claims by the same key, good until the old one's end but at least for [`REFRESH_TTL`].
    pub fn refresh(&self, claims: &Claims) -> Result<String, AuthError> {
        self.refresh_at(claims, unix_now())
    }

    fn refresh_at(&self, claims: &Claims, now: u64) -> Result<String, AuthError> {
        let secret = self.keys.get(&claims.iss).ok_or(AuthError::UnknownKey)?;
        let mut claims = claims.clone();
        claims.exp = claims.exp.max(now.saturating_add(REFRESH_TTL.as_secs()));
        sign(&claims, secret)
    }

    /// The claims of a token that one of our keys signed and that is within its time.
    pub fn verify(&self, token: &str) -> Result<Claims, AuthError> {
        self.verify_at(token, unix_now())
    }

    /// The claims of a token of ours with this text as its claims; for fuzzers.
    pub(crate) fn verify_signed(&self, claims: &[u8]) -> Result<Claims, AuthError> {
        let (_, secret) = self.keys.first_key_value().ok_or(AuthError::NoKeys)?;
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let key = EncodingKey::from_secret(secret.expose().as_bytes());
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256);
        self.verify(&format!("{message}.{}", signature.map_err(|_| AuthError::Malformed)?))
    }

    fn verify_at(&self, token: &str, now: u64) -> Result<Claims, AuthError> {
        if token.is_empty() {
            return Err(AuthError::Missing);
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| algorithm_or_malformed(token))?;
        if header.alg != Algorithm::HS256 {
            return Err(AuthError::Algorithm);
        }
        // Whoever lists something there wants it understood or the token refused (RFC 7515 section 4.1.11).
        if part(token, 0).is_none_or(|header| header.get("crit").is_some()) {
            return Err(AuthError::Malformed);
        }
        // The issuer is read before the signature is checked only to choose the secret to check it with.
        let issuer = unverified_issuer(token).ok_or(AuthError::Malformed)?;
        let secret = self.keys.get(&issuer).ok_or(AuthError::UnknownKey)?;
        let mut validation = Validation::new(Algorithm::HS256);
        // Times are checked below against the caller's clock; LiveKit's clients put no meaning into `aud`.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        let key = DecodingKey::from_secret(secret.expose().as_bytes());
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation)
            .map_err(|e| match e.kind() {
                jsonwebtoken::errors::ErrorKind::InvalidSignature => AuthError::Signature,
                jsonwebtoken::errors::ErrorKind::InvalidAlgorithm => AuthError::Algorithm,
                _ => AuthError::Malformed,
            })?
            .claims;
        if claims.exp == 0 {
            return Err(AuthError::NoExpiry);
        }
        if now > claims.exp.saturating_add(LEEWAY_SECS) {
            return Err(AuthError::Expired);
        }
        if now.saturating_add(LEEWAY_SECS) < claims.nbf {
            return Err(AuthError::NotYetValid);
        }
        Ok(claims)
    }
}

/// The token in an `Authorization` header.
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn issue(key: &str, secret: &Secret, mut claims: Claims, ttl: Duration, now: u64) -> Result<String, AuthError> {
    claims.iss = key.to_owned();
    claims.nbf = now;
    claims.exp = now.saturating_add(ttl.as_secs());
    sign(&claims, secret)
}

fn sign(claims: &Claims, secret: &Secret) -> Result<String, AuthError> {
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).map_err(|_| AuthError::Malformed)
}

fn part(token: &str, index: usize) -> Option<serde_json::Value> {
    let bytes = URL_SAFE_NO_PAD.decode(token.split('.').nth(index)?).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn unverified_issuer(token: &str) -> Option<String> {
    part(token, 1)?.get("iss")?.as_str().map(str::to_owned)
}

/// `none` and unknown algorithms do not parse as a header: they are told from garbage for the sake of the message.
fn algorithm_or_malformed(token: &str) -> AuthError {
    match part(token, 0).and_then(|h| h.get("alg").cloned()) {
        Some(_) => AuthError::Algorithm,
        None => AuthError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn claims() -> Claims {
        Claims::new(&"ada@example.org".into(), Grants::participant(&"room".into()))
            .with_name("Ada")
            .with_attribute("viva.role", "interviewee")
    }

    fn forge(header: &str, payload: &str, signature: &str) -> String {
        format!("{}.{}.{signature}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn a_minted_token_verifies_to_the_same_claims() {
        let keys = ApiKeys::dev();
        let token = keys.mint_at(claims(), DEFAULT_TTL, NOW).unwrap();
        let verified = keys.verify_at(&token, NOW).unwrap();
        assert_eq!(verified.iss, "devkey");
        assert_eq!(verified.identity(), Some("ada@example.org".into()));
        assert_eq!(verified.grants, claims().grants);
        assert_eq!(verified.attributes["viva.role"], "interviewee");
        assert_eq!(verified.exp, NOW + DEFAULT_TTL.as_secs());
        assert!(keys.verify(&keys.mint(claims(), DEFAULT_TTL).unwrap()).is_ok());
    }

    #[test]
    fn a_token_is_good_within_its_time_and_a_minute_around() {
        let keys = ApiKeys::dev();
        let token = keys.mint_at(claims(), Duration::from_secs(100), NOW).unwrap();
        for (at, wanted) in [
            (NOW - 60, Ok(())),
            (NOW - 61, Err(AuthError::NotYetValid)),
            (NOW + 160, Ok(())),
            (NOW + 161, Err(AuthError::Expired)),
        ] {
            assert_eq!(keys.verify_at(&token, at).map(|_| ()), wanted, "at {at}");
        }
    }

    #[test]
    fn forged_and_broken_tokens_are_refused() {
        let keys = ApiKeys::dev();
        let good = keys.mint_at(claims(), DEFAULT_TTL, NOW).unwrap();
        let other = ApiKeys::new(BTreeMap::from([("devkey".into(), "guess".into())]));
        let stranger = ApiKeys::new(BTreeMap::from([("nokey".into(), "secret".into())]));
        let payload = r#"{"iss":"devkey","sub":"eve","exp":9999999999}"#;
        let no_expiry = {
            let key = EncodingKey::from_secret(b"secret");
            jsonwebtoken::encode(&Header::default(), &serde_json::json!({"iss": "devkey", "sub": "eve"}), &key).unwrap()
        };
        let hs512 = {
            let key = EncodingKey::from_secret(b"secret");
            let body = serde_json::json!({"iss": "devkey", "sub": "eve", "exp": NOW + 10});
            jsonwebtoken::encode(&Header::new(Algorithm::HS512), &body, &key).unwrap()
        };
        let signature = good.rsplit('.').next().unwrap();
        for (token, wanted) in [
            (String::new(), AuthError::Missing),
            ("nonsense".into(), AuthError::Malformed),
            ("a.b.c".into(), AuthError::Malformed),
            ("x".repeat(TOKEN_BYTES_MAX + 1), AuthError::Malformed),
            (forge(r#"{"alg":"none"}"#, payload, ""), AuthError::Algorithm),
            (forge(r#"{"alg":"RS256"}"#, payload, signature), AuthError::Algorithm),
            (hs512, AuthError::Algorithm),
            (forge(r#"{"alg":"HS256"}"#, payload, signature), AuthError::Signature),
            (other.mint_at(claims(), DEFAULT_TTL, NOW).unwrap(), AuthError::Signature),
            (stranger.mint_at(claims(), DEFAULT_TTL, NOW).unwrap(), AuthError::UnknownKey),
            (no_expiry, AuthError::NoExpiry),
        ] {
            assert_eq!(keys.verify_at(&token, NOW).unwrap_err(), wanted, "{token:.40}");
        }
    }

    #[test]
    fn a_refreshed_token_keeps_the_longer_end() {
        let keys = ApiKeys::dev();
        let token = keys.mint_at(claims(), Duration::from_secs(30), NOW).unwrap();
        let short = keys.verify_at(&token, NOW).unwrap();
        let refreshed = keys.verify_at(&keys.refresh_at(&short, NOW).unwrap(), NOW).unwrap();
        assert_eq!(refreshed.exp, NOW + REFRESH_TTL.as_secs());
        let token = keys.mint_at(claims(), DEFAULT_TTL, NOW).unwrap();
        let long = keys.verify_at(&token, NOW).unwrap();
        assert_eq!(keys.verify_at(&keys.refresh_at(&long, NOW).unwrap(), NOW).unwrap(), long);
    }

    #[test]
    fn absent_permissions_mean_what_livekit_means() {
        let grants: Grants = serde_json::from_str(r#"{"roomJoin":true,"room":"r"}"#).unwrap();
        assert!(grants.can_publish() && grants.can_subscribe() && grants.can_publish_data());
        assert!(!grants.can_update_own_metadata());
        let grants: Grants = serde_json::from_str(r#"{"canPublish":false}"#).unwrap();
        assert!(!grants.can_publish() && !grants.can_publish_data());
        assert_eq!(grants.joins(), None);
    }

    #[test]
    fn secrets_and_people_are_not_printed() {
        let keys = ApiKeys::dev();
        assert!(!format!("{keys:?}").contains("secret"));
        assert_eq!(serde_json::to_string(&Secret::new("hunter2")).unwrap(), r#""***""#);
        let shown = format!("{:?}", claims());
        assert!(!shown.contains("example.org") && !shown.contains("Ada"), "{shown}");
    }

    #[test]
    fn the_bearer_is_read_from_the_header() {
        assert_eq!(bearer("Bearer abc"), Some("abc"));
        assert_eq!(bearer("bearer  abc "), Some("abc"));
        assert_eq!(bearer("Basic abc"), None);
        assert_eq!(bearer("abc"), None);
    }
}
