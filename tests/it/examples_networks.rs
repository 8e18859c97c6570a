//! The examples `detect_text` and `shots`: the networks against what onnxruntime and PyTorch make of them, broken weights, and the
//! programs as a user runs them.

use std::path::{Path, PathBuf};

use clap::Parser;
use wgconv::ndarray::{Array2, ArrayD};

use crate::common::{gpu, open};
use detect_text::common::{Archive, Error, data, load_safetensors};
use detect_text::layers::Value;
use detect_text::network::Detector;
use detect_text::{picture, regions};

#[allow(dead_code)] // Its main.
#[path = "../../examples/detect_text/main.rs"]
mod detect_text;

fn stored(name: &str) -> Archive {
    load_safetensors(&data(name)).expect("a stored file")
}

fn array(archive: &Archive, name: &str) -> ArrayD<f32> {
    archive.get(name).expect("a stored array").clone()
}

#[track_caller]
fn farthest(a: &ArrayD<f32>, b: &ArrayD<f32>) -> f32 {
    assert_eq!(a.shape(), b.shape());
    a.iter().zip(b).fold(0.0, |most, (a, b)| if (a - b).abs() <= most { most } else { (a - b).abs() })
}

/// A temporary file or folder of that name.
fn temporary(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[track_caller]
fn refusal<T>(result: Result<T, Error>) -> Error {
    result.err().expect("an error")
}

/// Both sides have the same weights, rounded to f16 before either saw them, and compute in f32. About 60 layers follow one another.
/// Each rounds sums of up to 864 products, which moves a value by some 1e-6 of the sum's scale, and folding batch norms and scales into
/// weights rounds those once more: a logit, of size 10 or so, is off by some 1e-5 to 1e-4, and the sigmoid's slope is 1/4 at most. (The
/// reference in double precision measures 6e-6: that is onnxruntime's own.) A mistake is far from that. Without one of the shifts behind the
/// activations, the least of which is 9e-5, the map moves by 5e-4 or more; with the slope 1/6 in one of the neck's eight hard sigmoids by
/// 0.025 or more, but for one that saturates on this picture.
const MAP_BOUND: f32 = 5e-5;

#[test]
fn text_map_is_onnxruntimes() {
    let golden = stored("ppocr_det_golden.safetensors");
    let (input, want) = (array(&golden, "input"), array(&golden, "map"));
    assert!(want.iter().filter(|&&p| p > 0.3).count() > 500, "the stored picture has text");
    let weights = stored("ppocr_det.safetensors");
    for gpu in [Some(gpu()), None] {
        let network = Detector::new(&weights, gpu.as_ref()).expect("network");
        let x = Value::new(gpu.as_ref(), &input).expect("input");
        let got = network.probabilities(&x).and_then(|map| map.read()).expect("map");
        let error = farthest(&got, &want);
        println!("on the {}: {error:e} off onnxruntime", if gpu.is_some() { "GPU" } else { "reference" });
        assert!(error <= MAP_BOUND, "{error:e} off onnxruntime");
    }
}

#[test]
fn a_text_map_is_one_submission_and_creates_nothing() {
    let gpu = open();
    let network = Detector::new(&stored("ppocr_det.safetensors"), Some(&gpu)).expect("network");
    let x = Value::new(Some(&gpu), &array(&stored("ppocr_det_golden.safetensors"), "input")).expect("input");
    let run = || network.probabilities(&x).and_then(|map| map.read()).expect("map");
    let first = run();
    assert_eq!(run(), first);
    let before = gpu.counters();
    assert_eq!(run(), first);
    let after = gpu.counters();
    assert_eq!(after.submissions, before.submissions + 1);
    assert_eq!(
        (after.buffers, after.bind_groups, after.pipelines),
        (before.buffers, before.bind_groups, before.pipelines)
    );
}

#[test]
fn broken_text_weights_are_errors() {
    let whole = stored("ppocr_det.safetensors");
    let refused = |name: &str, with: Option<ArrayD<f32>>| {
        let mut tensors = whole.tensors.clone();
        assert!(tensors.remove(name).is_some(), "{name}");
        tensors.extend(with.map(|array| (name.to_string(), array)));
        let archive = Archive { path: "broken".into(), tensors, metadata: Default::default() };
        refusal(Detector::new(&archive, None))
    };
    for name in ["stem.norm.running_var", "block.11.se.up.bias", "neck.2.out.weight", "head.up.1.bias"] {
        let error = refused(name, None);
        assert!(matches!(&error, Error::NoTensor { tensor, .. } if tensor == name), "{error}");
        let error = refused(name, Some(ArrayD::zeros(vec![3, 1])));
        assert!(matches!(&error, Error::Shape { tensor, .. } if tensor == name), "{error}");
    }
    for scale in [0.0, f32::NAN] {
        let error = refused("block.4.pointwise.act.scale", Some(ArrayD::from_elem(vec![1], scale)));
        assert!(matches!(error, Error::Contents { .. }), "{error}");
    }

    let folder = temporary("networks_text_weights");
    std::fs::create_dir_all(&folder).expect("folder");
    let bytes = std::fs::read(data("ppocr_det.safetensors")).expect("weights");
    for length in [0, 9, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(folder.join("ppocr_det.safetensors"), &bytes[..length]).expect("write");
        let error = refusal(find(&["--data", folder.to_str().expect("utf-8")]));
        assert!(matches!(error, Error::Safetensors { .. }), "{length} bytes: {error}");
    }
    std::fs::remove_dir_all(&folder).expect("clean up");
    assert!(matches!(refusal(find(&["--data", "nowhere"])), Error::Io { .. }));
}

/// Runs `detect_text` with a sheet of its own.
fn find(arguments: &[&str]) -> Result<Vec<[u32; 4]>, Error> {
    let out = temporary("networks_text.png");
    let arguments = [&["detect_text", "--out", out.to_str().expect("utf-8")], arguments].concat();
    detect_text::run(&detect_text::Options::try_parse_from(arguments).expect("arguments"))
}

/// Whether a box holds a point.
fn holds([left, top, right, bottom]: &[u32; 4], (x, y): (u32, u32)) -> bool {
    (*left..*right).contains(&x) && (*top..*bottom).contains(&y)
}

#[test]
fn text_is_found_where_it_is() {
    let boxes = find(&[]).expect("runs");
    // The middle of each text of the page.
    let texts =
        [(250, 54), (170, 117), (180, 151), (150, 185), (170, 256), (475, 256), (130, 366), (330, 366), (510, 366)];
    assert_eq!(boxes.len(), texts.len(), "{boxes:?}");
    for text in texts {
        assert_eq!(boxes.iter().filter(|&edges| holds(edges, text)).count(), 1, "{text:?} in {boxes:?}");
    }
    let sheet = image::open(temporary("networks_text.png")).expect("the sheet").into_rgb8();
    let page = picture::page().expect("the page");
    assert_eq!(sheet.dimensions(), page.dimensions());
    assert!(sheet.pixels().zip(page.pixels()).filter(|(a, b)| a != b).count() > 1000);
    let bare = temporary("networks_bare.png");
    image::RgbImage::from_pixel(90, 33, image::Rgb([200, 210, 190])).save(&bare).expect("save");
    assert_eq!(find(&[bare.to_str().expect("utf-8"), "--side", "64"]).expect("runs"), [[0; 4]; 0]);
}

#[test]
fn bad_text_pictures_are_errors() {
    assert!(matches!(refusal(find(&["none.png"])), Error::Io { .. }));
    let labels = data("imagenet_labels.txt");
    assert!(matches!(refusal(find(&[labels.to_str().expect("utf-8")])), Error::Picture { .. }));
    let long = temporary("networks_long.png");
    image::GrayImage::new(200, 3).save(&long).expect("save");
    let error = refusal(find(&[long.to_str().expect("utf-8")]));
    assert!(matches!(&error, Error::Contents { path, .. } if *path == long), "{error}");
    let options = ["detect_text", "--out", "no/such/folder/sheet.png", "--side", "32"];
    let error = refusal(detect_text::run(&detect_text::Options::parse_from(options)));
    assert!(matches!(error, Error::Contents { .. }), "{error}");
    assert!(matches!(refusal(find(&["--adapter", "no such adapter"])), Error::Gpu(_)));
    for wrong in [&["--side", "0"][..], &["--side", "many"], &["a.png", "b.png"]] {
        assert!(detect_text::Options::try_parse_from([&["detect_text"], wrong].concat()).is_err(), "{wrong:?}");
    }
}

#[test]
fn regions_are_connected_pixels() {
    let mut map = Array2::<f32>::zeros((40, 60));
    map.slice_mut(wgconv::ndarray::s![10..14, 20..40]).fill(0.9);
    map.slice_mut(wgconv::ndarray::s![14..18, 40..50]).fill(0.7); // Touches the first at a corner.
    map.slice_mut(wgconv::ndarray::s![30..35, 0..5]).fill(0.8);
    map.slice_mut(wgconv::ndarray::s![30..35, 20..30]).fill(0.4); // Unsure.
    map.slice_mut(wgconv::ndarray::s![38..40, 20..60]).fill(0.9); // Thin.
    map[[0, 59]] = f32::NAN;
    let found = regions::regions(map.view());
    assert_eq!(found.len(), 2, "{found:?}");
    let grow = 30.0 * 8.0 * 1.6 / 76.0;
    let first = found[0];
    assert_eq!((first.left, first.top), (20.0 - grow, 10.0 - grow));
    assert_eq!((first.right, first.bottom), (50.0 + grow, 18.0 + grow));
    assert!((first.score - (0.9 * 80.0 + 0.7 * 40.0) / 120.0).abs() < 1e-6);
    assert_eq!((found[1].left, found[1].top, found[1].right, found[1].bottom), (0.0, 28.0, 7.0, 37.0));
    assert_eq!(regions::regions(Array2::from_elem((4, 4), 1.0).view()).len(), 1);
}
