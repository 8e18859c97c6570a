//! `verify` and `layers`: what they print, what they make of broken files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use wgconv::ndarray::ArrayD;

use crate::common::{gpu, integers, open};
use layers::app::Request;
use layers::table::{Tier, read_table};
use verify::app::Count;

#[path = "../../examples/layers/main.rs"]
#[allow(dead_code)] // Not its `main`.
pub(crate) mod layers;
#[path = "../../examples/verify/main.rs"]
#[allow(dead_code)]
pub(crate) mod verify;

/// An empty folder of that name.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    folder
}

/// Writes a case file.
fn write(path: &Path, metadata: &[(&str, &str)], tensors: &[(&str, ArrayD<f32>)]) {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, array)| array.iter().flat_map(|value| value.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, array), bytes)| {
        (*name, TensorView::new(Dtype::F32, array.shape().to_vec(), bytes).expect("tensor"))
    });
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(key, value)| ((*key).to_string(), (*value).to_string())).collect();
    let file = safetensors::serialize(views, Some(metadata)).expect("safetensors");
    std::fs::write(path, file).expect("a temporary file");
}

/// A 3x3 convolution of ones over ones: 9 inside, 6 on the edges, 4 in the corners.
fn ones() -> Vec<(&'static str, ArrayD<f32>)> {
    let output = ArrayD::from_shape_fn(vec![1, 1, 4, 4], |i| {
        let inside = |at: usize| if at == 0 || at == 3 { 2.0 } else { 3.0 };
        inside(i[2]) * inside(i[3])
    });
    let ones = |shape: &[usize]| ArrayD::ones(shape);
    vec![("input", ones(&[1, 1, 4, 4])), ("weight", ones(&[1, 1, 3, 3])), ("output", output)]
}

const CONV: &[(&str, &str)] = &[("op", "\"conv\""), ("pads", "[1, 1, 1, 1]")];

/// What `verify` prints for a path, on the CPU reference.
fn lines(path: &Path) -> (Vec<String>, Count) {
    let mut out = Vec::new();
    let count = verify::app::verify(&[path.to_path_buf()], None, &mut out).expect("verify");
    (String::from_utf8(out).expect("text").lines().map(str::to_string).collect(), count)
}

/// The reason that `verify` gives for a file that must fail.
#[track_caller]
fn reason(path: &Path) -> String {
    let (lines, count) = lines(path);
    assert_eq!((lines.len(), count), (2, Count { passed: 0, failed: 1 }), "{lines:?}");
    assert_eq!(lines[1], "0 passed, 1 failed");
    let start = format!("FAIL  {}: ", verify::case::name_of(path));
    lines[0].strip_prefix(&start).unwrap_or_else(|| panic!("{lines:?}")).to_string()
}

#[test]
fn folders_are_searched_and_sorted() {
    let folder = folder("verify_folder");
    std::fs::create_dir(folder.join("b")).expect("folder");
    write(&folder.join("c.safetensors"), CONV, &ones());
    write(&folder.join("b/z.safetensors"), CONV, &ones());
    let mut wrong = ones();
    wrong[2].1[[0, 0, 1, 2]] += 1e-3;
    write(&folder.join("a.safetensors"), CONV, &wrong);
    std::fs::write(folder.join("notes.txt"), "no case").expect("file");
    let (lines, count) = lines(&folder);
    assert_eq!(count, Count { passed: 2, failed: 1 });
    assert_eq!(lines.len(), 4);
    assert!(lines[0].starts_with("FAIL  a: ") && lines[0].contains("at [0, 0, 1, 2]"), "{lines:?}");
    assert!(lines[1].starts_with("ok    z ") && lines[2].starts_with("ok    c "), "{lines:?}");
    assert_eq!(lines[3], "2 passed, 1 failed");
}

#[test]
fn a_case_runs_on_the_gpu() {
    let file = folder("verify_gpu").join("ones.safetensors");
    write(&file, CONV, &ones());
    let mut out = Vec::new();
    let count = verify::app::verify(&[file], Some(&gpu()), &mut out).expect("verify");
    assert_eq!(count, Count { passed: 1, failed: 0 }, "{}", String::from_utf8_lossy(&out));
}

#[test]
fn broken_files_are_failures_with_a_reason() {
    let folder = folder("verify_broken");
    assert!(reason(&folder.join("missing.safetensors")).contains("No such file"));

    let cut = folder.join("cut.safetensors");
    write(&cut, CONV, &ones());
    let bytes = std::fs::read(&cut).expect("read");
    for length in [0, 5, 40, bytes.len() - 1] {
        std::fs::write(&cut, &bytes[..length]).expect("write");
        assert!(reason(&cut).contains("not a whole safetensors file"), "{length}");
    }
    let text = folder.join("text.safetensors");
    std::fs::write(&text, "this is a text and no case at all").expect("write");
    assert!(reason(&text).contains("not a whole safetensors file"));

    let nothing = folder.join("nothing");
    std::fs::create_dir(&nothing).expect("folder");
    let error = verify::app::verify(&[nothing], None, &mut Vec::new()).expect_err("no case");
    assert!(error.to_string().contains("no file that ends in .safetensors"), "{error}");
}

#[test]
fn wrong_metadata_and_shapes_are_failures_with_a_reason() {
    let file = folder("verify_wrong").join("case.safetensors");
    let check = |metadata: &[(&str, &str)], tensors: &[(&str, ArrayD<f32>)], expected: &str| {
        write(&file, metadata, tensors);
        let reason = reason(&file);
        assert!(reason.contains(expected), "{reason:?} for {metadata:?}, expected {expected:?}");
    };
    let with = |key, value| [CONV, &[(key, value)]].concat();
    let conv = ("op", "\"conv\"");
    check(&[], &ones(), "op: missing");
    check(&[("op", "conv")], &ones(), "not the JSON text");
    check(&[("op", "\"deconv\"")], &ones(), "op: expected conv, conv_transpose, deform_conv or involution, got deconv");
    check(&[conv], &ones(), "output: expected shape [1, 1, 2, 2]");
    check(&[conv, ("pads", "[1, 1]")], &ones(), "pads: expected 4 values");
    check(&[conv, ("pads", "[-1, 1, 1, 1]")], &ones(), "not the JSON text");
    check(&with("stride", "[0, 1]"), &ones(), "stride");
    check(&with("stride", "[1, 1, 1]"), &ones(), "stride: expected 2 values");
    check(&with("dilation", "[4611686018427387904, 1]"), &ones(), "conv");
    check(&with("groups", "0"), &ones(), "groups");
    check(&with("groups", "3"), &ones(), "groups");
    check(&with("rank", "3"), &ones(), "rank: expected 2");
    check(&with("kernel", "[3, 2]"), &ones(), "kernel: expected [3, 3]");
    check(&with("padding_mode", "\"mirror\""), &ones(), "padding_mode");
    check(&[conv, ("pads", "[9, 9, 9, 9]"), ("padding_mode", "\"reflect\"")], &ones(), "reflect");
    check(CONV, &ones()[..2], "no tensor named output");
    check(CONV, &ones()[1..], "no tensor named input");
    let bias = ("bias", ArrayD::ones(vec![2]));
    check(CONV, &[ones(), vec![bias]].concat(), "bias");
    let flat =
        |name| ones().into_iter().map(move |(n, array)| (n, if n == name { ArrayD::ones(vec![4]) } else { array }));
    for name in ["input", "weight", "output"] {
        check(CONV, &flat(name).collect::<Vec<_>>(), name);
    }
    check(&[("op", "\"deform_conv\""), CONV[1]], &ones(), "offset");
    check(&[("op", "\"involution\""), CONV[1]], &ones(), "kernel: missing");
    let offset = ("offset", integers(&[1, 18, 4, 3], 1, 1));
    check(&[("op", "\"deform_conv\""), CONV[1]], &[ones(), vec![offset]].concat(), "offset");
}

fn request(table: Option<PathBuf>, filter: &str) -> Request {
    let filter = filter.into();
    Request { table, tier: None, filter, kernel: None, repeat: 2, check: true, peaks: None, json: None }
}

#[test]
fn layers_are_measured_and_checked() {
    let folder = folder("layers");
    let (table, json) = (folder.join("layers.json"), folder.join("out.json"));
    let layer = |name, op, rest| {
        format!(
            r#"{{"name": "{name}", "op": "{op}", "tier": "cpu", "batch": 2, "in_channels": 4, "out_channels": 4, "spatial": [9, 8],
                "kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], {rest}}}"#
        )
    };
    let cases = [
        layer("a", "conv", r#""groups": 2"#),
        layer("b", "conv_transpose", r#""groups": 1"#),
        layer("c", "deform_conv", r#""groups": 1, "offset_groups": 2, "mask": true"#),
        layer("d", "involution", r#""groups": 2"#),
        layer("e", "conv", r#""groups": 3"#),
    ];
    std::fs::write(&table, format!("{{\"cases\": [{}]}}", cases.join(", "))).expect("write");
    // A device of its own: what other tests record would be timed too.
    let peaks = folder.join("peaks.json");
    let peak = |unit: &str, median: f64| {
        format!(r#"{{"name": "p", "unit": "{unit}", "min": 1, "median": {median}, "max": 9}}"#)
    };
    let some = [peak("GFLOP/s", 2.0), peak("GB/s", 0.55), peak("GFLOP/s", 4.0)].join(", ");
    std::fs::write(&peaks, format!("{{\"peaks\": [{some}]}}")).expect("write");
    let request = Request { json: Some(json.clone()), peaks: Some(peaks), ..request(Some(table), "") };
    let mut out = Vec::new();
    let failed = layers::app::layers(&request, Some(&open()), &mut out).expect("layers");
    let out = String::from_utf8(out).expect("text");
    // The last has groups that do not divide.
    assert_eq!((failed, out.lines().count()), (1, 7), "{out}");
    assert!(
        out.lines().last().is_some_and(|line| line.starts_with("e ") && line.contains("not divisible by groups = 3")),
        "{out}"
    );
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(json).expect("json")).expect("json");
    let rows = report["layers"].as_array().expect("layers");
    assert_eq!(
        rows.iter().map(|row| row["op"].as_str()).collect::<Vec<_>>(),
        ["conv", "conv_transpose", "deform_conv", "involution"].map(Some)
    );
    for row in rows {
        let number = |key: &str| row[key].as_f64().unwrap_or_else(|| panic!("{key} of {row}"));
        assert!(number("max_error") <= number("error_bound"), "{row}");
        assert!(
            number("first_ms") > 0.0 && number("wall_ms") > 0.0 && number("gflops") > 0.0 && number("gb_per_s") > 0.0
        );
        let seconds = row["kernel_ms"].as_f64().unwrap_or(number("wall_ms")) / 1e3;
        let (compute, memory) = (number("gflops") * seconds / 4.0 * 1e3, number("gb_per_s") * seconds / 0.55 * 1e3);
        assert!((number("floor_ms") / compute.max(memory) - 1.0).abs() < 1e-9, "{row}");
        assert_eq!(row["bound_by"], if compute >= memory { "operations" } else { "bytes" }, "{row}");
        assert!(row["kernel_ms"].is_null() || number("kernel_ms") > 0.0, "{row}");
    }
}

#[test]
fn peaks_that_are_none_are_refused() {
    let path = folder("peaks").join("peaks.json");
    for text in ["", "{}", "{\"peaks\": []}", "{\"peaks\": [{\"unit\": \"GB/s\", \"median\": 1}]}"] {
        std::fs::write(&path, text).expect("write");
        let request = Request { peaks: Some(path.clone()), ..request(None, "dcn_v1_paddle") };
        let error = layers::app::layers(&request, None, &mut Vec::new()).expect_err("no peaks").to_string();
        assert!(error.contains("peaks.json"), "{error}");
    }
}

#[test]
fn a_wrong_result_fails_its_layer() {
    let all = read_table(None).expect("table");
    let mut problem =
        all.iter().find(|layer| layer.name == "dcn_v1_paddle").expect("layer").problem().expect("problem");
    let arrays = problem.arrays();
    let right = problem.operation.reference(&arrays, layers::operation::At::All).expect("reference");
    let right: Vec<f32> = right.iter().map(|&value| value as f32).collect();
    let with = |at: usize, value: f32| {
        let mut wrong = right.clone();
        wrong[at] = value;
        wrong
    };
    let check = |problem: &_, got: &[f32]| layers::measure::check(problem, "sliced", &arrays, got).expect("check");
    assert!(check(&problem, &right).passed);
    let off = check(&problem, &with(77, right[77] + 1e-2));
    assert!(!off.passed && off.index == layers::operation::index_of(77, &problem.output), "{off:?}");
    let nan = check(&problem, &with(78, f32::NAN));
    assert!(!nan.passed && nan.error == f64::INFINITY, "{nan:?}");
    // Of a layer with more work, elements are drawn.
    problem.flops = 1e11;
    assert!(check(&problem, &right).passed);
    let shifted: Vec<f32> =
        right.iter().enumerate().map(|(i, value)| if i % 64 == 0 { value + 1e-2 } else { *value }).collect();
    let off = check(&problem, &shifted);
    assert!(!off.passed && off.error > 9e-3, "{off:?}");
}

#[test]
fn the_table_counts_what_the_papers_count() {
    let all = read_table(None).expect("table");
    let work =
        |name: &str| all.iter().find(|layer| layer.name == name).expect("layer").problem().expect("problem").flops;
    assert_eq!(work("resnet50_3x3_56"), 2.0 * 56.0 * 56.0 * 64.0 * 64.0 * 9.0);
    assert_eq!(work("dcgan_up"), 2.0 * 16.0 * 16.0 * 256.0 * 128.0 * 16.0);
    assert_eq!(work("rednet_inv7_56"), 2.0 * 56.0 * 56.0 * 64.0 * 49.0);
    assert_eq!(work("mobilenet_dw_112_s2"), 2.0 * 56.0 * 56.0 * 64.0 * 9.0);
    for layer in &all {
        layer.problem().unwrap_or_else(|error| panic!("{error}"));
    }
    assert!(all.iter().any(|layer| layer.tier == Tier::Gpu));
}

#[test]
fn broken_tables_are_errors() {
    let folder = folder("layers_broken");
    let error = |table: &Path| match layers::app::layers(&request(Some(table.to_path_buf()), ""), None, &mut Vec::new())
    {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{} passed", table.display()),
    };
    assert!(error(&folder.join("missing.json")).contains("No such file"));
    let table = folder.join("table.json");
    for text in ["", "{", "[]", "{\"cases\": [{\"name\": \"a\"}]}", "{\"cases\": 3}", &layers::table::LAYERS[..400]] {
        std::fs::write(&table, text).expect("write");
        assert!(error(&table).contains("not a table of layers"), "{text}");
    }
    std::fs::write(&table, "{\"cases\": []}").expect("write");
    assert!(error(&table).contains("no layer"));
}
