//! The integration tests, one binary: fewer links, faster runs.

mod common;
mod conv;
mod golden;
