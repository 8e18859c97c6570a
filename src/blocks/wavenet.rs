//! WaveNet's stack of gated residual layers, all at once or in pieces.

use super::Parameters;
use super::conv_norm::{ConvNorm, Loader};
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::ops::activation::Activation;
use crate::ops::conv::Conv1d;
use crate::ops::elementwise::Mul;
use crate::ops::options::Padding;
use crate::ops::rearrange::{Concat, Narrow};
use crate::tensor::Tensor;

const OP: &str = "wavenet";

/// Options of a [`WaveNet`].
#[derive(Clone, Copy, Debug)]
pub struct WaveNetConfig {
    /// Channels of input and output.
    pub channels: usize,
    /// Channels of the skip sum.
    pub skip_channels: usize,
    /// Layers; the i-th has dilation `2^i`.
    pub layers: usize,
    /// Taps of the dilated convolutions.
    pub kernel: usize,
}

impl WaveNetConfig {
    /// One stack of the paper: ten layers of kernel 2, dilations 1 to 512.
    #[must_use]
    pub fn new(channels: usize, skip_channels: usize) -> Self {
        Self { channels, skip_channels, layers: 10, kernel: 2 }
    }
}

/// A stack of WaveNet's layers (van den Oord et al. 2016, <https://arxiv.org/abs/1609.03499>): causal convolutions of dilation 1, 2, 4, ...
///
/// ```text
///                   +-> conv k, dilation 2^i, tanh ----+
/// [N, C, L] -+------+                                  +-> * -+-> 1x1 -> + -> [N, C, L], the next layer's input
///            |      +-> conv k, dilation 2^i, sigmoid -+      |          |
///            +------------------------------------------------|----------+
///                                                             +-> 1x1 -> + -> [N, S, L], the skip sum of all layers
/// ```
///
/// An output depends on the `1 + (k-1) * (2^layers - 1)` inputs up to it; before the first one stand zeros. [`Self::forward_piece`]
/// takes audio in pieces and gives what [`Self::forward`] gives for all of it, but for the order of additions.
///
/// Names: `filter_convs.{i}`, `gate_convs.{i}`, `residual_convs.{i}`, `skip_convs.{i}`, each with weight and bias.
#[derive(Clone, Debug)]
#[must_use]
pub struct WaveNet {
    layers: Vec<Layer>,
    config: WaveNetConfig,
}

#[derive(Clone, Debug)]
struct Layer {
    filter: ConvNorm<1>,
    gate: ConvNorm<1>,
    residual: ConvNorm<1>,
    skip: ConvNorm<1>,
    /// Inputs before a position that its output depends on.
    past: usize,
}

/// What a [`WaveNet`] gives.
#[derive(Clone, Debug)]
pub struct WaveNetOutput {
    /// Of the last layer: `[N, C, L]`, what a further stack takes.
    pub output: Tensor,
    /// The sum of all layers' skips: `[N, S, L]`, what the network's head takes.
    pub skip: Tensor,
}

/// What [`WaveNet::forward_piece`] remembers: each layer's last inputs, on the device.
#[derive(Clone, Debug)]
pub struct WaveNetState(Vec<Tensor>);

impl WaveNet {
    /// Loads the layers under the prefix.
    ///
    /// # Errors
    /// For no layers or more than 30, a kernel of less than 2; errors of the parameters and of the device.
    pub fn load(gpu: &Gpu, params: &dyn Parameters, prefix: &str, config: WaveNetConfig) -> Result<Self> {
        let WaveNetConfig { channels: c, skip_channels, layers, kernel } = config;
        if !(1..=30).contains(&layers) {
            return Err(Error::invalid(OP, "layers", "1 to 30", layers));
        }
        if !(2..=1024).contains(&kernel) {
            return Err(Error::invalid(OP, "kernel", "2 to 1024", kernel));
        }
        let loader = Loader::new(gpu, params, prefix);
        let layer = |i: usize| {
            let dilation = 1 << i;
            let name = |part: &str| format!("{part}_convs.{i}");
            let gated = |part: &str, activation| {
                let options = Conv1d::new().dilation(dilation).padding(Padding::Causal).activation(activation);
                loader.biased(&name(part), &[c, c, kernel], options)
            };
            Ok(Layer {
                filter: gated("filter", Activation::Tanh)?,
                gate: gated("gate", Activation::Sigmoid)?,
                residual: loader.biased(&name("residual"), &[c, c, 1], Conv1d::new())?,
                skip: loader.biased(&name("skip"), &[skip_channels, c, 1], Conv1d::new())?,
                past: (kernel - 1).saturating_mul(dilation),
            })
        };
        Ok(Self { layers: (0..layers).map(layer).collect::<Result<_>>()?, config })
    }

    /// The state before the first sample: zeros.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn state(&self, gpu: &Gpu, batch: usize) -> Result<WaveNetState> {
        let zeros = |layer: &Layer| Tensor::zeros(gpu, &[batch, self.config.channels, layer.past]);
        self.layers.iter().map(zeros).collect::<Result<_>>().map(WaveNetState)
    }

    /// Records the stack over a whole signal.
    ///
    /// # Errors
    /// For an input of other channels, and errors of the device.
    pub fn forward(&self, x: &Tensor) -> Result<WaveNetOutput> {
        self.run(x, |layer, x| Ok([layer.filter.forward(x)?, layer.gate.forward(x)?]))
    }

    /// Records the stack over the next piece of a signal, of any length, and brings the state up to its end. Where it fails the state
    /// stays as it was.
    ///
    /// # Errors
    /// As [`Self::forward`], and for a state of another network or batch.
    pub fn forward_piece(&self, state: &mut WaveNetState, x: &Tensor) -> Result<WaveNetOutput> {
        if state.0.len() != self.layers.len() {
            return Err(Error::invalid(OP, "state", format!("{} layers", self.layers.len()), state.0.len()));
        }
        let mut pasts = state.0.iter();
        let mut next = Vec::new();
        let output = self.run(x, |layer, x| {
            let past = pasts.next().unwrap_or(x);
            let whole = Concat::new(2).forward(&[past, x])?;
            let length = whole.shape()[2];
            next.push(Narrow::new(2, length.saturating_sub(layer.past), layer.past).forward(&whole)?);
            // The past stands where else the padding is.
            let [filter, gate] = [&layer.filter, &layer.gate].map(|conv| conv.padded(Padding::Valid));
            Ok([filter.forward(&whole)?, gate.forward(&whole)?])
        })?;
        state.0 = next;
        Ok(output)
    }

    fn run(&self, x: &Tensor, mut gated: impl FnMut(&Layer, &Tensor) -> Result<[Tensor; 2]>) -> Result<WaveNetOutput> {
        let mut output = x.clone();
        let mut skip: Option<Tensor> = None;
        for layer in &self.layers {
            let [filter, gate] = gated(layer, &output)?;
            let product = Mul::new().forward(&filter, &gate)?;
            output = layer.residual.forward_with_residual(&product, &output)?;
            skip = Some(match &skip {
                Some(sum) => layer.skip.forward_with_residual(&product, sum)?,
                None => layer.skip.forward(&product)?,
            });
        }
        match skip {
            Some(skip) => Ok(WaveNetOutput { output, skip }),
            None => Err(Error::invalid(OP, "layers", "at least one", 0)),
        }
    }
}
