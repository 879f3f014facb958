//! Every fuzz target is this file: its name says which parser of `viva::fuzzing` it runs.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let target = viva::fuzzing::target(env!("CARGO_BIN_NAME")).expect("a parser of this name");
    (target.run)(bytes);
});
