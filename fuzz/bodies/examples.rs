//! The examples, whose readers are fuzzed.

#[path = "classify.rs"]
pub mod classify;
#[path = "../../examples/deform_view/main.rs"]
pub mod deform_view;
#[path = "../../examples/detect_text/main.rs"]
pub mod detect_text;
#[path = "../../examples/gallery/main.rs"]
pub mod gallery;
#[path = "../../examples/layers/main.rs"]
pub mod layers;
#[path = "../../examples/shots/main.rs"]
pub mod shots;
#[path = "../../examples/verify/main.rs"]
pub mod verify;
