//! The operators that are made of others, with all of their weights: separable convolution and the involution layer. What each should give,
//! by how much its kernels may differ from that, and the library's operator.

use wgconv::ndarray::{Array1, ArrayD};
use wgconv::reference::{
    ActivationKind, BatchNormParams, ConvSpec, InvolutionLayerSpec, InvolutionSpec, apply, conv, conv_out_shape,
    involution_layer, involution_layer_weight,
};
use wgconv::{
    Activation, BatchNorm, Gpu, Involution2d, InvolutionLayer, InvolutionLayerWeights, Padding, Plan,
    Result as GpuResult, SeparableConv2d, SeparableWeights, Tensor,
};

use super::super::common::Result;
use super::super::launch::{Launch, Tensors};
use super::super::operation::{Arrays, SINGLE};
use super::expect::{LEAST, largest};
use super::problem::{Op, Problem};

fn axes<T: Copy>(values: &[T]) -> [T; 2] {
    [values[0], values[1]]
}

// Separable convolution: the pointwise part is the weight with the bias, the depthwise part the offset, its bias the mask.

fn depthwise_spec(p: &Problem) -> ConvSpec {
    let (stride, dilation, pads) = (p.stride.clone(), p.dilation.clone(), p.pads.clone());
    ConvSpec { stride, dilation, pads, groups: p.c_in(), ..ConvSpec::new(p.extents.len()) }
}

pub fn separable_shape(p: &Problem) -> Result<Vec<usize>> {
    let depthwise = [&[p.c_in(), 1], &p.kernel[..]].concat();
    let mut shape = conv_out_shape(&p.input_shape(), &depthwise, &depthwise_spec(p))?;
    shape[1] = p.c_out();
    Ok(shape)
}

/// What the depthwise part gives, behind the activation between the parts.
fn depthwise(p: &Problem, arrays: &Arrays) -> Result<ArrayD<f64>> {
    let bias = arrays.mask.as_ref().map(|bias| bias.view());
    let sums = conv(arrays.input.view(), arrays.offset()?.view(), bias, &depthwise_spec(p))?;
    let between = if p.between { ActivationKind::Relu } else { ActivationKind::Identity };
    Ok(sums.mapv(|sum| apply(between, sum)))
}

pub fn separable(p: &Problem, arrays: &Arrays) -> Result<ArrayD<f64>> {
    let bias = arrays.bias.as_ref().map(|bias| bias.mapv(f64::from));
    let bias = bias.as_ref().map(|bias| bias.view());
    let weight = arrays.weight.mapv(f64::from);
    Ok(conv(depthwise(p, arrays)?.view(), weight.view(), bias, &ConvSpec::new(2))?)
}

pub fn launch_separable(p: &Problem, activation: Activation, residual: Option<&Tensor>) -> Box<dyn Launch> {
    let between = if p.between { Activation::Relu } else { Activation::Identity };
    let operator = SeparableConv2d::new().stride(axes(&p.stride)).dilation(axes(&p.dilation));
    let operator = operator.padding(Padding::Explicit(axes(&p.pads)));
    let operator = operator.depthwise_activation(between).activation(activation);
    Box::new(residual.map_or(operator.clone(), |residual| operator.residual(residual)))
}

fn separable_weights(t: &Tensors) -> GpuResult<SeparableWeights<'_>> {
    let (depthwise_bias, pointwise_bias) = (t.mask.as_ref(), t.bias.as_ref());
    Ok(SeparableWeights { depthwise: t.offset()?, depthwise_bias, pointwise: &t.weight, pointwise_bias })
}

impl Launch for SeparableConv2d {
    /// The fused plan, or that of the pointwise part.
    fn plan(&self, t: &Tensors) -> GpuResult<Plan> {
        let profile = t.input.gpu().profile();
        let mut plans = self.plan(profile, t.input.shape(), t.offset()?.shape(), t.weight.shape())?;
        Ok(plans.swap_remove(plans.len() - 1))
    }

    fn forward(&self, t: &Tensors) -> GpuResult<Tensor> {
        self.forward(&t.input, &separable_weights(t)?)
    }

    fn forward_into(&self, t: &Tensors, output: &Tensor) -> GpuResult<()> {
        self.forward_into(&t.input, &separable_weights(t)?, output)
    }

    fn candidates(&self, t: &Tensors) -> GpuResult<Vec<Box<dyn Launch>>> {
        let profile = t.input.gpu().profile();
        let kernels = self.candidates(profile, t.input.shape(), t.offset()?.shape(), t.weight.shape())?;
        Ok(kernels.into_iter().map(|kernel| Box::new(self.clone().kernel(kernel)) as Box<dyn Launch>).collect())
    }
}

// The involution layer: what spans the kernels is the weight with the bias, what reduces the channels the offset. The batch norm changes
// nothing, so that sums of integers stay exact.

fn layer_spec(p: &Problem) -> InvolutionLayerSpec {
    let (kernel, stride, dilation, pads) = (axes(&p.kernel), axes(&p.stride), axes(&p.dilation), axes(&p.pads));
    InvolutionLayerSpec { inv: InvolutionSpec { kernel, stride, dilation, pads, groups: p.groups }, eps: 0.0 }
}

/// Zeros and ones, as many as the kernels are spanned from.
fn no_norm(p: &Problem) -> [ArrayD<f32>; 2] {
    [Array1::zeros(p.parts[0]).into_dyn(), Array1::ones(p.parts[0]).into_dyn()]
}

pub fn layer(p: &Problem, arrays: &Arrays) -> Result<ArrayD<f64>> {
    let [zeros, ones] = no_norm(p);
    let norm = BatchNormParams { gamma: ones.view(), beta: zeros.view(), mean: zeros.view(), var: ones.view() };
    let bias = arrays.bias.as_ref().map(|bias| bias.view());
    let (x, reduce) = (arrays.input.view(), arrays.offset()?.view());
    Ok(involution_layer(x, reduce, norm, arrays.weight.view(), bias, &layer_spec(p))?)
}

pub fn launch_layer(
    p: &Problem,
    (gpu, arrays): (&Gpu, &Arrays),
    activation: Activation,
    residual: Option<&Tensor>,
) -> Result<Box<dyn Launch>> {
    let [zeros, ones] = no_norm(p);
    let norm = BatchNorm { gamma: ones.view(), beta: zeros.view(), mean: zeros.view(), var: ones.view(), eps: 0.0 };
    let span_bias = arrays.bias.as_ref().map(|bias| bias.view());
    let (reduce, span) = (arrays.offset()?.view(), arrays.weight.view());
    let options = Involution2d::new().kernel_size(axes(&p.kernel)).stride(axes(&p.stride));
    let options = options.dilation(axes(&p.dilation)).padding(Padding::Explicit(axes(&p.pads))).groups(p.groups);
    let layer = InvolutionLayer::new(gpu, options, &InvolutionLayerWeights { reduce, norm, span, span_bias })?;
    let layer = layer.activation(activation);
    Ok(Box::new(residual.map_or(layer.clone(), |residual| layer.residual(residual))))
}

impl Launch for InvolutionLayer {
    /// The fused plan, or that of the involution.
    fn plan(&self, t: &Tensors) -> GpuResult<Plan> {
        let mut plans = self.plan(t.input.shape())?;
        Ok(plans.swap_remove(plans.len() - 1))
    }

    fn forward(&self, t: &Tensors) -> GpuResult<Tensor> {
        self.forward(&t.input)
    }

    fn forward_into(&self, t: &Tensors, output: &Tensor) -> GpuResult<()> {
        self.forward_into(&t.input, output)
    }

    /// Unfused and, where the layer can be, fused.
    fn candidates(&self, t: &Tensors) -> GpuResult<Vec<Box<dyn Launch>>> {
        self.output_shape(t.input.shape())?;
        let mut list: Vec<Box<dyn Launch>> = vec![Box::new(self.clone().fused(false))];
        let fused = self.clone().fused(true);
        if fused.is_fused(t.input.shape()).is_ok() {
            list.push(Box::new(fused));
        }
        Ok(list)
    }
}

/// The bounds of both, of each element before the last activation, from the arrays' absolute values: `gamma_n * S`, where a term goes
/// through n roundings in all parts together and S is the operator on absolute values; and what is lost below the least normal number in
/// an early part, times what that is worth behind it.
pub fn bounds(p: &Problem, absolute: &Arrays, residual: Option<&ArrayD<f32>>) -> Result<Vec<f64>> {
    let (x, w, first) = (largest(&absolute.input), largest(&absolute.weight), largest(absolute.offset()?));
    let most = |array: &ArrayD<f64>| array.iter().copied().fold(0.0, f64::max);
    let loss = |terms: usize, factors: f64| terms as f64 * LEAST * (factors + 1.0);
    let (channels, taps) = (p.c_in(), p.taps());
    let (mut sums, roundings, lost) = match p.op {
        Op::SeparableConv => {
            let lost = channels as f64 * w * loss(taps + 1, x + first);
            let lost = lost + loss(channels + 2, w + most(&depthwise(p, absolute)?));
            (separable(p, absolute)?, taps + 1 + channels + 1, lost)
        }
        _ => {
            let [zeros, ones] = no_norm(p);
            let norm = BatchNormParams { gamma: ones.view(), beta: zeros.view(), mean: zeros.view(), var: ones.view() };
            let bias = absolute.bias.as_ref().map(|bias| bias.view());
            let (input, reduce, span) = (absolute.input.view(), absolute.offset()?.view(), absolute.weight.view());
            let kernels = most(&involution_layer_weight(input, reduce, norm, span, bias, &layer_spec(p))?);
            let reduced = p.parts[0];
            // The pooling's mean of a few, with 2.5 ulp for the division.
            let pooling = p.stride.iter().product::<usize>() + 4;
            let lost = channels as f64 * first * loss(pooling, x) + loss(channels, x + first);
            let most_reduced = channels as f64 * x * first;
            let lost = reduced as f64 * w * lost + loss(reduced + 1, w + most_reduced);
            let lost = taps as f64 * x * lost + loss(taps + 1, x + kernels);
            (layer(p, absolute)?, pooling + channels + reduced + 1 + taps, lost)
        }
    };
    let mut n = roundings as f64;
    if let Some(residual) = residual {
        n += 1.0;
        sums.zip_mut_with(&residual.mapv(f64::from), |sum, r| *sum += r.abs());
    }
    Ok(sums.iter().map(|sum| n * SINGLE / (1.0 - n * SINGLE) * sum + lost).collect())
}
