//! The operators: options, shape rules, choice of kernel, plans.

pub(crate) mod activation;
pub(crate) mod batch_norm;
pub(crate) mod conv;
pub(crate) mod conv_transpose;
pub(crate) mod deform;
pub(crate) mod elementwise;
pub(crate) mod involution;
pub(crate) mod linear;
pub(crate) mod options;
pub(crate) mod pool;
pub(crate) mod rearrange;
pub(crate) mod separable;
pub(crate) mod softmax;
pub(crate) mod window;

use crate::error::{Error, Result};
use crate::plan::{Access, Binding, Slot};
use crate::tensor::Tensor;
use activation::Activation;

/// What an operator does to its sums before they are stored: bias, then residual, then activation.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Epilogue {
    pub has_bias: bool,
    pub has_residual: bool,
    pub activation: Activation,
}

impl Epilogue {
    /// The residual's binding: the part of argument `arg` that `y` is of the output; without one nothing.
    pub fn residual(&self, arg: usize, y: Binding) -> Binding {
        match self.has_residual {
            true => Binding { slot: Slot::Arg(arg), access: Access::Read, ..y },
            false => Binding::read(Slot::Nothing),
        }
    }
}

impl core::fmt::Display for Epilogue {
    /// As tuning tells problems apart: by what has kernels of its own; a bias or a slope does not.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let activation = format!("{:?}", self.activation);
        let name = activation.split('(').next().unwrap_or_default();
        write!(f, "residual={} activation={name}", self.has_residual)
    }
}

/// Checks that all arguments live on one `Gpu`.
pub(crate) fn same_gpu(op: &'static str, args: &[(&'static str, Option<&Tensor>)]) -> Result<()> {
    let mut given = args.iter().filter_map(|(name, tensor)| tensor.map(|tensor| (name, tensor)));
    let Some((_, first)) = given.next() else { return Ok(()) };
    for (name, tensor) in given {
        if tensor.gpu() != first.gpu() {
            return Err(Error::invalid(op, name, "a tensor of the first argument's Gpu", "one of another Gpu"));
        }
    }
    Ok(())
}
