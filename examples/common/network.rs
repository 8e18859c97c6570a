//! Networks written out by hand: weights by their names, each layer one operator, run on the GPU or, where there is none, on the CPU
//! reference in double precision.
#![allow(dead_code)] // Each example uses its part.

use wgconv::ndarray::{ArrayD, Axis, IxDyn};
use wgconv::reference::{self, ActivationKind, AvgPoolSpec, ConvSpec, ConvTransposeSpec};
use wgconv::{
    Activation, Add, AvgPool, BatchNorm, Concat, Conv, ConvTranspose2d, GlobalAvgPool, Gpu, Linear, Mul, Tensor,
    UpsampleNearest,
};

use super::common::{Archive, Error, Result};

/// An array where the network runs.
#[derive(Clone, Debug)]
pub enum Value {
    Gpu(Tensor),
    Host(ArrayD<f64>),
}

/// Where a network's weights come from and where they go.
#[derive(Clone, Copy)]
pub struct Loader<'a> {
    pub archive: &'a Archive,
    /// The CPU reference where there is none.
    pub gpu: Option<&'a Gpu>,
}

/// Weight and bias on the host, before they are uploaded: what follows or precedes the layer by a fixed factor is folded in here.
#[derive(Clone)]
pub struct Filter {
    weight: ArrayD<f32>,
    bias: ArrayD<f32>,
    /// The weight's axis of output channels.
    outputs: usize,
}

impl Loader<'_> {
    /// `NAME.weight` of a convolution or linear layer, output channels first, and `NAME.bias` where it has one.
    pub fn filter(&self, name: &str, shape: &[usize], bias: bool) -> Result<Filter> {
        self.load(name, shape, bias, 0)
    }

    /// The same of a transposed convolution, whose output channels come second.
    pub fn transposed(&self, name: &str, shape: &[usize], bias: bool) -> Result<Filter> {
        self.load(name, shape, bias, 1)
    }

    fn load(&self, name: &str, shape: &[usize], bias: bool, outputs: usize) -> Result<Filter> {
        let weight = self.archive.get_shaped(&format!("{name}.weight"), shape)?.clone();
        let channels = [shape[outputs]];
        let bias = match bias {
            true => self.archive.get_shaped(&format!("{name}.bias"), &channels)?.clone(),
            false => ArrayD::zeros(IxDyn(&channels)),
        };
        Ok(Filter { weight, bias, outputs })
    }

    /// A tensor of one element.
    pub fn scalar(&self, name: &str) -> Result<f64> {
        Ok(f64::from(self.archive.get_shaped(name, &[1])?[0]))
    }

    /// Puts an array where the network runs.
    pub fn put(&self, array: &ArrayD<f32>) -> Result<Value> {
        Value::new(self.gpu, array)
    }

    /// The filter as a convolution over `R` axes.
    pub fn conv<const R: usize>(&self, filter: Filter, window: Window<R>, activation: Activation) -> Result<Layer<R>> {
        let (weight, bias) = (self.put(&filter.weight)?, self.put(&filter.bias)?);
        Ok(Layer { weight, bias, window, activation })
    }

    /// The filter as a transposed convolution whose kernel is its stride: every pixel becomes a tile.
    pub fn up(&self, filter: Filter, activation: Activation) -> Result<Up> {
        let stride = [filter.weight.shape()[2], filter.weight.shape()[3]];
        Ok(Up { weight: self.put(&filter.weight)?, bias: self.put(&filter.bias)?, stride, activation })
    }

    /// The filter, whose kernel is of one element, as a linear layer.
    pub fn dense(&self, filter: Filter, activation: Activation) -> Result<Dense> {
        let (outputs, inputs) = (filter.weight.shape()[0], filter.weight.shape()[1]);
        let weight = filter.weight.into_shape_with_order(IxDyn(&[outputs, inputs]));
        let weight = weight.map_err(|error| Error::Failed(error.to_string()))?;
        Ok(Dense { weight: self.put(&weight)?, bias: self.put(&filter.bias)?, activation })
    }
}

impl Filter {
    /// With the batch norm `norm` behind it.
    pub fn norm(self, loader: &Loader<'_>, norm: &str, eps: f64) -> Result<Self> {
        self.norm_part(loader, norm, eps, (0, 1))
    }

    /// The same where the norm is that of so many filters' outputs, concatenated, of which this is number `part`.
    pub fn norm_part(self, loader: &Loader<'_>, norm: &str, eps: f64, (part, parts): (usize, usize)) -> Result<Self> {
        let channels = self.bias.len();
        let vector = |name: &str| {
            let whole = loader.archive.get_shaped(&format!("{norm}.{name}"), &[parts * channels])?;
            Ok::<_, Error>(whole.slice_axis(Axis(0), (part * channels..(part + 1) * channels).into()))
        };
        let (gamma, beta) = (vector("weight")?, vector("bias")?);
        let (mean, var) = (vector("running_mean")?, vector("running_var")?);
        let norm = BatchNorm { gamma, beta, mean, var, eps };
        let (weight, bias) = match self.outputs {
            0 => norm.fold(self.weight.view(), Some(self.bias.view()))?,
            _ => norm.fold_transposed(self.weight.view(), Some(self.bias.view()), 1)?,
        };
        Ok(Self { weight, bias, ..self })
    }

    /// With `scale * y + shift` behind it.
    pub fn then(mut self, scale: f64, shift: f64) -> Self {
        self.weight.mapv_inplace(|w| (f64::from(w) * scale) as f32);
        self.bias.mapv_inplace(|b| (f64::from(b) * scale + shift) as f32);
        self
    }

    /// For an input that still wants `scale * x + shift`. A shift is right only where no tap falls into padding.
    pub fn after(mut self, scale: f64, shift: f64) -> Self {
        for (filter, bias) in self.weight.axis_iter(Axis(0)).zip(&mut self.bias) {
            *bias = (f64::from(*bias) + shift * filter.iter().map(|&w| f64::from(w)).sum::<f64>()) as f32;
        }
        self.weight.mapv_inplace(|w| (f64::from(w) * scale) as f32);
        self
    }

    /// The inputs in `range` alone, as filters of that shape. The bias stays.
    pub fn inputs(&self, range: std::ops::Range<usize>, shape: &[usize]) -> Result<Self> {
        let part = self.weight.slice_axis(Axis(1), range.into());
        let weight = part.to_shape(IxDyn(shape)).map_err(|error| Error::Failed(error.to_string()))?.into_owned();
        Ok(Self { weight, ..self.clone() })
    }

    /// The weight's axes in another order.
    pub fn permuted(self, axes: &[usize]) -> Self {
        Self { weight: self.weight.permuted_axes(IxDyn(axes)).as_standard_layout().into_owned(), ..self }
    }

    /// Without the bias.
    pub fn unbiased(self) -> Self {
        Self { bias: ArrayD::zeros(self.bias.raw_dim()), ..self }
    }
}

/// Where a convolution's taps lie.
#[derive(Clone, Copy, Debug)]
pub struct Window<const R: usize> {
    pub stride: [usize; R],
    pub dilation: [usize; R],
    pub padding: [usize; R],
    pub groups: usize,
}

impl<const R: usize> Default for Window<R> {
    fn default() -> Self {
        Self { stride: [1; R], dilation: [1; R], padding: [0; R], groups: 1 }
    }
}

/// A convolution with bias and activation.
pub struct Layer<const R: usize> {
    weight: Value,
    bias: Value,
    window: Window<R>,
    activation: Activation,
}

impl<const R: usize> Layer<R> {
    pub fn forward(&self, x: &Value) -> Result<Value> {
        self.run(x, None)
    }

    /// With something added before the activation.
    pub fn forward_plus(&self, x: &Value, residual: &Value) -> Result<Value> {
        self.run(x, Some(residual))
    }

    fn run(&self, x: &Value, residual: Option<&Value>) -> Result<Value> {
        let Window { stride, dilation, padding, groups } = self.window;
        Ok(match (x, &self.weight, &self.bias) {
            (Value::Gpu(x), Value::Gpu(weight), Value::Gpu(bias)) => {
                let conv = Conv::<R>::new().stride(stride).dilation(dilation).padding(padding).groups(groups);
                let conv = match residual {
                    Some(residual) => conv.residual(residual.tensor()?),
                    None => conv,
                };
                Value::Gpu(conv.activation(self.activation).forward(x, weight, Some(bias))?)
            }
            (Value::Host(x), Value::Host(weight), Value::Host(bias)) => {
                let pads = padding.map(|side| (side, side)).to_vec();
                let (stride, dilation) = (stride.to_vec(), dilation.to_vec());
                let spec = ConvSpec { stride, dilation, pads, groups, ..ConvSpec::new(R) };
                let y = reference::conv(x.view(), weight.view(), Some(bias.view()), &spec)?;
                let residual = residual.map(|residual| residual.array()).transpose()?;
                let residual = residual.map(|array| array.view());
                Value::Host(reference::epilogue(y, residual, kind(self.activation)?)?)
            }
            _ => return Err(apart()),
        })
    }
}

/// A transposed convolution with bias and activation.
pub struct Up {
    weight: Value,
    bias: Value,
    stride: [usize; 2],
    activation: Activation,
}

impl Up {
    pub fn forward(&self, x: &Value) -> Result<Value> {
        Ok(match (x, &self.weight, &self.bias) {
            (Value::Gpu(x), Value::Gpu(weight), Value::Gpu(bias)) => {
                let up = ConvTranspose2d::new().stride(self.stride).activation(self.activation);
                Value::Gpu(up.forward(x, weight, Some(bias))?)
            }
            (Value::Host(x), Value::Host(weight), Value::Host(bias)) => {
                let spec = ConvTransposeSpec { stride: self.stride.to_vec(), ..ConvTransposeSpec::new(2) };
                let y = reference::conv_transpose(x.view(), weight.view(), Some(bias.view()), &spec)?;
                Value::Host(reference::epilogue::<f64>(y, None, kind(self.activation)?)?)
            }
            _ => return Err(apart()),
        })
    }
}

/// A linear layer with bias and activation.
pub struct Dense {
    weight: Value,
    bias: Value,
    activation: Activation,
}

impl Dense {
    pub fn forward(&self, x: &Value) -> Result<Value> {
        Ok(match (x, &self.weight, &self.bias) {
            (Value::Gpu(x), Value::Gpu(weight), Value::Gpu(bias)) => {
                Value::Gpu(Linear::new().activation(self.activation).forward(x, weight, Some(bias))?)
            }
            (Value::Host(x), Value::Host(weight), Value::Host(bias)) => {
                let y = reference::linear(x.view(), weight.view(), Some(bias.view()))?;
                Value::Host(reference::epilogue::<f64>(y, None, kind(self.activation)?)?)
            }
            _ => return Err(apart()),
        })
    }
}

impl Value {
    /// An array on the GPU, or on the host where there is none.
    pub fn new(gpu: Option<&Gpu>, array: &ArrayD<f32>) -> Result<Self> {
        Ok(match gpu {
            Some(gpu) => Value::Gpu(Tensor::from_array(gpu, array)?),
            None => Value::Host(array.mapv(f64::from)),
        })
    }

    /// The values; on the GPU this waits for them.
    pub fn read(&self) -> Result<ArrayD<f32>> {
        Ok(match self {
            Value::Gpu(tensor) => tensor.to_array()?,
            Value::Host(array) => array.mapv(|value| value as f32),
        })
    }

    pub fn shape(&self) -> &[usize] {
        match self {
            Value::Gpu(tensor) => tensor.shape(),
            Value::Host(array) => array.shape(),
        }
    }

    fn tensor(&self) -> Result<&Tensor> {
        if let Value::Gpu(tensor) = self { Ok(tensor) } else { Err(apart()) }
    }

    fn array(&self) -> Result<&ArrayD<f64>> {
        if let Value::Host(array) = self { Ok(array) } else { Err(apart()) }
    }

    pub fn add(&self, other: &Self) -> Result<Self> {
        Ok(match self {
            Value::Gpu(x) => Value::Gpu(Add::new().forward(x, other.tensor()?)?),
            Value::Host(x) => Value::Host(reference::add(x.view(), other.array()?.view())?),
        })
    }

    pub fn mul(&self, other: &Self) -> Result<Self> {
        Ok(match self {
            Value::Gpu(x) => Value::Gpu(Mul::new().forward(x, other.tensor()?)?),
            Value::Host(x) => Value::Host(reference::mul(x.view(), other.array()?.view())?),
        })
    }

    /// The mean of each channel, `[N, C, 1, ..]`.
    pub fn mean(&self) -> Result<Self> {
        Ok(match self {
            Value::Gpu(x) => Value::Gpu(GlobalAvgPool::new().forward(x)?),
            Value::Host(x) => Value::Host(reference::global_avg_pool(x.view())?),
        })
    }

    /// The mean of each window; windows lie side by side.
    pub fn avg_pool<const R: usize>(&self, kernel: [usize; R]) -> Result<Self> {
        Ok(match self {
            Value::Gpu(x) => Value::Gpu(AvgPool::<R>::new(kernel).forward(x)?),
            Value::Host(x) => Value::Host(reference::avg_pool(x.view(), &AvgPoolSpec::new(&kernel))?),
        })
    }

    /// Every pixel as a square of so many by so many.
    pub fn upsample(&self, factor: usize) -> Result<Self> {
        Ok(match self {
            Value::Gpu(x) => Value::Gpu(UpsampleNearest::new([factor; 2]).forward(x)?),
            Value::Host(x) => Value::Host(reference::upsample_nearest(x.view(), [factor; 2])?),
        })
    }

    /// Channels of all, one after the other.
    pub fn concat(parts: &[Value]) -> Result<Self> {
        if let Some(Value::Gpu(_)) = parts.first() {
            let parts = parts.iter().map(Value::tensor).collect::<Result<Vec<_>>>()?;
            return Ok(Value::Gpu(Concat::new(1).forward(&parts)?));
        }
        let parts = parts.iter().map(|part| part.array().map(|array| array.view())).collect::<Result<Vec<_>>>()?;
        Ok(Value::Host(reference::concat(&parts, 1)?))
    }

    /// The same values in another shape.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        Ok(match self {
            Value::Gpu(x) => Value::Gpu(x.reshape(shape)?),
            Value::Host(x) => {
                let reshaped = x.to_shape(IxDyn(shape)).map_err(|error| Error::Failed(error.to_string()))?;
                Value::Host(reshaped.into_owned())
            }
        })
    }
}

fn apart() -> Error {
    Error::Failed("arrays of one network lie in two places".into())
}

/// The reference's name of an activation.
fn kind(activation: Activation) -> Result<ActivationKind> {
    Ok(match activation {
        Activation::Identity => ActivationKind::Identity,
        Activation::Relu => ActivationKind::Relu,
        Activation::Sigmoid => ActivationKind::Sigmoid,
        Activation::HardSigmoid => ActivationKind::HardSigmoid,
        Activation::HardSwish => ActivationKind::HardSwish,
        other => return Err(Error::Failed(format!("the examples' networks have no {other:?}"))),
    })
}
