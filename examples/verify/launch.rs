//! An operation as the library's operator, on tensors of a device.

use wgconv::reference::BorderMode;
use wgconv::{
    Activation, Border, Conv, ConvTranspose, DeformConv2d, Gpu, Involution2d, Linear, Padding, Plan,
    Result as GpuResult, Sides, Tensor,
};

use super::common::{Error, Result};
use super::operation::{Arrays, Operation, Operator};

/// The arrays on a device.
pub struct Tensors {
    pub input: Tensor,
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    pub offset: Option<Tensor>,
    pub mask: Option<Tensor>,
}

impl Tensors {
    pub fn upload(gpu: &Gpu, arrays: &Arrays) -> Result<Self> {
        let optional = |array: &Option<_>| array.as_ref().map(|array| Tensor::from_array(gpu, array)).transpose();
        Ok(Self {
            input: Tensor::from_array(gpu, &arrays.input)?,
            weight: Tensor::from_array(gpu, &arrays.weight)?,
            bias: optional(&arrays.bias)?,
            offset: optional(&arrays.offset)?,
            mask: optional(&arrays.mask)?,
        })
    }
}

/// An operator with its options, whichever it is.
pub trait Launch {
    /// What a call would dispatch.
    fn plan(&self, tensors: &Tensors) -> GpuResult<Plan>;
    /// Records it.
    fn forward(&self, tensors: &Tensors) -> GpuResult<Tensor>;
    /// The same into an output tensor.
    fn forward_into(&self, tensors: &Tensors, output: &Tensor) -> GpuResult<()>;
    /// The same operator once for each kernel that can take the problem.
    fn candidates(&self, tensors: &Tensors) -> GpuResult<Vec<Box<dyn Launch>>>;
}

/// What is done to the sums before they are stored, the bias apart.
#[derive(Clone, Debug, Default)]
pub struct Epilogue {
    pub activation: Activation,
    pub residual: Option<Tensor>,
}

/// The library's operator for an operation.
pub fn launch(operation: &Operation) -> Result<Box<dyn Launch>> {
    launch_with(operation, &Epilogue::default())
}

/// The same with an epilogue.
pub fn launch_with(operation: &Operation, epilogue: &Epilogue) -> Result<Box<dyn Launch>> {
    macro_rules! with {
        ($operator:expr) => {{
            let operator = $operator.activation(epilogue.activation);
            match &epilogue.residual {
                Some(residual) => Box::new(operator.residual(residual)),
                None => Box::new(operator),
            }
        }};
    }
    Ok(match (operation.operator, operation.kernel.len()) {
        (Operator::Conv, 1) => with!(conv::<1>(operation)?),
        (Operator::Conv, 2) => with!(conv::<2>(operation)?),
        (Operator::Conv, 3) => with!(conv::<3>(operation)?),
        (Operator::ConvTranspose, 1) => with!(conv_transpose::<1>(operation)?),
        (Operator::ConvTranspose, 2) => with!(conv_transpose::<2>(operation)?),
        (Operator::ConvTranspose, 3) => with!(conv_transpose::<3>(operation)?),
        (Operator::DeformConv, 2) => with!(deform_conv(operation)?),
        (Operator::Involution, 2) => with!(involution(operation)?),
        (operator, rank) => {
            return Err(Error::Failed(format!("{}: there is none of rank {rank}", operator.name())));
        }
    })
}

fn conv<const R: usize>(operation: &Operation) -> Result<Conv<R>> {
    let border = match operation.border {
        BorderMode::Zeros => Border::Zeros,
        BorderMode::Reflect => Border::Reflect,
        BorderMode::Replicate => Border::Replicate,
        BorderMode::Circular => Border::Circular,
    };
    let stride: [usize; R] = operation.axes("stride", &operation.stride)?;
    let dilation: [usize; R] = operation.axes("dilation", &operation.dilation)?;
    let pads = Padding::Explicit(operation.axes("pads", &operation.pads)?);
    let operator = Conv::new().stride(stride).dilation(dilation).padding(pads).groups(operation.groups).border(border);
    Ok(operator.flip_kernel(operation.flip_kernel).fast_math(operation.fast_math))
}

fn conv_transpose<const R: usize>(operation: &Operation) -> Result<ConvTranspose<R>> {
    let stride: [usize; R] = operation.axes("stride", &operation.stride)?;
    let dilation: [usize; R] = operation.axes("dilation", &operation.dilation)?;
    let output_padding: [usize; R] = operation.axes("output_padding", &operation.output_padding)?;
    let pads = Sides(operation.axes("pads", &operation.pads)?);
    let operator = ConvTranspose::new().stride(stride).dilation(dilation).padding(pads);
    Ok(operator.output_padding(output_padding).groups(operation.groups))
}

fn deform_conv(operation: &Operation) -> Result<DeformConv2d> {
    let stride: [usize; 2] = operation.axes("stride", &operation.stride)?;
    let dilation: [usize; 2] = operation.axes("dilation", &operation.dilation)?;
    let pads = Padding::Explicit(operation.axes("pads", &operation.pads)?);
    let operator = DeformConv2d::new().stride(stride).dilation(dilation).padding(pads);
    Ok(operator.groups(operation.groups).offset_groups(operation.offset_groups))
}

fn involution(operation: &Operation) -> Result<Involution2d> {
    let kernel: [usize; 2] = operation.axes("kernel", &operation.kernel)?;
    let stride: [usize; 2] = operation.axes("stride", &operation.stride)?;
    let dilation: [usize; 2] = operation.axes("dilation", &operation.dilation)?;
    let pads = Padding::Explicit(operation.axes("pads", &operation.pads)?);
    let operator = Involution2d::new().kernel_size(kernel).stride(stride).dilation(dilation).padding(pads);
    Ok(operator.groups(operation.groups))
}

/// The operators that take an input, a weight and a bias.
macro_rules! launch_plain {
    (($($generics:tt)*) $operator:ty) => {
        impl<$($generics)*> Launch for $operator {
            fn plan(&self, t: &Tensors) -> GpuResult<Plan> {
                self.plan(t.input.gpu().profile(), t.input.shape(), t.weight.shape())
            }

            fn forward(&self, t: &Tensors) -> GpuResult<Tensor> {
                self.forward(&t.input, &t.weight, t.bias.as_ref())
            }

            fn forward_into(&self, t: &Tensors, output: &Tensor) -> GpuResult<()> {
                self.forward_into(&t.input, &t.weight, t.bias.as_ref(), output)
            }

            fn candidates(&self, t: &Tensors) -> GpuResult<Vec<Box<dyn Launch>>> {
                let kernels = self.candidates(t.input.gpu().profile(), t.input.shape(), t.weight.shape())?;
                Ok(kernels.into_iter().map(|kernel| Box::new(self.clone().kernel(kernel)) as Box<dyn Launch>).collect())
            }
        }
    };
}

launch_plain!((const R: usize) Conv<R>);
launch_plain!((const R: usize) ConvTranspose<R>);
launch_plain!(() Involution2d);
launch_plain!(() Linear);

impl Launch for DeformConv2d {
    fn plan(&self, t: &Tensors) -> GpuResult<Plan> {
        self.plan(t.input.gpu().profile(), t.input.shape(), t.weight.shape(), t.mask.is_some())
    }

    fn forward(&self, t: &Tensors) -> GpuResult<Tensor> {
        self.forward(&t.input, t.offset()?, &t.weight, t.bias.as_ref(), t.mask.as_ref())
    }

    fn forward_into(&self, t: &Tensors, output: &Tensor) -> GpuResult<()> {
        self.forward_into(&t.input, t.offset()?, &t.weight, t.bias.as_ref(), t.mask.as_ref(), output)
    }

    fn candidates(&self, t: &Tensors) -> GpuResult<Vec<Box<dyn Launch>>> {
        let kernels = self.candidates(t.input.gpu().profile(), t.input.shape(), t.weight.shape())?;
        Ok(kernels.into_iter().map(|kernel| Box::new(self.clone().kernel(kernel)) as Box<dyn Launch>).collect())
    }
}

impl Tensors {
    pub fn offset(&self) -> GpuResult<&Tensor> {
        self.offset.as_ref().ok_or_else(|| wgconv::Error::Invalid {
            op: "deform_conv2d",
            argument: "offset",
            expected: "a tensor".into(),
            got: "none".into(),
        })
    }
}
