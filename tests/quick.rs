#![allow(dead_code)]
#[path = "it/calls.rs"]
mod calls;
#[path = "it/common.rs"]
mod common;
#[path = "it/faults.rs"]
mod faults;
#[path = "it/lost.rs"]
mod lost;
#[path = "it/threads.rs"]
mod threads;
