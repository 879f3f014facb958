//! `viva token`: mints access tokens in LiveKit's form, for trying things and for scripts.

use std::time::Duration;

use clap::Args;

use super::{ConfigArgs, Failure};
use crate::{
    auth::{ApiKeys, Claims, Grants},
    id::{Identity, RoomName},
    model::{CONSENT_ATTRIBUTE, Purpose, ROLE_ATTRIBUTE},
};

/// Mint an access token and print it.
#[derive(Args, Debug)]
pub(super) struct TokenArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// API key to sign with; without it, the first of auth.keys (with --dev: devkey).
    #[arg(long, value_name = "KEY", requires = "api_secret")]
    api_key: Option<String>,
    /// Secret of --api-key.
    #[arg(long, value_name = "SECRET", env = "VIVA_API_SECRET", hide_env_values = true, requires = "api_key")]
    api_secret: Option<String>,
    /// Who the holder is; unique in the room.
    #[arg(long, value_name = "ID")]
    identity: Option<String>,
    /// Name that others see.
    #[arg(long)]
    name: Option<String>,
    /// Room that the holder may join; gives what a participant needs.
    #[arg(long)]
    room: Option<String>,
    /// Role in an interview.
    #[arg(long, value_parser = ["interviewee", "interviewer"])]
    role: Option<String>,
    /// Consent that the person has given elsewhere; may be given several times.
    #[arg(long, value_name = "PURPOSE", value_parser = purpose)]
    consent: Vec<String>,
    /// How long it is good: seconds, or with s, m, h or d.
    #[arg(long, value_name = "TIME", default_value = "6h", value_parser = duration)]
    ttl: Duration,
    /// A grant by its name in the token, as roomCreate or canPublish=false; may be given several times.
    #[arg(long, value_name = "GRANT[=VALUE]")]
    grant: Vec<String>,
    /// A participant attribute, as team=blue; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = super::key_value)]
    attribute: Vec<(String, String)>,
    /// Free text that travels with the participant.
    #[arg(long)]
    metadata: Option<String>,
}

pub(super) fn run(args: &TokenArgs) -> Result<(), Failure> {
    let keys = match (&args.api_key, &args.api_secret) {
        (Some(key), Some(secret)) => ApiKeys::new([(key.clone(), secret.as_str().into())].into()),
        _ => ApiKeys::new(args.config.load()?.0.auth.keys),
    };
    if keys.is_empty() {
        return Err(Failure::Usage(
            "there is no API key to sign with: add --dev for the development key, set auth.keys, or give --api-key \
             and --api-secret"
                .into(),
        ));
    }
    let token = keys.mint(claims(args)?, args.ttl).map_err(|error| Failure::Fault(error.to_string()))?;
    println!("{token}");
    Ok(())
}

fn claims(args: &TokenArgs) -> Result<Claims, Failure> {
    if args.room.is_some() && args.identity.is_none() {
        return Err(Failure::Usage("a participant needs an identity: add --identity, as --identity ada".into()));
    }
    let mut grants = match &args.room {
        Some(room) => Grants::participant(&RoomName::from(room.as_str())),
        None => Grants::default(),
    };
    for grant in &args.grant {
        grants = with_grant(&grants, grant)?;
    }
    let identity = Identity::from(args.identity.as_deref().unwrap_or_default());
    let mut claims = Claims::new(&identity, grants).with_name(args.name.as_deref().unwrap_or_default());
    claims.metadata = args.metadata.clone().unwrap_or_default();
    for (key, value) in &args.attribute {
        claims = claims.with_attribute(key, value);
    }
    if let Some(role) = &args.role {
        claims = claims.with_attribute(ROLE_ATTRIBUTE, role);
    }
    if !args.consent.is_empty() {
        claims = claims.with_attribute(CONSENT_ATTRIBUTE, args.consent.join(","));
    }
    Ok(claims)
}

/// Sets one grant by its name on the wire; unknown names are refused with the nearest known one.
fn with_grant(grants: &Grants, text: &str) -> Result<Grants, Failure> {
    let (name, value) = text.split_once('=').unwrap_or((text, "true"));
    let Some(known) = GRANTS.iter().find(|known| **known == name) else {
        let near = GRANTS.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name)).unwrap_or(&"roomJoin");
        return Err(Failure::Usage(format!(
            "--grant {name}: there is no such grant; did you mean `{near}`? All: {}",
            GRANTS.join(", ")
        )));
    };
    let value = match (*known, value) {
        ("room", text) => serde_json::Value::from(text),
        ("canPublishSources", text) => text.split('+').collect(),
        (_, "true") => true.into(),
        (_, "false") => false.into(),
        _ => return Err(Failure::Usage(format!("--grant {name}: `{value}` is neither true nor false"))),
    };
    let mut all = serde_json::to_value(grants).unwrap_or_default();
    all[*known] = value;
    serde_json::from_value(all).map_err(|error| Failure::Usage(format!("--grant {text}: {error}")))
}

/// Names of the video grants that this server looks at.
const GRANTS: [&str; 10] = [
    "roomJoin",
    "room",
    "roomCreate",
    "roomList",
    "roomAdmin",
    "canPublish",
    "canSubscribe",
    "canPublishData",
    "canPublishSources",
    "canUpdateOwnMetadata",
];

fn purpose(text: &str) -> Result<String, String> {
    text.parse::<Purpose>().map(|purpose| purpose.as_str().to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("write a number with s, m, h or d, as 90m".into()),
    };
    let number: u64 = number.parse().map_err(|_| "write a number with s, m, h or d, as 90m".to_owned())?;
    number.checked_mul(seconds).filter(|s| *s > 0).map(Duration::from_secs).ok_or_else(|| "is out of range".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_take_a_unit() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("6h"), Ok(Duration::from_secs(21_600)));
        assert!(duration("soon").is_err() && duration("").is_err() && duration("0").is_err());
    }

    #[test]
    fn grants_are_set_by_their_name_on_the_wire() {
        let grants = with_grant(&Grants::participant(&"r".into()), "canPublish=false").expect("known");
        assert!(!grants.can_publish() && grants.joins().is_some());
        let Err(Failure::Usage(message)) = with_grant(&grants, "roomAdmn") else { panic!("is unknown") };
        assert!(message.contains("did you mean `roomAdmin`?"), "{message}");
    }
}
