//! What a problem's result should be, from the CPU reference, and by how much each kernel may differ from it.

use wgconv::ndarray::{ArrayD, ArrayViewD, Axis};
use wgconv::reference::{
    ActivationKind, AvgPoolSpec, MaxPoolSpec, add, apply, avg_pool, avg_pool_out_shape, concat, global_avg_pool,
    linear, max_pool, max_pool_out_shape, mul, narrow, pixel_shuffle, softmax, upsample_nearest,
};

use super::super::common::Result;
use super::super::operation::{Arrays, At, SINGLE};
use super::compound;
use super::fill::Fill;
use super::problem::{Op, Problem};

/// The least normal f32, 2^-126: what is below may be flushed to zero.
pub const LEAST: f64 = f32::MIN_POSITIVE as f64;

/// The reference's result.
pub struct Expected {
    pub want: Vec<f64>,
    /// The same before the activation.
    sums: Vec<f64>,
}

/// The output's shape by the reference's rules.
pub fn output_shape(p: &Problem) -> Result<Vec<usize>> {
    let input = p.input_shape();
    if let Some(operation) = p.operation() {
        // An involution's weight follows from the output.
        let weight = if p.op == Op::Involution { Vec::new() } else { p.weight_shape(&[]).unwrap_or_default() };
        return operation.output_shape(&input, &weight);
    }
    Ok(match p.op {
        Op::Linear => [&p.extents[..], &[p.channels[1]]].concat(),
        Op::SeparableConv => compound::separable_shape(p)?,
        Op::MaxPool => max_pool_out_shape(&input, &max_spec(p))?,
        Op::AvgPool => avg_pool_out_shape(&input, &avg_spec(p))?,
        // The others are small enough to be computed: their rule is part of that.
        _ => {
            let (arrays, _) = super::fill::arrays(&Problem { residual: false, bias: false, ..p.clone() }, &[]);
            plain(p, &arrays)?.shape().to_vec()
        }
    })
}

fn max_spec(p: &Problem) -> MaxPoolSpec {
    MaxPoolSpec {
        stride: p.stride.clone(),
        padding: p.pads.iter().map(|pad| pad.0).collect(),
        dilation: p.dilation.clone(),
        ceil_mode: p.ceil,
        ..MaxPoolSpec::new(&p.kernel)
    }
}

fn avg_spec(p: &Problem) -> AvgPoolSpec {
    AvgPoolSpec {
        stride: p.stride.clone(),
        padding: p.pads.iter().map(|pad| pad.0).collect(),
        ceil_mode: p.ceil,
        count_include_pad: p.include_pad,
        ..AvgPoolSpec::new(&p.kernel)
    }
}

/// The operators that are no [`Operation`](super::super::operation::Operation), before the epilogue.
fn plain(p: &Problem, arrays: &Arrays) -> Result<ArrayD<f64>> {
    let (x, w) = (arrays.input.view(), arrays.weight.view());
    Ok(match p.op {
        Op::SeparableConv => compound::separable(p, arrays)?,
        Op::InvolutionLayer => compound::layer(p, arrays)?,
        Op::Linear => linear(x, w, arrays.bias.as_ref().map(|bias| bias.view()))?,
        Op::MaxPool => max_pool(x, &max_spec(p))?,
        Op::AvgPool => avg_pool(x, &avg_spec(p))?,
        Op::GlobalAvgPool => global_avg_pool(x)?,
        Op::Softmax => softmax(x, p.axis)?,
        Op::Add => add(x, w)?,
        Op::Mul => mul(x, w)?,
        Op::Concat => {
            let all: Vec<ArrayViewD<f32>> =
                [x, w].into_iter().chain(arrays.offset.as_ref().map(|a| a.view())).collect();
            concat(&all, p.axis)?
        }
        Op::Narrow => narrow(x, p.axis, p.parts[0], p.extents[p.axis])?,
        Op::PixelShuffle => pixel_shuffle(x, p.parts[0])?,
        Op::UpsampleNearest => upsample_nearest(x, p.parts)?,
        Op::Activation | Op::Conv | Op::ConvTranspose | Op::DeformConv | Op::Involution => arrays.input.mapv(f64::from),
    })
}

/// The sums that the epilogue is applied to.
fn sums(p: &Problem, arrays: &Arrays, residual: Option<&ArrayD<f32>>) -> Result<Vec<f64>> {
    let mut sums = match p.operation() {
        Some(operation) => operation.reference(arrays, At::All)?,
        None => plain(p, arrays)?.as_standard_layout().iter().copied().collect(),
    };
    if let Some(residual) = residual {
        sums.iter_mut().zip(residual).for_each(|(sum, r)| *sum += f64::from(*r));
    }
    Ok(sums)
}

impl Expected {
    pub fn of(p: &Problem, arrays: &Arrays, residual: Option<&ArrayD<f32>>) -> Result<Self> {
        let sums = sums(p, arrays, residual)?;
        // What f32 cannot hold is an infinity.
        let held = |y: f64| if (y as f32).is_infinite() { f64::from(y as f32) } else { y };
        let want = sums.iter().map(|&sum| held(apply(p.activation, sum))).collect();
        Ok(Self { want, sums })
    }

    /// The bound of each element's error on a kernel.
    pub fn bounds(
        &self,
        p: &Problem,
        (arrays, residual): (&Arrays, Option<&ArrayD<f32>>),
        kernel: &str,
    ) -> Result<Vec<f64>> {
        if p.exact() && kernel != "winograd f4" {
            return Ok(vec![0.0; self.want.len()]);
        }
        let before = self.bounds_before(p, (arrays, residual), kernel)?;
        Ok(self.sums.iter().zip(before).map(|(&sum, bound)| through(p.activation, sum, bound)).collect())
    }

    /// The bounds before the activation: `c*u*n*S + n*2^-126*(max|w| + max|x| + 1)`, and Winograd's own.
    fn bounds_before(
        &self,
        p: &Problem,
        (arrays, residual): (&Arrays, Option<&ArrayD<f32>>),
        kernel: &str,
    ) -> Result<Vec<f64>> {
        let largest = largest(&arrays.input) + largest(&arrays.weight);
        if let Some(operation) = p.operation() {
            let mut magnitude = operation.magnitude(arrays, kernel, At::All)?;
            if let Some(residual) = residual {
                magnitude.add(residual.iter().map(|&r| f64::from(r)));
            }
            return Ok(magnitude.bound(SINGLE));
        }
        let absolute = Arrays {
            input: arrays.input.mapv(f32::abs),
            weight: arrays.weight.mapv(f32::abs),
            bias: arrays.bias.as_ref().map(|bias| bias.mapv(f32::abs)),
            offset: arrays.offset.as_ref().map(|offset| offset.mapv(f32::abs)),
            mask: arrays.mask.as_ref().map(|mask| mask.mapv(f32::abs)),
        };
        let terms = match p.op {
            Op::SeparableConv | Op::InvolutionLayer => return compound::bounds(p, &absolute, residual),
            Op::Linear => p.channels[0] + usize::from(p.bias) + usize::from(p.residual),
            // One addition less than elements, and 2.5 ulp for the division.
            Op::AvgPool => p.taps() + 4,
            Op::GlobalAvgPool => p.extents.iter().product::<usize>() + 4,
            Op::Add => 2,
            Op::Mul => 1,
            Op::Softmax => return Ok(self.softmax_bounds(p, arrays)),
            // Where comparisons flush what is below the least normal number, all of that is alike: another element may be copied.
            Op::MaxPool => return Ok(vec![2.0 * LEAST; self.sums.len()]),
            // These move values, which may lose what is below the least normal number.
            _ => return Ok(vec![LEAST; self.sums.len()]),
        };
        let of_absolute = sums(p, &absolute, residual.map(|r| r.mapv(f32::abs)).as_ref())?;
        let (n, tiny) = (terms as f64, terms as f64 * LEAST * (largest + 1.0));
        Ok(of_absolute.iter().map(|s| n * SINGLE / (1.0 - n * SINGLE) * s + tiny).collect())
    }

    /// 3 + 2.5 d ulp for the exponential of -d, its mean over the line and half an ulp an element for the sum, 3 for the division, and 4 for
    /// each part that a line is cut into where bindings are small.
    fn softmax_bounds(&self, p: &Problem, arrays: &Arrays) -> Vec<f64> {
        let mut bound = arrays.input.mapv(f64::from);
        let Ok(want) = ArrayD::from_shape_vec(bound.raw_dim(), self.sums.clone()) else { return Vec::new() };
        let parts = (arrays.input.len() / 900 + 1) as f64;
        for (mut line, y) in bound.lanes_mut(Axis(p.axis)).into_iter().zip(want.lanes(Axis(p.axis))) {
            let greatest = line.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            line.mapv_inplace(|v| 3.0 + 2.5 * (greatest - v).min(100.0));
            let mean: f64 = line.iter().zip(y).map(|(error, y)| error * y).sum();
            let rest = mean + 0.5 * line.len() as f64 + 3.0 + 4.0 * parts;
            line.zip_mut_with(&y, |error, y| *error = (*error + rest) * 2f64.powi(-23) * y + 2f64.powi(-124));
        }
        bound.into_iter().collect()
    }
}

/// The bound behind an activation: its steepest slope times the bound before it, and its own error somewhere in reach.
fn through(kind: ActivationKind, sum: f64, bound: f64) -> f64 {
    let slope = match kind {
        ActivationKind::Identity | ActivationKind::Relu | ActivationKind::Relu6 | ActivationKind::Tanh => 1.0,
        ActivationKind::LeakyRelu(slope) => slope.abs().max(1.0),
        ActivationKind::Sigmoid => 0.25,
        ActivationKind::HardSigmoid => 1.0 / 6.0,
        ActivationKind::Silu | ActivationKind::Gelu | ActivationKind::GeluTanh => 1.13,
        ActivationKind::HardSwish => 1.5,
    };
    let own = [sum - bound, sum, sum + bound].map(|x| own_error(kind, x)).into_iter().fold(0.0, f64::max);
    slope * bound + own
}

/// The error that `src/ops/activation.rs` derives for each function at x.
fn own_error(kind: ActivationKind, x: f64) -> f64 {
    let below = (-x).max(0.0);
    let phi = |x: f64| 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
    let z = 1.5958 * x + 0.0714 * x * x * x;
    let (ulps, exponent) = match kind {
        ActivationKind::Identity => return 0.0,
        ActivationKind::Relu | ActivationKind::Relu6 => (0.0, -126),
        ActivationKind::LeakyRelu(_) => (1.0, -125),
        ActivationKind::Sigmoid => (6.0 + 2.0 * below, -125),
        ActivationKind::Tanh => (9.0, -125),
        ActivationKind::Silu => (7.0 + 2.0 * below, -119),
        ActivationKind::Gelu if x > 0.0 => (2.0 + (18.0 + 1.25 * x * x) * phi(-x) / phi(x), -121),
        ActivationKind::Gelu => (19.0 + 1.25 * x * x, -121),
        ActivationKind::GeluTanh => (8.0 + 4.5 * (-z).max(0.0), -119),
        ActivationKind::HardSigmoid => (4.0, -125),
        ActivationKind::HardSwish => (if x >= 3.0 { 0.0 } else { 5.0 }, -123),
    };
    // A result of 0 stays 0 however large the factor is.
    let scale = apply(kind, x).abs();
    2f64.powi(exponent) + if scale > 0.0 { ulps * 2f64.powi(-23) * scale } else { 0.0 }
}

/// The largest absolute value that is finite.
pub fn largest(array: &ArrayD<f32>) -> f64 {
    array.iter().filter(|v| v.is_finite()).fold(0.0, |most, value| f64::max(most, f64::from(value.abs())))
}

/// Whether a value that a kernel gave is right.
pub fn agrees(got: f32, want: f64, bound: f64) -> bool {
    let got = f64::from(got);
    got == want || got.is_nan() && want.is_nan() || want.is_finite() && (got - want).abs() <= bound
}

/// Whether the promise about what is not finite leaves a kernel out.
pub fn excepted(p: &Problem, kernel: &str) -> bool {
    kernel == "winograd f4" && matches!(p.fill, Fill::Spike(_))
}
