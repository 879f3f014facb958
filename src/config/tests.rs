//! What the configuration as a whole promises.

use super::*;

fn flags(pairs: &[(&str, &str)]) -> Sources {
    let flags = pairs.iter().map(|(key, value)| ("--set".to_owned(), (*key).to_owned(), (*value).to_owned())).collect();
    // A file that is there, so that the working directory does not matter.
    Sources { file: Some(example()), flags, ..Sources::default() }
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(DEFAULT_FILE)
}

fn problems(sources: &Sources) -> Vec<String> {
    let errors = Config::load(sources).expect_err("is wrong");
    errors.0.iter().map(Problem::to_string).collect()
}

#[test]
fn the_example_file_has_every_key_with_its_default() {
    let text = std::fs::read_to_string(example()).expect("readable");
    let file: serde_yaml_ng::Value = serde_yaml_ng::from_str(&text).expect("is YAML");
    let default = serde_yaml_ng::to_value(Config::default()).expect("is plain data");
    compare("", &default, &file);
}

fn compare(path: &str, default: &serde_yaml_ng::Value, file: &serde_yaml_ng::Value) {
    if let (Some(default), Some(file)) = (default.as_mapping(), file.as_mapping()) {
        for (key, value) in default {
            let at = format!("{path}.{}", key.as_str().expect("a text"));
            compare(&at, value, file.get(key).unwrap_or_else(|| panic!("config/server.yaml lacks {at}")));
        }
        for (key, _) in file {
            assert!(default.contains_key(key), "config/server.yaml has {path}.{key:?}, which is no key");
        }
    } else if let (Some(default), Some(file)) = (default.as_f64(), file.as_f64()) {
        // A 32-bit number is not quite its decimal form.
        assert!((default - file).abs() < 1e-6, "config/server.yaml: {path}");
    } else {
        assert_eq!(default, file, "config/server.yaml: {path}");
    }
}

#[test]
fn every_key_of_the_example_file_is_explained() {
    let text = std::fs::read_to_string(example()).expect("readable");
    let mut commented = false;
    for line in text.lines().skip_while(|line| !line.ends_with(':')) {
        let content = line.trim();
        let section = content.ends_with(':');
        if !section && !content.is_empty() && !content.starts_with('#') {
            assert!(commented, "config/server.yaml: `{content}` has no comment above it");
        }
        commented = content.starts_with('#');
    }
}

#[test]
fn the_defaults_are_valid_and_dev_adds_its_key() {
    let (config, _) = Config::load(&flags(&[])).expect("is valid");
    assert!(config.auth.keys.is_empty() && !config.interview.public_practice);
    let (config, _) = Config::load(&Sources { dev: true, ..flags(&[]) }).expect("is valid");
    assert_eq!(config.auth.keys["devkey"].expose(), "secret");
    assert!(config.interview.public_practice);
}

#[test]
fn the_environment_overrules_dev_and_flags_overrule_the_environment() {
    let env = vec![
        ("VIVA_INTERVIEW__PUBLIC_PRACTICE".into(), "false".into()),
        ("VIVA_AUTH__KEYS__MyKey".into(), "12345".into()),
        ("VIVA_RTC__UDP_PORT_BASE".into(), "9000".into()),
    ];
    let sources = Sources { dev: true, env, ..flags(&[("rtc.udp_port_base", "9100")]) };
    let (config, origins) = Config::load(&sources).expect("is valid");
    assert!(!config.interview.public_practice);
    assert_eq!(config.auth.keys["MyKey"].expose(), "12345");
    assert_eq!(config.rtc.udp_port_base, 9100);
    assert_eq!(origins.of("rtc.udp_port_base"), Some("--set"));
}

#[test]
fn rules_across_keys_are_told_with_where_they_were_broken() {
    let found = problems(&flags(&[
        ("interview.endpointing.min_delay_ms", "5000"),
        ("interview.llm.provider", "openai"),
        ("speech.stt.provider", "openai"),
        ("server.metrics_listen", "0.0.0.0:7880"),
        ("server.log.filter", "viva=loud"),
    ]));
    assert_eq!(found.len(), 6, "{found:#?}");
    assert!(found.iter().any(|one| one.starts_with("--set: `server.metrics_listen`")), "{found:#?}");
    assert!(found.iter().any(|one| one.contains("interview.llm.url") && one.contains("http://")), "{found:#?}");
}

#[test]
fn no_key_in_seconds_takes_more_than_a_clock_can_add() {
    let huge = u64::MAX.to_string();
    let keys: Vec<String> = secs_keys("", &serde_yaml_ng::to_value(Config::default()).expect("is plain data"));
    assert!(keys.len() >= 9, "{keys:?}");
    let pairs: Vec<(&str, &str)> = keys.iter().map(|key| (key.as_str(), huge.as_str())).collect();
    let found = problems(&flags(&pairs));
    for key in &keys {
        assert!(found.iter().any(|one| one.contains(&format!("`{key}` is ")) && one.contains("at most")), "{key}");
    }
    assert_eq!(found.len(), keys.len(), "{found:#?}");
}

/// Dotted names of all keys that end in `_secs`.
fn secs_keys(path: &str, value: &serde_yaml_ng::Value) -> Vec<String> {
    let entries = value.as_mapping().into_iter().flatten();
    let entries = entries.map(|(key, value)| (format!("{path}{}", key.as_str().expect("a text")), value));
    entries
        .flat_map(|(key, value)| {
            let inner = secs_keys(&format!("{key}."), value);
            if key.ends_with("_secs") { vec![key] } else { inner }
        })
        .collect()
}

#[test]
fn queues_and_pools_that_cannot_be_made_are_refused() {
    for (key, value) in [
        ("rooms.tap_packets_max", "0"),
        ("rooms.tap_packets_max", "18446744073709551615"),
        ("speech.stt.threads", "18446744073709551615"),
    ] {
        let found = problems(&flags(&[(key, value)]));
        assert!(found.len() == 1 && found[0].contains(key), "{found:#?}");
    }
}

#[test]
fn mistakes_in_webhooks_are_told_all_at_once_and_without_the_address() {
    let found = problems(&flags(&[
        ("webhooks.urls", "[https://right.example, ftp://s3cret.example, s3cret]"),
        ("webhooks.api_key", "nobody"),
        ("webhooks.timeout_ms", "0"),
        ("webhooks.attempts_max", "21"),
        ("webhooks.queue_max", "0"),
    ]));
    assert_eq!(found.len(), 6, "{found:#?}");
    assert!(found[0].starts_with("--set: `webhooks.urls`") && found[0].contains("number 2"), "{found:#?}");
    assert!(found[0].contains("http://") && found[1].contains("number 3"), "{found:#?}");
    assert!(!found.iter().any(|one| one.contains("s3cret")), "{found:#?}");
    let sources = Sources { dev: true, ..flags(&[("webhooks.api_key", "devkey"), ("webhooks.urls", "[http://a/b]")]) };
    let (config, _) = Config::load(&sources).expect("is valid");
    assert_eq!(config.webhooks.urls, ["http://a/b".into()]);
}

#[test]
fn a_relay_elsewhere_needs_a_secret_and_addresses_that_clients_understand() {
    let found = problems(&flags(&[
        ("turn_server.external.urls", "[turn:turn.example.org, https://turn.example.org]"),
        ("turn_server.credentials_ttl_secs", "1"),
    ]));
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].contains("`https://turn.example.org`") && found[0].contains("turns:"), "{found:#?}");
    assert!(found[1].contains("static-auth-secret") && found[2].contains("at least 60"), "{found:#?}");
}

#[test]
fn the_public_address_is_taken_apart() {
    for (url, host, port) in [
        ("wss://viva.example.org", Some("viva.example.org"), Some(443)),
        ("https://viva.example.org:8443/x", Some("viva.example.org"), Some(8443)),
        ("ws://[2001:db8::1]", Some("2001:db8::1"), Some(80)),
        ("ws://[2001:db8::1]:7880", Some("2001:db8::1"), Some(7880)),
        ("", None, None),
    ] {
        let server = ServerConfig { public_url: url.into(), ..ServerConfig::default() };
        assert_eq!((server.public_host(), server.public_port()), (host, port), "{url}");
    }
}

#[test]
fn what_is_printed_hides_secrets() {
    let urls = ("webhooks.urls", "[https://example.org/hush-hush?key=hush-hush]");
    let sources = Sources { dev: true, ..flags(&[("speech.stt.api_key", "hush-hush"), urls]) };
    let (config, _) = Config::load(&sources).expect("is valid");
    let yaml = config.to_yaml();
    assert!(!yaml.contains("hush-hush") && !yaml.contains("devkey: secret"), "{yaml}");
    assert!(yaml.contains("'***'") && yaml.contains("https://example.org/***"), "{yaml}");
    assert!(!format!("{config:?}").contains("hush-hush"));
}

#[test]
fn a_file_that_is_not_there_is_told() {
    let sources = Sources { file: Some("/nowhere/viva.yaml".into()), ..Sources::default() };
    assert!(problems(&sources)[0].contains("cannot be read"));
}
