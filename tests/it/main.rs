//! The integration tests, one binary: fewer links, faster runs.
#![allow(clippy::duplicate_mod)] // Each example brings the modules that examples share.

mod activation;
mod batch_norm;
mod blocks;
mod calls;
mod common;
mod conv;
mod conv_transpose;
mod deform;
mod elementwise;
mod errors;
mod examples_classify;
mod examples_gallery;
mod examples_networks;
mod examples_receptive_field;
mod examples_verify;
mod examples_verify_random;
mod examples_views;
mod faults;
mod fuzz_corpus;
mod golden;
mod involution;
mod linear;
mod lost;
mod plans;
mod pool;
mod rearrange;
mod recording;
mod separable;
mod size;
mod softmax;
mod threads;
mod tuning;
mod winograd;
