//! Spatially separable kernels: a k x k kernel as a sum of columns times rows, and Inception's 1x7 and 7x1.

use nalgebra::{DMatrix, DVector, DVectorView, SymmetricEigen};
use ndarray::{Array2, ArrayD, ArrayView2, IxDyn};

use super::Parameters;
use super::conv_norm::{ConvNorm, Loader};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::conv::Conv2d;
use crate::ops::options::Padding;
use crate::tensor::Tensor;

const OP: &str = "separable";

/// A kernel as a sum of r columns times rows. One of rank one, as Sobel's and a Gaussian, is a single product: 2k multiplications
/// instead of k*k. Else the first r terms of the singular value decomposition are the best there are (Eckart and Young 1936).
///
/// ```text
/// kernel [Kh, Kw] = column 1 x row 1 + ... + column r x row r
/// [N, C, H, W] -> for each term: depthwise Kh x 1 -> depthwise 1 x Kw -> + -> [N, C, H, W]
/// ```
///
/// # Example
/// ```
/// use wgconv::blocks::Separable;
/// use wgconv::ndarray::arr2;
/// let sobel = Separable::factor(arr2(&[[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]).view())?;
/// assert_eq!(sobel.rank(), 1);
/// assert!(sobel.largest_error() < 1e-6);
/// // A disc is not separable: what one term leaves.
/// let disc = Separable::factor(arr2(&[[0.0, 1.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]]).view())?;
/// assert!(disc.rank() == 2 && disc.truncated(1)?.frobenius_error() > 0.5);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Separable {
    kernel: Array2<f32>,
    /// Columns and rows, the greatest term first.
    terms: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Separable {
    /// Splits a kernel into as many terms as its rank is: singular values above `f32::EPSILON * max(Kh, Kw)` of the greatest count.
    ///
    /// # Errors
    /// For a kernel that is empty, zero or not finite.
    pub fn factor(kernel: ArrayView2<'_, f32>) -> Result<Self> {
        let invalid = |expected: &str, got: String| Err(Error::invalid(OP, "kernel", expected, got));
        let (rows, columns) = kernel.dim();
        if kernel.is_empty()
            || !kernel.iter().all(|value| value.is_finite())
            || kernel.iter().all(|&value| value == 0.0)
        {
            return invalid("finite values, not all zero", format!("{kernel}"));
        }
        let matrix = DMatrix::from_fn(rows, columns, |y, x| f64::from(kernel[[y, x]]));
        // The rows are eigenvectors v of K^T K, the columns K v: then the terms sum to K as far as the v are orthogonal. nalgebra's own
        // SVD is 1e-4 off where the rank is low. A thousand steps an extent are far more than it takes; 0 would mean no end.
        let steps = rows.saturating_add(columns).saturating_mul(1000);
        let Some(eigen) = SymmetricEigen::try_new(matrix.transpose() * &matrix, f64::EPSILON, steps) else {
            return invalid("one whose decomposition converges", format!("{kernel}"));
        };
        let pairs = eigen.eigenvectors.column_iter().map(|v| (&matrix * v, v));
        let mut pairs: Vec<_> = pairs.map(|(column, v)| (column.norm(), column, v)).collect();
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
        let least = pairs[0].0 * f64::from(f32::EPSILON) * rows.max(columns) as f64;
        let term = |(value, column, v): &(f64, DVector<f64>, _)| {
            // The root of the singular value on both sides; the sign such that the column's greatest entry is positive.
            let root = value.sqrt() * column[column.iamax()].signum();
            let scaled = |by: f64| move |entry: &f64| (entry * by) as f32;
            let row: &DVectorView<'_, f64> = v;
            (column.iter().map(scaled(root / value)).collect(), row.iter().map(scaled(root)).collect())
        };
        let terms = pairs.iter().take_while(|(value, ..)| *value > least).map(term).collect();
        Ok(Self { kernel: kernel.to_owned(), terms })
    }

    /// The best sum of at most that many terms.
    ///
    /// # Errors
    /// For no terms.
    pub fn truncated(&self, rank: usize) -> Result<Self> {
        if rank == 0 {
            return Err(Error::invalid(OP, "rank", "at least 1", 0));
        }
        Ok(Self { kernel: self.kernel.clone(), terms: self.terms.iter().take(rank).cloned().collect() })
    }

    /// Number of terms.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.terms.len()
    }

    /// Columns and rows of the terms, the greatest first.
    #[must_use]
    pub fn terms(&self) -> &[(Vec<f32>, Vec<f32>)] {
        &self.terms
    }

    /// The sum of the terms, which stands for the kernel.
    #[must_use]
    pub fn sum(&self) -> Array2<f64> {
        Array2::from_shape_fn(self.kernel.dim(), |(y, x)| {
            self.terms.iter().map(|(column, row)| f64::from(column[y]) * f64::from(row[x])).sum()
        })
    }

    /// The Frobenius norm of kernel minus sum: the root of the sum of the squares.
    #[must_use]
    pub fn frobenius_error(&self) -> f64 {
        self.difference().map(|d| d * d).sum().sqrt()
    }

    /// The largest absolute value of kernel minus sum.
    #[must_use]
    pub fn largest_error(&self) -> f64 {
        self.difference().fold(0.0, |most, d| most.max(d.abs()))
    }

    fn difference(&self) -> Array2<f64> {
        self.kernel.mapv(f64::from) - self.sum()
    }

    /// The layer that runs the terms on this many channels, each by itself, with as many zeros around as keep the extents.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn layer(&self, gpu: &Gpu, channels: usize) -> Result<SeparableConv> {
        let conv = |taps: &[f32], kernel: [usize; 2]| {
            let shape = [channels, 1, kernel[0], kernel[1]];
            let weight = ArrayD::from_shape_fn(IxDyn(&shape), |index| taps[index[2].max(index[3])]);
            let options = Conv2d::new().groups(channels).padding(Padding::Same);
            ConvNorm::new(gpu, options, weight.view(), None)
        };
        let (rows, columns) = self.kernel.dim();
        let term = |(column, row): &(Vec<f32>, Vec<f32>)| Ok((conv(column, [rows, 1])?, conv(row, [1, columns])?));
        self.terms.iter().map(term).collect::<Result<_>>().map(SeparableConv)
    }
}

/// A [`Separable`] kernel on a device: see there.
#[derive(Clone, Debug)]
#[must_use]
pub struct SeparableConv(Vec<(ConvNorm<2>, ConvNorm<2>)>);

impl SeparableConv {
    /// Records the terms, each added to the sum of those before by its last convolution.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut sum: Option<Tensor> = None;
        for (column, row) in &self.0 {
            let vertical = column.forward(x)?;
            sum = Some(match &sum {
                Some(sum) => row.forward_with_residual(&vertical, sum)?,
                None => row.forward(&vertical)?,
            });
        }
        sum.ok_or_else(|| Error::invalid(OP, "rank", "at least 1", 0))
    }
}

/// Inception's 7x7 as a row and a column (Szegedy et al. 2016, <https://arxiv.org/abs/1512.00567>, figure 6), each layer with batch norm
/// and ReLU.
///
/// ```text
/// [N, C, H, W] -> 1x1 to C7 -> 1x7 -> 7x1 to C' -> [N, C', H, W]
/// ```
///
/// Names are torchvision's: `{prefix}_1.conv`, `{prefix}_1.bn` to `{prefix}_3`, the prefix `branch7x7`; epsilon 1e-3.
#[derive(Clone, Debug)]
#[must_use]
pub struct Inception7x7([ConvNorm<2>; 3]);

impl Inception7x7 {
    /// Loads the layers for these channels: in, between, out.
    ///
    /// # Errors
    /// Errors of the parameters and of the device.
    pub fn load(gpu: &Gpu, params: &dyn Parameters, prefix: &str, [c_in, c7, c_out]: [usize; 3]) -> Result<Self> {
        let mut loader = Loader::new(gpu, params, "");
        loader.eps = 1e-3;
        let layer = |i: usize, shape: [usize; 4]| {
            let options = Conv2d::new().padding([shape[2] / 2, shape[3] / 2]).activation(Activation::Relu);
            loader.conv(&format!("{prefix}_{i}.conv"), &format!("{prefix}_{i}.bn"), &shape, options)
        };
        Ok(Self([layer(1, [c7, c_in, 1, 1])?, layer(2, [c7, c7, 1, 7])?, layer(3, [c_out, c7, 7, 1])?]))
    }

    /// Records the branch.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.iter().try_fold(x.clone(), |x, layer| layer.forward(&x))
    }
}
