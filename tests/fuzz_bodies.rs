//! Every parser that reads what others wrote, with its seeds and what becomes of them when bytes are lost, flipped,
//! doubled and mixed. `make fuzz` runs the same bodies for as long as one likes.

use std::collections::BTreeSet;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use viva::fuzzing::{TARGETS, Target};

/// Inputs for each parser in a test run, unless `VIVA_FUZZ_CASES` says otherwise.
const CASES: u32 = 400;
/// Bytes that mean something to one of the parsers.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n",
    b"a=mid:0\r\n",
    b"a=rid:q send\r\n",
    b"a=simulcast:send q;~h;~f\r\n",
    b"a=candidate:",
    b"a=fmtp:96 ",
    b"4294967296",
    b"-1",
    b"{}",
    b"[[[[[[",
    b"null",
    b"\"\\ud800\"",
    b"&attributes=",
    b"%",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x00\x00",
    b"\x80",
    b": - &a *a",
];

/// One change of an input.
#[derive(Clone, Debug)]
enum Change {
    Flip(usize, u8),
    Cut(usize, usize),
    Double(usize, usize),
    Insert(usize, usize),
    Splice(usize, usize, usize),
    End(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let at = any::<usize>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, bits)| Change::Flip(at, bits)),
        (at(), 1usize..64).prop_map(|(at, length)| Change::Cut(at, length)),
        (at(), 1usize..256).prop_map(|(at, length)| Change::Double(at, length)),
        (at(), at()).prop_map(|(at, word)| Change::Insert(at, word)),
        (at(), at(), at()).prop_map(|(at, seed, from)| Change::Splice(at, seed, from)),
        at().prop_map(Change::End),
    ]
}

fn apply(mut bytes: Vec<u8>, change: &Change, seeds: &[Vec<u8>]) -> Vec<u8> {
    let within = |at: &usize, length: usize| if length == 0 { 0 } else { at % length };
    let length = bytes.len();
    match change {
        Change::Flip(at, bits) if length > 0 => bytes[at % length] ^= bits,
        Change::Cut(at, count) => {
            let at = within(at, length);
            bytes.drain(at..(at + count).min(length));
        }
        Change::Double(at, count) => {
            let at = within(at, length);
            let part = bytes[at..(at + count).min(length)].to_vec();
            bytes.splice(at..at, part);
        }
        Change::Insert(at, word) => {
            let at = within(at, length + 1);
            bytes.splice(at..at, WORDS[word % WORDS.len()].iter().copied());
        }
        Change::Splice(at, seed, from) => {
            let other = &seeds[seed % seeds.len()];
            bytes.truncate(within(at, length + 1));
            bytes.extend(&other[within(from, other.len() + 1)..]);
        }
        Change::End(at) => bytes.truncate(within(at, length + 1)),
        Change::Flip(..) => {}
    }
    bytes
}

fn take_anything(target: &Target) {
    let seeds = (target.seeds)();
    seeds.iter().for_each(|seed| (target.run)(seed));
    (target.run)(&[]);
    let inputs = (any::<usize>(), prop::collection::vec(change(), 1..12));
    let cases = std::env::var("VIVA_FUZZ_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let mut runner = TestRunner::new(Config { cases, ..Config::default() });
    let result = runner.run(&inputs, |(seed, changes)| {
        let input = changes.iter().fold(seeds[seed % seeds.len()].clone(), |bytes, one| apply(bytes, one, &seeds));
        (target.run)(&input);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{}: {error}", target.name));
    let noise = prop::collection::vec(any::<u8>(), 0..600);
    let result = runner.run(&noise, |bytes| {
        (target.run)(&bytes);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{}: {error}", target.name));
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test] fn $name() {
            take_anything(viva::fuzzing::target(stringify!($name)).expect("is a target"));
        })*

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

targets! {
    data_packet datagram interview_yaml join_query join_request jwt offer relay_stream rtcp sdp_munging signal_json
    signal_protobuf srtcp trickle_fragment twirp_json twirp_protobuf webhook_json whip_sdp worker_message
}

#[test]
fn every_target_is_run_here_and_by_the_fuzzer() {
    let names: BTreeSet<_> = TARGETS.iter().map(|target| target.name).collect();
    assert_eq!(names, TESTED.iter().copied().collect(), "add it to the list above");
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/Cargo.toml")).expect("readable");
    let fuzzed = manifest.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    let fuzzed: BTreeSet<_> = fuzzed.filter(|name| *name != "viva-fuzz").collect();
    assert_eq!(names, fuzzed, "add it to fuzz/Cargo.toml");
}

#[test]
fn the_seeds_get_far() {
    // `scripts/fuzz.sh` has them written for libFuzzer.
    let corpus = std::env::var_os("VIVA_FUZZ_SEEDS").map(std::path::PathBuf::from);
    for target in TARGETS {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}", target.name);
        let Some(folder) = corpus.as_ref().map(|corpus| corpus.join(target.name)) else { continue };
        std::fs::create_dir_all(&folder).expect("a folder");
        for (n, seed) in seeds.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{n}")), seed).expect("writable");
        }
    }
    let offer = viva::fuzzing::target("offer").expect("is there").seeds;
    assert!(offer().iter().all(|sdp| sdp.starts_with(b"v=0\r\n")));
}
