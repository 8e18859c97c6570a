//! Whole calls of every operator on small integers, from the upload to the result: what the tests of faults, lost devices and threads
//! run over and over. What they give without a fault is the affair of the operators' own tests.

use ndarray::ArrayD;
use wgconv::{
    Activation, Add, AvgPool2d, BatchNorm, Concat, Conv2d, ConvKernel, ConvTranspose2d, ConvTransposeKernel,
    DeformConv2d, DeformKernel, GlobalAvgPool, Gpu, Involution2d, InvolutionKernel, InvolutionLayer,
    InvolutionLayerWeights, Linear, LinearKernel, MaxPool2d, Mul, Narrow, PixelShuffle, Result, Softmax, Tensor,
    UpsampleNearest, ndarray, wgpu,
};

use crate::common::integers;

/// Uploads, computes and reads. Nothing of it is left on the device.
pub type Call = fn(&Gpu) -> Result<ArrayD<f32>>;

pub fn on(gpu: &Gpu, shape: &[usize], seed: u64) -> Result<Tensor> {
    Tensor::from_array(gpu, &integers(shape, seed, 3))
}

const X: [usize; 4] = [1, 8, 8, 8];

/// One of the kernels by name where the adapter offers it; else the one by rule.
fn conv(gpu: &Gpu, conv: Conv2d, kernel: ConvKernel, x: &[usize], w: &[usize]) -> Result<ArrayD<f32>> {
    let offered = conv.candidates(gpu.profile(), x, w)?.contains(&kernel);
    let conv = conv.kernel(if offered { kernel } else { ConvKernel::Auto });
    let bias = on(gpu, &w[..1], 3)?;
    conv.forward(&on(gpu, x, 1)?, &on(gpu, w, 2)?, Some(&bias))?.to_array()
}

fn same(kernel: ConvKernel) -> impl Fn(&Gpu) -> Result<ArrayD<f32>> {
    move |gpu| conv(gpu, Conv2d::new().padding(1), kernel, &X, &[8, 8, 3, 3])
}

fn transposed(gpu: &Gpu, kernel: ConvTransposeKernel) -> Result<ArrayD<f32>> {
    let (op, x, w) = (ConvTranspose2d::new().stride(2).padding(1), [1, 8, 5, 5], [8, 8, 3, 3]);
    let offered = op.candidates(gpu.profile(), &x, &w)?.contains(&kernel);
    let op = op.kernel(if offered { kernel } else { ConvTransposeKernel::Auto });
    op.forward(&on(gpu, &x, 1)?, &on(gpu, &w, 2)?, Some(&on(gpu, &[8], 3)?))?.to_array()
}

fn deform(gpu: &Gpu, kernel: DeformKernel, masked: bool) -> Result<ArrayD<f32>> {
    let c = if kernel == DeformKernel::FewChannels { 3 } else { 8 };
    let (op, x, w) = (DeformConv2d::new().padding(1), [1, c, 6, 6], [8, c, 3, 3]);
    let offered = op.candidates(gpu.profile(), &x, &w)?.contains(&kernel);
    let op = op.kernel(if offered { kernel } else { DeformKernel::Auto });
    let mask = if masked { Some(on(gpu, &[1, 9, 6, 6], 5)?) } else { None };
    let (x, offset, w) = (on(gpu, &x, 1)?, on(gpu, &[1, 18, 6, 6], 4)?, on(gpu, &w, 2)?);
    op.forward(&x, &offset, &w, Some(&on(gpu, &[8], 3)?), mask.as_ref())?.to_array()
}

fn involution(gpu: &Gpu, kernel: InvolutionKernel) -> Result<ArrayD<f32>> {
    let (op, x, w) = (Involution2d::new().kernel_size(3).padding(1), [1, 8, 6, 8], [1, 9, 6, 8]);
    let offered = op.candidates(gpu.profile(), &x, &w)?.contains(&kernel);
    let op = op.kernel(if offered { kernel } else { InvolutionKernel::Auto });
    op.forward(&on(gpu, &x, 1)?, &on(gpu, &w, 2)?, None)?.to_array()
}

fn layer(gpu: &Gpu) -> Result<ArrayD<f32>> {
    let (reduce, span) = (integers(&[4, 8, 1, 1], 1, 3), integers(&[9, 4, 1, 1], 2, 3));
    let [gamma, beta, mean] = [3, 4, 5].map(|seed| integers(&[4], seed, 3));
    let var = integers(&[4], 6, 3).mapv(|v| v.abs() + 1.0);
    let norm = BatchNorm { gamma: gamma.view(), beta: beta.view(), mean: mean.view(), var: var.view(), eps: 1e-5 };
    let weights = InvolutionLayerWeights { reduce: reduce.view(), norm, span: span.view(), span_bias: None };
    let layer = InvolutionLayer::new(gpu, Involution2d::new().kernel_size(3).padding(1), &weights)?;
    layer.forward(&on(gpu, &[1, 8, 6, 8], 7)?)?.to_array()
}

fn linear(gpu: &Gpu, kernel: LinearKernel) -> Result<ArrayD<f32>> {
    let offered = Linear::new().candidates(gpu.profile(), &[9, 16], &[8, 16])?.contains(&kernel);
    let op = Linear::new().kernel(if offered { kernel } else { LinearKernel::Auto });
    op.forward(&on(gpu, &[9, 16], 1)?, &on(gpu, &[8, 16], 2)?, Some(&on(gpu, &[8], 3)?))?.to_array()
}

fn into(gpu: &Gpu) -> Result<ArrayD<f32>> {
    let out = Tensor::zeros(gpu, &X)?;
    Conv2d::new().padding(1).forward_into(&on(gpu, &X, 1)?, &on(gpu, &[8, 8, 3, 3], 2)?, None, &out)?;
    out.to_array()
}

fn prepared(gpu: &Gpu) -> Result<ArrayD<f32>> {
    let conv = Conv2d::new().padding(1);
    let w = conv.prepare(&on(gpu, &[8, 8, 3, 3], 2)?, &X)?;
    conv.forward(&on(gpu, &X, 1)?, &w, None)?.to_array()
}

fn warmed_up(gpu: &Gpu) -> Result<ArrayD<f32>> {
    let conv = Conv2d::new().padding(1);
    conv.warm_up(gpu, &X, &[8, 8, 3, 3], false)?;
    conv.forward(&on(gpu, &X, 1)?, &on(gpu, &[8, 8, 3, 3], 2)?, None)?.to_array()
}

fn encoded(gpu: &Gpu) -> Result<ArrayD<f32>> {
    let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let (x, w) = (on(gpu, &X, 1)?, on(gpu, &[8, 8, 3, 3], 2)?);
    let encoded = Conv2d::new().padding(1).encode(&mut encoder, &x, &w, None)?;
    gpu.queue().submit([encoder.finish()]);
    encoded.submitted().to_array()
}

fn chain(gpu: &Gpu) -> Result<ArrayD<f32>> {
    let (conv, w) = (Conv2d::new().padding(1), on(gpu, &[8, 8, 3, 3], 2)?);
    let y = conv.forward(&on(gpu, &X, 1)?, &w, None)?;
    gpu.submit()?;
    let z = conv.forward(&y, &w, None)?;
    gpu.wait()?;
    pollster::block_on(conv.residual(&y).forward(&z, &w, None)?.to_array_async())
}

pub const CALLS: &[(&str, Call)] = &[
    ("upload and read", |gpu| on(gpu, &[3, 5, 7], 1)?.to_array()),
    ("async read", |gpu| pollster::block_on(on(gpu, &[3, 5, 7], 1)?.to_array_async())),
    ("conv2d direct", |gpu| same(ConvKernel::Direct)(gpu)),
    ("conv2d subgroup", |gpu| same(ConvKernel::Subgroup)(gpu)),
    ("conv2d tiled", |gpu| same(ConvKernel::Tiled)(gpu)),
    ("conv2d winograd", |gpu| same(ConvKernel::Winograd)(gpu)),
    ("conv2d pointwise", |gpu| conv(gpu, Conv2d::new(), ConvKernel::Pointwise, &X, &[8, 8, 1, 1])),
    ("conv2d depthwise", |gpu| conv(gpu, Conv2d::new().padding(1).groups(8), ConvKernel::Depthwise, &X, &[8, 1, 3, 3])),
    ("conv2d grouped", |gpu| conv(gpu, Conv2d::new().padding(1).groups(2), ConvKernel::Grouped, &X, &[8, 4, 3, 3])),
    ("conv2d few channels", |gpu| {
        conv(gpu, Conv2d::new().padding(1), ConvKernel::FewChannels, &[1, 3, 8, 8], &[8, 3, 3, 3])
    }),
    ("conv_transpose2d direct", |gpu| transposed(gpu, ConvTransposeKernel::Direct)),
    ("conv_transpose2d subgroup", |gpu| transposed(gpu, ConvTransposeKernel::Subgroup)),
    ("deform_conv2d v1 direct", |gpu| deform(gpu, DeformKernel::Direct, false)),
    ("deform_conv2d v2 sliced", |gpu| deform(gpu, DeformKernel::Sliced, true)),
    ("deform_conv2d v2 fused", |gpu| deform(gpu, DeformKernel::Fused, true)),
    ("deform_conv2d v2 few channels", |gpu| deform(gpu, DeformKernel::FewChannels, true)),
    ("involution2d direct", |gpu| involution(gpu, InvolutionKernel::Direct)),
    ("involution2d rows", |gpu| involution(gpu, InvolutionKernel::Rows)),
    ("involution2d subgroup", |gpu| involution(gpu, InvolutionKernel::Subgroup)),
    ("involution layer", layer),
    ("max_pool2d", |gpu| MaxPool2d::new(2).forward(&on(gpu, &X, 1)?)?.to_array()),
    ("avg_pool2d", |gpu| AvgPool2d::new(2).forward(&on(gpu, &X, 1)?)?.to_array()),
    ("global_avg_pool", |gpu| GlobalAvgPool::new().forward(&on(gpu, &X, 1)?)?.to_array()),
    ("linear dot", |gpu| linear(gpu, LinearKernel::Dot)),
    ("linear subgroup", |gpu| linear(gpu, LinearKernel::Subgroup)),
    ("softmax", |gpu| Softmax::new(-1).forward(&on(gpu, &[2, 3, 9], 1)?)?.to_array()),
    ("add", |gpu| Add::new().forward(&on(gpu, &[2, 3, 5], 1)?, &on(gpu, &[3, 1], 2)?)?.to_array()),
    ("mul", |gpu| Mul::new().forward(&on(gpu, &[2, 3, 5], 1)?, &on(gpu, &[2, 3, 5], 2)?)?.to_array()),
    ("activation", |gpu| Activation::Relu.forward(&on(gpu, &[37], 1)?)?.to_array()),
    ("concat", |gpu| Concat::new(1).forward(&[&on(gpu, &[2, 3, 5], 1)?, &on(gpu, &[2, 4, 5], 2)?])?.to_array()),
    ("narrow", |gpu| Narrow::new(1, 1, 2).forward(&on(gpu, &[2, 5, 3], 1)?)?.to_array()),
    ("pixel_shuffle", |gpu| PixelShuffle::new(2).forward(&on(gpu, &X, 1)?)?.to_array()),
    ("upsample", |gpu| UpsampleNearest::new([2, 2]).forward(&on(gpu, &X, 1)?)?.to_array()),
    ("forward_into", into),
    ("prepare", prepared),
    ("warm_up", warmed_up),
    ("encode", encoded),
    ("chain with submissions between", chain),
];

/// Those of some names.
pub fn named(names: &[&str]) -> Vec<(&'static str, Call)> {
    let found: Vec<_> = CALLS.iter().copied().filter(|(name, _)| names.contains(name)).collect();
    assert_eq!(found.len(), names.len(), "a name that is not in the list");
    found
}

pub fn bits(array: &ArrayD<f32>) -> (Vec<usize>, Vec<u32>) {
    (array.shape().to_vec(), array.iter().map(|v| v.to_bits()).collect())
}
