//! The gridding map: which pixels an output sees, and along how many paths.

use ndarray::{ArrayD, IxDyn};

use super::receptive_field::{Layer, receptive_field};
use crate::error::{Error, Result};

const OP: &str = "GriddingMap";

/// The largest gridding map, in pixels; 2048x2048.
pub const MAX_CELLS: usize = 1 << 22;

/// How often one output of a stack of layers sees each pixel of its receptive field: the number of paths of taps that lead to it.
///
/// A pixel with a count of 0 between others is a hole: the output does not depend on it. Stacks of dilated layers whose rates share a
/// divisor see a grid of pixels only (Wang et al. 2018, Understanding Convolution for Semantic Segmentation,
/// <https://arxiv.org/abs/1702.08502>; Yu et al. 2017, Dilated Residual Networks, <https://arxiv.org/abs/1705.09914>).
///
/// The taps of a layer are a product over its axes, and so is the map: `count(y, x) = axes[0][y] * axes[1][x]`.
///
/// # Example
/// ```
/// use wgconv::analysis::{GriddingMap, Layer};
/// let map = GriddingMap::new(&[Layer::new(3).dilation(2), Layer::new(3).dilation(2)])?;
/// let [rows, columns] = map.axes();
/// assert_eq!(rows, &[1, 0, 2, 0, 3, 0, 2, 0, 1]);
/// assert_eq!(map.counts()?[[4, 2]], rows[4] * columns[2]);
/// assert!(map.has_holes());
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GriddingMap<const R: usize> {
    axes: [Vec<u128>; R],
}

impl<const R: usize> GriddingMap<R> {
    /// Follows the paths through the layers; the first one of the list reads the pixels.
    ///
    /// # Errors
    /// [`Error::Invalid`] as of [`receptive_field`], for a field of more than [`MAX_CELLS`] pixels along an axis, and for counts
    /// above `u128::MAX`.
    pub fn new(layers: &[Layer<R>]) -> Result<Self> {
        for field in receptive_field(layers)? {
            if field.size > MAX_CELLS {
                let expected = format!("a receptive field of at most {MAX_CELLS} pixels along an axis");
                return Err(Error::invalid(OP, "layers", expected, field.size));
            }
        }
        let mut axes = std::array::from_fn(|_| vec![1]);
        for (axis, counts) in axes.iter_mut().enumerate() {
            // The number of all paths, which bounds every count; and the stride of what the layer reads.
            let (mut paths, mut jump) = (1u128, 1);
            for layer in layers {
                let [kernel, stride, dilation, _] = layer.along(OP, axis)?;
                paths = paths.checked_mul(kernel as u128).ok_or_else(|| {
                    let expected = format!("at most {} paths from an output to its pixels", u128::MAX);
                    Error::invalid(OP, "layers", expected, format!("more along axis {axis}"))
                })?;
                if kernel > 1 {
                    *counts = spread(counts, kernel, dilation * jump);
                }
                jump *= stride;
            }
        }
        Ok(Self { axes })
    }

    /// The counts along each axis, from the first pixel of the receptive field to the last.
    #[must_use]
    pub fn axes(&self) -> &[Vec<u128>; R] {
        &self.axes
    }

    /// The map: a count for each pixel of the receptive field, the outer product of [`axes`](Self::axes).
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than [`MAX_CELLS`] pixels and for counts above `u128::MAX`.
    pub fn counts(&self) -> Result<ArrayD<u128>> {
        let shape = self.axes.each_ref().map(Vec::len);
        let cells = shape.iter().try_fold(1usize, |cells, &extent| cells.checked_mul(extent));
        if cells.is_none_or(|cells| cells > MAX_CELLS) {
            return Err(Error::invalid(
                OP,
                "layers",
                format!("a map of at most {MAX_CELLS} pixels"),
                format!("{shape:?}"),
            ));
        }
        let most = |counts: &Vec<u128>| counts.iter().copied().max().unwrap_or(0);
        if self.axes.iter().try_fold(1u128, |product, counts| product.checked_mul(most(counts))).is_none() {
            return Err(Error::invalid(OP, "layers", format!("counts of at most {}", u128::MAX), "more"));
        }
        let count = |index: IxDyn| (0..R).map(|axis| self.axes[axis][index[axis]]).product();
        Ok(ArrayD::from_shape_fn(IxDyn(&shape), count))
    }

    /// Whether the receptive field has a pixel that the output does not see.
    #[must_use]
    pub fn has_holes(&self) -> bool {
        self.axes.iter().any(|counts| counts.contains(&0))
    }

    /// The share of the pixels in the receptive field that the output sees; 1 where there are no holes.
    #[must_use]
    pub fn share_seen(&self) -> f64 {
        let seen = |counts: &Vec<u128>| counts.iter().filter(|&&count| count > 0).count() as f64 / counts.len() as f64;
        self.axes.iter().map(seen).product()
    }
}

/// Counts behind one more layer: each is the sum of `kernel` counts that lie `step` apart.
fn spread(counts: &[u128], kernel: usize, step: usize) -> Vec<u128> {
    let mut sums = vec![0; counts.len() + (kernel - 1) * step];
    let at = |i: Option<usize>| i.and_then(|i| counts.get(i)).copied().unwrap_or(0);
    // A running sum, so that a long kernel costs no more than a short one.
    for i in 0..sums.len() {
        let before = i.checked_sub(step).map_or(0, |i| sums[i]);
        sums[i] = before - at(i.checked_sub(kernel * step)) + at(Some(i));
    }
    sums
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Counts the paths one by one.
    fn count_paths(layers: &[(usize, usize, usize)], position: usize, counts: &mut BTreeMap<usize, u128>) {
        let Some((&(kernel, stride, dilation), before)) = layers.split_last() else {
            *counts.entry(position).or_default() += 1;
            return;
        };
        for tap in 0..kernel {
            count_paths(before, position * stride + tap * dilation, counts);
        }
    }

    fn stack(layers: &[(usize, usize, usize)]) -> Vec<Layer<1>> {
        layers.iter().map(|&(kernel, stride, dilation)| Layer::new(kernel).stride(stride).dilation(dilation)).collect()
    }

    #[test]
    fn agrees_with_counting_paths() {
        let options = [(1, 1, 5), (1, 4, 1), (2, 1, 1), (2, 3, 2), (3, 1, 2), (3, 2, 1), (4, 2, 3), (5, 7, 1)];
        for a in options {
            for b in options {
                for c in options {
                    let layers = [a, b, c];
                    let mut paths = BTreeMap::new();
                    count_paths(&layers, 0, &mut paths);
                    let map = GriddingMap::new(&stack(&layers)).unwrap();
                    let [counts] = map.axes();
                    let [field] = receptive_field(&stack(&layers)).unwrap();
                    assert_eq!(counts.len(), field.size);
                    assert_eq!(paths.keys().last(), Some(&(field.size - 1)));
                    for (i, count) in counts.iter().enumerate() {
                        assert_eq!(*count, paths.get(&i).copied().unwrap_or(0), "{layers:?} at {i}");
                    }
                    assert_eq!(map.has_holes(), paths.len() < field.size);
                    assert!((map.share_seen() - paths.len() as f64 / field.size as f64).abs() < 1e-12);
                }
            }
        }
    }

    #[test]
    fn the_map_is_the_outer_product() {
        let map =
            GriddingMap::new(&[Layer::new([3, 1]).dilation([2, 1]), Layer::new([1, 2]).dilation([9, 3])]).unwrap();
        let counts = map.counts().unwrap();
        assert_eq!(counts.shape(), [5, 4]);
        let seen: Vec<_> = counts.indexed_iter().filter(|(_, count)| **count > 0).map(|(i, _)| [i[0], i[1]]).collect();
        assert_eq!(seen, [[0, 0], [0, 3], [2, 0], [2, 3], [4, 0], [4, 3]]);
        assert_eq!(GriddingMap::<2>::new(&[]).unwrap().counts().unwrap()[[0, 0]], 1);
    }

    #[test]
    fn limits_are_errors() {
        let long = |kernel: usize| vec![Layer::<2>::new(kernel)];
        assert!(GriddingMap::new(&long(2048)).unwrap().counts().is_ok());
        assert!(GriddingMap::new(&long(2049)).unwrap().counts().is_err());
        assert!(!GriddingMap::new(&long(MAX_CELLS)).unwrap().has_holes());
        for kernel in [0, MAX_CELLS + 1, usize::MAX] {
            assert!(GriddingMap::new(&long(kernel)).is_err(), "{kernel}");
        }
        assert!(GriddingMap::new(&[Layer::<1>::new(2).dilation(usize::MAX - 1)]).is_err());
        // A stride that nothing behind it multiplies is no matter.
        assert!(GriddingMap::new(&[Layer::<1>::new(1).stride(usize::MAX).dilation(usize::MAX); 1]).is_ok());
        assert!(GriddingMap::new(&[Layer::<1>::new(1).stride(usize::MAX), Layer::new(1).dilation(usize::MAX)]).is_ok());
        // 3^80 paths fit 128 bits and 3^81 do not; of two axes, the counts of 40 layers fit and those of 80 do not.
        let deep = |count: usize| vec![Layer::<2>::new(3); count];
        assert!(GriddingMap::new(&deep(80)).is_ok());
        assert!(GriddingMap::new(&deep(81)).is_err());
        assert!(GriddingMap::new(&deep(40)).unwrap().counts().is_ok());
        assert!(GriddingMap::new(&deep(80)).unwrap().counts().is_err());
    }
}
