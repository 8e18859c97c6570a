//! A drawn problem as the library's operator, on tensors of a device.

use wgconv::reference::ActivationKind;
use wgconv::{
    Activation, Add, AvgPool, Concat, GlobalAvgPool, Gpu, Linear, MaxPool, Mul, Narrow, PixelShuffle, Plan,
    Result as GpuResult, Softmax, Tensor, UpsampleNearest,
};

use super::super::common::Result;
use super::super::launch::{Epilogue, Launch, Tensors, launch_with};
use super::super::operation::Arrays;
use super::compound;
use super::problem::{Op, Problem};

/// The library's operator for a problem.
pub fn launch(p: &Problem, gpu: &Gpu, arrays: &Arrays, residual: Option<&Tensor>) -> Result<Box<dyn Launch>> {
    let activation = activation(p.activation);
    if let Some(operation) = p.operation() {
        return launch_with(&operation, &Epilogue { activation, residual: residual.cloned() });
    }
    Ok(match (p.op, p.extents.len()) {
        (Op::Linear, _) => {
            let linear = Linear::new().activation(activation);
            Box::new(residual.map_or(linear.clone(), |residual| linear.residual(residual)))
        }
        (Op::SeparableConv, _) => compound::launch_separable(p, activation, residual),
        (Op::InvolutionLayer, _) => compound::launch_layer(p, (gpu, arrays), activation, residual)?,
        (Op::MaxPool | Op::AvgPool, 1) => pool::<1>(p, activation)?,
        (Op::MaxPool | Op::AvgPool, 2) => pool::<2>(p, activation)?,
        (Op::MaxPool | Op::AvgPool, _) => pool::<3>(p, activation)?,
        (Op::GlobalAvgPool, _) => Box::new(GlobalAvgPool::new().activation(activation)),
        // Counted from the end, as in numpy, where the seed says so.
        (Op::Softmax, rank) => {
            Box::new(Softmax::new(p.axis as isize - if p.seed & 1 == 0 { rank as isize } else { 0 }))
        }
        (Op::Add, _) => Box::new(Add::new().activation(activation)),
        (Op::Mul, _) => Box::new(Mul::new().activation(activation)),
        (Op::Concat, _) => Box::new(Concat::new(p.axis)),
        (Op::Narrow, _) => Box::new(Narrow::new(p.axis, p.parts[0], p.extents[p.axis])),
        (Op::PixelShuffle, _) => Box::new(PixelShuffle::new(p.parts[0])),
        (Op::UpsampleNearest, _) => Box::new(UpsampleNearest::new(p.parts)),
        _ => Box::new(activation),
    })
}

fn activation(kind: ActivationKind) -> Activation {
    match kind {
        ActivationKind::Identity => Activation::Identity,
        ActivationKind::Relu => Activation::Relu,
        ActivationKind::Relu6 => Activation::Relu6,
        ActivationKind::LeakyRelu(slope) => Activation::LeakyRelu(slope as f32),
        ActivationKind::Sigmoid => Activation::Sigmoid,
        ActivationKind::Tanh => Activation::Tanh,
        ActivationKind::Silu => Activation::Silu,
        ActivationKind::Gelu => Activation::Gelu,
        ActivationKind::GeluTanh => Activation::GeluTanh,
        ActivationKind::HardSigmoid => Activation::HardSigmoid,
        ActivationKind::HardSwish => Activation::HardSwish,
    }
}

fn pool<const R: usize>(p: &Problem, activation: Activation) -> Result<Box<dyn Launch>> {
    let axes = |values: &[usize]| std::array::from_fn(|axis| values[axis]);
    let (kernel, stride, dilation): ([usize; R], [usize; R], [usize; R]) =
        (axes(&p.kernel), axes(&p.stride), axes(&p.dilation));
    let padding: [usize; R] = std::array::from_fn(|axis| p.pads[axis].0);
    Ok(match p.op {
        Op::MaxPool => {
            let pool = MaxPool::new(kernel).stride(stride).padding(padding).dilation(dilation);
            Box::new(pool.ceil_mode(p.ceil).activation(activation))
        }
        _ => {
            let pool = AvgPool::new(kernel).stride(stride).padding(padding).ceil_mode(p.ceil);
            Box::new(pool.count_include_pad(p.include_pad).activation(activation))
        }
    })
}

/// The operators of one tensor.
macro_rules! launch_unary {
    (($($generics:tt)*) $operator:ty) => {
        impl<$($generics)*> Launch for $operator {
            fn plan(&self, t: &Tensors) -> GpuResult<Plan> {
                self.plan(t.input.gpu().profile(), t.input.shape())
            }

            fn forward(&self, t: &Tensors) -> GpuResult<Tensor> {
                self.forward(&t.input)
            }

            fn forward_into(&self, t: &Tensors, output: &Tensor) -> GpuResult<()> {
                self.forward_into(&t.input, output)
            }

            fn candidates(&self, t: &Tensors) -> GpuResult<Vec<Box<dyn Launch>>> {
                Launch::plan(self, t).map(|_| vec![Box::new(self.clone()) as Box<dyn Launch>])
            }
        }
    };
}

launch_unary!((const R: usize) MaxPool<R>);
launch_unary!((const R: usize) AvgPool<R>);
launch_unary!(() GlobalAvgPool);
launch_unary!(() Softmax);
launch_unary!(() Activation);
launch_unary!(() Narrow);
launch_unary!(() PixelShuffle);
launch_unary!(() UpsampleNearest);

/// Those of two.
macro_rules! launch_binary {
    ($operator:ty) => {
        impl Launch for $operator {
            fn plan(&self, t: &Tensors) -> GpuResult<Plan> {
                self.plan(t.input.gpu().profile(), t.input.shape(), t.weight.shape())
            }

            fn forward(&self, t: &Tensors) -> GpuResult<Tensor> {
                self.forward(&t.input, &t.weight)
            }

            fn forward_into(&self, t: &Tensors, output: &Tensor) -> GpuResult<()> {
                self.forward_into(&t.input, &t.weight, output)
            }

            fn candidates(&self, t: &Tensors) -> GpuResult<Vec<Box<dyn Launch>>> {
                Launch::plan(self, t).map(|_| vec![Box::new(self.clone()) as Box<dyn Launch>])
            }
        }
    };
}

launch_binary!(Add);
launch_binary!(Mul);

/// Concat's inputs: input, weight and, where there is one, offset.
fn inputs(t: &Tensors) -> Vec<&Tensor> {
    [&t.input, &t.weight].into_iter().chain(&t.offset).collect()
}

impl Launch for Concat {
    fn plan(&self, t: &Tensors) -> GpuResult<Plan> {
        let shapes: Vec<&[usize]> = inputs(t).into_iter().map(Tensor::shape).collect();
        self.plan(t.input.gpu().profile(), &shapes)
    }

    fn forward(&self, t: &Tensors) -> GpuResult<Tensor> {
        self.forward(&inputs(t))
    }

    fn forward_into(&self, t: &Tensors, output: &Tensor) -> GpuResult<()> {
        self.forward_into(&inputs(t), output)
    }

    fn candidates(&self, t: &Tensors) -> GpuResult<Vec<Box<dyn Launch>>> {
        Launch::plan(self, t).map(|_| vec![Box::new(self.clone()) as Box<dyn Launch>])
    }
}
