//! The examples `deform_view`, `involution_view`, `cost` and `operators`: pictures that show what was computed, tables that say what
//! `analysis` counts, and mistakes told in a line.

use std::path::{Path, PathBuf};

use clap::Parser;
use image::{Rgb, RgbImage};
use wgconv::analysis::cost::{self as count, Options};
use wgconv::ndarray::ArrayD;

use crate::common::gpu;

#[path = "../../examples/cost/main.rs"]
#[allow(dead_code)] // Its `main`.
mod cost;
#[path = "../../examples/deform_view/main.rs"]
#[allow(dead_code)]
pub(crate) mod deform_view;
#[path = "../../examples/involution_view/main.rs"]
#[allow(dead_code)]
mod involution_view;
#[path = "../../examples/operators/main.rs"]
#[allow(dead_code)]
mod operators;

use deform_view::model::{Field, Geometry, Sample, samples};
use deform_view::picture::{Sheet, TAP, View};

fn run_deform_view(options: &deform_view::Options) -> Result<(), deform_view::common::Error> {
    deform_view::run(options, &mut std::io::sink())
}

fn run_involution_view(options: &involution_view::Options) -> Result<(), involution_view::common::Error> {
    involution_view::run(options, &mut std::io::sink())
}

fn run_cost(options: &cost::Options) -> Result<Vec<cost::measure::Measured>, cost::common::Error> {
    cost::run(options, &mut std::io::sink())
}

fn run_operators(options: &operators::Options) -> Result<Vec<operators::Ranking>, operators::common::Error> {
    operators::run(options, &mut std::io::sink())
}

fn cat() -> String {
    deform_view::common::data("chelsea.png").display().to_string()
}

/// The arguments of a view, at a small size, and where its picture goes.
fn arguments(name: &str, more: &[&str]) -> (Vec<String>, PathBuf, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("folder");
    let out = folder.path().join("view.png");
    let mut args = vec![name.to_string(), cat(), "--size".into(), "48".into()];
    args.extend(["--out".to_string(), out.display().to_string()]);
    args.extend(more.iter().map(|arg| arg.to_string()));
    (args, out, folder)
}

fn deform(more: &[&str]) -> Result<RgbImage, String> {
    let (args, out, _folder) = arguments("deform_view", more);
    let options = deform_view::Options::try_parse_from(args).map_err(|error| error.to_string())?;
    run_deform_view(&options).map_err(|error| error.to_string())?;
    Ok(image::open(&out).expect("picture").to_rgb8())
}

fn involution(more: &[&str]) -> Result<RgbImage, String> {
    let (args, out, _folder) = arguments("involution_view", more);
    let options = involution_view::Options::try_parse_from(args).map_err(|error| error.to_string())?;
    run_involution_view(&options).map_err(|error| error.to_string())?;
    Ok(image::open(&out).expect("picture").to_rgb8())
}

#[test]
fn views_are_drawn() {
    for picture in
        [deform(&[]), deform(&["--kernel", "3", "--dilation", "2", "--point", "10,20", "--point", "450,299"])]
    {
        assert_eq!(picture.expect("deform_view").width(), 1202);
    }
    for picture in [involution(&[]), involution(&["--kernel", "5", "--point", "0,0"])] {
        assert_eq!(picture.expect("involution_view").width(), 1202);
    }
}

const GEOMETRY: Geometry = Geometry { kernel: 3, dilation: 4 };

/// A field on 20 by 30 elements whose tap 5 moves by (dy, dx), with a mask of one value.
fn field(offset: (f32, f32), mask: Option<f32>) -> Field {
    let mut offsets = ArrayD::zeros(vec![1, 18, 20, 30]);
    offsets.slice_mut(wgconv::ndarray::s![0, 10, .., ..]).fill(offset.0);
    offsets.slice_mut(wgconv::ndarray::s![0, 11, .., ..]).fill(offset.1);
    Field { offset: offsets, mask: mask.map(|mask| ArrayD::from_elem(vec![1, 9, 20, 30], mask)) }
}

#[test]
fn samples_are_where_the_layer_samples() {
    let all = samples(GEOMETRY, &field((1.5, -2.25), Some(0.5)), (10, 15));
    assert_eq!(all.len(), 9);
    assert_eq!(all[0], Sample { regular: (6.0, 11.0), at: (6.0, 11.0), mask: 0.5 });
    assert_eq!(all[4].at, (10.0, 15.0));
    assert_eq!(all[5], Sample { regular: (10.0, 19.0), at: (11.5, 16.75), mask: 0.5 });

    // The layer itself: on a ramp y + 100 x, a kernel of the tap alone gives the position.
    let ramp = ArrayD::from_shape_fn(vec![1, 1, 20, 30], |i| i[2] as f32 + 100.0 * i[3] as f32);
    let mut weight = ArrayD::zeros(vec![1, 1, 3, 3]);
    weight[[0, 0, 1, 2]] = 1.0;
    let upload = |array: &ArrayD<f32>| wgconv::Tensor::from_array(&gpu(), array).expect("upload");
    let layer = wgconv::DeformConv2d::new().padding(4).dilation(4);
    let offset = field((1.5, -2.25), None).offset;
    let y = layer.forward(&upload(&ramp), &upload(&offset), &upload(&weight), None, None).expect("forward");
    assert_eq!(y.to_array().expect("read")[[0, 0, 10, 15]], 11.5 + 1675.0);
}

/// A panel over a plain photo of 20 by 30 elements with one output at (10, 15).
fn panel(field: Field) -> (RgbImage, f32) {
    let plain = image::DynamicImage::ImageRgb8(RgbImage::from_pixel(300, 200, Rgb([40, 40, 40])));
    let photo = deform_view::view::Photo::new(&plain, 30).expect("photo");
    let view = View { title: "Deformable v2", field, difference: None };
    let sheet = Sheet { photo: &photo, geometry: GEOMETRY, points: &[(10, 15)], subtitle: String::new() };
    let panel = sheet.panel(&view);
    let scale = panel.width() as f32 / 30.0;
    (panel, scale)
}

#[test]
fn dots_lie_where_samples_are() {
    let (picture, scale) = panel(field((2.5, 3.0), Some(1.0)));
    let at = |y: f32, x: f32| picture[(((x + 0.5) * scale) as u32, ((y + 0.5) * scale) as u32)];
    assert_eq!(at(12.5, 22.0), TAP);
    assert_ne!(at(10.0, 19.0), TAP);
    assert_eq!(at(14.0, 19.0), TAP);
    let dots = |picture: &RgbImage| picture.pixels().filter(|&&pixel| pixel == TAP).count();
    let half = dots(&panel(field((2.5, 3.0), Some(0.5))).0);
    assert!(half < dots(&picture) * 3 / 4 && half > 0, "{half} of {}", dots(&picture));
    assert_eq!(dots(&panel(field((2.5, 3.0), Some(0.0))).0), 0);
    // Samples far outside the photo, and such as have no place.
    for far in [1e6, -1e6, f32::NAN, f32::INFINITY] {
        panel(field((far, far), None));
    }
}

#[test]
fn versions_differ_and_agree_with_the_reference() {
    let photo = deform_view::common::load_picture(Path::new(&cat())).expect("the cat");
    let photo = deform_view::view::Photo::new(&photo, 64).expect("photo");
    let on_gpu = deform_view::look(&photo, GEOMETRY, Some(&gpu())).expect("views");
    let alone = deform_view::look(&photo, GEOMETRY, None).expect("views");
    assert!(on_gpu.all.iter().all(|view| view.difference.is_some_and(|difference| difference < 1e-4)));
    let sheet = Sheet { photo: &photo, geometry: GEOMETRY, points: &[(20, 25), (12, 40)], subtitle: String::new() };
    let panels: Vec<RgbImage> = on_gpu.all.iter().map(|view| sheet.panel(view)).collect();
    assert!(panels[0] != panels[1] && panels[1] != panels[2]);
    for (view, other) in on_gpu.all.iter().zip(&alone.all) {
        assert_eq!(other.difference, None);
        let (taps, others) = (samples(GEOMETRY, &view.field, (20, 25)), samples(GEOMETRY, &other.field, (20, 25)));
        for (a, b) in taps.iter().zip(&others) {
            assert!((a.at.0 - b.at.0).abs() < 1e-3 && (a.at.1 - b.at.1).abs() < 1e-3, "{a:?} {b:?}");
        }
    }
}

#[test]
fn taps_slide_to_an_edge_and_masks_fade_across_it() {
    // Dark on the left of column 32, bright on the right.
    let step = RgbImage::from_fn(64, 48, |x, _| if x < 32 { Rgb([30; 3]) } else { Rgb([220; 3]) });
    let photo = deform_view::view::Photo::new(&step.into(), 64).expect("photo");
    let views = deform_view::look(&photo, Geometry { kernel: 3, dilation: 3 }, Some(&gpu())).expect("views");
    // An output in the dark, three elements from the edge: the tap on its right lies on the edge, the others move towards it.
    let taps = samples(Geometry { kernel: 3, dilation: 3 }, &views.all[2].field, (24, 28));
    for tap in [taps[3], taps[4]] {
        assert!(tap.at.1 > tap.regular.1 + 0.5, "{tap:?}");
        assert!((tap.at.0 - tap.regular.0).abs() < 0.05, "{tap:?}");
    }
    let bright = samples(Geometry { kernel: 3, dilation: 6 }, &deform_at(&photo, 6), (24, 26));
    assert!(bright[3].mask > 0.9, "{:?}", bright[3]);
    let beyond = samples(Geometry { kernel: 3, dilation: 9 }, &deform_at(&photo, 9), (24, 27));
    assert!(beyond[5].mask < 0.1, "{:?}", beyond[5]);
}

fn deform_at(photo: &deform_view::view::Photo, dilation: usize) -> Field {
    let views = deform_view::look(photo, Geometry { kernel: 3, dilation }, Some(&gpu())).expect("views");
    views.all.into_iter().next_back().expect("v2").field
}

#[test]
fn involution_kernels_follow_edges() {
    use involution_view::model::Model;
    // An edge along the rows in the upper half's middle, plain ground below.
    let step = RgbImage::from_fn(48, 48, |_, y| if y < 12 { Rgb([30; 3]) } else { Rgb([220; 3]) });
    let photo = involution_view::view::Photo::new(&step.into(), 48).expect("photo");
    let model = Model::new(9);
    let features = model.features(&photo.rgb, Some(&gpu())).expect("features");
    let layer = model.on_gpu(&gpu(), &features).expect("layer");
    layer.compare(&model.on_reference(&features).expect("reference"), &model, &features).expect("within its bound");
    for group in 0..2 {
        for point in [(12, 24), (36, 24)] {
            let sum: f64 = layer.kernel(group, point).0.sum();
            assert!((sum - 1.0).abs() < 1e-4, "group {group} at {point:?}: {sum}");
        }
    }
    let edge = layer.kernel(0, (12, 24)).0;
    assert!(edge[[4, 7]] > 20.0 * edge[[7, 4]].abs(), "{edge}");
    let plain = layer.kernel(0, (36, 24)).0;
    assert!((plain[[4, 7]] - plain[[7, 4]]).abs() < 1e-6, "{plain}");
    let across = layer.kernel(1, (12, 24)).0;
    assert!(across[[4, 4]] > 0.3 && across[[2, 4]] < -0.02, "{across}");
    // Another layer is not the same.
    let other = Model::new(9).on_gpu(&gpu(), &features.mapv(|value| value * 0.5)).expect("layer");
    assert!(other.compare(&model.on_reference(&features).expect("reference"), &model, &features).is_err());
}

#[test]
fn mistakes_of_views_are_errors_in_a_line() {
    let folder = tempfile::tempdir().expect("folder");
    let broken = folder.path().join("broken.png");
    let whole = std::fs::read(cat()).expect("the cat");
    std::fs::write(&broken, &whole[..whole.len() / 2]).expect("file");
    for args in [["--point", "451,10"], ["--point", "10,300"]] {
        for result in [deform(&args), involution(&args)] {
            let error = result.expect_err("a point outside");
            assert!(error.contains(args[1]) && error.contains("451 x 300") && !error.contains('\n'), "{error}");
        }
    }
    for out in ["/nowhere/view.png", env!("CARGO_TARGET_TMPDIR")] {
        let args = ["view", "--out", out];
        let errors = [
            run_deform_view(&deform_view::Options::parse_from(args)).expect_err("deform_view").to_string(),
            run_involution_view(&involution_view::Options::parse_from(args)).expect_err("involution_view").to_string(),
        ];
        for error in errors {
            assert!(error.starts_with(out), "{error}");
        }
    }
    for bad in [["--point", "10"], ["--point", "a,b"], ["--kernel", "4"], ["--kernel", "0"], ["--size", "0"]] {
        assert!(deform_view::Options::try_parse_from([&["deform_view"][..], &bad].concat()).is_err(), "{bad:?}");
        assert!(
            involution_view::Options::try_parse_from([&["involution_view"][..], &bad].concat()).is_err(),
            "{bad:?}"
        );
    }
    let out = folder.path().join("out.png");
    for image in [broken.as_path(), Path::new("/nowhere/photo.png"), folder.path()] {
        let args = [Path::new("view"), image, Path::new("--out"), &out];
        let errors = [
            run_deform_view(&deform_view::Options::parse_from(args)).expect_err("deform_view").to_string(),
            run_involution_view(&involution_view::Options::parse_from(args)).expect_err("involution_view").to_string(),
        ];
        for error in errors {
            assert!(error.starts_with(&image.display().to_string()), "{error}");
        }
    }
    assert!(!out.exists());
    let thirteen = ["--point", "9,9"].repeat(13);
    assert!(involution(&thirteen).is_err_and(|error| error.contains("at most 12")));
}

#[test]
fn pictures_of_any_shape_will_do() {
    let folder = tempfile::tempdir().expect("folder");
    for (width, height) in [(1, 1), (200, 3), (2, 90)] {
        let (image, out) = (folder.path().join("odd.png"), folder.path().join("out.png"));
        RgbImage::from_pixel(width, height, Rgb([90, 120, 30])).save(&image).expect("file");
        let args = ["view", image.to_str().expect("path"), "--size", "20", "--out", out.to_str().expect("path")];
        run_deform_view(&deform_view::Options::parse_from(args)).expect("deform_view");
        run_involution_view(&involution_view::Options::parse_from(args)).expect("involution_view");
    }
}

/// A small layer whose channels change.
const SMALL: [&str; 11] =
    ["cost", "--channels", "8,12", "--size", "6x5", "--kernel", "3", "--groups", "2", "--repeat", "1"];

#[test]
fn the_table_says_what_analysis_counts() {
    let rows = run_cost(&cost::Options::parse_from(SMALL)).expect("table");
    let x = [1, 8, 6, 5];
    let (same, plain) = (Options::<2>::new().padding(1), Options::<2>::new());
    let conv = |weight: [usize; 4], options: &Options<2>| count::conv(&x, &weight, options).expect("cost");
    let dense = conv([12, 8, 3, 3], &same);
    let pointwise = conv([12, 8, 1, 1], &plain);
    let depthwise = conv([8, 1, 3, 3], &same.groups(8));
    let column = conv([12, 8, 3, 1], &Options::new().padding([1, 0]));
    let row = count::conv(&[1, 12, 6, 5], &[12, 12, 1, 3], &Options::<2>::new().padding([0, 1])).expect("cost");
    let deformable = count::deform_conv2d(&x, &[12, 8, 3, 3], &same.mask(true)).expect("cost");
    let involution = |kernel: usize| {
        let options = Options::new().padding(kernel / 2);
        count::involution_layer(&x, kernel, 4, &options).expect("cost") + pointwise
    };
    let want = [
        dense,
        conv([12, 4, 3, 3], &same.groups(2)),
        depthwise + pointwise,
        column + row,
        pointwise,
        deformable + conv([27, 8, 3, 3], &same),
        involution(3),
        involution(7),
    ];
    assert_eq!(rows.len(), want.len());
    assert_eq!((rows[0].parameters, rows[0].macs), (12 * 8 * 9, 12 * 8 * 9 * 30));
    for (row, want) in rows.iter().zip(&want) {
        let got = (row.parameters, row.macs, row.flops, row.bytes, row.flops_per_byte);
        let want = (want.parameters, want.macs, want.flops, want.bytes(), want.arithmetic_intensity());
        assert_eq!(got, want, "{}", row.operator);
        assert!(row.milliseconds > 0.0 && (row.time_ratio - row.milliseconds / rows[0].milliseconds).abs() < 1e-9);
        let line = row.line();
        let cells = [row.operator.clone(), cost::measure::count(row.parameters), cost::measure::count(row.macs)];
        assert!(cells.iter().all(|cell| line.contains(cell)), "{line}");
    }
}

#[test]
fn counts_are_short() {
    for (value, text) in
        [(0, "0"), (9_999, "9999"), (36_864, "36.9 k"), (115_605_504, "115.6 M"), (2_500_000_000, "2.50 G")]
    {
        assert_eq!(cost::measure::count(value), text);
    }
}

#[test]
fn what_is_measured_is_what_the_reference_computes() {
    use cost::rows::{Kind, Layer, Row};
    for (kernel, c_out) in [(3, 32), (4, 16)] {
        let layer = Layer { batch: 2, c_in: 32, c_out, height: 7, width: 6, kernel, groups: 4 };
        for kind in Kind::all(kernel) {
            let row = Row::new(&layer, kind).expect("row");
            let got = row.on_gpu(&gpu()).and_then(|ready| Ok(ready.forward()?.to_array()?)).expect("GPU");
            let want = row.on_reference().expect("reference");
            assert_eq!(got.shape(), [2, c_out, 7, 6], "{}", row.name);
            // Chains of sums of about 300 products of about 1: far more than they round, far less than a wrong step would show.
            let off = got.iter().zip(&want).map(|(g, w)| (f64::from(*g) - w).abs()).fold(0.0, f64::max);
            assert!(off < 1e-3, "{}: {off:e}", row.name);
            let least = want.iter().fold(0.0, |most, value| f64::max(most, value.abs()));
            assert!(least > 0.1, "{}: {least} at most", row.name);
        }
    }
}

#[test]
fn rankings_are_sorted_and_written() {
    let folder = tempfile::tempdir().expect("folder");
    let json = folder.path().join("ranks.json");
    let args = ["operators", "--layers", "8@6,16@3", "--groups", "4", "--repeat", "1", "--json"];
    let args = args.map(Path::new).into_iter().chain([json.as_path()]);
    let rankings = run_operators(&operators::Options::parse_from(args)).expect("rankings");
    assert_eq!(rankings.len(), 2);
    for ranking in &rankings {
        assert_eq!(ranking.operators.len(), 8);
        assert!(ranking.operators.is_sorted_by(|a, b| a.milliseconds <= b.milliseconds));
    }
    let text = std::fs::read_to_string(&json).expect("file");
    let report: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    for (layer, ranking) in rankings.iter().enumerate() {
        let fastest = &report["layers"][layer]["operators"][0];
        assert_eq!(fastest["macs"], ranking.operators[0].macs);
        assert_eq!(fastest["operator"], ranking.operators[0].operator);
    }
}

#[test]
fn layers_that_do_not_fit_are_errors_in_a_line() {
    for args in [
        &["--groups", "7"][..],
        &["--groups", "0"],
        &["--kernel", "0"],
        &["--size", "0x4"],
        &["--batch", "0"],
        &["--channels", "0,8"],
        &["--channels", "8"],
        &["--channels", "8,8,8"],
        &["--size", "900000x900000"],
        &["--kernel", "99999999999"],
        &["--json", "/nowhere/cost.json"],
    ] {
        let options = cost::Options::try_parse_from([&["cost"], args].concat()).expect("arguments");
        let error = run_cost(&options).expect_err("an error").to_string();
        assert!(!error.is_empty() && !error.contains('\n'), "{args:?}: {error}");
    }
    for bad in [["--size", "axb"], ["--channels", "a,b"], ["--repeat", "0"]] {
        assert!(cost::Options::try_parse_from([&["cost"][..], &bad].concat()).is_err(), "{bad:?}");
    }
    for bad in ["64", "64@", "@7", "a@b", "64@56,"] {
        assert!(operators::Options::try_parse_from(["operators", "--layers", bad]).is_err(), "{bad}");
    }
    for args in [&["--layers", "8@0"][..], &["--groups", "7"], &["--json", "/nowhere/ranks.json"]] {
        let options = operators::Options::try_parse_from([&["operators"], args].concat()).expect("arguments");
        assert!(run_operators(&options).is_err(), "{args:?}");
    }
}
