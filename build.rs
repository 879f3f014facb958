//! Makes a build follow what it embeds and no `use` names: the database's migrations, and in a release the web page.
//!
//! The page may be absent (the server then says how to build it), but cargo can only watch a folder that is there.
//! Debug builds read the page from disk and need no rebuild.

use std::{env, fs};

const PAGE: &str = "web/dist";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/store/migrations");
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") && fs::create_dir_all(PAGE).is_ok() {
        println!("cargo::rerun-if-changed={PAGE}");
    }
}
