//! The parts of the example `classify` that read files; its main keeps them to itself.

#[path = "../../examples/common/mod.rs"]
pub mod common;
#[path = "../../examples/classify/network.rs"]
pub mod network;
#[path = "../../examples/classify/picture.rs"]
pub mod picture;
