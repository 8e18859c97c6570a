//! Operators that compute nothing and move elements: concatenation, a part of an axis, pixel shuffle, nearest up-sampling.

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::same_gpu;
use crate::ops::window::{window, window_elements};
use crate::params::params;
use crate::plan::{Instance, Params, Plan, Slot, Step};
use crate::profile::Profile;
use crate::run::{Call, Encoded};
use crate::tensor::{Tensor, byte_count};

/// Axes that the shader has.
const AXES: usize = 6;

params! {
    /// `Params` of `elementwise/copy.wgsl`.
    pub struct CopyParams {
        e0: u32, e1: u32, e2: u32, e3: u32, e4: u32, e5: u32,
        x0: u32, x1: u32, x2: u32, x3: u32, x4: u32, x5: u32,
        y0: u32, y1: u32, y2: u32, y3: u32, y4: u32, y5: u32,
        total: u32, x_at: u32, y_at: u32,
    }
}

pub(crate) fn instance(vec: bool) -> Instance {
    Instance::new("elementwise/copy.wgsl").with("VEC", vec.into())
}

/// An axis of what moves: its extent and the steps of an index in the input and in the output, in elements.
#[derive(Clone, Copy, Debug)]
struct Axis {
    extent: u64,
    x: u64,
    y: u64,
}

/// Elements that move from one argument to the output.
struct Move {
    arg: usize,
    /// The last axis of the output first.
    axes: [Axis; AXES],
    /// First element of the part in each.
    x_start: u64,
    y_start: u64,
    /// Elements of the whole of each.
    x_total: u64,
    y_total: u64,
}

impl Move {
    fn new(arg: usize, axes: &[Axis], (x_start, y_start): (u64, u64), (x_total, y_total): (u64, u64)) -> Self {
        let mut padded = [Axis { extent: 1, x: 0, y: 0 }; AXES];
        padded[..axes.len()].copy_from_slice(axes);
        Self { arg, axes: padded, x_start, y_start, x_total, y_total }
    }

    /// Dispatches for the part. Where a tensor is over the binding limit the part is halved, each time along the axis that reaches
    /// farthest in that tensor, until windows of both hold it.
    fn steps(self, profile: &Profile, steps: &mut Vec<Step>) {
        let most = window_elements(profile);
        let reach = |axis: &Axis, step: fn(&Axis) -> u64| (axis.extent - 1) * step(axis);
        let span = |step: fn(&Axis) -> u64| self.axes.iter().map(|axis| reach(axis, step)).sum::<u64>() + 1;
        let steps_of: [fn(&Axis) -> u64; 2] = [|axis| axis.x, |axis| axis.y];
        let [x_span, y_span] = steps_of.map(span);
        let fits = |total: u64, span: u64| (total * 4).next_multiple_of(16) <= profile.max_binding || span <= most;
        let too_long = match (fits(self.x_total, x_span), fits(self.y_total, y_span)) {
            (true, true) => None,
            (false, _) => Some(steps_of[0]),
            (true, false) => Some(steps_of[1]),
        };
        let farthest = |step| (0..AXES).max_by_key(|&at| reach(&self.axes[at], step)).unwrap_or(0);
        if let Some(at) = too_long.map(farthest) {
            // In multiples of four, so that vec4s stay whole.
            let first = match self.axes[at].extent / 2 {
                half if half >= 4 => half / 4 * 4,
                half => half,
            };
            for (start, extent) in [(0, first), (first, self.axes[at].extent - first)] {
                let mut axes = self.axes;
                axes[at].extent = extent;
                let (x_start, y_start) = (self.x_start + start * axes[at].x, self.y_start + start * axes[at].y);
                Move { axes, x_start, y_start, ..self }.steps(profile, steps);
            }
            return;
        }
        let [inner, outer @ ..] = &self.axes;
        let whole = |n: u64| n.is_multiple_of(4);
        let vec = (inner.x, inner.y) == (1, 1)
            && [inner.extent, self.x_start, self.y_start].into_iter().all(whole)
            && outer.iter().all(|axis| whole(axis.x) && whole(axis.y));
        let lanes = if vec { 4 } else { 1 };
        let (x, x_base) =
            window(profile, Slot::Arg(self.arg), self.x_start..self.x_start + x_span, self.x_total, false);
        let (y, y_base) = window(profile, Slot::Out, self.y_start..self.y_start + y_span, self.y_total, true);
        let count = self.axes.iter().map(|axis| axis.extent).product::<u64>();
        let [e0, e1, e2, e3, e4, e5] = self.axes.map(|axis| axis.extent as u32);
        let [x0, x1, x2, x3, x4, x5] = self.axes.map(|axis| axis.x as u32);
        let [y0, y1, y2, y3, y4, y5] = self.axes.map(|axis| axis.y as u32);
        let total = count / lanes;
        let lanes = lanes as u32;
        #[rustfmt::skip]
        let params = CopyParams {
            e0: e0 / lanes, e1, e2, e3, e4, e5,
            x0: x0 * lanes, x1, x2, x3, x4, x5,
            y0: y0 * lanes, y1, y2, y3, y4, y5,
            total: total as u32,
            x_at: self.x_start as u32 - x_base,
            y_at: self.y_start as u32 - y_base,
        };
        let (params, groups) = (Params::new(&params), total.div_ceil(64));
        steps.push(Step { instance: instance(vec), params, bindings: vec![x, y], groups, work: count });
    }
}

fn plan(op: &'static str, output: Vec<usize>, moves: Vec<Move>, profile: &Profile) -> Plan {
    let mut steps = Vec::new();
    moves.into_iter().for_each(|part| part.steps(profile, &mut steps));
    Plan { op, kernel: "copy", output, pack: None, scratch: Vec::new(), steps }.cut(profile)
}

fn volume(shape: &[usize]) -> u64 {
    shape.iter().map(|&extent| extent as u64).product()
}

/// A shape that can be moved: at least `rank` axes, none empty, its bytes counted.
fn checked(op: &'static str, argument: &'static str, shape: &[usize], rank: usize) -> Result<()> {
    if shape.len() < rank || shape.contains(&0) {
        let expected = format!("at least {rank} axes, none of them empty");
        return Err(Error::invalid(op, argument, expected, format!("{shape:?}")));
    }
    byte_count(op, argument, shape, u64::MAX).map(|_| ())
}

macro_rules! one_input {
    ($name:ident, $op:literal) => {
        impl $name {
            /// What a call would dispatch on such an adapter, without a GPU.
            ///
            /// # Errors
            /// As [`Self::output_shape`].
            pub fn plan(&self, profile: &Profile, x: &[usize]) -> Result<Plan> {
                let output = self.output_shape(x)?;
                let moves = vec![self.moves(x, &output)];
                Ok(plan($op, output, moves, profile))
            }

            fn call<T>(&self, x: &Tensor, run: impl FnOnce(Call<'_>) -> Result<T>) -> Result<T> {
                let gpu = x.gpu().clone();
                let plan = self.plan(gpu.profile(), x.shape())?;
                run(Call { gpu, plan, args: &[("input", Some(x))] })
            }

            /// Records the operator.
            ///
            /// # Errors
            /// As [`Self::output_shape`], and errors of the device.
            pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
                self.call(x, |call| call.forward())
            }

            /// The same into the caller's output, which may not share the input's buffer.
            ///
            /// # Errors
            /// As [`Self::forward`], and for an output of another shape or one that aliases the input.
            pub fn forward_into(&self, x: &Tensor, output: &Tensor) -> Result<()> {
                self.call(x, |call| call.forward_into(output))
            }

            /// The same into the caller's command encoder.
            ///
            /// # Errors
            /// As [`Self::forward`].
            pub fn encode(&self, encoder: &mut wgpu::CommandEncoder, x: &Tensor) -> Result<Encoded> {
                self.call(x, |call| call.encode(encoder))
            }

            /// Compiles the kernels of such calls ahead: they then compile nothing.
            ///
            /// # Errors
            /// As [`Self::plan`], and errors of the device.
            pub fn warm_up(&self, gpu: &Gpu, x: &[usize]) -> Result<()> {
                crate::run::warm_up(gpu, &self.plan(gpu.profile(), x)?)
            }
        }
    };
}

/// Tensors one after the other along an axis, as `torch.cat` does: Inception's branches, the branches of ASPP.
///
/// # Shapes
/// Inputs of the same rank and of the same extents but along the axis; the output's extent there is their sum.
///
/// # Example
/// ```no_run
/// use wgconv::{Concat, Gpu, Tensor};
/// let gpu = Gpu::new_blocking()?;
/// let (a, b) = (Tensor::zeros(&gpu, &[1, 64, 28, 28])?, Tensor::zeros(&gpu, &[1, 32, 28, 28])?);
/// assert_eq!(Concat::new(1).forward(&[&a, &b])?.shape(), [1, 96, 28, 28]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Concat {
    axis: usize,
}

impl Concat {
    /// Along that axis, 1 being the channels.
    pub fn new(axis: usize) -> Self {
        Self { axis }
    }

    /// The output's shape, without a GPU.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no input, for an axis that they do not have and for shapes that do not fit together.
    pub fn output_shape(&self, inputs: &[&[usize]]) -> Result<Vec<usize>> {
        let op = "concat";
        let Some(first) = inputs.first() else {
            return Err(Error::invalid(op, "inputs", "at least one tensor", 0));
        };
        let mut output = first.to_vec();
        for (i, shape) in inputs.iter().enumerate() {
            if self.axis >= shape.len() {
                return Err(Error::invalid(op, "axis", format!("an axis of {shape:?}"), self.axis));
            }
            checked(op, "inputs", shape, 1)?;
            let alike = |(axis, (a, b)): (usize, (&usize, &usize))| axis == self.axis || a == b;
            if shape.len() != first.len() || !shape.iter().zip(*first).enumerate().all(alike) {
                let expected = format!("extents of {first:?} but along axis {}", self.axis);
                return Err(Error::invalid(op, "inputs", expected, format!("{shape:?} (input {i})")));
            }
            if i > 0 {
                // Each is less than 2^31, and so is the number of inputs.
                output[self.axis] = output[self.axis].saturating_add(shape[self.axis]);
            }
        }
        byte_count(op, "output", &output, u64::MAX)?;
        Ok(output)
    }

    /// What a call would dispatch on such an adapter, without a GPU.
    ///
    /// # Errors
    /// As [`Self::output_shape`].
    pub fn plan(&self, profile: &Profile, inputs: &[&[usize]]) -> Result<Plan> {
        let output = self.output_shape(inputs)?;
        let (outer, inner) = (volume(&output[..self.axis]), volume(&output[self.axis + 1..]));
        let (y_row, mut y_start) = (output[self.axis] as u64 * inner, 0);
        let mut moves = Vec::new();
        for (arg, shape) in inputs.iter().enumerate() {
            let x_row = shape[self.axis] as u64 * inner;
            let axes = [Axis { extent: x_row, x: 1, y: 1 }, Axis { extent: outer, x: x_row, y: y_row }];
            moves.push(Move::new(arg, &axes, (0, y_start), (volume(shape), volume(&output))));
            y_start += x_row;
        }
        Ok(plan("concat", output, moves, profile))
    }

    fn call<T>(&self, inputs: &[&Tensor], run: impl FnOnce(Call<'_>) -> Result<T>) -> Result<T> {
        let shapes: Vec<&[usize]> = inputs.iter().map(|x| x.shape()).collect();
        self.output_shape(&shapes)?;
        let args: Vec<_> = inputs.iter().map(|x| ("inputs", Some(*x))).collect();
        same_gpu("concat", &args)?;
        let gpu = inputs[0].gpu().clone();
        let plan = self.plan(gpu.profile(), &shapes)?;
        run(Call { gpu, plan, args: &args })
    }

    /// Records the operator.
    ///
    /// # Errors
    /// As [`Self::output_shape`], for tensors of different [`Gpu`]s, and errors of the device.
    pub fn forward(&self, inputs: &[&Tensor]) -> Result<Tensor> {
        self.call(inputs, |call| call.forward())
    }

    /// The same into the caller's output, which may share no buffer with an input.
    ///
    /// # Errors
    /// As [`Self::forward`], and for an output of another shape or one that aliases an input.
    pub fn forward_into(&self, inputs: &[&Tensor], output: &Tensor) -> Result<()> {
        self.call(inputs, |call| call.forward_into(output))
    }

    /// The same into the caller's command encoder.
    ///
    /// # Errors
    /// As [`Self::forward`].
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder, inputs: &[&Tensor]) -> Result<Encoded> {
        self.call(inputs, |call| call.encode(encoder))
    }

    /// Compiles the kernels of such calls ahead: they then compile nothing.
    ///
    /// # Errors
    /// As [`Self::plan`], and errors of the device.
    pub fn warm_up(&self, gpu: &Gpu, inputs: &[&[usize]]) -> Result<()> {
        crate::run::warm_up(gpu, &self.plan(gpu.profile(), inputs)?)
    }
}

/// `length` indices of an axis from `start` on, copied, as `torch.narrow(...).contiguous()`.
///
/// # Example
/// ```no_run
/// use wgconv::{Gpu, Narrow, Tensor};
/// let gpu = Gpu::new_blocking()?;
/// let x = Tensor::zeros(&gpu, &[1, 27, 28, 28])?;
/// assert_eq!(Narrow::new(1, 18, 9).forward(&x)?.shape(), [1, 9, 28, 28]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Narrow {
    axis: usize,
    start: usize,
    length: usize,
}

impl Narrow {
    /// Indices `start..start + length` of that axis.
    pub fn new(axis: usize, start: usize, length: usize) -> Self {
        Self { axis, start, length }
    }

    /// The output's shape, without a GPU.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an axis that the input does not have, and for a range that is empty or ends beyond it.
    pub fn output_shape(&self, x: &[usize]) -> Result<Vec<usize>> {
        let op = "narrow";
        checked(op, "input", x, 1)?;
        let Some(&extent) = x.get(self.axis) else {
            return Err(Error::invalid(op, "axis", format!("an axis of {x:?}"), self.axis));
        };
        if self.length == 0 || self.start.checked_add(self.length).is_none_or(|end| end > extent) {
            let got = format!("{} from {} on", self.length, self.start);
            return Err(Error::invalid(op, "length", format!("at least 1, within an extent of {extent}"), got));
        }
        let mut output = x.to_vec();
        output[self.axis] = self.length;
        Ok(output)
    }

    fn moves(&self, x: &[usize], output: &[usize]) -> Move {
        let (outer, inner) = (volume(&x[..self.axis]), volume(&x[self.axis + 1..]));
        let (x_row, y_row) = (x[self.axis] as u64 * inner, self.length as u64 * inner);
        let axes = [Axis { extent: y_row, x: 1, y: 1 }, Axis { extent: outer, x: x_row, y: y_row }];
        Move::new(0, &axes, (self.start as u64 * inner, 0), (volume(x), volume(output)))
    }
}

one_input!(Narrow, "narrow");

/// `y[n, c, h*r + i, w*r + j] = x[n, (c*r + i)*r + j, h, w]`: the periodic shuffle of ESPCN (Shi et al. 2016), as
/// `torch.nn.PixelShuffle`; behind a convolution it is the dense up-sampling convolution of Wang et al. 2018.
///
/// # Shapes
/// `[N, C*r*r, H, W]` to `[N, C, H*r, W*r]`.
///
/// # Example
/// ```no_run
/// use wgconv::{Gpu, PixelShuffle, Tensor};
/// let gpu = Gpu::new_blocking()?;
/// let x = Tensor::zeros(&gpu, &[1, 16, 5, 7])?;
/// assert_eq!(PixelShuffle::new(4).forward(&x)?.shape(), [1, 1, 20, 28]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct PixelShuffle {
    factor: usize,
}

impl PixelShuffle {
    /// Up by that factor along both axes.
    pub fn new(factor: usize) -> Self {
        Self { factor }
    }

    /// The output's shape, without a GPU.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a factor of 0, a rank other than 4, and channels that the factor's square does not divide.
    pub fn output_shape(&self, x: &[usize]) -> Result<Vec<usize>> {
        let op = "pixel_shuffle";
        checked(op, "input", x, 1)?;
        let &[n, c, h, w] = x else {
            return Err(Error::invalid(op, "input", "shape [N, C*r*r, H, W]", format!("{x:?}")));
        };
        let square = self.factor.checked_mul(self.factor).filter(|&square| square > 0 && c.is_multiple_of(square));
        let Some(square) = square else {
            return Err(Error::invalid(
                op,
                "factor",
                format!("a factor whose square divides {c} channels"),
                self.factor,
            ));
        };
        Ok(vec![n, c / square, h * self.factor, w * self.factor])
    }

    fn moves(&self, x: &[usize], output: &[usize]) -> Move {
        let (r, plane, w) = (self.factor as u64, volume(&x[2..]), x[3] as u64);
        let axes = [
            Axis { extent: r, x: plane, y: 1 },
            Axis { extent: w, x: 1, y: r },
            Axis { extent: r, x: r * plane, y: w * r },
            Axis { extent: x[2] as u64, x: w, y: w * r * r },
            Axis { extent: volume(&output[..2]), x: r * r * plane, y: r * r * plane },
        ];
        Move::new(0, &axes, (0, 0), (volume(x), volume(output)))
    }
}

one_input!(PixelShuffle, "pixel_shuffle");

/// Nearest-neighbour up-sampling by whole factors, as `torch.nn.Upsample(mode="nearest")`: `y[n, c, h*r + i, w*s + j] = x[n, c, h, w]`.
///
/// # Shapes
/// `[N, C, H, W]` to `[N, C, H*r, W*s]`. From one pixel it spreads a pooled value over an image, as ASPP's image branch needs.
///
/// # Example
/// ```no_run
/// use wgconv::{Gpu, Tensor, UpsampleNearest};
/// let gpu = Gpu::new_blocking()?;
/// let x = Tensor::zeros(&gpu, &[1, 16, 1, 1])?;
/// assert_eq!(UpsampleNearest::new([20, 28]).forward(&x)?.shape(), [1, 16, 20, 28]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct UpsampleNearest {
    factors: [usize; 2],
}

impl UpsampleNearest {
    /// By these factors along height and width.
    pub fn new(factors: [usize; 2]) -> Self {
        Self { factors }
    }

    /// The output's shape, without a GPU.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a factor of 0 and a rank other than 4; [`Error::TooLarge`].
    pub fn output_shape(&self, x: &[usize]) -> Result<Vec<usize>> {
        let op = "upsample_nearest";
        checked(op, "input", x, 1)?;
        let &[n, c, h, w] = x else {
            return Err(Error::invalid(op, "input", "shape [N, C, H, W]", format!("{x:?}")));
        };
        if self.factors.contains(&0) {
            return Err(Error::invalid(op, "factors", "factors of at least 1", format!("{:?}", self.factors)));
        }
        let output = vec![n, c, h.saturating_mul(self.factors[0]), w.saturating_mul(self.factors[1])];
        byte_count(op, "output", &output, u64::MAX)?;
        Ok(output)
    }

    fn moves(&self, x: &[usize], output: &[usize]) -> Move {
        let [r, s] = self.factors.map(|factor| factor as u64);
        let (h, w) = (x[2] as u64, x[3] as u64);
        let axes = [
            Axis { extent: s, x: 0, y: 1 },
            Axis { extent: w, x: 1, y: s },
            Axis { extent: r, x: 0, y: w * s },
            Axis { extent: h, x: w, y: w * s * r },
            Axis { extent: volume(&x[..2]), x: h * w, y: h * w * r * s },
        ];
        Move::new(0, &axes, (0, 0), (volume(x), volume(output)))
    }
}

one_input!(UpsampleNearest, "upsample_nearest");
