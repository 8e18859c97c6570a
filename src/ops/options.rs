//! Options that several operators share: values per axis, padding, borders.

use crate::error::{Error, Result};

/// One value for each of `R` axes; a single number stands for the same on all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PerAxis<const R: usize>(pub [usize; R]);

impl<const R: usize> From<usize> for PerAxis<R> {
    fn from(value: usize) -> Self {
        Self([value; R])
    }
}

impl<const R: usize> From<[usize; R]> for PerAxis<R> {
    fn from(values: [usize; R]) -> Self {
        Self(values)
    }
}

/// How a convolution pads, along each of `R` axes.
///
/// A number pads all sides alike, `[usize; R]` both sides of each axis, `[(usize, usize); R]` the start and the end of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Padding<const R: usize> {
    /// No padding (the default).
    Valid,
    /// Output extent `ceil(in / stride)`; the odd element goes to the end. TensorFlow's SAME, ONNX's SAME_UPPER.
    Same,
    /// The same with the odd element at the start: ONNX's SAME_LOWER.
    SameLower,
    /// `dilation * (kernel - 1)` on both sides: every position where the kernel touches the input.
    Full,
    /// `dilation * (kernel - 1)`, all at the start: no output sees a later input (WaveNet, van den Oord et al. 2016).
    Causal,
    /// (start, end) of each axis.
    Explicit([(usize, usize); R]),
}

impl<const R: usize> From<usize> for Padding<R> {
    fn from(both: usize) -> Self {
        Self::Explicit([(both, both); R])
    }
}

impl<const R: usize> From<[usize; R]> for Padding<R> {
    fn from(sides: [usize; R]) -> Self {
        Self::Explicit(sides.map(|side| (side, side)))
    }
}

impl<const R: usize> From<[(usize, usize); R]> for Padding<R> {
    fn from(sides: [(usize, usize); R]) -> Self {
        Self::Explicit(sides)
    }
}

impl<const R: usize> Padding<R> {
    /// (start, end) along one axis, checked against overflow.
    pub(crate) fn resolve(
        &self,
        axis: usize,
        (extent, kernel): (usize, usize),
        (stride, dilation): (usize, usize),
    ) -> Option<(usize, usize)> {
        let reach = dilation.checked_mul(kernel.checked_sub(1)?)?;
        let same = || {
            let covered = extent.div_ceil(stride).checked_sub(1)?.checked_mul(stride)?;
            Some(covered.checked_add(reach)?.checked_add(1)?.saturating_sub(extent))
        };
        Some(match self {
            Self::Valid => (0, 0),
            Self::Same => same().map(|total| (total / 2, total - total / 2))?,
            Self::SameLower => same().map(|total| (total - total / 2, total / 2))?,
            Self::Full => (reach, reach),
            Self::Causal => (reach, 0),
            Self::Explicit(sides) => sides[axis],
        })
    }
}

/// What stands beyond the input's ends. PyTorch's `padding_mode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Border {
    /// Zeros.
    #[default]
    Zeros,
    /// Mirrored at the edge element, which is not repeated; padding less than the extent.
    Reflect,
    /// The edge element, repeated.
    Replicate,
    /// The other end; padding at most the extent.
    Circular,
}

impl Border {
    pub(crate) fn code(self) -> u32 {
        match self {
            Border::Zeros => 0,
            Border::Reflect => 1,
            Border::Replicate => 2,
            Border::Circular => 3,
        }
    }
}

/// Largest extent, stride, dilation or padding that has a meaning in a shader's 32-bit indices.
pub(crate) const MAX_EXTENT: usize = 1 << 30;

/// Output extent of a convolution or pool along one axis: `floor((in + pads - dilation*(kernel-1) - 1) / stride) + 1`.
///
/// # Errors
/// [`Error::Invalid`] where it would be empty or an argument is zero or too large.
pub(crate) fn out_extent(
    op: &'static str,
    extent: usize,
    (start, end): (usize, usize),
    (kernel, stride, dilation): (usize, usize, usize),
) -> Result<usize> {
    for (argument, value) in [("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
        if value == 0 {
            return Err(Error::invalid(op, argument, "at least 1", 0));
        }
    }
    let padded = extent.checked_add(start).and_then(|sum| sum.checked_add(end)).filter(|&sum| sum <= MAX_EXTENT);
    let Some(padded) = padded else {
        let got = format!("{extent} padded by {start} and {end}");
        return Err(Error::invalid(op, "padding", format!("a padded extent of at most {MAX_EXTENT}"), got));
    };
    let window = dilation.checked_mul(kernel - 1).and_then(|reach| reach.checked_add(1));
    match window.filter(|&window| window <= padded) {
        Some(window) => Ok((padded - window) / stride + 1),
        None => {
            let got = format!("kernel {kernel} with dilation {dilation} over {extent} padded by {start} and {end}");
            Err(Error::invalid(op, "kernel", "a window no longer than the padded input", got))
        }
    }
}

/// A stride that is never taken, or a dilation over a kernel of one, may be huge: both mean 1 then.
pub(crate) fn effective(step: usize, count: usize) -> u32 {
    if count == 1 { 1 } else { step as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_paddings() {
        let of = |padding: Padding<2>, sizes, steps| padding.resolve(1, sizes, steps);
        // Extent and kernel, stride and dilation.
        assert_eq!(of(Padding::Valid, (10, 3), (1, 1)), Some((0, 0)));
        assert_eq!(of(Padding::Same, (10, 3), (1, 1)), Some((1, 1)));
        assert_eq!(of(Padding::Same, (10, 4), (1, 1)), Some((1, 2)));
        assert_eq!(of(Padding::SameLower, (10, 4), (1, 1)), Some((2, 1)));
        assert_eq!(of(Padding::Same, (10, 3), (1, 2)), Some((2, 2)));
        // Four windows from 0, 3, 6 and 9; four from 0, 4 and 8 where only the last of three reaches beyond.
        assert_eq!(of(Padding::Same, (10, 3), (3, 1)), Some((1, 1)));
        assert_eq!(of(Padding::Same, (10, 5), (4, 1)), Some((1, 2)));
        assert_eq!(of(Padding::Same, (10, 1), (4, 1)), Some((0, 0)), "none where the windows do not reach the end");
        assert_eq!(of(Padding::Full, (10, 3), (1, 2)), Some((4, 4)));
        assert_eq!(of(Padding::Causal, (10, 3), (1, 2)), Some((4, 0)));
        assert_eq!(of(Padding::from([(1, 2), (3, 4)]), (10, 3), (1, 1)), Some((3, 4)));
        assert_eq!(of(Padding::from([1, 2]), (10, 3), (1, 1)), Some((2, 2)));
        assert_eq!(of(Padding::from(7), (10, 3), (1, 1)), Some((7, 7)));
        for padding in [Padding::Same, Padding::SameLower, Padding::Full, Padding::Causal] {
            assert_eq!(of(padding, (10, 3), (1, usize::MAX)), None, "{padding:?}");
        }
        for padding in [Padding::Same, Padding::SameLower] {
            assert_eq!(of(padding, (1, 2), (1, usize::MAX)), None, "a window of more than there are numbers");
            assert_eq!(of(padding, (10, 2), (1, usize::MAX - 8)), None);
        }
    }

    #[test]
    fn extents_of_known_layers() {
        let of = |extent, pads, sizes| out_extent("t", extent, pads, sizes).ok();
        // Kernel, stride, dilation.
        assert_eq!(of(224, (3, 3), (7, 2, 1)), Some(112));
        assert_eq!(of(56, (1, 1), (3, 1, 1)), Some(56));
        assert_eq!(of(56, (2, 0), (3, 1, 1)), Some(56));
        assert_eq!(of(9, (0, 0), (3, 2, 4)), Some(1));
        assert_eq!(of(8, (0, 0), (3, 2, 4)), None);
        assert_eq!(of(5, (0, 0), (5, 1, 1)), Some(1));
        assert_eq!(of(MAX_EXTENT - 1, (1, 0), (1, MAX_EXTENT, 1)), Some(1));
        assert_eq!(of(MAX_EXTENT - 1, (1, 1), (1, MAX_EXTENT, 1)), None);
        assert_eq!(of(1, (usize::MAX, 0), (1, 1, 1)), None);
        assert_eq!(of(1, (0, usize::MAX), (1, 1, 1)), None);
        assert_eq!(of(9, (0, 0), (2, 1, usize::MAX)), None);
        assert_eq!(of(9, (0, 0), (3, 1, usize::MAX)), None);
        for sizes in [(0, 1, 1), (1, 0, 1), (1, 1, 0)] {
            assert_eq!(of(9, (0, 0), sizes), None, "{sizes:?}");
        }
    }

    #[test]
    fn steps_that_are_never_taken() {
        assert_eq!((effective(1 << 40, 1), effective(7, 2), effective(1, 1)), (1, 7, 1));
    }
}
