//! The cost of a block counts the parameters that the block loads.

use std::sync::atomic::{AtomicU64, Ordering};

use ndarray::ArrayD;
use wgconv::analysis::cost::{self, Cost};
use wgconv::blocks::{
    Aspp, AsppConfig, Bottleneck, BottleneckConfig, DeformConfig, DeformLayer, Duc, HDC_1_2_3, Hdc, Inception7x7,
    InvertedResidual, LocalAttention, LocalAttentionConfig, Middle, MobileNetV1Block, Parameters, PointNet, Rfb,
    RfbConfig, Seeded, WaveNet, WaveNetConfig,
};
use wgconv::{Result, ndarray};

use crate::common::gpu;

/// Counts weights, and one vector for each bias: a batch norm folds into the bias of the layer before it.
#[derive(Default)]
struct Counted(AtomicU64);

impl Parameters for Counted {
    fn get(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        if shape.len() > 1 || name.ends_with("bias") {
            self.0.fetch_add(shape.iter().product::<usize>() as u64, Ordering::Relaxed);
        }
        Seeded(1).get(name, shape)
    }
}

/// What loading counts beside what the cost says. `more`: parameters of an operator that loads none by a name of its own.
#[track_caller]
fn check<T>(load: impl FnOnce(&Counted) -> Result<T>, cost: Result<Cost>, more: u64) {
    let counted = Counted::default();
    load(&counted).expect("load");
    assert_eq!(cost.expect("cost").parameters, counted.0.into_inner() + more);
}

#[test]
fn costs_count_what_is_loaded() {
    let gpu = &gpu();
    let x = [1, 16, 12, 12];
    let deform = Middle::Deform { modulated: true, offset_groups: 2 };
    let involution = Middle::Involution { kernel: 7, group_channels: 4 };
    for (config, more) in [
        (BottleneckConfig::new(16, 8, 16), 0),
        (BottleneckConfig { stride: 2, groups: 4, ..BottleneckConfig::new(16, 8, 20) }, 0),
        (BottleneckConfig { middle: deform, ..BottleneckConfig::new(16, 8, 16) }, 0),
        // The batch norm behind an involution runs as a depthwise 1x1, whose weight is the norm's scale.
        (BottleneckConfig { middle: involution, stride: 2, ..BottleneckConfig::new(16, 8, 16) }, 8),
    ] {
        check(|params| Bottleneck::load(gpu, params, "", config), cost::bottleneck(&x, &config), more);
    }
    check(|p| MobileNetV1Block::load(gpu, p, "", [16, 24], 2), cost::mobilenet_v1_block(&x, 24, 2), 0);
    for expansion in [1, 6] {
        let load = |p: &Counted| InvertedResidual::load(gpu, p, "", [16, 16], (1, expansion));
        check(load, cost::inverted_residual(&x, 16, (1, expansion)), 0);
    }
    check(|p| Inception7x7::load(gpu, p, "branch7x7", [16, 8, 12]), cost::inception_7x7(&x, 8, 12), 0);
    let config = AsppConfig::new(16, 8);
    check(|p| Aspp::load(gpu, p, "", &config), cost::aspp(&x, &config), 0);
    check(|p| Hdc::load(gpu, p, "", 16, &HDC_1_2_3), cost::hdc_group(&x, &HDC_1_2_3), 0);
    check(|p| Duc::load(gpu, p, "", [16, 3], 4), cost::duc(&x, 3, 4), 0);
    let config = RfbConfig { stride: 2, ..RfbConfig::new(16, 24) };
    check(|p| Rfb::load(gpu, p, "", config), cost::rfb(&x, &config), 0);
    let config = WaveNetConfig { layers: 4, ..WaveNetConfig::new(8, 12) };
    check(|p| WaveNet::load(gpu, p, "", config), cost::wavenet(&[1, 8, 64], &config), 0);
    // With its own bias, no batch norm behind it.
    let config = DeformConfig { modulated: false, ..DeformConfig::new(16, 12) };
    check(|p| DeformLayer::load(gpu, p, ("conv", None), config), cost::deform_layer(&x, &config), 0);
    let channels = [3, 16, 32];
    check(|p| PointNet::load(gpu, p, "", &channels), cost::pointnet(&[1, 3, 50], &channels), 0);
    let config = LocalAttentionConfig { in_channels: 16, channels: 8, heads: 2, kernel: 3 };
    check(|p| LocalAttention::load(gpu, p, "", config), cost::local_attention(&x, &config), 0);
}

#[test]
fn mistakes_are_typed_errors() {
    let huge = usize::MAX / 2;
    assert!(cost::bottleneck(&[1, 16], &BottleneckConfig::new(16, 8, 16)).is_err());
    assert!(cost::bottleneck(&[1, 16, 8, 8], &BottleneckConfig::new(16, huge, huge)).is_err());
    assert!(
        cost::bottleneck(&[1, 16, 8, 8], &BottleneckConfig { groups: 0, ..BottleneckConfig::new(16, 8, 16) }).is_err()
    );
    assert!(cost::aspp(&[1], &AsppConfig::new(16, 8)).is_err());
    assert!(cost::aspp(&[1, 16, 8, 8], &AsppConfig::new(16, huge)).is_err());
    assert!(cost::rfb(&[1, 16, 8, 8], &RfbConfig { stride: 0, ..RfbConfig::new(16, 8) }).is_err());
    assert!(cost::wavenet(&[1, 8, 64], &WaveNetConfig { layers: 64, ..WaveNetConfig::new(8, 8) }).is_err());
    assert!(cost::hdc_group(&[1, 8, 64], &[1, 2, 5]).is_err());
    assert!(cost::pointnet(&[1, 3], &[3, 64]).is_err());
    assert!(
        cost::local_attention(&[], &LocalAttentionConfig { in_channels: 1, channels: 1, heads: 1, kernel: 3 }).is_err()
    );
}
