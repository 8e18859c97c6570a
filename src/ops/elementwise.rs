//! Sum and product of two tensors with broadcasting.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::same_gpu;
use crate::ops::window::{window, window_elements};
use crate::params::params;
use crate::plan::{Instance, Params, Plan, Slot, Step};
use crate::profile::Profile;
use crate::run::{Call, Encoded};
use crate::tensor::{Tensor, byte_count};

/// Axes that the shader has.
const AXES: usize = 8;

params! {
    /// `Params` of `elementwise/binary.wgsl`.
    pub struct BinaryParams {
        e0: u32, e1: u32, e2: u32, e3: u32, e4: u32, e5: u32, e6: u32, e7: u32,
        a0: u32, a1: u32, a2: u32, a3: u32, a4: u32, a5: u32, a6: u32, a7: u32,
        b0: u32, b1: u32, b2: u32, b3: u32, b4: u32, b5: u32, b6: u32, b7: u32,
        total: u32, y_at: u32, a_at: u32, b_at: u32,
        a_step: u32, b_step: u32, activation: u32, slope: f32,
    }
}

pub(crate) fn instance(mul: bool, vec: bool) -> Instance {
    Instance::new("elementwise/binary.wgsl").with("MUL", mul as u32).with("VEC", vec as u32)
}

/// An axis of the output: its extent and the operands' strides, 0 where one repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Axis {
    extent: u64,
    strides: [u64; 2],
}

/// A checked broadcast: axes that belong together made one, the last first.
#[derive(Debug)]
struct Broadcast {
    op: &'static str,
    output: Vec<usize>,
    axes: Vec<Axis>,
    counts: [u64; 2],
}

impl Broadcast {
    fn new(op: &'static str, shapes: [&[usize]; 2]) -> Result<Self> {
        for (argument, shape) in ["a", "b"].into_iter().zip(shapes) {
            if shape.len() > AXES || shape.contains(&0) {
                let expected = format!("at most {AXES} axes, none of them empty");
                return Err(Error::invalid(op, argument, expected, format!("{shape:?}")));
            }
            byte_count(op, argument, shape, u64::MAX)?;
        }
        let rank = shapes[0].len().max(shapes[1].len());
        let from_end = |shape: &[usize], i: usize| shape.len().checked_sub(i + 1).map_or(1, |at| shape[at]);
        let (mut output, mut axes, mut counts) = (Vec::new(), Vec::<Axis>::new(), [1, 1]);
        for i in 0..rank {
            let extents = shapes.map(|shape| from_end(shape, i));
            let extent = extents[0].max(extents[1]);
            if extents.iter().any(|&e| e != 1 && e != extent) {
                let expected = format!("a shape that broadcasts with {:?}", shapes[0]);
                return Err(Error::invalid(op, "b", expected, format!("{:?}", shapes[1])));
            }
            output.push(extent);
            let axis = Axis {
                extent: extent as u64,
                strides: [0, 1].map(|operand| if extents[operand] == 1 { 0 } else { counts[operand] }),
            };
            for operand in [0, 1] {
                counts[operand] *= extents[operand] as u64;
            }
            let continues = |inner: &Axis| [0, 1].iter().all(|&o| axis.strides[o] == inner.strides[o] * inner.extent);
            match axes.last_mut() {
                _ if extent == 1 => {}
                Some(inner) if continues(inner) => inner.extent *= axis.extent,
                _ => axes.push(axis),
            }
        }
        output.reverse();
        byte_count(op, "output", &output, u64::MAX)?;
        if axes.is_empty() {
            axes.push(Axis { extent: 1, strides: [0, 0] });
        }
        Ok(Self { op, output, axes, counts })
    }

    /// Elements of the axes before `axis`, the last ones of the shape.
    fn inner(&self, axis: usize) -> u64 {
        self.axes[..axis].iter().map(|axis| axis.extent).product()
    }

    fn plan(&self, mul: bool, activation: Activation, profile: &Profile) -> Plan {
        let total = self.inner(self.axes.len());
        let most = window_elements(profile);
        let fits = (total * 4).next_multiple_of(16) <= profile.max_binding;
        // A part is a range of this axis: the outermost of which one index fits.
        let axis = match fits {
            true => self.axes.len() - 1,
            false => (0..self.axes.len()).rev().find(|&axis| self.inner(axis) <= most).unwrap_or(0),
        };
        let extent = self.axes[axis].extent;
        let each = match (fits, axis) {
            (true, _) => extent,
            (false, 0) => most / 4 * 4,
            (false, _) => most / self.inner(axis),
        };
        let mut steps = Vec::new();
        for outer in 0..total / self.inner(axis) / extent {
            for first in (0..extent).step_by(each as usize) {
                let range = first..(first + each).min(extent);
                steps.push(self.step(profile, (mul, activation), axis, outer, range));
            }
        }
        let output = self.output.clone();
        Plan { op: self.op, kernel: "elementwise", output, pack: None, scratch: Vec::new(), steps }.cut(profile)
    }

    fn step(
        &self,
        profile: &Profile,
        (mul, activation): (bool, Activation),
        axis: usize,
        mut outer: u64,
        range: Range<u64>,
    ) -> Step {
        let total = self.inner(self.axes.len());
        let count = (range.end - range.start) * self.inner(axis);
        let y_start = (outer * self.axes[axis].extent + range.start) * self.inner(axis);
        let mut starts = self.axes[axis].strides.map(|stride| range.start * stride);
        for axis in &self.axes[axis + 1..] {
            for (start, stride) in starts.iter_mut().zip(axis.strides) {
                *start += outer % axis.extent * stride;
            }
            outer /= axis.extent;
        }
        // A single axis has its tail in the buffers' padding.
        let vec = self.axes.len() == 1 || self.axes[0].extent.is_multiple_of(4);
        let lanes = if vec { 4 } else { 1 };
        let (mut extents, mut strides) = ([1u32; AXES], [[0u32; AXES]; 2]);
        let mut ends = starts;
        for (i, part) in self.axes[..=axis].iter().enumerate() {
            let extent = if i == axis { range.end - range.start } else { part.extent };
            let step = if i == 0 { lanes } else { 1 };
            extents[i] = extent.div_ceil(step) as u32;
            for operand in [0, 1] {
                strides[operand][i] = (part.strides[operand] * step) as u32;
                ends[operand] += (extent - 1) * part.strides[operand];
            }
        }
        let (y, y_base) = window(profile, Slot::Out, y_start..y_start + count, total, true);
        let [(a, a_at), (b, b_at)] = [0, 1].map(|operand| {
            let elements = starts[operand]..ends[operand] + 1;
            let (binding, base) = window(profile, Slot::Arg(operand), elements, self.counts[operand], false);
            (binding, starts[operand] as u32 - base)
        });
        let threads = count.div_ceil(lanes);
        let [e0, e1, e2, e3, e4, e5, e6, e7] = extents;
        let [[a0, a1, a2, a3, a4, a5, a6, a7], [b0, b1, b2, b3, b4, b5, b6, b7]] = strides;
        let params = BinaryParams {
            e0,
            e1,
            e2,
            e3,
            e4,
            e5,
            e6,
            e7,
            a0,
            a1,
            a2,
            a3,
            a4,
            a5,
            a6,
            a7,
            b0,
            b1,
            b2,
            b3,
            b4,
            b5,
            b6,
            b7,
            total: threads as u32,
            y_at: y_start as u32 - y_base,
            a_at,
            b_at,
            a_step: self.axes[0].strides[0] as u32,
            b_step: self.axes[0].strides[1] as u32,
            activation: activation.code(),
            slope: activation.slope(),
        };
        Step {
            instance: instance(mul, vec),
            params: Params::new(&params),
            bindings: vec![a, b, y],
            groups: threads.div_ceil(64),
            work: count * 16,
        }
    }
}

macro_rules! binary {
    ($(#[$meta:meta])* $name:ident, $op:literal, $mul:literal) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default)]
        #[must_use]
        pub struct $name {
            activation: Activation,
        }

        impl $name {
            /// Without an activation.
            pub fn new() -> Self {
                Self::default()
            }

            /// Applied last.
            pub fn activation(mut self, activation: Activation) -> Self {
                self.activation = activation;
                self
            }

            /// The output's shape, without a GPU.
            ///
            /// # Errors
            /// [`Error::Invalid`] for shapes that do not broadcast, are empty or have more than eight axes.
            pub fn output_shape(&self, a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
                Broadcast::new($op, [a, b]).map(|broadcast| broadcast.output)
            }

            /// What a call would dispatch on such an adapter, without a GPU.
            ///
            /// # Errors
            /// As [`Self::output_shape`].
            pub fn plan(&self, profile: &Profile, a: &[usize], b: &[usize]) -> Result<Plan> {
                Broadcast::new($op, [a, b]).map(|broadcast| broadcast.plan($mul, self.activation, profile))
            }

            fn with_call<T>(&self, a: &Tensor, b: &Tensor, run: impl FnOnce(Call<'_>) -> Result<T>) -> Result<T> {
                let args = [("a", Some(a)), ("b", Some(b))];
                same_gpu($op, &args)?;
                let gpu = a.gpu().clone();
                let plan = self.plan(gpu.profile(), a.shape(), b.shape())?;
                run(Call { gpu, plan, args: &args })
            }

            /// Compiles the kernels of such calls ahead, several at a time: they then compile nothing.
            ///
            /// # Errors
            /// As [`Self::plan`], and errors of the device.
            pub fn warm_up(&self, gpu: &Gpu, a: &[usize], b: &[usize]) -> Result<()> {
                crate::run::warm_up(gpu, &self.plan(gpu.profile(), a, b)?)
            }

            /// Records the operator.
            ///
            /// # Errors
            /// As [`Self::output_shape`], and errors of the device.
            pub fn forward(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
                self.with_call(a, b, |call| call.forward())
            }

            /// The same into the caller's output, which may share no buffer with an argument.
            ///
            /// # Errors
            /// As [`Self::forward`], and for an output of another shape or one that aliases an argument.
            pub fn forward_into(&self, a: &Tensor, b: &Tensor, output: &Tensor) -> Result<()> {
                self.with_call(a, b, |call| call.forward_into(output))
            }

            /// The same into the caller's command encoder.
            ///
            /// # Errors
            /// As [`Self::forward`].
            pub fn encode(&self, encoder: &mut wgpu::CommandEncoder, a: &Tensor, b: &Tensor) -> Result<Encoded> {
                self.with_call(a, b, |call| call.encode(encoder))
            }
        }
    };
}

binary!(
    /// `y = act(a + b)` with numpy's broadcasting: shapes are aligned at the end, and an extent of 1 or a missing axis repeats.
    ///
    /// # Shapes
    /// At most eight axes each; along each the extents are equal or one of them is 1.
    ///
    /// # Example
    /// ```no_run
    /// use wgconv::{Activation, Add, Gpu, Tensor, ndarray::Array};
    /// let gpu = Gpu::new_blocking()?;
    /// let a = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((2, 64, 56, 56)))?;
    /// let b = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((64, 1, 1)))?;
    /// let y = Add::new().activation(Activation::Relu).forward(&a, &b)?;
    /// # Ok::<(), wgconv::Error>(())
    /// ```
    Add, "add", false
);

binary!(
    /// `y = act(a * b)` with the broadcasting of [`Add`], as squeeze-and-excitation scales its channels (Hu et al. 2018).
    ///
    /// # Shapes
    /// As [`Add`].
    ///
    /// # Example
    /// ```no_run
    /// use wgconv::{Gpu, Mul, Tensor, ndarray::Array};
    /// let gpu = Gpu::new_blocking()?;
    /// let x = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((2, 64, 56, 56)))?;
    /// let scale = Tensor::from_array(&gpu, &Array::<f32, _>::zeros((2, 64, 1, 1)))?;
    /// let y = Mul::new().forward(&x, &scale)?;
    /// # Ok::<(), wgconv::Error>(())
    /// ```
    Mul, "mul", true
);
