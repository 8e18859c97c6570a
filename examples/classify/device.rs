//! The network on a device: weights as tensors, one operator a layer.

use std::time::Instant;

use wgconv::{Activation, Conv2d, GlobalAvgPool, Gpu, Linear, Plan, Softmax, Tensor};

use super::common::{Result, median};
use super::network::{MobileNetV2, Op, Shortcut};

/// A network whose weights lie on a device. Kernels compile and weights are packed in the first run.
pub struct OnDevice {
    gpu: Gpu,
    layers: Vec<Layer>,
}

enum Layer {
    Conv { conv: Conv2d, weight: Tensor, bias: Tensor, shortcut: Shortcut },
    Pool,
    Linear { weight: Tensor, bias: Tensor },
}

/// What one layer took.
pub struct LayerTime {
    pub input: Vec<usize>,
    pub output: Vec<usize>,
    pub kernel: &'static str,
    pub seconds: f64,
}

impl OnDevice {
    pub fn new(gpu: &Gpu, network: &MobileNetV2) -> Result<Self> {
        let upload = |array| Tensor::from_array(gpu, array);
        let layers = network.layers.iter().map(|layer| {
            Ok(match &layer.op {
                Op::Conv { weight, bias, stride, groups, relu6, shortcut } => {
                    let activation = if *relu6 { Activation::Relu6 } else { Activation::Identity };
                    let padding = weight.shape()[2] / 2;
                    let conv = Conv2d::new().stride(*stride).padding(padding).groups(*groups).activation(activation);
                    Layer::Conv { conv, weight: upload(weight)?, bias: upload(bias)?, shortcut: *shortcut }
                }
                Op::Pool => Layer::Pool,
                Op::Linear { weight, bias } => Layer::Linear { weight: upload(weight)?, bias: upload(bias)? },
            })
        });
        Ok(Self { gpu: gpu.clone(), layers: layers.collect::<Result<_>>()? })
    }

    /// Records the whole network: logits `[N, 1000]` of pictures `[N, 3, H, W]`. All of it is one submission, made by whoever reads.
    pub fn logits(&self, x: &Tensor) -> Result<Tensor> {
        let (mut x, mut kept) = (x.clone(), None);
        for layer in &self.layers {
            x = layer.forward(&x, &mut kept)?;
        }
        Ok(x)
    }

    /// [`OnDevice::logits`] and the softmax behind it.
    pub fn probabilities(&self, x: &Tensor) -> Result<Tensor> {
        Ok(Softmax::new(1).forward(&self.logits(x)?)?)
    }

    /// Times every layer by itself: the median over `rounds` of the device time of its dispatches, or of the time to submit and wait
    /// where the device has no timestamps. `after_round` is called behind each round.
    pub fn time_layers(&self, x: &Tensor, rounds: usize, mut after_round: impl FnMut()) -> Result<Vec<LayerTime>> {
        let mut rows: Vec<(LayerTime, Vec<f64>)> = Vec::new();
        for _ in 0..rounds {
            let (mut x, mut kept) = (x.clone(), None);
            self.gpu.wait()?;
            for (i, layer) in self.layers.iter().enumerate() {
                let (mut y, start) = (None, Instant::now());
                let times = self.gpu.time_kernels(|| {
                    y = Some(layer.forward(&x, &mut kept)?);
                    Ok(())
                })?;
                let Some(y) = y else { continue };
                self.gpu.wait()?;
                let seconds = match times.is_empty() {
                    true => start.elapsed().as_secs_f64(),
                    false => times.iter().map(|time| time.nanoseconds).sum::<f64>() / 1e9,
                };
                if rows.len() == i {
                    let kernel = layer.plan(&self.gpu, &x)?.kernel();
                    let (input, output) = (x.shape().to_vec(), y.shape().to_vec());
                    rows.push((LayerTime { input, output, kernel, seconds }, Vec::new()));
                }
                rows[i].1.push(seconds);
                x = y;
            }
            after_round();
        }
        Ok(rows.into_iter().map(|(row, mut all)| LayerTime { seconds: median(&mut all), ..row }).collect())
    }
}

impl Layer {
    fn forward(&self, x: &Tensor, kept: &mut Option<Tensor>) -> wgconv::Result<Tensor> {
        match self {
            Layer::Conv { conv, weight, bias, shortcut } => {
                let residual = kept.take_if(|_| *shortcut == Shortcut::Add);
                if *shortcut == Shortcut::Keep {
                    *kept = Some(x.clone());
                }
                let conv = residual.iter().fold(conv.clone(), |conv, residual| conv.residual(residual));
                conv.forward(x, weight, Some(bias))
            }
            Layer::Pool => GlobalAvgPool::new().forward(x)?.reshape(&x.shape()[..2]),
            Layer::Linear { weight, bias } => Linear::new().forward(x, weight, Some(bias)),
        }
    }

    fn plan(&self, gpu: &Gpu, x: &Tensor) -> wgconv::Result<Plan> {
        match self {
            Layer::Conv { conv, weight, .. } => conv.plan(gpu.profile(), x.shape(), weight.shape()),
            Layer::Pool => GlobalAvgPool::new().plan(gpu.profile(), x.shape()),
            Layer::Linear { weight, .. } => Linear::new().plan(gpu.profile(), x.shape(), weight.shape()),
        }
    }
}
