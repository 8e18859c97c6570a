//! An operator with its options and arrays as plain data: the CPU reference of it, whole or in some elements, and the derived bound of
//! a result's error.

use rayon::prelude::*;
use wgconv::ndarray::{ArrayD, Axis, IxDyn};
use wgconv::reference::{
    BorderMode, ConvSpec, ConvTransposeSpec, DeformSpec, InvolutionSpec, conv, conv_at, conv_out_shape, conv_transpose,
    conv_transpose_at, conv_transpose_out_shape, deform_conv2d, deform_conv2d_at, deform_conv2d_out_shape,
    involution2d, involution2d_at, involution2d_out_shape,
};

use super::common::{Error, Result};

/// Unit roundoff of f32.
pub const SINGLE: f64 = 1.0 / (1u64 << 24) as f64;
/// Unit roundoff of f64.
pub const DOUBLE: f64 = 1.0 / (1u64 << 53) as f64;
/// The least normal f32: what is below may be flushed to zero.
const LEAST_NORMAL: f64 = f32::MIN_POSITIVE as f64;

/// The operators, by their names in case files and in the table of layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    Conv,
    ConvTranspose,
    DeformConv,
    Involution,
}

/// An operator with its options; every list has one entry a spatial axis.
#[derive(Clone, Debug)]
pub struct Operation {
    pub operator: Operator,
    pub kernel: Vec<usize>,
    pub stride: Vec<usize>,
    pub pads: Vec<(usize, usize)>,
    pub dilation: Vec<usize>,
    pub groups: usize,
    pub offset_groups: usize,
    pub output_padding: Vec<usize>,
    pub border: BorderMode,
    pub flip_kernel: bool,
    /// Kernels with a larger error are offered too, where the library runs it.
    pub fast_math: bool,
}

/// What it is applied to.
#[derive(Clone, Debug)]
pub struct Arrays {
    pub input: ArrayD<f32>,
    pub weight: ArrayD<f32>,
    pub bias: Option<ArrayD<f32>>,
    pub offset: Option<ArrayD<f32>>,
    pub mask: Option<ArrayD<f32>>,
}

/// Which elements of the output to compute.
#[derive(Clone, Copy)]
pub enum At<'a> {
    All,
    /// These, by their index in row-major order.
    Some(&'a [usize]),
}

/// What the error bound of each element follows from; see [`Operation::magnitude`].
pub struct Magnitude {
    /// The most roundings that a product goes through.
    roundings: f64,
    /// The sum of the products' absolute values, for each element.
    sums: Vec<f64>,
    /// What may be lost where small values are flushed to zero.
    tiny: f64,
}

impl Operator {
    pub fn name(self) -> &'static str {
        match self {
            Operator::Conv => "conv",
            Operator::ConvTranspose => "conv_transpose",
            Operator::DeformConv => "deform_conv",
            Operator::Involution => "involution",
        }
    }
}

impl Operation {
    /// Stride 1, dilation 1, no padding, one group.
    pub fn new(operator: Operator, kernel: &[usize]) -> Self {
        let rank = kernel.len();
        Self {
            operator,
            kernel: kernel.to_vec(),
            stride: vec![1; rank],
            pads: vec![(0, 0); rank],
            dilation: vec![1; rank],
            groups: 1,
            offset_groups: 1,
            output_padding: vec![0; rank],
            border: BorderMode::Zeros,
            flip_kernel: false,
            fast_math: false,
        }
    }

    /// One of the lists as an array, where the operator has that many axes.
    pub fn axes<T: Copy, const R: usize>(&self, option: &str, values: &[T]) -> Result<[T; R]> {
        values.try_into().map_err(|_| {
            let name = self.operator.name();
            Error::Failed(format!("{name}: {option}: expected {R} values, one a spatial axis, got {}", values.len()))
        })
    }

    fn conv(&self) -> ConvSpec {
        ConvSpec {
            stride: self.stride.clone(),
            dilation: self.dilation.clone(),
            pads: self.pads.clone(),
            groups: self.groups,
            border: self.border,
            flip_kernel: self.flip_kernel,
        }
    }

    fn conv_transpose(&self) -> ConvTransposeSpec {
        ConvTransposeSpec {
            stride: self.stride.clone(),
            dilation: self.dilation.clone(),
            pads: self.pads.clone(),
            output_padding: self.output_padding.clone(),
            groups: self.groups,
        }
    }

    fn deform_conv(&self) -> Result<DeformSpec> {
        Ok(DeformSpec {
            stride: self.axes("stride", &self.stride)?,
            dilation: self.axes("dilation", &self.dilation)?,
            pads: self.axes("pads", &self.pads)?,
            groups: self.groups,
            offset_groups: self.offset_groups,
        })
    }

    fn involution(&self) -> Result<InvolutionSpec> {
        Ok(InvolutionSpec {
            kernel: self.axes("kernel", &self.kernel)?,
            stride: self.axes("stride", &self.stride)?,
            dilation: self.axes("dilation", &self.dilation)?,
            pads: self.axes("pads", &self.pads)?,
            groups: self.groups,
        })
    }

    /// The output's shape by the reference's rule.
    pub fn output_shape(&self, input: &[usize], weight: &[usize]) -> Result<Vec<usize>> {
        Ok(match self.operator {
            Operator::Conv => conv_out_shape(input, weight, &self.conv())?,
            Operator::ConvTranspose => conv_transpose_out_shape(input, weight, &self.conv_transpose())?,
            Operator::DeformConv => deform_conv2d_out_shape(input, weight, &self.deform_conv()?)?,
            Operator::Involution => involution2d_out_shape(input, &self.involution()?)?,
        })
    }

    /// The reference's result at the elements asked for.
    pub fn reference(&self, arrays: &Arrays, at: At<'_>) -> Result<Vec<f64>> {
        let (x, w) = (arrays.input.view(), arrays.weight.view());
        let bias = || arrays.bias.as_ref().map(|array| array.view());
        let mask = || arrays.mask.as_ref().map(|array| array.view());
        match self.operator {
            Operator::Conv => {
                let spec = self.conv();
                match at {
                    At::All => Ok(flat(conv(x, w, bias(), &spec)?)),
                    At::Some(_) => self.elements(arrays, at, |i| Ok(conv_at(x.view(), w.view(), bias(), &spec, i)?)),
                }
            }
            Operator::ConvTranspose => {
                let spec = self.conv_transpose();
                match at {
                    At::All => Ok(flat(conv_transpose(x, w, bias(), &spec)?)),
                    At::Some(_) => {
                        self.elements(arrays, at, |i| Ok(conv_transpose_at(x.view(), w.view(), bias(), &spec, i)?))
                    }
                }
            }
            Operator::DeformConv => {
                let (spec, offset) = (self.deform_conv()?, arrays.offset()?);
                match at {
                    At::All => Ok(flat(deform_conv2d(x, offset.view(), mask(), w, bias(), &spec)?)),
                    At::Some(_) => self.elements(arrays, at, |i| {
                        Ok(deform_conv2d_at(x.view(), offset.view(), mask(), w.view(), bias(), &spec, i)?)
                    }),
                }
            }
            Operator::Involution => {
                let spec = self.involution()?;
                match at {
                    At::All => Ok(flat(involution2d(x, w, bias(), &spec)?)),
                    At::Some(_) => {
                        self.elements(arrays, at, |i| Ok(involution2d_at(x.view(), w.view(), bias(), &spec, i)?))
                    }
                }
            }
        }
    }

    fn elements(
        &self,
        arrays: &Arrays,
        at: At<'_>,
        element: impl Fn(&[usize]) -> Result<f64> + Sync,
    ) -> Result<Vec<f64>> {
        let shape = self.output_shape(arrays.input.shape(), arrays.weight.shape())?;
        match at {
            At::All => Ok(Vec::new()),
            At::Some(flat) => flat.par_iter().map(|&i| element(&index_of(i, &shape))).collect(),
        }
    }

    /// The most products that one element of the output sums, the bias counted.
    pub fn products(&self, arrays: &Arrays) -> usize {
        let taps: usize = self.kernel.iter().product();
        let w = arrays.weight.shape();
        let products = match self.operator {
            Operator::Conv | Operator::DeformConv => w[1] * taps,
            // Of the taps along an axis, those that reach the same output lie stride / gcd(stride, dilation) apart.
            Operator::ConvTranspose => {
                let axes = self.kernel.iter().zip(&self.stride).zip(&self.dilation);
                w[0] / self.groups * axes.map(|((k, s), d)| k.div_ceil(s / gcd(*s, *d))).product::<usize>()
            }
            Operator::Involution => taps,
        };
        products + usize::from(arrays.bias.is_some())
    }

    /// What the error bound of a kernel's result follows from, at the elements asked for: the number of products and the sum of their
    /// absolute values, which is the reference's result on absolute values; Winograd's kernels have a bound of their own.
    pub fn magnitude(&self, arrays: &Arrays, kernel: &str, at: At<'_>) -> Result<Magnitude> {
        let absolute = Arrays {
            input: arrays.input.mapv(f32::abs),
            weight: arrays.weight.mapv(f32::abs),
            bias: arrays.bias.as_ref().map(|bias| bias.mapv(f32::abs)),
            offset: arrays.offset.clone(),
            mask: arrays.mask.as_ref().map(|mask| mask.mapv(f32::abs)),
        };
        match kernel {
            "winograd" => return self.winograd_magnitude(&absolute, 2, at),
            "winograd f4" => return self.winograd_magnitude(&absolute, 4, at),
            _ => {}
        }
        let sums = self.reference(&absolute, at)?;
        let products = self.products(arrays) as f64;
        let (x, w) = (largest(&absolute.input), largest(&absolute.weight));
        if self.operator != Operator::DeformConv {
            return Ok(Magnitude { roundings: products, sums, tiny: products * LEAST_NORMAL * (w + x + 1.0) });
        }
        // A sample adds nine roundings. The weights of a row and a column are a coordinate's fraction and 1 minus it; of neighbours in
        // the image each is exact or rounded once: 2. Then the product of the two, that with the neighbour, the sum of four, the
        // mask and the weight of the convolution, where these are not fused. S is right as it is, since bilinear weights are not negative.
        let m = absolute.mask.as_ref().map_or(1.0, largest);
        let tiny = 8.0 * products * LEAST_NORMAL * (w + 1.0) * (m + 1.0) * (x + 1.0);
        Ok(Magnitude { roundings: products + 9.0, sums, tiny })
    }

    /// The magnitude of F(m x m, 3 x 3), as docs/numerics.md derives it: growth of the terms along one axis, squared; roundings of the
    /// transforms, with bias; inputs beside the window that an output depends on; by what the transforms magnify what was flushed to zero.
    fn winograd_magnitude(&self, absolute: &Arrays, m: usize, at: At<'_>) -> Result<Magnitude> {
        let (growth, roundings, reach, flushed) =
            if m == 2 { (2.0, 13.0, 0, 344.0) } else { (64.0 / 6.0, 27.0, 2, 103_300.0) };
        let (shape, rank) = (absolute.weight.shape(), self.kernel.len());
        // Every input that an output depends on, times the sum of the weights of its channel.
        let taps = absolute.weight.clone().into_shape_with_order((shape[0], shape[1], 9));
        let taps = taps.map_err(|error| Error::Failed(error.to_string()))?.sum_axis(Axis(2));
        let side = |axis: usize| if axis + 2 < rank { 1 } else { 3 + 2 * reach };
        let wide: Vec<usize> = shape[..2].iter().copied().chain((0..rank).map(side)).collect();
        let spread = ArrayD::from_shape_fn(IxDyn(&wide), |i| taps[[i[0], i[1]]]);
        let beside = |axis: usize| if axis + 2 < rank { 0 } else { reach };
        let pads = self.pads.iter().enumerate().map(|(axis, &(a, b))| (a + beside(axis), b + beside(axis))).collect();
        let spreading = Operation { kernel: wide[2..].to_vec(), pads, ..self.clone() };
        let mut sums = spreading.reference(&Arrays { weight: spread, ..absolute.clone() }, at)?;
        sums.iter_mut().for_each(|sum| *sum *= growth * growth);
        let roundings = shape[1] as f64 + roundings;
        let most = largest(&absolute.input) + largest(&absolute.weight) + 1.0;
        Ok(Magnitude { roundings, sums, tiny: roundings * LEAST_NORMAL * (flushed * most + 1.0) })
    }

    /// By how much each output channel of a deformable convolution (none for another operator) may differ where the coordinates are sums in f64, not in f32 as is
    /// their meaning here; a result that was computed in f64 elsewhere may have used them so. The interpolation changes by at most
    /// `2 max|x|` for each unit of a coordinate.
    pub fn coordinate_slack(&self, arrays: &Arrays) -> Result<Vec<f64>> {
        if self.operator != Operator::DeformConv {
            return Ok(Vec::new());
        }
        let (offset, extents) = (arrays.offset()?, &arrays.input.shape()[2..]);
        let roundings = offset.indexed_iter().map(|(index, &offset)| {
            let (axis, tap) = (index[1] % 2, index[1] / 2 % (self.kernel[0] * self.kernel[1]));
            let tap = if axis == 0 { tap / self.kernel[1] } else { tap % self.kernel[1] };
            let padded = (index[2 + axis] * self.stride[axis] + tap * self.dilation[axis]) as f64;
            let grid = padded - self.pads[axis].0 as f64;
            let exact = grid + f64::from(offset);
            // Further out both sample nothing.
            let near = exact > -2.0 && exact < extents[axis] as f64 + 1.0;
            if near { (f64::from(grid as f32 + offset) - exact).abs() } else { 0.0 }
        });
        let both_axes = 2.0 * roundings.fold(0.0, f64::max);
        let most = 2.0 * largest(&arrays.input) * arrays.mask.as_ref().map_or(1.0, largest);
        let weights = arrays.weight.axis_iter(Axis(0));
        Ok(weights.map(|w| both_axes * most * w.iter().map(|w| f64::from(w.abs())).sum::<f64>()).collect())
    }
}

impl Arrays {
    /// The offset, which deformable convolution needs.
    pub fn offset(&self) -> Result<&ArrayD<f32>> {
        self.offset.as_ref().ok_or_else(|| Error::Failed("deform_conv: offset: expected a tensor, got none".into()))
    }
}

impl Magnitude {
    /// One term more in each sum, such as a residual's.
    pub fn add(&mut self, terms: impl Iterator<Item = f64>) {
        self.roundings += 1.0;
        self.sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += term.abs());
    }

    /// The bound of each element's error where every operation rounds by at most the factor `1 + unit`, in any order:
    /// `n*unit / (1 - n*unit) * S + n*2^-126*(max|w| + max|x| + 1)` (Higham 2002, section 3.1), the second part for what is flushed to 0.
    pub fn bound(&self, unit: f64) -> Vec<f64> {
        let relative = self.roundings * unit / (1.0 - self.roundings * unit);
        self.sums.iter().map(|sum| relative * sum + self.tiny).collect()
    }
}

/// The index of an element in a shape, from its place in row-major order.
pub fn index_of(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (i, extent) in index.iter_mut().zip(shape).rev() {
        (*i, flat) = (flat % extent, flat / extent);
    }
    index
}

fn flat(array: ArrayD<f64>) -> Vec<f64> {
    array.into_iter().collect()
}

/// The largest absolute value.
fn largest(array: &ArrayD<f32>) -> f64 {
    array.iter().fold(0.0, |most, value| f64::max(most, f64::from(value.abs())))
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}
