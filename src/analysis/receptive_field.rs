//! The receptive field of a stack of layers: what one of its outputs sees.

use crate::error::{Error, Result};
use crate::ops::options::{Padding, PerAxis};

const OP: &str = "receptive_field";

/// A convolution or a pool over `R` spatial axes, as far as it decides which inputs an output sees.
///
/// # Example
/// ```
/// use wgconv::analysis::Layer;
/// // The padding that keeps 32x32 pixels as they are, by 3x3 taps of dilation 2.
/// assert_eq!(Layer::new(3).dilation(2).same_padding([32, 32])?, [(2, 2), (2, 2)]);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[must_use]
pub struct Layer<const R: usize> {
    pub(super) kernel: PerAxis<R>,
    pub(super) stride: PerAxis<R>,
    pub(super) dilation: PerAxis<R>,
    padding: PerAxis<R>,
}

impl<const R: usize> Layer<R> {
    /// So many taps, with stride 1, dilation 1 and no padding.
    pub fn new(kernel: impl Into<PerAxis<R>>) -> Self {
        Self { kernel: kernel.into(), stride: 1.into(), dilation: 1.into(), padding: 0.into() }
    }

    /// Elements between neighbouring windows.
    pub fn stride(mut self, stride: impl Into<PerAxis<R>>) -> Self {
        self.stride = stride.into();
        self
    }

    /// Elements between neighbouring taps.
    pub fn dilation(mut self, dilation: impl Into<PerAxis<R>>) -> Self {
        self.dilation = dilation.into();
        self
    }

    /// Padding at the start of each axis. That at the end moves no window.
    pub fn padding(mut self, padding: impl Into<PerAxis<R>>) -> Self {
        self.padding = padding.into();
        self
    }

    /// The padding (start, end) of each axis that gives `ceil(extent / stride)` outputs: as many as inputs where the stride is 1.
    /// The odd element goes to the end, as with [`Padding::Same`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a kernel, stride, dilation or extent of 0, and for a padding that overflows.
    pub fn same_padding(&self, extent: impl Into<PerAxis<R>>) -> Result<[(usize, usize); R]> {
        const OP: &str = "same_padding";
        let PerAxis(extents) = extent.into();
        let mut sides = [(0, 0); R];
        for (axis, side) in sides.iter_mut().enumerate() {
            let [kernel, stride, dilation, _] = self.along(OP, axis)?;
            positive(OP, "extent", extents[axis])?;
            let same = Padding::<R>::Same.resolve(axis, (extents[axis], kernel), (stride, dilation));
            *side = same.ok_or_else(|| {
                let got =
                    format!("kernel {kernel} with dilation {dilation} and stride {stride} over {}", extents[axis]);
                Error::invalid(OP, "kernel", "a window whose padding fits a usize", got)
            })?;
        }
        Ok(sides)
    }

    /// Kernel, stride, dilation and padding along one axis; the first three are not 0.
    pub(super) fn along(&self, op: &'static str, axis: usize) -> Result<[usize; 4]> {
        let [kernel, stride, dilation, padding] =
            [self.kernel, self.stride, self.dilation, self.padding].map(|PerAxis(values)| values[axis]);
        for (argument, value) in [("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
            positive(op, argument, value)?;
        }
        Ok([kernel, stride, dilation, padding])
    }
}

pub(super) fn positive(op: &'static str, argument: &'static str, value: usize) -> Result<()> {
    if value == 0 { Err(Error::invalid(op, argument, "at least 1", 0)) } else { Ok(()) }
}

/// Pixels from the first to the last tap of a kernel: `k + (k-1)*(d-1)` (Chen et al. 2017, DeepLab,
/// <https://arxiv.org/abs/1606.00915>).
///
/// # Errors
/// [`Error::Invalid`] for a kernel or a dilation of 0 and for a result that overflows.
///
/// # Example
/// ```
/// assert_eq!(wgconv::analysis::effective_kernel(3, 2)?, 5);
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn effective_kernel(kernel: usize, dilation: usize) -> Result<usize> {
    const OP: &str = "effective_kernel";
    positive(OP, "kernel", kernel)?;
    positive(OP, "dilation", dilation)?;
    reach(kernel, dilation).and_then(|reach| reach.checked_add(1)).ok_or_else(|| {
        let expected = format!("a window of at most {} pixels", usize::MAX);
        Error::invalid(OP, "kernel", expected, format!("{kernel} taps, {dilation} apart"))
    })
}

/// From the first tap to the last.
fn reach(kernel: usize, dilation: usize) -> Option<usize> {
    kernel.checked_sub(1)?.checked_mul(dilation)
}

/// What the outputs of a stack of layers see along one axis: output `i` sees pixels within
/// `start + i*stride .. start + i*stride + size`. Which of them it sees indeed, a [`GriddingMap`](super::GriddingMap) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReceptiveField {
    /// Pixels from the first to the last that an output sees.
    pub size: usize,
    /// Pixels between the fields of neighbouring outputs, also called jump.
    pub stride: usize,
    /// The first pixel that the first output sees; negative where it lies in the padding.
    pub start: isize,
}

impl ReceptiveField {
    /// The field behind one more layer.
    fn behind(self, [kernel, stride, dilation, padding]: [usize; 4]) -> Option<Self> {
        let grown = reach(kernel, dilation)?.checked_mul(self.stride)?;
        let shift = isize::try_from(padding.checked_mul(self.stride)?).ok()?;
        Some(Self {
            size: self.size.checked_add(grown)?,
            stride: self.stride.checked_mul(stride)?,
            start: self.start.checked_sub(shift)?,
        })
    }
}

/// The receptive field of a stack of layers along each axis; the first layer of the list is the one that reads the pixels
/// (Araujo, Norris and Sim 2019, Computing Receptive Fields of Convolutional Neural Networks,
/// <https://distill.pub/2019/computing-receptive-fields>).
///
/// With `j` the product of the strides of the layers before, a layer adds `(k-1)*d*j` to the size and moves the start by `-p*j`.
/// An empty list is the identity: size 1, stride 1, start 0.
///
/// # Errors
/// [`Error::Invalid`] for a kernel, stride or dilation of 0 and for a field that overflows.
///
/// # Example
/// ```
/// use wgconv::analysis::{Layer, ReceptiveField, receptive_field};
/// // The stem of ResNet: 7x7 with stride 2, then a pool of 3x3 with stride 2.
/// let stem = [Layer::new(7).stride(2).padding(3), Layer::new(3).stride(2).padding(1)];
/// let [height, width] = receptive_field(&stem)?;
/// assert_eq!(height, ReceptiveField { size: 11, stride: 4, start: -5 });
/// assert_eq!(width, height);
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn receptive_field<const R: usize>(layers: &[Layer<R>]) -> Result<[ReceptiveField; R]> {
    let mut fields = [ReceptiveField { size: 1, stride: 1, start: 0 }; R];
    for (number, layer) in layers.iter().enumerate() {
        for (axis, field) in fields.iter_mut().enumerate() {
            let sizes = layer.along(OP, axis)?;
            *field = field.behind(sizes).ok_or_else(|| {
                let [kernel, stride, dilation, padding] = sizes;
                let expected = format!("a field whose size, stride and start fit {} bits", usize::BITS);
                let got = format!(
                    "layer {number}, axis {axis}: kernel {kernel}, stride {stride}, dilation {dilation}, padding {padding} \
                     behind a field of {} with stride {}",
                    field.size, field.stride
                );
                Error::invalid(OP, "layers", expected, got)
            })?;
        }
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(layers: &[(usize, usize, usize, usize)]) -> Vec<Layer<1>> {
        let layer = |&(k, s, d, p)| Layer::new(k).stride(s).dilation(d).padding(p);
        layers.iter().map(layer).collect()
    }

    /// The pixels that an output sees, layer by layer from the last: no formula shared with the code.
    fn seen(layers: &[(usize, usize, usize, usize)], output: isize) -> Vec<isize> {
        let mut positions = vec![output];
        for &(k, s, d, p) in layers.iter().rev() {
            let taps = |q: isize| (0..k as isize).map(move |tap| q * s as isize + tap * d as isize - p as isize);
            positions = positions.into_iter().flat_map(taps).collect();
        }
        positions
    }

    #[test]
    fn agrees_with_following_the_taps() {
        let options =
            [(1, 1, 1, 0), (1, 3, 2, 1), (2, 1, 3, 0), (3, 2, 1, 1), (3, 1, 4, 4), (4, 3, 2, 5), (5, 6, 1, 0)];
        for a in options {
            for b in options {
                for c in options {
                    let layers = [a, b, c];
                    let [field] = receptive_field(&stack(&layers)).unwrap();
                    for output in [0, 1, 7] {
                        let pixels = seen(&layers, output);
                        let (first, last) = (pixels.iter().min().unwrap(), pixels.iter().max().unwrap());
                        assert_eq!(field.start + output * field.stride as isize, *first, "{layers:?}");
                        assert_eq!(field.size as isize, last - first + 1, "{layers:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn axes_are_independent() {
        let layers = [Layer::new([3, 5]).stride([2, 1]).padding([1, 0]), Layer::new([1, 3]).dilation([7, 2])];
        let [height, width] = receptive_field(&layers).unwrap();
        assert_eq!(height, ReceptiveField { size: 3, stride: 2, start: -1 });
        assert_eq!(width, ReceptiveField { size: 9, stride: 1, start: 0 });
        assert_eq!(receptive_field::<3>(&[]).unwrap(), [ReceptiveField { size: 1, stride: 1, start: 0 }; 3]);
    }

    #[test]
    fn same_padding_keeps_the_extent() {
        for (kernel, stride, dilation, extent) in
            (1..6).flat_map(|k| (1..4).flat_map(move |s| (1..4).flat_map(move |d| (1..20).map(move |e| (k, s, d, e)))))
        {
            let layer = Layer::<1>::new(kernel).stride(stride).dilation(dilation);
            let [(start, end)] = layer.same_padding(extent).unwrap();
            let window = effective_kernel(kernel, dilation).unwrap();
            assert_eq!((extent + start + end - window) / stride + 1, extent.div_ceil(stride));
            assert!(end == start || end == start + 1);
        }
    }

    #[test]
    fn mistakes_are_errors() {
        const MAX: usize = usize::MAX;
        let argument = |result: Result<[ReceptiveField; 1]>| match result.unwrap_err() {
            Error::Invalid { argument, .. } => argument,
            other => panic!("{other}"),
        };
        assert_eq!(argument(receptive_field(&stack(&[(0, 1, 1, 0)]))), "kernel");
        assert_eq!(argument(receptive_field(&stack(&[(1, 0, 1, 0)]))), "stride");
        assert_eq!(argument(receptive_field(&stack(&[(1, 1, 0, 0)]))), "dilation");
        let overflows = [
            vec![(MAX, 1, 2, 0)],
            vec![(MAX, 1, 1, 0), (2, 1, 1, 0)],
            vec![(1, MAX, 1, 0), (1, 2, 1, 0)],
            vec![(1, 1, 1, MAX)],
            vec![(1, 1, 1, MAX / 2), (1, 1, 1, MAX / 2)],
        ];
        for layers in &overflows[..4] {
            assert_eq!(argument(receptive_field(&stack(layers))), "layers", "{layers:?}");
        }
        // To the least start that there is, and one further.
        let [field] = receptive_field(&stack(&[(MAX, MAX, 1, MAX / 2), (1, 1, MAX, 0)])).unwrap();
        assert_eq!(field, ReceptiveField { size: MAX, stride: MAX, start: -isize::MAX });
        assert_eq!(argument(receptive_field(&stack(&[(1, 1, 1, MAX / 2), (1, 1, 1, 2)]))), "layers");
        assert_eq!(effective_kernel(MAX, 1).unwrap(), MAX);
        assert_eq!(effective_kernel(1, MAX).unwrap(), 1);
        for (kernel, dilation) in [(0, 1), (1, 0), (2, MAX), (MAX, 2), (MAX, MAX)] {
            assert!(effective_kernel(kernel, dilation).is_err(), "{kernel} {dilation}");
        }
        for (layer, extent) in [
            (Layer::<1>::new(3), 0),
            (Layer::new(0), 5),
            (Layer::new(3).stride(0), 5),
            (Layer::new(MAX).dilation(3), 5),
            (Layer::new(MAX), MAX),
        ] {
            assert!(layer.same_padding(extent).is_err(), "{layer:?} over {extent}");
        }
    }
}
