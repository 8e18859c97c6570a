//! The examples `detect_text` and `shots`: the networks against what onnxruntime and PyTorch make of them, broken weights, and the
//! programs as a user runs them.

use std::path::{Path, PathBuf};

use clap::Parser;
use wgconv::Gpu;
use wgconv::ndarray::{Array2, ArrayD};

use crate::common::{gpu, open};
use crate::examples_classify::{example, expect_failure, text};
use detect_text::common::{Archive, Error, data, load_safetensors};
use detect_text::layers::Value;
use detect_text::network::Detector;
use detect_text::{picture, regions};
use shots::network::TransNet;
use shots::{Change, changes, clip};

#[allow(dead_code)] // Its main.
#[path = "../../examples/detect_text/main.rs"]
pub(crate) mod detect_text;
#[allow(dead_code)]
#[path = "../../examples/shots/main.rs"]
pub(crate) mod shots;

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

/// The weights as `shots` takes them.
fn shot_weights() -> shots::common::Archive {
    shots::common::load_safetensors(&data("transnetv2.safetensors")).expect("weights")
}

/// Both sides have the same weights, rounded to f16 before, and compute in f32: 14 layers one behind the other, sums of up to 4864
/// products, logits up to 12 in size. PyTorch's are 2.3e-6 off double precision; another order of summation, and batch norms folded into
/// weights, are worth as much again a few times over. A mistake is far from that: another dilation in any one branch moves a logit by 1 or
/// more, an epsilon of 1e-5 in the batch norms by 0.1, frames compared with those one later by 0.009.
const LOGITS_BOUND: f32 = 3e-5;

#[test]
fn shot_logits_are_pytorchs() {
    let golden = stored("transnetv2_golden.safetensors");
    let frames: Vec<Vec<u8>> =
        array(&golden, "frames").outer_iter().map(|f| f.iter().map(|&v| v as u8).collect()).collect();
    assert_eq!((frames.len(), frames[0].len()), (20, 27 * 48 * 3));
    let weights = shot_weights();
    let run = |gpu: Option<&Gpu>, frames: &[Vec<u8>]| {
        let network = TransNet::new(&weights, gpu).expect("network");
        let logits = network.logits(gpu, frames).expect("logits");
        [logits.single, logits.many].map(|logits| ArrayD::from_shape_vec(vec![frames.len()], logits).expect("logits"))
    };
    let got = run(Some(&gpu()), &frames);
    for (name, got) in ["single", "many"].into_iter().zip(&got) {
        let error = farthest(got, &array(&golden, name));
        println!("{name}: {error:e} off PyTorch");
        assert!(error <= LOGITS_BOUND, "{name}: {error:e} off PyTorch");
    }
    let cuts: Vec<_> = (0..20).filter(|&i| got[0][i] > 0.0).collect();
    assert_eq!(cuts, [6, 12], "the cuts of the stored clip");
    // The reference, which is slow, on three frames.
    for (gpu, reference) in run(Some(&gpu()), &frames[5..8]).iter().zip(&run(None, &frames[5..8])) {
        let error = farthest(gpu, reference);
        assert!(error <= LOGITS_BOUND, "{error:e} off the reference");
    }
}

/// Runs `shots`.
fn watch(arguments: &[&str]) -> Result<Vec<Change>, shots::common::Error> {
    shots::run(&shots::Options::try_parse_from([&["shots"], arguments].concat()).expect("arguments"))
}

#[test]
fn cuts_are_found_where_they_are() {
    let found = watch(&[]).expect("runs");
    let (frames, cuts) = clip::synthetic().expect("a clip");
    assert_eq!(frames.len(), 50);
    assert_eq!(
        found.iter().map(|change| (change.first, change.last)).collect::<Vec<_>>(),
        cuts.iter().map(|&cut| (cut, cut)).collect::<Vec<_>>()
    );
}

#[test]
fn changes_are_runs_over_the_threshold() {
    let change = |first, last, probability| Change { first, last, probability };
    assert_eq!(changes(&[0.1, 0.7, 0.9, 0.2, 0.5, 0.6], 0.5), [change(1, 2, 0.9), change(5, 5, 0.6)]);
    assert_eq!(changes(&[f32::NAN, 0.4], 0.5), []);
    assert_eq!(changes(&[], 0.5), []);
}

#[test]
fn frames_come_in_the_order_of_their_numbers() {
    let folder = temporary("networks_frames");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("folder");
    let refused = |folder: &Path| watch(&[folder.to_str().expect("utf-8")]).expect_err("an error");
    let error = refused(&folder);
    assert!(matches!(error, shots::common::Error::Contents { .. }), "{error}");
    let error = refused(&folder.join("none"));
    assert!(matches!(error, shots::common::Error::Io { .. }), "{error}");
    for (i, name) in ["f_2.png", "f_9.PNG", "f_010.png", "f_11.jpg", "g.jpeg"].into_iter().enumerate() {
        let picture = image::RgbImage::from_pixel(7, 5, image::Rgb([i as u8 * 40, 9, 200]));
        let format =
            if name.ends_with('g') && name.contains(".j") { image::ImageFormat::Jpeg } else { image::ImageFormat::Png };
        picture.save_with_format(folder.join(name), format).expect("save");
    }
    std::fs::write(folder.join("notes.txt"), "no frame").expect("write");
    let files = clip::files(&folder).expect("files");
    let mut count = 0;
    let frames = clip::read(&files, || count += 1).expect("frames");
    assert_eq!((frames.len(), count), (5, 5));
    assert!(frames.iter().all(|frame| frame.len() == 27 * 48 * 3));
    assert!(frames.iter().enumerate().all(|(i, frame)| frame[0].abs_diff(i as u8 * 40) < 8), "{files:?}");
    std::fs::write(folder.join("h.png"), "not a picture").expect("write");
    let error = refused(&folder);
    assert!(matches!(&error, shots::common::Error::Picture { path, .. } if path.ends_with("h.png")), "{error}");
    std::fs::remove_dir_all(&folder).expect("clean up");
}

#[test]
fn broken_shot_weights_are_errors() {
    use shots::common::Error;
    let mut archive = shot_weights();
    for name in ["SDDCNN.1.DDCNN.0.Conv3D_4.layers.1.weight", "SDDCNN.2.DDCNN.1.bn.running_var", "fc1.bias"] {
        let whole = archive.tensors.remove(name).expect(name);
        let error = TransNet::new(&archive, None).err().expect("an error");
        assert!(matches!(&error, Error::NoTensor { tensor, .. } if tensor == name), "{error}");
        archive.tensors.insert(name.into(), ArrayD::zeros(vec![2, 2]));
        let error = TransNet::new(&archive, None).err().expect("an error");
        assert!(matches!(&error, Error::Shape { tensor, .. } if tensor == name), "{error}");
        archive.tensors.insert(name.into(), whole);
    }
    let folder = temporary("networks_shot_weights");
    std::fs::create_dir_all(&folder).expect("folder");
    let bytes = std::fs::read(data("transnetv2.safetensors")).expect("weights");
    std::fs::write(folder.join("transnetv2.safetensors"), &bytes[..bytes.len() / 3]).expect("write");
    let error = watch(&["--data", folder.to_str().expect("utf-8")]).expect_err("an error");
    assert!(matches!(error, Error::Safetensors { .. }), "{error}");
    std::fs::remove_dir_all(&folder).expect("clean up");
    assert!(matches!(watch(&["--data", "nowhere"]), Err(Error::Io { .. })));
    assert!(matches!(watch(&["--adapter", "no such adapter"]), Err(Error::Gpu(_))));
}

#[test]
fn network_programs_run() {
    for name in ["detect_text", "shots"] {
        let help = example(name, &["--help"], &[]);
        assert!(help.status.success() && text(&help.stdout).contains("--adapter"), "{name}");
        expect_failure(name, &["none.png"], "none.png");
        expect_failure(name, &["--adapter", "no such adapter"], "no such adapter");
    }
    let out = temporary("networks_program.png");
    let arguments = ["--side", "64", "--out", out.to_str().expect("utf-8")];
    let output = example("detect_text", &arguments, &[]);
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    for part in ["adapter", "seen as 64 x 32", "submissions each: 1", "lines of text"] {
        assert!(stdout.contains(part), "no {part} in {stdout}");
    }
    #[cfg(target_os = "linux")]
    {
        // The loader of Vulkan drivers finds none where these point nowhere.
        let hidden = [("VK_DRIVER_FILES", "/nowhere"), ("VK_ICD_FILENAMES", "/nowhere")];
        let output = example("detect_text", &arguments, &hidden);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && stdout.contains("CPU reference"), "{stdout} {stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains("cargo xtask setup"), "{stderr}");
    }
}
