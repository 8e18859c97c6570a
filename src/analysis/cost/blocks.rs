//! The cost of blocks, from the input's shape and the block's configuration: the sum of its operators as they run, with batch norms
//! folded, so that each convolution in front of one has a bias, and residuals and activations in epilogues.

use super::conv::correlate;
use super::{Cost, Options, Tally, deform_conv2d, global_avg_pool, involution_layer, product};
use crate::blocks::{
    AsppConfig, BottleneckConfig, DeformConfig, InvolutionConfig, LocalAttentionConfig, Middle, RfbConfig,
    WaveNetConfig, same,
};
use crate::error::{Error, Result};
use crate::ops::options::Padding;

/// Operators one after the other: what has come out so far and what it took.
#[derive(Clone)]
struct Chain {
    op: &'static str,
    shape: Vec<usize>,
    cost: Cost,
}

impl Chain {
    fn new(op: &'static str, x: &[usize]) -> Self {
        Self { op, shape: x.to_vec(), cost: Cost::default() }
    }

    /// A convolution with bias to `c_out` channels.
    fn conv<const R: usize>(
        self,
        c_out: usize,
        kernel: [usize; R],
        groups: usize,
        options: Options<R>,
    ) -> Result<Self> {
        self.convolve(c_out, kernel, groups, options.bias(true))
    }

    fn convolve<const R: usize>(
        mut self,
        c_out: usize,
        kernel: [usize; R],
        groups: usize,
        options: Options<R>,
    ) -> Result<Self> {
        let c_in = self.channels()?;
        let weight = [&[c_out, c_in / groups.max(1)][..], &kernel].concat();
        let (tally, output) = correlate(self.op, &self.shape, ("weight", &weight), &options.groups(groups))?;
        self.cost = self.cost + tally.cost(self.op)?;
        self.shape = output;
        Ok(self)
    }

    fn channels(&self) -> Result<usize> {
        let expected = "shape [N, C, ...]";
        self.shape
            .get(1)
            .copied()
            .ok_or_else(|| Error::invalid(self.op, "input", expected, format!("{:?}", self.shape)))
    }

    /// What an epilogue adds: read, and an addition for each element.
    fn residual(mut self) -> Result<Self> {
        let elements = product(self.op, &[&self.shape])?;
        self.cost = self.cost + Tally { input: elements, other_flops: elements, ..Tally::default() }.cost(self.op)?;
        Ok(self)
    }

    /// The product with a tensor that repeats over some axes or not, of so many elements.
    fn multiplied(mut self, shape: Vec<usize>, with: u128) -> Result<Self> {
        let (read, written) = (product(self.op, &[&self.shape])?, product(self.op, &[&shape])?);
        let tally = Tally {
            input: read + with,
            output: written,
            other_multiplications: written,
            other_flops: written,
            ..Tally::default()
        };
        self.cost = self.cost + tally.cost(self.op)?;
        self.shape = shape;
        Ok(self)
    }

    /// Another shape, into which what is read is copied: concatenation, pixel shuffle, up-sampling.
    fn copied(mut self, shape: Vec<usize>) -> Result<Self> {
        let (read, written) = (product(self.op, &[&self.shape])?, product(self.op, &[&shape])?);
        self.cost =
            self.cost + Tally { input: read.min(written), output: written, ..Tally::default() }.cost(self.op)?;
        self.shape = shape;
        Ok(self)
    }

    /// What other branches took besides.
    fn and(mut self, cost: Cost) -> Self {
        self.cost = self.cost + cost;
        self
    }
}

fn options(stride: usize, padding: usize, dilation: usize) -> Options<2> {
    Options::new().stride(stride).padding(padding).dilation(dilation)
}

/// A [`Bottleneck`](crate::blocks::Bottleneck) of any middle, its shortcut counted.
///
/// # Errors
/// As [`conv`](fn@super::conv).
///
/// # Example
/// ```
/// use wgconv::analysis::cost;
/// use wgconv::blocks::BottleneckConfig;
/// let cost = cost::bottleneck(&[1, 256, 56, 56], &BottleneckConfig::new(256, 64, 256))?;
/// // 256*64 + 9*64*64 + 64*256, and a bias for each channel that comes out.
/// assert_eq!(cost.parameters, 69_632 + 64 + 64 + 256);
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn bottleneck(x: &[usize], config: &BottleneckConfig) -> Result<Cost> {
    const OP: &str = "cost::bottleneck";
    let BottleneckConfig { in_channels, width, out_channels, stride, dilation, groups, middle } = *config;
    let chain = Chain::new(OP, x).conv(width, [1, 1], 1, Options::new())?;
    let conv = |chain: Chain| chain.conv(width, [3, 3], groups, options(stride, dilation, dilation));
    let chain = match middle {
        Middle::Conv => conv(chain)?,
        Middle::Deform { modulated, offset_groups } => {
            let new = DeformConfig::new(width, width);
            let config = DeformConfig { stride, dilation, groups, offset_groups, modulated, ..new };
            let cost = deform_layer(&chain.shape, &config)?;
            // The deformable layer's output has the extents of the convolution's that it stands for.
            Chain { shape: conv(chain.clone())?.shape, ..chain.and(cost) }
        }
        Middle::Involution { kernel, group_channels } => {
            let new = InvolutionConfig::new(width);
            let InvolutionConfig { reduction, .. } = new;
            let spatial = options(stride, same(kernel, dilation), dilation).groups(width / group_channels.max(1));
            let cost = involution_layer(&chain.shape, kernel, reduction, &spatial.bias(true))?;
            let output = chain.clone().conv(width, [3, 3], 1, options(stride, 1, 1))?.shape;
            // Its batch norm and ReLU run as a depthwise 1x1.
            Chain { shape: output, ..chain.and(cost) }.conv(width, [1, 1], width, Options::new())?
        }
    };
    let chain = chain.conv(out_channels, [1, 1], 1, Options::new())?.residual()?;
    let changes = stride != 1 || in_channels != out_channels;
    let shortcut = || Chain::new(OP, x).conv(out_channels, [1, 1], 1, Options::new().stride(stride));
    Ok(chain.cost + if changes { shortcut()?.cost } else { Cost::default() })
}

/// A [`MobileNetV1Block`](crate::blocks::MobileNetV1Block) to `c_out` channels; an
/// [`XceptionUnit`](crate::blocks::XceptionUnit) of stride 1 has as many multiplications.
///
/// # Errors
/// As [`conv`](fn@super::conv).
///
/// # Example
/// ```
/// let cost = wgconv::analysis::cost::mobilenet_v1_block(&[1, 32, 112, 112], 64, 1)?;
/// assert_eq!(cost.macs, 112 * 112 * 32 * (9 + 64));
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn mobilenet_v1_block(x: &[usize], c_out: usize, stride: usize) -> Result<Cost> {
    let chain = Chain::new("cost::mobilenet_v1_block", x);
    let channels = chain.channels()?;
    Ok(chain.conv(channels, [3, 3], channels, options(stride, 1, 1))?.conv(c_out, [1, 1], 1, Options::new())?.cost)
}

/// An [`InvertedResidual`](crate::blocks::InvertedResidual) to `c_out` channels with this stride and expansion.
///
/// # Errors
/// As [`conv`](fn@super::conv).
///
/// # Example
/// ```
/// let cost = wgconv::analysis::cost::inverted_residual(&[1, 24, 56, 56], 24, (1, 6))?;
/// assert_eq!(cost.macs, 56 * 56 * 144 * (24 + 9 + 24));
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn inverted_residual(x: &[usize], c_out: usize, (stride, expansion): (usize, usize)) -> Result<Cost> {
    let mut chain = Chain::new("cost::inverted_residual", x);
    let c_in = chain.channels()?;
    let hidden = c_in.saturating_mul(expansion);
    if expansion != 1 {
        chain = chain.conv(hidden, [1, 1], 1, Options::new())?;
    }
    chain = chain.conv(hidden, [3, 3], hidden, options(stride, 1, 1))?.conv(c_out, [1, 1], 1, Options::new())?;
    if stride == 1 && c_in == c_out {
        chain = chain.residual()?;
    }
    Ok(chain.cost)
}

/// [`Inception7x7`](crate::blocks::Inception7x7): a 1x1 to `c7` channels, 1x7, and 7x1 to `c_out`.
///
/// # Errors
/// As [`conv`](fn@super::conv).
///
/// # Example
/// ```
/// let cost = wgconv::analysis::cost::inception_7x7(&[1, 768, 17, 17], 128, 192)?;
/// assert_eq!(cost.macs, 17 * 17 * 128 * (768 + 7 * 128 + 7 * 192));
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn inception_7x7(x: &[usize], c7: usize, c_out: usize) -> Result<Cost> {
    let chain = Chain::new("cost::inception_7x7", x).conv(c7, [1, 1], 1, Options::new())?;
    let chain = chain.conv(c7, [1, 7], 1, Options::new().padding([0, 3]))?;
    Ok(chain.conv(c_out, [7, 1], 1, Options::new().padding([3, 0]))?.cost)
}

/// [`Aspp`](crate::blocks::Aspp), the concatenation counted as a copy.
///
/// # Errors
/// As [`conv`](fn@super::conv).
///
/// # Example
/// ```
/// use wgconv::{analysis::cost, blocks::AsppConfig};
/// let cost = cost::aspp(&[1, 2048, 33, 33], &AsppConfig::new(2048, 256))?;
/// assert_eq!(cost.parameters, 2048 * 256 * (1 + 3 * 9 + 1) + 5 * 256 * 256 + 6 * 256);
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn aspp(x: &[usize], config: &AsppConfig) -> Result<Cost> {
    const OP: &str = "cost::aspp";
    let c = config.out_channels;
    let mut joined = Chain::new(OP, x).conv(c, [1, 1], 1, Options::new())?;
    for &rate in &config.rates {
        joined = joined.and(Chain::new(OP, x).conv(c, [3, 3], 1, options(1, rate, rate))?.cost);
    }
    let plane = joined.shape.clone();
    let pooled = [&x[..2], &[1, 1]].concat();
    let image = Chain::new(OP, &pooled).conv(c, [1, 1], 1, Options::new())?.copied(plane.clone())?.cost;
    let joined = joined.and(image + global_avg_pool(x)?);
    let all = [plane[0], c.saturating_mul(config.rates.len() + 2), plane[2], plane[3]];
    // Every branch is read once and written beside the others.
    let concat = Chain::new(OP, &all).copied(all.to_vec())?;
    Ok(joined.cost + concat.conv(c, [1, 1], 1, Options::new())?.cost)
}

/// [`Hdc`](crate::blocks::Hdc): a 3x3 layer for each rate.
///
/// # Errors
/// As [`conv`](fn@super::conv).
///
/// # Example
/// ```
/// use wgconv::{analysis::cost, blocks::HDC_1_2_5};
/// let cost = cost::hdc_group(&[1, 256, 64, 64], &HDC_1_2_5)?;
/// assert_eq!(cost.macs, 3 * 64 * 64 * 256 * 256 * 9);
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn hdc_group(x: &[usize], rates: &[usize]) -> Result<Cost> {
    let chain = Chain::new("cost::hdc_group", x);
    let channels = chain.channels()?;
    let layer = |chain: Chain, &rate: &usize| chain.conv(channels, [3, 3], 1, options(1, rate, rate));
    Ok(rates.iter().try_fold(chain, layer)?.cost)
}

/// [`Duc`](crate::blocks::Duc), the pixel shuffle counted as a copy.
///
/// # Errors
/// As [`conv`](fn@super::conv).
///
/// # Example
/// ```
/// let cost = wgconv::analysis::cost::duc(&[1, 128, 60, 60], 19, 8)?;
/// assert_eq!(cost.macs, 60 * 60 * 128 * 9 * 19 * 64);
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn duc(x: &[usize], classes: usize, factor: usize) -> Result<Cost> {
    let channels = classes.saturating_mul(factor).saturating_mul(factor);
    let chain = Chain::new("cost::duc", x).conv(channels, [3, 3], 1, options(1, 1, 1))?;
    // The shuffle moves every element to another place.
    let shape = chain.shape.clone();
    Ok(chain.copied(shape)?.cost)
}

/// [`Rfb`](crate::blocks::Rfb), the concatenation counted as a copy.
///
/// # Errors
/// As [`conv`](fn@super::conv).
///
/// # Example
/// ```
/// use wgconv::{analysis::cost, blocks::RfbConfig};
/// // Three branches, the join and the shortcut: 64 channels, so that m is 8.
/// let cost = cost::rfb(&[1, 64, 38, 38], &RfbConfig::new(64, 64))?;
/// let branches = (64 * 16 + 9 * 16 * 16) + (64 * 8 + 9 * 8 * 16 + 9 * 16 * 16) + (64 * 8 + 9 * 8 * 12 + 9 * 12 * 16 + 9 * 16 * 16);
/// assert_eq!(cost.macs, 38 * 38 * (branches + 48 * 64 + 64 * 64));
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn rfb(x: &[usize], config: &RfbConfig) -> Result<Cost> {
    const OP: &str = "cost::rfb";
    let RfbConfig { out_channels, stride: s, visual: v, in_channels, .. } = *config;
    let m = in_channels / 8;
    let one = |stride: usize| options(stride, 0, 1);
    let start = Chain::new(OP, x);
    let a = start.clone().conv(2 * m, [1, 1], 1, one(s))?.conv(2 * m, [3, 3], 1, options(1, v, v))?;
    let rate = v.saturating_add(1);
    let b = start.clone().conv(m, [1, 1], 1, one(1))?.conv(2 * m, [3, 3], 1, options(s, 1, 1))?;
    let b = b.conv(2 * m, [3, 3], 1, options(1, rate, rate))?;
    let rate = v.saturating_mul(2).saturating_add(1);
    let c = start.clone().conv(m, [1, 1], 1, one(1))?.conv(m / 2 * 3, [3, 3], 1, options(1, 1, 1))?;
    let c = c.conv(2 * m, [3, 3], 1, options(s, 1, 1))?.conv(2 * m, [3, 3], 1, options(1, rate, rate))?;
    let mut all = a.shape.clone();
    all[1] = 6 * m;
    let joined = Chain::new(OP, &all).copied(all.clone())?.conv(out_channels, [1, 1], 1, one(1))?.residual()?;
    let shortcut = start.conv(out_channels, [1, 1], 1, one(s))?;
    Ok([a, b, c, joined, shortcut].into_iter().map(|chain| chain.cost).sum())
}

/// [`WaveNet`](crate::blocks::WaveNet) over a whole signal: filter, gate, their product, residual and skip of each layer.
///
/// # Errors
/// As [`conv`](fn@super::conv).
///
/// # Example
/// ```
/// use wgconv::{analysis::cost, blocks::WaveNetConfig};
/// let cost = cost::wavenet(&[1, 64, 16_000], &WaveNetConfig::new(64, 256))?;
/// assert_eq!(cost.macs, 10 * 16_000 * (2 * 2 * 64 * 64 + 64 * 64 + 64 * 256));
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn wavenet(x: &[usize], config: &WaveNetConfig) -> Result<Cost> {
    const OP: &str = "cost::wavenet";
    let WaveNetConfig { channels, skip_channels, layers, kernel } = *config;
    if layers > 30 {
        return Err(Error::invalid(OP, "layers", "at most 30", layers));
    }
    let mut cost = Cost::default();
    for i in 0..layers {
        let causal = Options::<1>::new().dilation(1 << i).padding(Padding::Causal);
        let gated = Chain::new(OP, x).conv(channels, [kernel], 1, causal)?;
        let (gate, elements) = (gated.cost, product(OP, &[&gated.shape])?);
        let shape = gated.shape.clone();
        let gated = gated.and(gate).multiplied(shape.clone(), elements)?;
        let from = || Chain::new(OP, &shape);
        let residual = from().conv(channels, [1], 1, Options::<1>::new())?.residual()?;
        let skip = from().conv(skip_channels, [1], 1, Options::<1>::new())?;
        // The first layer's skip begins the sum.
        let skip = if i == 0 { skip } else { skip.residual()? };
        cost = cost + gated.cost + residual.cost + skip.cost;
    }
    Ok(cost)
}

/// [`DeformLayer`](crate::blocks::DeformLayer): the convolutions that predict offsets and mask, and the deformable one.
///
/// # Errors
/// As [`deform_conv2d`].
///
/// # Example
/// ```
/// use wgconv::{analysis::cost, blocks::DeformConfig};
/// let cost = cost::deform_layer(&[1, 128, 28, 28], &DeformConfig::new(128, 128))?;
/// assert_eq!(cost.parameters, 128 * 9 * (128 + 27) + 128 + 27);
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn deform_layer(x: &[usize], config: &DeformConfig) -> Result<Cost> {
    const OP: &str = "cost::deform_layer";
    let DeformConfig { out_channels, kernel, stride, dilation, groups, offset_groups, modulated, .. } = *config;
    let spatial = options(stride, same(kernel, dilation), dilation);
    let taps = offset_groups.saturating_mul(kernel).saturating_mul(kernel);
    let start = Chain::new(OP, x);
    let mut cost = start.clone().conv(taps.saturating_mul(2), [kernel, kernel], 1, spatial)?.cost;
    if modulated {
        cost = cost + start.clone().conv(taps, [kernel, kernel], 1, spatial)?.cost;
    }
    let weight = [out_channels, start.channels()? / groups.max(1), kernel, kernel];
    let options = spatial.groups(groups).offset_groups(offset_groups).mask(modulated).bias(true);
    Ok(cost + deform_conv2d(x, &weight, &options)?)
}

/// [`PointNet`](crate::blocks::PointNet): a 1x1 layer from each count of channels to the next, and the maximum over the points.
///
/// # Errors
/// As [`conv`](fn@super::conv).
///
/// # Example
/// ```
/// let cost = wgconv::analysis::cost::pointnet(&[1, 3, 1024], &[3, 64, 64, 64, 128, 1024])?;
/// assert_eq!(cost.macs, 1024 * (3 * 64 + 64 * 64 + 64 * 64 + 64 * 128 + 128 * 1024));
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn pointnet(x: &[usize], channels: &[usize]) -> Result<Cost> {
    let start = Chain::new("cost::pointnet", x);
    let layer = |chain: Chain, &c_out: &usize| chain.conv(c_out, [1], 1, Options::<1>::new());
    let last = channels.iter().skip(1).try_fold(start, layer)?;
    let points = last.shape.get(2).copied().unwrap_or(1);
    Ok(last.cost + super::max_pool::<1>(&last.shape, points, &Options::new())?)
}

/// [`LocalAttention`](crate::blocks::LocalAttention): three projections, the neighbours of every key, their products with the query, the
/// sum over a head's channels and the involution. The softmax is not counted.
///
/// # Errors
/// As [`conv`](fn@super::conv).
///
/// # Example
/// ```
/// use wgconv::{analysis::cost, blocks::LocalAttentionConfig};
/// let config = LocalAttentionConfig { in_channels: 64, channels: 64, heads: 4, kernel: 7 };
/// let cost = cost::local_attention(&[1, 64, 28, 28], &config)?;
/// assert_eq!(cost.parameters, 3 * 64 * 64);
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn local_attention(x: &[usize], config: &LocalAttentionConfig) -> Result<Cost> {
    const OP: &str = "cost::local_attention";
    let LocalAttentionConfig { channels, heads, kernel, .. } = *config;
    let projection = Chain::new(OP, x).convolve(channels, [1, 1], 1, Options::<2>::new())?;
    let one = projection.cost;
    let (shape, elements) = (projection.shape.clone(), product(OP, &[&projection.shape])?);
    let (taps, pad) = (kernel.saturating_mul(kernel), same(kernel, 1));
    let (all, groups) = (channels.saturating_mul(taps), channels);
    let keys = projection.convolve(all, [kernel, kernel], groups, options(1, pad, 1))?;
    let products = keys.shape.clone();
    let products = keys.multiplied(products, elements)?;
    let positions = [shape[0], channels, taps.saturating_mul(shape[2]).saturating_mul(shape[3])];
    let sums = Chain { shape: positions.to_vec(), ..products }.convolve(heads, [1], heads, Options::<1>::new())?;
    let apply = super::involution2d(&shape, kernel, &options(1, pad, 1).groups(heads))?;
    // One-hot weights and those of the sum are constants: the projections' are all the parameters.
    Ok(Cost { parameters: one.parameters.saturating_mul(3), ..sums.cost + one + one + apply })
}
