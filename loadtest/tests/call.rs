//! A small call of bots against a real server: `VIVA_BIN`, or the `viva` that was built beside this test.
//!
//! Nothing here depends on how fast the machine is: a slow one only has longer delays.

use std::{path::Path, process::Command};

use serde_json::Value;

fn loadtest(args: &[&str]) -> (bool, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest")).args(args).output().expect("starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

fn results(args: &[&str]) -> Value {
    let (ok, said, complained) = loadtest(args);
    assert!(ok, "{complained}");
    serde_json::from_str(said.lines().last().expect("a last line")).expect("the last line is JSON")
}

fn number(results: &Value, key: &str) -> f64 {
    let value = key.split('.').fold(results, |value, key| &value[key]);
    value.as_f64().unwrap_or_else(|| panic!("no {key} in {results}"))
}

#[test]
fn three_people_in_a_room_hear_and_see_each_other_without_loss() {
    let folder = tempfile::tempdir().expect("a folder");
    let plot = folder.path().join("delays.svg");
    let file = plot.display().to_string();
    let seen = results(&["sfu", "--rooms", "1", "--mesh", "3", "--secs", "2", "--json", "--plot", &file]);
    assert_eq!(number(&seen, "flows"), 12.0, "two tracks of each to two others");
    assert_eq!(number(&seen, "silent_flows"), 0.0);
    assert_eq!(number(&seen, "loss_pct"), 0.0, "{seen}");
    for key in [
        "forwarded",
        "us_per_packet",
        "floor_sendto_us",
        "floor_gso10_us",
        "floor_ratio",
        "floor_gso_ratio",
        "delay_ms.p50",
        "delay_ms.p99",
        "delay_ms.max",
        "rss_kib_per_subscriber",
        "join_ms.p50",
        "join_ms.p99",
    ] {
        assert!(number(&seen, key) > 0.0, "{key} in {seen}");
    }
    assert!(Path::new(&plot).exists());
}

#[test]
fn what_is_lost_on_the_way_is_repaired_and_layers_and_sealed_packets_are_counted() {
    let seen = results(&[
        "sfu",
        "--pubs",
        "1",
        "--subs",
        "4",
        "--decrypt-one-in",
        "2",
        "--simulcast",
        "--burst",
        "5",
        "--audio-pps",
        "0",
        "--loss",
        "2",
        "--secs",
        "2",
        "--json",
    ]);
    assert_eq!(number(&seen, "flows"), 4.0);
    assert_eq!(number(&seen, "silent_flows"), 0.0);
    assert!(number(&seen, "forwarded") > 0.0);
}

#[test]
fn a_server_that_does_not_start_is_a_sentence() {
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .args(["sfu", "--secs", "1"])
        .env("VIVA_BIN", "/bin/false")
        .output()
        .expect("starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("false did not start"), "{said}");
}

#[test]
fn a_scenario_plays_comings_goings_and_mutes_and_nobody_is_silent() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("small.yaml");
    let text = "
seed: 3
rooms: 1
video: { pps: 50 }
phases:
  - { secs: 2, people: 2, publishers: 2 }
  - { secs: 7, people: 3, publishers: 2, swaps_per_sec: 0.3, mutes_per_sec: 0.6 }
expect: { loss_pct: 10, delay_p99_ms: 60000 }
";
    std::fs::write(&file, text).expect("writable");
    let seen = results(&["run", &file.display().to_string(), "--json"]);
    assert_eq!((number(&seen, "joins"), number(&seen, "leaves"), number(&seen, "mutes")), (4.0, 1.0, 2.0));
    assert!(number(&seen, "forwarded") > 0.0 && number(&seen, "flows") > 0.0, "{seen}");

    std::fs::write(&file, text.replace("people: 3", "poeple: 3")).expect("writable");
    let (ok, _, complained) = loadtest(&["run", &file.display().to_string()]);
    assert!(!ok && complained.contains("small.yaml is no scenario"), "{complained}");
    assert!(complained.contains("unknown field `poeple`") && complained.contains("line 7"), "{complained}");
}

#[test]
fn the_floor_is_measured_without_a_server() {
    let floor = results(&["floor", "--json"]);
    assert!(number(&floor, "floor_sendto_us") > 0.0 && number(&floor, "floor_gso10_us") > 0.0);
}
