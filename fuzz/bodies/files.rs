//! The files that the crate and its examples read: contents of any kind are used or refused, in one line. Pictures are a target of
//! their own.

use std::io::Write;
use std::path::Path;

use tempfile::NamedTempFile;

use super::examples::{classify, detect_text, layers, shots, verify};
use classify::network::{CLASSES, MobileNetV2, load_labels};
use detect_text::network::Detector;
use layers::roofline::Peaks;
use layers::table::read_table;
use shots::network::TransNet;

/// The first byte says which file it is, the others are in it.
pub fn run(data: &[u8]) {
    let Some((&kind, contents)) = data.split_first() else { return };
    match kind % 8 {
        0 => tuning(contents),
        1 => pipelines(contents),
        2 => frames(contents),
        3 => with_file(contents, labels),
        4 => with_file(contents, table),
        5 => with_file(contents, peaks),
        6 => with_file(contents, case),
        _ => with_file(contents, weights),
    }
}

/// Runs a reader on a file of such contents.
pub fn with_file(contents: &[u8], read: impl FnOnce(&Path)) {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(contents).expect("a temporary file");
    read(file.path());
}

/// An error is one line that names the file.
fn refused(error: impl std::fmt::Display, path: &Path) {
    let text = error.to_string();
    assert!(text.contains(&path.display().to_string()) && text.len() > path.as_os_str().len() + 2, "{text}");
}

fn tuning(contents: &[u8]) {
    for measures in [false, true] {
        match wgconv::fuzzing::tuning_table(contents, "p", measures) {
            Ok((_, file)) => {
                let plain = |c: char| c.is_alphanumeric() || "._-".contains(c);
                assert!(file.starts_with("tuning") && file.ends_with(".json") && file.chars().all(plain), "{file}");
            }
            Err(error) => assert!(matches!(error, wgconv::Error::File { .. }), "{error}"),
        }
    }
}

fn pipelines(contents: &[u8]) {
    if let Some(data) = wgconv::fuzzing::pipeline_cache(contents) {
        assert!(contents.ends_with(data) && contents.len() == data.len() + 20);
    }
    // No fuzzer guesses a checksum: the same contents behind a header that is right, and with one byte changed.
    let length = (contents.len() as u64).to_le_bytes();
    let mut whole = [b"WGCONVPC", &length[..], &crc32fast::hash(contents).to_le_bytes(), contents].concat();
    assert_eq!(wgconv::fuzzing::pipeline_cache(&whole), Some(contents));
    let at = contents.iter().fold(0, |at, &byte| (at * 31 + usize::from(byte)) % whole.len());
    whole[at] ^= 1 << (contents.len() % 8);
    assert_eq!(wgconv::fuzzing::pipeline_cache(&whole), None);
}

/// A name in parts: its numbers, without zeros in front, and the other characters one by one.
fn parts(name: &str) -> Vec<(bool, String)> {
    let mut parts: Vec<(bool, String)> = Vec::new();
    for c in name.chars() {
        match parts.last_mut() {
            Some((true, number)) if c.is_ascii_digit() => number.push(c),
            _ => parts.push((c.is_ascii_digit(), c.into())),
        }
    }
    parts.iter_mut().for_each(|(digits, part)| {
        if *digits {
            *part = part.trim_start_matches('0').into();
        }
    });
    parts
}

/// A folder with files of the names that the lines are.
fn frames(contents: &[u8]) {
    let text = String::from_utf8_lossy(contents);
    let names = text.lines().filter(|name| !name.contains(['/', '\0']) && (1..200).contains(&name.len()));
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in names.take(8).filter(|name| ![".", ".."].contains(name)) {
        std::fs::write(folder.path().join(name), "").expect("a temporary file");
    }
    let Ok(files) = shots::clip::files(folder.path()) else { return };
    let name = |path: &Path| path.file_name().expect("a name").to_string_lossy().into_owned();
    for pair in files.windows(2) {
        let (a, b) = (parts(&name(&pair[0])), parts(&name(&pair[1])));
        if let Some(((true, a), (true, b))) =
            a.iter().zip(&b).find(|(a, b)| a != b).map(|(a, b)| (a.clone(), b.clone()))
        {
            assert!((a.len(), &a) < (b.len(), &b), "{files:?}");
        }
    }
}

fn labels(path: &Path) {
    match load_labels(path) {
        Ok(labels) => assert_eq!(labels.len(), CLASSES),
        Err(error) => refused(error, path),
    }
}

fn table(path: &Path) {
    match read_table(Some(path)) {
        Ok(layers) => {
            for layer in layers {
                match layer.problem() {
                    Ok(problem) => {
                        let sizes = [problem.flops, problem.least_bytes];
                        assert!(sizes.iter().all(|size| size.is_finite() && *size > 0.0), "{layer:?}");
                    }
                    Err(error) => assert!(!error.to_string().is_empty(), "{layer:?}"),
                }
            }
        }
        Err(error) => refused(error, path),
    }
}

fn peaks(path: &Path) {
    match Peaks::read(path) {
        Ok(peaks) => assert!(peaks.floor(1e9, 1e9).floor_ms >= 0.0),
        Err(error) => refused(error, path),
    }
}

/// A case that can be run is run, on the CPU reference.
fn case(path: &Path) {
    let mut out = Vec::new();
    let count = verify::app::verify(&[path.to_path_buf()], None, &mut out).expect("a file that is there");
    assert_eq!(count.passed + count.failed, 1);
    let text = String::from_utf8(out).expect("text");
    assert_eq!(text.lines().count(), 2, "{text}");
}

/// Weights of a network.
fn weights(path: &Path) {
    match detect_text::common::load_safetensors(path) {
        Ok(archive) => {
            for (name, array) in &archive.tensors {
                assert_eq!(array.shape().iter().product::<usize>(), array.len(), "{name}");
            }
            Detector::new(&archive, None).err().inspect(|error| refused(error, path));
        }
        Err(error) => refused(error, path),
    }
    if let Ok(archive) = classify::common::load_safetensors(path) {
        MobileNetV2::new(&archive).err().inspect(|error| refused(error, path));
    }
    if let Ok(archive) = shots::common::load_safetensors(path) {
        TransNet::new(&archive, None).err().inspect(|error| refused(error, path));
    }
}
