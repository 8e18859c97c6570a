//! Elementwise addition and multiplication with broadcasting, and the epilogue that operators end in.

use ndarray::{ArrayD, ArrayViewD, IxDyn, Zip};

use super::shape::{expect_shape, shape_error, zeros};
use super::{ActivationKind, Real, ReferenceError, apply};

/// `a + b` with numpy's broadcasting: shapes are aligned at the end, and an extent of 1 (or a missing axis) repeats.
///
/// # Errors
/// Extents that differ where neither is 1.
pub fn add<T: Real>(a: ArrayViewD<T>, b: ArrayViewD<T>) -> Result<ArrayD<f64>, ReferenceError> {
    broadcast("add", a, b, |a, b| a + b)
}

/// `a * b` with the broadcasting of [`add`].
///
/// # Errors
/// Extents that differ where neither is 1.
pub fn mul<T: Real>(a: ArrayViewD<T>, b: ArrayViewD<T>) -> Result<ArrayD<f64>, ReferenceError> {
    broadcast("mul", a, b, |a, b| a * b)
}

/// What follows an operator: `activation(y + residual)`. The bias is inside the operators.
///
/// # Errors
/// A residual whose shape is not y's.
pub fn epilogue<T: Real>(
    mut y: ArrayD<f64>,
    residual: Option<ArrayViewD<T>>,
    kind: ActivationKind,
) -> Result<ArrayD<f64>, ReferenceError> {
    if let Some(residual) = residual {
        expect_shape("epilogue", "residual", residual.shape(), y.shape())?;
        y.zip_mut_with(&residual, |y, r| *y += r.to_f64());
    }
    y.mapv_inplace(|y| apply(kind, y));
    Ok(y)
}

fn broadcast<T: Real>(
    operator: &'static str,
    a: ArrayViewD<T>,
    b: ArrayViewD<T>,
    f: impl Fn(f64, f64) -> f64,
) -> Result<ArrayD<f64>, ReferenceError> {
    let mismatch = || shape_error(operator, format!("shapes {:?} and {:?} do not broadcast", a.shape(), b.shape()));
    let shape = common_shape(a.shape(), b.shape()).ok_or_else(mismatch)?;
    let data = zeros(operator, &shape)?;
    let mut y = ArrayD::from_shape_vec(IxDyn(&shape), data).map_err(|e| shape_error(operator, e.to_string()))?;
    let a = a.broadcast(IxDyn(&shape)).ok_or_else(mismatch)?;
    let b = b.broadcast(IxDyn(&shape)).ok_or_else(mismatch)?;
    Zip::from(&mut y).and(&a).and(&b).for_each(|y, a, b| *y = f(a.to_f64(), b.to_f64()));
    Ok(y)
}

fn common_shape(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    // Extents from the last axis on, where both shapes begin to be aligned.
    let from_end = |shape: &[usize], i: usize| if i < shape.len() { shape[shape.len() - 1 - i] } else { 1 };
    let mut shape = Vec::with_capacity(rank);
    for i in (0..rank).rev() {
        shape.push(match (from_end(a, i), from_end(b, i)) {
            (1, extent) | (extent, 1) => extent,
            (x, y) if x == y => x,
            _ => return None,
        });
    }
    Some(shape)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{arr0, arr1, arr2};

    #[test]
    fn broadcasts_like_numpy() {
        let column = arr2(&[[1.0f32], [2.0]]).into_dyn();
        let row = arr1(&[10.0f32, 20.0, 30.0]).into_dyn();
        let sum = arr2(&[[11.0, 21.0, 31.0], [12.0, 22.0, 32.0]]).into_dyn();
        assert_eq!(add(column.view(), row.view()), Ok(sum));
        let product = arr2(&[[10.0, 20.0, 30.0], [20.0, 40.0, 60.0]]).into_dyn();
        assert_eq!(mul(column.view(), row.view()), Ok(product));
        let scalar = arr0(2.0f32).into_dyn();
        assert_eq!(mul(scalar.view(), row.view()), Ok(arr1(&[20.0, 40.0, 60.0]).into_dyn()));
        assert!(add(row.view(), arr1(&[1.0f32, 2.0]).into_dyn().view()).is_err());
    }

    #[test]
    fn epilogue_adds_before_it_activates() {
        let y = arr1(&[-3.0, 1.0]).into_dyn();
        let residual = arr1(&[1.0f32, 1.0]).into_dyn();
        let result = epilogue(y.clone(), Some(residual.view()), ActivationKind::Relu);
        assert_eq!(result, Ok(arr1(&[0.0, 2.0]).into_dyn()));
        let wrong = arr1(&[1.0f32]).into_dyn();
        assert!(epilogue(y, Some(wrong.view()), ActivationKind::Relu).is_err());
    }
}
