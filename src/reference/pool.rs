//! Max, average and global average pooling of rank 1, 2 and 3, with PyTorch's window rules.

use ndarray::{ArrayD, ArrayView5, ArrayViewD};
use rayon::prelude::*;

use super::shape::{
    check_axes, check_positive, into_array, kernel_reach, spatial_rank, spec_error, sum, tap, three, volume, zeros,
};
use super::{Real, ReferenceError};

/// Options of [`max_pool`]; every list has one entry a spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaxPoolSpec {
    /// Taps.
    pub kernel: Vec<usize>,
    /// Step between windows.
    pub stride: Vec<usize>,
    /// Padding on both sides; at most half the kernel.
    pub padding: Vec<usize>,
    /// Step between taps.
    pub dilation: Vec<usize>,
    /// Round the number of windows up, as long as the last one starts inside the input or its start padding.
    pub ceil_mode: bool,
}

impl MaxPoolSpec {
    /// PyTorch's defaults: the stride is the kernel, no padding, dilation 1, floor mode.
    #[must_use]
    pub fn new(kernel: &[usize]) -> Self {
        let rank = kernel.len();
        Self {
            kernel: kernel.to_vec(),
            stride: kernel.to_vec(),
            padding: vec![0; rank],
            dilation: vec![1; rank],
            ceil_mode: false,
        }
    }
}

/// Options of [`avg_pool`]; every list has one entry a spatial axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvgPoolSpec {
    /// Taps.
    pub kernel: Vec<usize>,
    /// Step between windows.
    pub stride: Vec<usize>,
    /// Padding on both sides; at most half the kernel.
    pub padding: Vec<usize>,
    /// Round the number of windows up, as long as the last one starts inside the input or its start padding.
    pub ceil_mode: bool,
    /// Divide by the window's positions in input and padding, not only by those in the input. What a ceil-mode window
    /// has beyond the end padding never counts.
    pub count_include_pad: bool,
}

impl AvgPoolSpec {
    /// PyTorch's defaults: the stride is the kernel, no padding, floor mode, padding counted.
    #[must_use]
    pub fn new(kernel: &[usize]) -> Self {
        Self {
            kernel: kernel.to_vec(),
            stride: kernel.to_vec(),
            padding: vec![0; kernel.len()],
            ceil_mode: false,
            count_include_pad: true,
        }
    }
}

/// `y[n,c,q] = max over taps k inside the input of x[n, c, q*stride - padding + k*dilation]`, as in
/// `torch.nn.functional.max_pool1d`, `max_pool2d` and `max_pool3d`.
///
/// x `[N, C, ...]`, y `[N, C, ...]` with the extents of [`max_pool_out_shape`]. A NaN in the window gives NaN; a window
/// without a tap inside the input (possible with dilation) gives minus infinity, as in PyTorch.
///
/// # Errors
/// Wrong shapes, padding over half the kernel, an empty output.
pub fn max_pool<T: Real>(x: ArrayViewD<T>, spec: &MaxPoolSpec) -> Result<ArrayD<f64>, ReferenceError> {
    let windows = Windows::for_max(x.shape(), spec)?;
    pool(x, &windows, |plane, q| {
        let mut greatest = f64::NEG_INFINITY;
        windows.for_each_value(plane, q, |value| {
            if value > greatest || value.is_nan() {
                greatest = value;
            }
        });
        greatest
    })
}

/// `y[n,c,q] = (sum over taps k inside the input of x[n, c, q*stride - padding + k]) / count`, as in
/// `torch.nn.functional.avg_pool1d`, `avg_pool2d` and `avg_pool3d`; for the count see
/// [`AvgPoolSpec::count_include_pad`].
///
/// x `[N, C, ...]`, y `[N, C, ...]` with the extents of [`avg_pool_out_shape`].
///
/// # Errors
/// Wrong shapes, padding over half the kernel, an empty output.
pub fn avg_pool<T: Real>(x: ArrayViewD<T>, spec: &AvgPoolSpec) -> Result<ArrayD<f64>, ReferenceError> {
    let windows = Windows::for_avg(x.shape(), spec)?;
    pool(x, &windows, |plane, q| {
        let (mut total, mut count) = (0.0, 0usize);
        windows.for_each_value(plane, q, |value| {
            total += value;
            count += 1;
        });
        total / if spec.count_include_pad { windows.padded_count(q) } else { count as f64 }
    })
}

/// The mean over all spatial axes, as `torch.nn.functional.adaptive_avg_pool1d`, `2d` and `3d` to size 1:
/// x `[N, C, ...]`, y `[N, C, 1, ...]`.
///
/// # Errors
/// Wrong shapes.
pub fn global_avg_pool<T: Real>(x: ArrayViewD<T>) -> Result<ArrayD<f64>, ReferenceError> {
    spatial_rank("global_avg_pool", "x", x.shape())?;
    let whole = x.shape()[2..].to_vec();
    avg_pool(x, &AvgPoolSpec::new(&whole))
}

/// The shape of [`max_pool`]'s output: `floor((in + 2*padding - dilation*(K-1) - 1)/stride) + 1` an axis, the division
/// rounded up in ceil mode.
///
/// # Errors
/// Those of [`max_pool`].
pub fn max_pool_out_shape(x_shape: &[usize], spec: &MaxPoolSpec) -> Result<Vec<usize>, ReferenceError> {
    Ok(Windows::for_max(x_shape, spec)?.out_shape)
}

/// The shape of [`avg_pool`]'s output, as that of [`max_pool_out_shape`] with dilation 1.
///
/// # Errors
/// Those of [`avg_pool`].
pub fn avg_pool_out_shape(x_shape: &[usize], spec: &AvgPoolSpec) -> Result<Vec<usize>, ReferenceError> {
    Ok(Windows::for_avg(x_shape, spec)?.out_shape)
}

/// The checked numbers of one call, spatial lists brought to three axes.
struct Windows {
    operator: &'static str,
    input: [usize; 3],
    kernel: [usize; 3],
    output: [usize; 3],
    stride: [usize; 3],
    padding: [usize; 3],
    dilation: [usize; 3],
    out_shape: Vec<usize>,
}

impl Windows {
    fn for_max(x_shape: &[usize], spec: &MaxPoolSpec) -> Result<Self, ReferenceError> {
        Self::new("max_pool", x_shape, spec)
    }

    fn for_avg(x_shape: &[usize], spec: &AvgPoolSpec) -> Result<Self, ReferenceError> {
        let undilated = MaxPoolSpec {
            kernel: spec.kernel.clone(),
            stride: spec.stride.clone(),
            padding: spec.padding.clone(),
            dilation: vec![1; spec.kernel.len()],
            ceil_mode: spec.ceil_mode,
        };
        Self::new("avg_pool", x_shape, &undilated)
    }

    fn new(operator: &'static str, x_shape: &[usize], spec: &MaxPoolSpec) -> Result<Self, ReferenceError> {
        let rank = spatial_rank(operator, "x", x_shape)?;
        let lists = [
            ("kernel", &spec.kernel),
            ("stride", &spec.stride),
            ("padding", &spec.padding),
            ("dilation", &spec.dilation),
        ];
        for (option, values) in lists {
            check_axes(operator, option, values.len(), rank)?;
            if option != "padding" {
                check_positive(operator, option, values)?;
            }
        }
        let mut out_shape = x_shape[..2].to_vec();
        for axis in 0..rank {
            out_shape.push(count(operator, x_shape[axis + 2], spec, axis)?);
        }
        Ok(Self {
            operator,
            input: three(&x_shape[2..], 1),
            kernel: three(&spec.kernel, 1),
            output: three(&out_shape[2..], 1),
            stride: three(&spec.stride, 1),
            padding: three(&spec.padding, 0),
            dilation: three(&spec.dilation, 1),
            out_shape,
        })
    }

    /// The input positions under window `q` of this axis.
    fn taps(&self, axis: usize, q: usize) -> impl Iterator<Item = usize> + Clone {
        let (stride, dilation) = (self.stride[axis], self.dilation[axis]);
        let (padding, extent) = (self.padding[axis], self.input[axis]);
        (0..self.kernel[axis]).filter_map(move |k| tap(q, stride, k, dilation, padding, extent))
    }

    fn for_each_value<T: Real>(&self, plane: Plane<T>, q: [usize; 3], mut visit: impl FnMut(f64)) {
        for z in self.taps(0, q[0]) {
            for y in self.taps(1, q[1]) {
                for x in self.taps(2, q[2]) {
                    visit(plane.x[[plane.n, plane.c, z, y, x]].to_f64());
                }
            }
        }
    }

    /// The positions of an undilated window that lie in the input or its padding.
    fn padded_count(&self, q: [usize; 3]) -> f64 {
        let extents = [0, 1, 2].map(|axis| {
            // Counted from the start of the padding.
            let start = q[axis] * self.stride[axis];
            let end = (start + self.kernel[axis]).min(self.input[axis] + 2 * self.padding[axis]);
            (end - start) as f64
        });
        extents.iter().product()
    }
}

/// The number of windows on one axis; PyTorch's `pooling_output_shape`.
fn count(operator: &'static str, input: usize, spec: &MaxPoolSpec, axis: usize) -> Result<usize, ReferenceError> {
    let (kernel, stride) = (spec.kernel[axis], spec.stride[axis]);
    let (padding, dilation) = (spec.padding[axis], spec.dilation[axis]);
    if padding > kernel / 2 {
        let message = format!("padding must be at most half the kernel {kernel}, got {padding} on axis {axis}");
        return Err(spec_error(operator, message));
    }
    let padded = sum(operator, &[input, padding, padding])?;
    let reach = kernel_reach(operator, kernel, dilation)?;
    // The last window of ceil mode may reach beyond the padding; its positions must not overflow either.
    sum(operator, &[padded, reach])?;
    let windows = match (padded.checked_sub(reach), spec.ceil_mode) {
        (Some(room), true) => room.div_ceil(stride) + 1,
        (Some(room), false) => room / stride + 1,
        // The one window of ceil mode may be longer than the input, by less than the stride.
        (None, true) if reach - padded < stride => 1,
        (None, _) => {
            let message =
                format!("on axis {axis} the kernel reaches over {reach} positions, the padded input has {padded}");
            return Err(ReferenceError::EmptyOutput { operator, message });
        }
    };
    let last_starts_in_end_padding = (windows - 1).saturating_mul(stride) >= input + padding;
    Ok(if spec.ceil_mode && last_starts_in_end_padding { windows - 1 } else { windows })
}

/// One channel of one image.
struct Plane<'a, T> {
    x: &'a ArrayView5<'a, T>,
    n: usize,
    c: usize,
}

fn pool<T: Real>(
    x: ArrayViewD<T>,
    windows: &Windows,
    of_window: impl Fn(Plane<T>, [usize; 3]) -> f64 + Sync,
) -> Result<ArrayD<f64>, ReferenceError> {
    let x = volume(windows.operator, x)?;
    let channels = windows.out_shape[1];
    let [out_d, out_h, out_w] = windows.output;
    let mut y = zeros(windows.operator, &windows.out_shape)?;
    y.par_chunks_mut(out_d * out_h * out_w).enumerate().for_each(|(plane_index, values)| {
        for (i, value) in values.iter_mut().enumerate() {
            let plane = Plane { x: &x, n: plane_index / channels, c: plane_index % channels };
            *value = of_window(plane, [i / (out_h * out_w), i / out_w % out_h, i % out_w]);
        }
    });
    into_array(windows.operator, &windows.out_shape, y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, IxDyn};

    fn line(values: &[f32]) -> ArrayD<f32> {
        Array::from_shape_vec(IxDyn(&[1, 1, values.len()]), values.to_vec()).unwrap()
    }

    fn max_line(values: &[f32], spec: &MaxPoolSpec) -> Vec<f64> {
        max_pool(line(values).view(), spec).unwrap().into_iter().collect()
    }

    fn avg_line(values: &[f32], spec: &AvgPoolSpec) -> Vec<f64> {
        avg_pool(line(values).view(), spec).unwrap().into_iter().collect()
    }

    #[test]
    fn max_by_hand() {
        let mut spec = MaxPoolSpec { stride: vec![2], padding: vec![1], ..MaxPoolSpec::new(&[3]) };
        assert_eq!(max_line(&[-1.0, -2.0, -3.0, -4.0], &spec), [-1.0, -2.0]);
        spec.ceil_mode = true;
        assert_eq!(max_line(&[-1.0, -2.0, -3.0, -4.0], &spec), [-1.0, -2.0, -4.0]);
        // Only the windows that see the NaN.
        let y = max_line(&[1.0, f32::NAN, 3.0, 4.0], &spec);
        assert!(y[0].is_nan() && y[1].is_nan() && y[2] == 4.0);
        let dilated = MaxPoolSpec { stride: vec![1], dilation: vec![2], ..MaxPoolSpec::new(&[2]) };
        assert_eq!(max_line(&[1.0, 9.0, 2.0, 3.0], &dilated), [2.0, 9.0]);
        let between = MaxPoolSpec { padding: vec![1], dilation: vec![3], ..MaxPoolSpec::new(&[2]) };
        assert_eq!(max_line(&[1.0, 2.0], &between), [f64::NEG_INFINITY]);
    }

    #[test]
    fn ceil_mode_drops_a_window_that_starts_in_the_end_padding() {
        let spec = MaxPoolSpec { stride: vec![2], padding: vec![1], ceil_mode: true, ..MaxPoolSpec::new(&[2]) };
        // Rounded up there are 4 windows, but the last would start at 5, behind the five inputs.
        assert_eq!(max_line(&[1.0, 2.0, 3.0, 4.0, 5.0], &spec), [1.0, 3.0, 5.0]);
    }

    #[test]
    fn avg_by_hand() {
        let mut spec = AvgPoolSpec { stride: vec![2], padding: vec![1], ceil_mode: true, ..AvgPoolSpec::new(&[3]) };
        spec.count_include_pad = false;
        assert_eq!(avg_line(&[2.0, 4.0, 6.0, 8.0], &spec), [3.0, 6.0, 8.0]);
        // The last window, 3 to 5, has one input and one padding; position 5 is beyond the padding.
        spec.count_include_pad = true;
        assert_eq!(avg_line(&[2.0, 4.0, 6.0, 8.0], &spec), [2.0, 6.0, 4.0]);
    }

    #[test]
    fn global_average_is_the_mean() {
        let x = Array::from_shape_fn(IxDyn(&[1, 2, 2, 3]), |i| (i[1] * 10 + i[2] * 3 + i[3]) as f64);
        let y = global_avg_pool(x.view()).unwrap();
        assert_eq!(y.shape(), [1, 2, 1, 1]);
        assert_eq!(y.as_slice().unwrap(), [2.5, 12.5]);
    }

    #[test]
    fn mistakes_are_errors() {
        let good = MaxPoolSpec::new(&[3]);
        assert_eq!(max_pool_out_shape(&[1, 2, 8], &good), Ok(vec![1, 2, 2]));
        let bad = [
            MaxPoolSpec { padding: vec![2], ..good.clone() },
            MaxPoolSpec { stride: vec![0], ..good.clone() },
            MaxPoolSpec { dilation: vec![4], ..good.clone() },
            MaxPoolSpec { dilation: vec![usize::MAX], ..good.clone() },
            MaxPoolSpec::new(&[3, 3]),
        ];
        for spec in bad {
            assert!(max_pool_out_shape(&[1, 2, 8], &spec).is_err(), "{spec:?}");
        }
        assert!(avg_pool_out_shape(&[1, 2, 2], &AvgPoolSpec::new(&[3])).is_err());
        assert!(global_avg_pool(ArrayD::<f32>::zeros(IxDyn(&[1, 2])).view()).is_err());
    }
}
