//! What the checks of a machine say.

use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{Finding, Report, Verdict, clock, connection::Target, machine};

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn worst(findings: &[Finding]) -> (Verdict, String) {
    let worst = findings.iter().max_by_key(|finding| finding.verdict).unwrap();
    (worst.verdict, worst.seen.clone())
}

#[test]
fn addresses_that_lead_nowhere_are_told() {
    let own = ips(&["127.0.0.1", "10.0.0.5", "fe80::1"]);
    let at = |advertised: &[&str], url: &str| worst(&machine::addresses(&ips(advertised), url, &own));
    assert_eq!(at(&[], "").0, Verdict::Ok, "for a network of one's own");
    let (verdict, seen) = at(&[], "wss://viva.example.org");
    assert!(verdict == Verdict::Failure && seen.contains("10.0.0.5") && !seen.contains("fe80"), "{seen}");
    assert_eq!(at(&["203.0.113.7"], "wss://viva.example.org").0, Verdict::Ok);
    assert_eq!(at(&["127.0.0.1"], "").0, Verdict::Warning);
}

#[test]
fn clocks_are_compared_as_tokens_are() {
    let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
    let at = |secs| now + Duration::from_secs(secs);
    let date = Some("Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!(clock::compare(date, at(4)).verdict, Verdict::Ok);
    assert_eq!(clock::compare(date, at(30)).verdict, Verdict::Warning);
    let late = clock::compare(date, at(61));
    assert!(late.verdict == Verdict::Failure && late.seen.contains("61 s behind"), "{}", late.seen);
    assert!(clock::compare(date, now - Duration::from_secs(90)).seen.contains("90 s ahead of"));
    assert_eq!(clock::compare(Some("soon"), SystemTime::now()).verdict, Verdict::Skipped);
}

#[test]
fn a_machine_that_is_too_small_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let limit = folder.path().join("rmem_max");
    std::fs::write(&limit, "212992\n").unwrap();
    let found = machine::socket_buffers(&limit).unwrap();
    assert!(found.verdict == Verdict::Warning && found.advice.contains("net.core.rmem_max"));
    assert!(machine::socket_buffers(Path::new("/nowhere")).is_none());
}

#[test]
fn a_store_that_cannot_be_written_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let good = format!("sqlite://{}/new/viva.db", folder.path().display());
    assert_eq!(machine::store(&good).verdict, Verdict::Ok);
    assert!(!folder.path().join("new").exists(), "nothing is left behind");
    // A folder is there where the file should be: nobody can write that, not even root.
    let bad = format!("sqlite://{}", folder.path().display());
    assert_eq!(machine::store(&bad).verdict, Verdict::Failure);
}

#[test]
fn addresses_are_taken_apart() {
    for (url, host, port, tls) in [
        ("wss://viva.example.org", "viva.example.org", 443, true),
        ("http://localhost:7880/x", "localhost", 7880, false),
        ("ws://[::1]:7880", "::1", 7880, false),
        ("https://[2001:db8::1]", "2001:db8::1", 443, true),
    ] {
        let target = Target::parse(url).unwrap();
        assert_eq!((target.host.as_str(), target.port, target.tls), (host, port, tls), "{url}");
    }
    for wrong in ["viva", "ftp://a", "ws://", "ws://a:b"] {
        assert!(Target::parse(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_report_is_for_people_and_for_machines() {
    let findings = vec![Finding::ok("port", "open"), Finding::failure("clock", "wrong", "set it")];
    let report = Report { url: "ws://a".into(), findings };
    let text = report.to_text(false);
    assert!(
        text.contains("-> set it") && text.ends_with("Failures: 1, warnings: 0.\n") && !text.contains('\x1b'),
        "{text}"
    );
    assert!(report.to_text(true).contains("\x1b[31mfailure"));
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    assert_eq!((json["ok"].as_bool(), json["findings"][1]["verdict"].as_str()), (Some(false), Some("failure")));
}
