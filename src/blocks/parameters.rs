//! Where a block's weights come from.

use std::collections::HashMap;

use ndarray::{ArrayD, IxDyn};

use crate::error::{Error, Result};
use crate::tensor::byte_count;

/// Weights by name. Names are those of PyTorch's state dicts: `layer1.0.conv1.weight`, `layer1.0.bn1.running_mean`.
pub trait Parameters {
    /// The array of that name, in exactly this shape.
    ///
    /// # Errors
    /// [`Error::Invalid`], which tells the name, where there is none or it has another shape.
    fn get(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>>;
}

impl Parameters for HashMap<String, ArrayD<f32>> {
    fn get(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        let expected = || format!("{name} of shape {shape:?}");
        let Some(array) = self.get(name) else {
            return Err(Error::invalid("parameters", "name", expected(), "none of that name"));
        };
        if array.shape() != shape {
            return Err(Error::invalid("parameters", "shape", expected(), format!("{:?}", array.shape())));
        }
        Ok(array.clone())
    }
}

/// Random values that depend on the seed and the name alone, for tests, benchmarks and trying things out: weights uniform with the
/// variance `2 / fan_in` of He et al. 2015, so that activations keep their size from layer to layer; batch norm's variances and scales
/// within 0.5 and 1.5; means and biases within -0.1 and 0.1.
///
/// ```
/// use wgconv::blocks::{Parameters, Seeded};
/// let weight = Seeded(1).get("conv1.weight", &[8, 4, 3, 3])?;
/// assert_eq!(weight, Seeded(1).get("conv1.weight", &[8, 4, 3, 3])?);
/// # Ok::<(), wgconv::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeded(pub u64);

impl Parameters for Seeded {
    fn get(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>> {
        byte_count("parameters", "shape", shape, u64::MAX)?;
        let fan_in = shape.iter().skip(1).product::<usize>().max(1);
        let (centre, spread) = match name.rsplit('.').next() {
            Some("running_var") => (1.0, 0.5),
            Some("running_mean" | "bias") => (0.0, 0.1),
            _ if shape.len() < 2 => (1.0, 0.5),
            _ => (0.0, (6.0 / fan_in as f64).sqrt()),
        };
        let mut state = name.bytes().fold(self.0, |state, byte| mix(state ^ u64::from(byte)));
        Ok(ArrayD::from_shape_simple_fn(IxDyn(shape), || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let unit = (mix(state) >> 11) as f64 / (1u64 << 52) as f64 - 1.0;
            (centre + spread * unit) as f32
        }))
    }
}

/// The mixing function of SplitMix64.
fn mix(state: u64) -> u64 {
    let z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
