#![no_main]
#![allow(clippy::duplicate_mod, dead_code)] // Each example brings what examples share, and only their readers are used.

#[path = "../bodies/examples.rs"]
mod examples;
#[path = "../bodies/files.rs"]
mod files;
#[path = "../bodies/pictures.rs"]
mod pictures;

libfuzzer_sys::fuzz_target!(|data: &[u8]| pictures::run(data));
