//! Names, shapes and mistakes of every block.

use std::cell::RefCell;
use std::collections::HashMap;

use ndarray::{ArrayD, IxDyn};
use wgconv::blocks::*;
use wgconv::{Conv2d, Error, Gpu, Result, Tensor, ndarray};

use super::input;
use super::near::PARAMS;
use crate::common::gpu;

/// Seeded values; what was asked for is kept.
#[derive(Default)]
struct Recorder(RefCell<HashMap<String, ArrayD<f32>>>);

impl Parameters for Recorder {
    fn get(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        let array = PARAMS.get(name, shape)?;
        self.0.borrow_mut().insert(name.into(), array.clone());
        Ok(array)
    }
}

type Forward = Box<dyn Fn(&Tensor) -> Result<Tensor>>;
type Load = fn(&Gpu, &dyn Parameters) -> Result<Forward>;

macro_rules! blocks {
    ($($name:literal $input:expr, |$gpu:ident, $params:ident| $load:expr;)*) => {
        [$(($name, &$input[..], (|$gpu, $params| {
            let block = $load?;
            Ok(Box::new(move |x: &Tensor| block.forward(x)))
        }) as Load)),*]
    };
}

fn bottleneck(middle: Middle) -> BottleneckConfig {
    BottleneckConfig { stride: 2, middle, ..BottleneckConfig::new(8, 4, 12) }
}

#[test]
fn state_dicts_load_and_mistakes_are_typed_errors() {
    let blocks = blocks![
        "conv norm" [1, 3, 5, 7], |g, p| ConvNorm::load(g, p, ("c", "n"), &[4, 3, 3, 3], Conv2d::new());
        "two groups" [1, 6, 5, 7], |g, p| two_groups(g, p, "conv2", [4, 6], 3);
        "resnet" [1, 8, 5, 7], |g, p| Bottleneck::load(g, p, "layer1.0", bottleneck(Middle::Conv));
        "deform" [1, 8, 5, 7], |g, p| Bottleneck::load(g, p, "b", bottleneck(Middle::Deform { modulated: true, offset_groups: 2 }));
        "dcn" [1, 8, 5, 7], |g, p| DeformLayer::load(g, p, ("dcn", None), DeformConfig::new(8, 3));
        "rednet" [1, 8, 5, 7], |g, p| Bottleneck::load(g, p, "", bottleneck(Middle::Involution { kernel: 3, group_channels: 2 }));
        "mobile v1" [1, 4, 5, 7], |g, p| MobileNetV1Block::load(g, p, "m", [4, 5], 1);
        "mobile v2" [1, 4, 5, 7], |g, p| InvertedResidual::load(g, p, "features.2", [4, 5], (1, 2));
        "xception" [1, 4, 5, 7], |g, p| XceptionUnit::load(g, p, ("block1.rep.0", "block1.rep.1"), [4, 5], true);
        "inception" [1, 4, 9, 8], |g, p| Inception7x7::load(g, p, "branch7x7", [4, 3, 5]);
        "aspp" [1, 4, 5, 7], |g, p| Aspp::load(g, p, "classifier.0", &AsppConfig::new(4, 3));
        "hdc" [1, 4, 5, 7], |g, p| Hdc::load(g, p, "hdc", 4, &HDC_1_2_5);
        "duc" [1, 4, 5, 7], |g, p| Duc::load(g, p, "duc", [4, 2], 2);
        "rfb" [1, 16, 5, 7], |g, p| Rfb::load(g, p, "rfb", RfbConfig::new(16, 4));
        "pointnet" [1, 3, 11], |g, p| PointNet::load(g, p, "feat", &[3, 4, 5]);
        "fcn" [1, 3, 5, 7], |g, p| FcnUpsample::load(g, p, "up", 3, 2);
        "attention" [1, 4, 5, 7], |g, p| LocalAttention::load(g, p, "att",
            LocalAttentionConfig { in_channels: 4, channels: 4, heads: 2, kernel: 3 });
    ];
    for (name, shape, load) in blocks {
        let recorder = Recorder::default();
        let (_, x) = input(shape);
        let run = |params: &dyn Parameters| {
            load(&gpu(), params).and_then(|block| block(&x)).and_then(|y| y.to_array()).expect(name)
        };
        let want = run(&recorder);
        let mut dict = recorder.0.into_inner();
        assert_eq!(run(&dict), want, "{name}: from a dict");
        for key in dict.keys().cloned().collect::<Vec<_>>() {
            let good = dict.remove(&key).expect("a name");
            let mut refused = |wrong: Option<ArrayD<f32>>, about: &str| {
                wrong.map(|wrong| dict.insert(key.clone(), wrong));
                match load(&gpu(), &dict).map(|_| ()) {
                    Err(Error::Invalid { op: "parameters", argument, expected, .. })
                        if argument == about && expected.starts_with(&format!("{key} of shape")) => {}
                    other => panic!("{name}: {key}: {other:?}"),
                }
            };
            refused(None, "name");
            let mut wrong = good.shape().to_vec();
            wrong[0] += 1;
            refused(Some(ArrayD::ones(IxDyn(&wrong))), "shape");
            dict.insert(key, good);
        }
        // Inputs of other channels, fewer axes, more axes.
        let block = load(&gpu(), &PARAMS).expect(name);
        let mut channels = shape.to_vec();
        channels[1] += 1;
        for wrong in [channels, shape[..2].to_vec(), [shape, &[1]].concat()] {
            let (_, x) = input(&wrong);
            let error = block(&x).expect_err(name);
            assert!(matches!(error, Error::Invalid { .. }), "{name} {wrong:?}: {error}");
        }
    }
}

#[test]
fn names_are_those_of_torchvision() {
    let recorder = Recorder::default();
    let _ = Bottleneck::load(&gpu(), &recorder, "layer1.0", bottleneck(Middle::Conv)).expect("load");
    let mut names: Vec<_> = recorder.0.into_inner().into_keys().collect();
    names.sort();
    let norm =
        |name: &str| ["bias", "running_mean", "running_var", "weight"].map(|part| format!("layer1.0.{name}.{part}"));
    let mut want: Vec<_> = ["bn1", "bn2", "bn3", "downsample.1"].into_iter().flat_map(norm).collect();
    want.extend(["conv1", "conv2", "conv3", "downsample.0"].map(|conv| format!("layer1.0.{conv}.weight")));
    want.sort();
    assert_eq!(names, want);
}

#[test]
fn wrong_options_are_typed_errors() {
    let load = |config| Bottleneck::load(&gpu(), &PARAMS, "", config).map(|_| ());
    let new = BottleneckConfig::new(8, 6, 8);
    let involution = |group_channels| Middle::Involution { kernel: 3, group_channels };
    let deform = |offset_groups| Middle::Deform { modulated: true, offset_groups };
    for (config, about) in [
        (BottleneckConfig { groups: 4, ..new }, "groups"),
        (BottleneckConfig { groups: 0, ..new }, "groups"),
        (BottleneckConfig { middle: deform(4), ..new }, "offset_groups"),
        (BottleneckConfig { middle: involution(4), ..new }, "group_channels"),
        (BottleneckConfig { middle: involution(3), ..new }, "reduction"),
        (BottleneckConfig::new(8, 0, 8), "weight"),
    ] {
        match load(config) {
            Err(Error::Invalid { argument, .. }) if argument == about => {}
            other => panic!("{config:?}: {other:?}"),
        }
    }
    let huge = BottleneckConfig::new(usize::MAX, usize::MAX, usize::MAX);
    assert!(matches!(load(huge), Err(Error::TooLarge { .. })));
    let rfb = Rfb::load(&gpu(), &PARAMS, "", RfbConfig::new(12, 8));
    assert!(matches!(rfb, Err(Error::Invalid { op: "rfb", argument: "in_channels", .. })));
    let hollow = ConvNorm::load_biased(&gpu(), &PARAMS, "c", &[], Conv2d::new());
    let (_, x) = input(&[1, 3, 5, 7]);
    assert!(matches!(hollow.and_then(|layer| layer.forward(&x)), Err(Error::Invalid { .. })));
}

#[test]
fn seeded_values_are_reproducible_and_scaled() {
    let weight = Seeded(1).get("a.weight", &[64, 32, 3, 3]).expect("seeded");
    assert_eq!(weight, Seeded(1).get("a.weight", &[64, 32, 3, 3]).expect("seeded"));
    assert_ne!(weight, Seeded(1).get("b.weight", &[64, 32, 3, 3]).expect("seeded"));
    assert_ne!(weight, Seeded(2).get("a.weight", &[64, 32, 3, 3]).expect("seeded"));
    // He et al.: variance 2 / fan_in; 18,432 values tell it to a few percent.
    let variance = weight.mapv(|v| v * v).mean().expect("values");
    assert!((variance * 288.0 / 2.0 - 1.0).abs() < 0.05, "{variance}");
    let var = Seeded(1).get("bn.running_var", &[1000]).expect("seeded");
    assert!(var.iter().all(|v| (0.5..=1.5).contains(v)));
}
