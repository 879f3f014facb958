//! The join of a client with two peer connections: what newer clients put into a message stands in the query, one
//! parameter each.

use std::collections::HashMap;

use base64::Engine;
use livekit_protocol as proto;
use proto::{ClientInfo, ConnectionSettings, JoinRequest, client_info::Sdk};

use super::codec::BASE64;

/// The oldest protocol that is spoken here. LiveKit's Android client is at it; what is older lacks the actions of `Leave`.
const PROTOCOL_MIN: i32 = 13;
/// Bytes of what a parameter may say of the client.
const TEXT_BYTES_MAX: usize = 256;

/// The request that the query amounts to.
pub fn join_request(query: impl Fn(&str) -> Option<String>) -> Result<JoinRequest, &'static str> {
    let flag = |name, absent| query(name).map_or(absent, |value| value == "1" || value == "true");
    let text = |name| query(name).filter(|value| value.len() <= TEXT_BYTES_MAX).unwrap_or_default();
    let number = |name| query(name).and_then(|value| value.parse::<i32>().ok()).unwrap_or_default();
    let protocol = number("protocol");
    if protocol < PROTOCOL_MIN {
        return Err("this client is too old: the query's `protocol` must be 13 or more; update the SDK");
    }
    Ok(JoinRequest {
        client_info: Some(ClientInfo {
            sdk: sdk(&text("sdk")) as i32,
            version: text("version"),
            protocol,
            client_protocol: number("client_protocol"),
            os: text("os"),
            os_version: text("os_version"),
            device_model: text("device_model"),
            browser: text("browser"),
            browser_version: text("browser_version"),
            network: text("network"),
            ..ClientInfo::default()
        }),
        connection_settings: Some(ConnectionSettings {
            auto_subscribe: flag("auto_subscribe", true),
            adaptive_stream: flag("adaptive_stream", false),
            auto_subscribe_data_track: Some(flag("auto_subscribe_data_track", false)),
            disable_ice_lite: flag("disable_ice_lite", false),
            ..ConnectionSettings::default()
        }),
        participant_attributes: attributes(query("attributes"))?,
        reconnect: flag("reconnect", false),
        participant_sid: text("sid"),
        reconnect_reason: number("reconnect_reason"),
        ..JoinRequest::default()
    })
}

/// base64url of a JSON object of strings.
fn attributes(param: Option<String>) -> Result<HashMap<String, String>, &'static str> {
    let Some(param) = param.filter(|param| !param.is_empty()) else { return Ok(HashMap::new()) };
    let json = BASE64.decode(param).map_err(|_| "`attributes` is not base64url")?;
    serde_json::from_slice(&json).map_err(|_| "`attributes` is no JSON object of strings")
}

fn sdk(name: &str) -> Sdk {
    match name {
        "js" => Sdk::Js,
        "swift" => Sdk::Swift,
        "android" => Sdk::Android,
        "flutter" => Sdk::Flutter,
        "go" => Sdk::Go,
        "unity" => Sdk::Unity,
        "reactnative" => Sdk::ReactNative,
        "rust" => Sdk::Rust,
        "python" => Sdk::Python,
        "cpp" => Sdk::Cpp,
        "unityweb" => Sdk::UnityWeb,
        "node" => Sdk::Node,
        _ => Sdk::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pairs: &[(&str, &str)]) -> Result<JoinRequest, &'static str> {
        join_request(|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn what_an_android_client_asks_for_is_understood() {
        let request = parse(&[
            ("protocol", "13"),
            ("sdk", "android"),
            ("version", "2.20.0"),
            ("auto_subscribe", "0"),
            ("adaptive_stream", "1"),
            ("attributes", "eyJhIjoiYiJ9"),
        ])
        .unwrap();
        let (client, settings) = (request.client_info.unwrap(), request.connection_settings.unwrap());
        assert_eq!((client.sdk(), client.protocol, client.version.as_str()), (Sdk::Android, 13, "2.20.0"));
        assert!(!settings.auto_subscribe && settings.adaptive_stream);
        assert_eq!(request.participant_attributes["a"], "b");
        assert!(!request.reconnect);
    }

    #[test]
    fn a_resume_names_its_participant_and_an_old_client_is_told_so() {
        let request = parse(&[("protocol", "17"), ("reconnect", "1"), ("sid", "PA_1")]).unwrap();
        assert!(request.reconnect && request.connection_settings.unwrap().auto_subscribe);
        assert_eq!(request.participant_sid, "PA_1");
        assert!(parse(&[("protocol", "12")]).unwrap_err().contains("too old"));
        assert!(parse(&[("protocol", "17"), ("attributes", "!")]).is_err());
    }

    proptest! {
        #[test]
        fn any_parameters_are_parsed_without_panic(values in proptest::collection::vec(".*", 4)) {
            let names = ["attributes", "sid", "protocol", "reconnect_reason"];
            let _ = join_request(|name| names.iter().position(|known| *known == name).map(|at| values[at].clone()));
            let _ = attributes(Some(values[0].clone()));
        }
    }
}
