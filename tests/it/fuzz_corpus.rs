//! The inputs that fuzzing has kept, once more: those that reach all of the code that it found, and those that once failed.

use std::path::Path;

#[path = "../../fuzz/bodies/files.rs"]
mod files;
#[path = "../../fuzz/bodies/pictures.rs"]
mod pictures;
#[path = "../../fuzz/bodies/plan.rs"]
mod plan;

/// The examples, as the bodies of the targets look for them.
mod examples {
    pub(crate) use crate::examples_classify as classify;
    pub(crate) use crate::examples_gallery::gallery;
    pub(crate) use crate::examples_networks::{detect_text, shots};
    pub(crate) use crate::examples_verify::{layers, verify};
    pub(crate) use crate::examples_views::deform_view;
}

/// Runs a target on each file of its corpus. What it prints last before it fails is the file.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        println!("{}", file.display());
        run(&std::fs::read(&file).expect("an input"));
    }
}

#[test]
fn plan_corpus() {
    replay("plan", plan::run);
}

#[test]
fn files_corpus() {
    replay("files", files::run);
}

#[test]
fn pictures_corpus() {
    replay("pictures", pictures::run);
}
