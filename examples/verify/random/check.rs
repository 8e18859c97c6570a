//! One problem on every kernel that can take it.

use wgconv::{Error as GpuError, Gpu, Tensor};

use super::super::common::{Error, Result};
use super::super::launch::Tensors;
use super::super::operation::{Arrays, index_of};
use super::expect::{Expected, agrees, excepted, output_shape};
use super::fill::arrays;
use super::launch::launch;
use super::problem::Problem;
use wgconv::ndarray::ArrayD;

/// What came of a problem.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Right on these kernels.
    Passed(Vec<&'static str>),
    /// The library and the reference both refuse it.
    Refused,
    /// The reference takes it and the adapter cannot hold it, as the library says.
    TooLarge,
    Failed(Failure),
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The kernel, where it is one kernel's.
    pub kernel: &'static str,
    pub what: String,
}

/// Changes a kernel's result before it is looked at: for tests of what finds mistakes.
pub type Tamper = fn(&Problem, &str, &mut [f32]);

/// Where problems are run.
pub struct Bench<'a> {
    pub gpu: &'a Gpu,
    pub tamper: Option<Tamper>,
}

/// A kernel's two results, recorded.
struct Run {
    kernel: &'static str,
    first: Tensor,
    second: Tensor,
}

/// Elements of an output at most: the adapter could not hold it, nor this machine. Nothing of such sizes is drawn but by a mistake that is
/// made on purpose.
const MOST_ELEMENTS: usize = 1 << 26;

fn count(shape: &[usize]) -> usize {
    shape.iter().fold(1, |product, &extent| product.saturating_mul(extent))
}

fn failed(kernel: &'static str, what: impl Into<String>) -> Outcome {
    Outcome::Failed(Failure { kernel, what: what.into() })
}

impl Bench<'_> {
    /// Runs a problem: every kernel twice, each time into poisoned memory, with guards around all of it.
    ///
    /// # Errors
    /// What has nothing to do with the problem: a lost device, no memory.
    pub fn check(&self, p: &Problem) -> Result<Outcome> {
        let shape = match output_shape(p) {
            Ok(shape) if count(&shape) > MOST_ELEMENTS => return self.must_refuse(p, "as too large"),
            Ok(shape) => shape,
            Err(Error::Reference(refusal)) => return self.must_refuse(p, &refusal.to_string()),
            Err(other) => return Err(other),
        };
        let (arrays, residual) = arrays(p, &shape);
        let runs = match self.record(p, &arrays, residual.as_ref(), &shape) {
            Ok(Ok(runs)) => runs,
            Ok(Err(kernel_and_what)) => return Ok(Outcome::Failed(kernel_and_what)),
            Err(Error::Gpu(GpuError::TooLarge { .. })) => return Ok(Outcome::TooLarge),
            Err(Error::Gpu(error @ GpuError::Invalid { .. })) => {
                return Ok(failed("", format!("the library refuses what the reference takes: {error}")));
            }
            Err(other) => return Err(other),
        };
        // The reference counts while the device does.
        self.gpu.submit()?;
        let expected = Expected::of(p, &arrays, residual.as_ref())?;
        for run in &runs {
            if let Some(what) = self.judge(p, &expected, (&arrays, residual.as_ref()), run, &shape)? {
                // What it marked beside its data is not the next problem's fault.
                let _ = self.gpu.check_guards();
                return Ok(failed(run.kernel, what));
            }
        }
        match self.gpu.check_guards() {
            Ok(()) => Ok(Outcome::Passed(runs.iter().map(|run| run.kernel).collect())),
            Err(error @ GpuError::Guard { .. }) => Ok(failed("", error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// The reference refuses: so must the library, with an error that says what is wrong.
    fn must_refuse(&self, p: &Problem, refusal: &str) -> Result<Outcome> {
        // Arrays that follow from the output are made for one of a single element.
        let (arrays, _) = arrays(&Problem { residual: false, ..p.clone() }, &vec![1; p.extents.len() + 2]);
        let refused = Tensors::upload(self.gpu, &arrays).and_then(|tensors| {
            let operator = launch(p, self.gpu, &arrays, None)?;
            Ok(operator.candidates(&tensors).and_then(|_| operator.forward(&tensors)).map(|_| ())?)
        });
        match refused {
            Err(Error::Gpu(GpuError::Invalid { .. } | GpuError::TooLarge { .. })) => Ok(Outcome::Refused),
            Err(other) => Err(other),
            Ok(()) => Ok(failed("", format!("the library takes what the reference refuses: {refusal}"))),
        }
    }

    /// Records every candidate twice.
    fn record(
        &self,
        p: &Problem,
        arrays: &Arrays,
        residual: Option<&ArrayD<f32>>,
        shape: &[usize],
    ) -> Result<Result<Vec<Run>, Failure>> {
        let tensors = Tensors::upload(self.gpu, arrays)?;
        let residual = residual.map(|residual| Tensor::from_array(self.gpu, residual)).transpose()?;
        let operator = launch(p, self.gpu, arrays, residual.as_ref())?;
        let mut runs = Vec::new();
        for operator in operator.candidates(&tensors)? {
            let plan = operator.plan(&tensors)?;
            let (kernel, first) = (plan.kernel(), operator.forward(&tensors)?);
            if first.shape() != shape {
                let what = format!("output shape {:?}, want {shape:?}", first.shape());
                return Ok(Err(Failure { kernel, what }));
            }
            // The second result into memory of the caller's.
            let second = Tensor::from_array(self.gpu, &ArrayD::from_elem(shape, f32::NAN))?;
            operator.forward_into(&tensors, &second)?;
            runs.push(Run { kernel, first, second });
        }
        Ok(Ok(runs))
    }

    fn judge(
        &self,
        p: &Problem,
        expected: &Expected,
        arguments: (&Arrays, Option<&ArrayD<f32>>),
        run: &Run,
        shape: &[usize],
    ) -> Result<Option<String>> {
        let mut got = run.first.to_array()?.into_raw_vec_and_offset().0;
        let again = run.second.to_array()?.into_raw_vec_and_offset().0;
        if let Some(tamper) = self.tamper {
            tamper(p, run.kernel, &mut got);
        } else if let Some(i) =
            got.iter().zip(&again).position(|(a, b)| a.to_bits() != b.to_bits() && !(a.is_nan() && b.is_nan()))
        {
            let (index, first, second) = (index_of(i, shape), got[i], again[i]);
            return Ok(Some(format!("at {index:?} {first:e}, and {second:e} when it is run again")));
        }
        if excepted(p, run.kernel) {
            return Ok(None);
        }
        let bounds = expected.bounds(p, arguments, run.kernel)?;
        let wrong = got.iter().zip(&expected.want).zip(&bounds).position(|((&g, &w), &b)| !agrees(g, w, b));
        Ok(wrong.map(|i| {
            let count =
                got.iter().zip(&expected.want).zip(&bounds).filter(|((g, w), b)| !agrees(**g, **w, **b)).count();
            let (index, got, want, bound) = (index_of(i, shape), got[i], expected.want[i], bounds[i]);
            format!(
                "{count} of {} wrong, the first at {index:?}: got {got:e}, want {want:e}, bound {bound:.1e}",
                bounds.len()
            )
        }))
    }
}
