//! The examples `classify`, `adapters` and `shared_device`: the network against onnxruntime, and the programs as a user runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ndarray::ArrayD;
use wgconv::{Tensor, ndarray};

use crate::common::gpu;

#[path = "../../examples/common/mod.rs"]
pub(crate) mod common;
#[allow(dead_code)] // The program uses the rest.
#[path = "../../examples/classify/device.rs"]
mod device;
#[allow(dead_code)]
#[path = "../../examples/classify/network.rs"]
pub(crate) mod network;
#[path = "../../examples/classify/picture.rs"]
pub(crate) mod picture;

use common::{Archive, Error, data, load_safetensors};
use device::OnDevice;
use network::MobileNetV2;

/// Picture, ImageNet class.
const STORED: [(&str, usize); 2] = [("coffee", 967), ("chelsea", 285)];

fn weights() -> Archive {
    load_safetensors(&data("mobilenet_v2.safetensors")).expect("weights")
}

fn stored(name: &str) -> (ArrayD<f32>, ArrayD<f32>) {
    let archive = load_safetensors(&data(&format!("{name}_logits.safetensors"))).expect("stored");
    (archive.get("input").expect("input").clone(), archive.get("logits").expect("logits").clone())
}

fn top(logits: &ArrayD<f32>) -> usize {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).expect("logits").0
}

#[test]
fn logits_are_onnxruntimes_and_pictures_are_named() {
    let network = OnDevice::new(&gpu(), &MobileNetV2::new(&weights()).expect("network")).expect("upload");
    for (name, class) in STORED {
        let (input, want) = stored(name);
        let logits = |input: &ArrayD<f32>| {
            let x = Tensor::from_array(&gpu(), input).expect("input");
            network.logits(&x).and_then(|y| Ok(y.to_array()?)).expect("logits")
        };
        let got = logits(&input);
        let error = got.iter().zip(&want).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        println!("{name}: {error:e} off onnxruntime");
        assert!(error <= 1e-3, "{name}: {error:e} off onnxruntime");
        assert_eq!(top(&got), class, "{name}");
        // The same from the picture, whose pixels may be one of 255 grey levels off, since the filter rounds differently.
        let prepared = picture::prepare(&data(&format!("{name}.png"))).expect("picture");
        let difference = prepared.iter().zip(&input).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(difference <= 1.01 / 255.0 / 0.224, "{name}.png: prepared {difference} off");
        assert_eq!(top(&logits(&prepared)), class, "{name}.png");
    }
}

#[test]
fn an_inference_is_one_submission_and_creates_nothing() {
    let gpu = crate::common::open();
    let network = OnDevice::new(&gpu, &MobileNetV2::new(&weights()).expect("network")).expect("upload");
    let x = Tensor::from_array(&gpu, &stored("coffee").0).expect("input");
    let run = || network.probabilities(&x).and_then(|y| Ok(y.to_array()?)).expect("inference");
    let first = run();
    let second = run();
    let before = gpu.counters();
    assert_eq!(run(), second);
    assert_eq!(first, second);
    let after = gpu.counters();
    assert_eq!(after.submissions, before.submissions + 1);
    assert_eq!(
        (after.buffers, after.bind_groups, after.pipelines),
        (before.buffers, before.bind_groups, before.pipelines)
    );
}

#[test]
fn reference_agrees_with_onnxruntime() {
    let (input, want) = stored("chelsea");
    let network = MobileNetV2::new(&weights()).expect("network");
    let got = network.reference(&input, |_, _| ()).expect("reference");
    let error = got.iter().zip(&want).fold(0f64, |most, (a, b)| most.max((a - f64::from(*b)).abs()));
    assert!(error <= 1e-3, "{error:e} off onnxruntime");
}

/// A folder for files that a test breaks.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("classify-{name}"));
    std::fs::create_dir_all(&folder).expect("folder");
    folder
}

#[test]
fn broken_weights_are_errors() {
    let folder = folder("weights");
    let file = folder.join("mobilenet_v2.safetensors");
    let whole = common::read(&data("mobilenet_v2.safetensors")).expect("weights");
    let with = |bytes: &[u8]| {
        std::fs::write(&file, bytes).expect("write");
        load_safetensors(&file)
    };
    assert!(matches!(load_safetensors(&folder.join("none")), Err(Error::Io { .. })));
    assert!(matches!(load_safetensors(&folder), Err(Error::Io { .. })));
    for length in [0, 7, 100, whole.len() / 2, whole.len() - 1] {
        assert!(matches!(with(&whole[..length]), Err(Error::Safetensors { .. })), "{length} bytes");
    }
    assert!(matches!(with(&common::read(&data("coffee.png")).expect("png")), Err(Error::Safetensors { .. })));
    // A tensor of integers, in the format's own bytes.
    let header = br#"{"input":{"dtype":"I32","shape":[2],"data_offsets":[0,8]}}"#;
    let integers = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 8]].concat();
    assert!(matches!(with(&integers), Err(Error::Dtype { .. })));
    std::fs::remove_dir_all(&folder).expect("clean up");

    let mut archive = weights();
    archive.tensors.insert("features.3.conv.1.0.weight".into(), ArrayD::zeros(vec![144, 3, 3]));
    let refused = MobileNetV2::new(&archive).err().expect("a shape error");
    assert!(matches!(&refused, Error::Shape { expected, .. } if expected == &[144, 1, 3, 3]), "{refused}");
    archive.tensors.remove("features.2.conv.0.1.running_var");
    let refused = MobileNetV2::new(&archive).err().expect("a missing tensor");
    assert!(matches!(&refused, Error::NoTensor { tensor, .. } if tensor.ends_with("running_var")), "{refused}");
}

#[test]
fn broken_pictures_are_errors() {
    let folder = folder("pictures");
    let file = folder.join("picture.png");
    let whole = common::read(&data("coffee.png")).expect("picture");
    let with = |bytes: &[u8]| {
        std::fs::write(&file, bytes).expect("write");
        picture::prepare(&file)
    };
    assert!(matches!(picture::prepare(&folder.join("none.png")), Err(Error::Io { .. })));
    for bytes in [&[][..], &b"not a picture"[..], &whole[..20], &whole[..whole.len() / 2]] {
        assert!(matches!(with(bytes), Err(Error::Picture { .. })), "{} bytes", bytes.len());
    }
    image::GrayImage::new(2000, 3).save(&file).expect("save");
    assert!(matches!(picture::prepare(&file), Err(Error::Contents { .. })));
    image::GrayImage::new(1, 3).save(&file).expect("save");
    assert_eq!(picture::prepare(&file).expect("a tiny picture").shape(), [1, 3, 224, 224]);
    std::fs::remove_dir_all(&folder).expect("clean up");
}

/// Runs an example, which cargo builds before it runs tests.
pub(crate) fn example(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let test = std::env::current_exe().expect("this test");
    let built = test.parent().and_then(Path::parent).expect("target folder").join("examples").join(name);
    let mut command = Command::new(built.with_extension(std::env::consts::EXE_EXTENSION));
    command.args(arguments).envs(environment.iter().copied()).output().expect("cargo builds examples with the tests")
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
pub(crate) fn expect_failure(name: &str, arguments: &[&str], message: &str) {
    let output = example(name, arguments, &[]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
    assert!(stderr.lines().count() == 1 && stderr.contains(message), "{arguments:?}: {stderr}");
}

#[test]
fn programs_run() {
    let output = example("classify", &["--layers"], &[]);
    let stdout = text(&output.stdout);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let best: Vec<&str> = stdout.lines().skip_while(|line| !line.ends_with("coffee.png")).skip(1).take(1).collect();
    assert!(best[0].ends_with("espresso"), "{stdout}");
    for part in ["adapter", "Egyptian cat", "inference", "submissions each: 1", "features.17.conv.2", "classifier.1"] {
        assert!(stdout.contains(part), "no {part} in {stdout}");
    }
    let output = example("shared_device", &[], &[]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("1 submission by the application, 0 by the crate"));
    let output = example("adapters", &[], &[]);
    let stdout = text(&output.stdout);
    assert!(output.status.success() && stdout.contains("subgroup operations"), "{stdout}");
    for name in ["classify", "adapters", "shared_device"] {
        let help = example(name, &["--help"], &[]);
        assert!(help.status.success() && text(&help.stdout).contains("--adapter"), "{name}");
    }
}

#[test]
fn programs_refuse_in_one_line() {
    expect_failure("classify", &["none.png"], "none.png");
    expect_failure("classify", &["--data", "nowhere"], "nowhere");
    expect_failure("classify", &[&data("imagenet_labels.txt").to_string_lossy()], "not a whole picture");
    for name in ["classify", "adapters", "shared_device"] {
        expect_failure(name, &["--adapter", "no such adapter"], "no such adapter");
    }
}

/// The loader of Vulkan drivers finds none where this variable points nowhere.
#[test]
#[cfg(target_os = "linux")]
fn without_an_adapter_the_reference_runs() {
    let hidden = [("VK_DRIVER_FILES", "/nowhere"), ("VK_ICD_FILENAMES", "/nowhere")];
    let coffee = data("coffee.png");
    for (name, arguments, shown) in [
        ("classify", &[coffee.to_str().expect("utf-8")][..], "espresso"),
        ("shared_device", &[], "pixels"),
        ("adapters", &[], ""),
    ] {
        let output = example(name, arguments, &hidden);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success() && stdout.contains(shown), "{name}: {stdout} {stderr}");
        assert!(stderr.lines().count() == 1 && stderr.contains("cargo xtask setup"), "{name}: {stderr}");
    }
}
