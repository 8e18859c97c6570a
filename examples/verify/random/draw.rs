//! Draws problems. Those of one geometry (operator, kernel, stride, dilation, kind of groups) come one after the other with
//! different sizes and values, so that not every problem needs shaders of its own.

use wgconv::reference::{ActivationKind, BorderMode};

use super::fill::{Fill, Rng};
use super::problem::{Op, Problem};

/// Problems of a geometry.
pub const OF_A_GEOMETRY: u64 = 40;

/// A problem is made smaller until it takes no more multiplications than this: the reference counts in f64.
const MOST_WORK: usize = 150_000;

/// Channels around the widths of vectors, subgroups and tiles.
const CHANNELS: [usize; 27] =
    [1, 1, 2, 3, 3, 4, 4, 5, 6, 7, 8, 8, 9, 11, 12, 13, 15, 16, 17, 20, 24, 31, 32, 33, 40, 64, 65];

/// Extents around the same.
const EXTENTS: [usize; 29] =
    [1, 2, 3, 4, 4, 5, 6, 7, 7, 8, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 19, 20, 23, 24, 31, 32, 33, 47, 65];

const PIECEWISE: [ActivationKind; 4] =
    [ActivationKind::Identity, ActivationKind::Relu, ActivationKind::Relu6, ActivationKind::LeakyRelu(0.25)];

/// Each has a shader of its own.
const CURVED: [ActivationKind; 7] = [
    ActivationKind::Sigmoid,
    ActivationKind::Tanh,
    ActivationKind::Silu,
    ActivationKind::Gelu,
    ActivationKind::GeluTanh,
    ActivationKind::HardSigmoid,
    ActivationKind::HardSwish,
];

/// How channels are divided.
#[derive(Clone, Copy, PartialEq)]
enum Groups {
    Dense,
    /// Few groups of several channels.
    Grouped,
    /// A group for each input channel.
    Depthwise,
    /// At most four input channels.
    Few,
    /// In multiples of four.
    Fours,
}

/// The problem of that number; of every operator, or of those in the list.
pub fn draw(seed: u64, number: u64, ops: &[Op]) -> Problem {
    let geometry = number / OF_A_GEOMETRY;
    let mut rng = Rng::new(&[seed, geometry]);
    let op = draw_op(&mut rng, ops);
    let (template, groups) = draw_geometry(&mut rng, op);
    let mut rng = Rng::new(&[seed, geometry, number]);
    let mut p = template;
    sizes(&mut p, groups, &mut rng);
    epilogue(&mut p, &mut rng);
    p.fill = fill(&p, &mut rng);
    p.seed = rng.next();
    if rng.one_in(50) {
        spoil(&mut p, &mut rng);
    }
    p
}

fn draw_op(rng: &mut Rng, ops: &[Op]) -> Op {
    let offered: Vec<(Op, u64)> = Op::ALL.into_iter().filter(|(op, _)| ops.is_empty() || ops.contains(op)).collect();
    let mut at = rng.below(offered.iter().map(|(_, weight)| *weight as usize).sum()) as u64;
    for (op, weight) in offered {
        if at < weight {
            return op;
        }
        at -= weight;
    }
    Op::Conv
}

/// What stays the same over a geometry: all that shaders are compiled for.
fn draw_geometry(rng: &mut Rng, op: Op) -> (Problem, Groups) {
    let groups = match rng.below(10) {
        0..4 => Groups::Dense,
        4..6 => Groups::Grouped,
        6..8 => Groups::Depthwise,
        8 => Groups::Few,
        _ => Groups::Fours,
    };
    let rank = match op {
        Op::DeformConv
        | Op::Involution
        | Op::SeparableConv
        | Op::InvolutionLayer
        | Op::PixelShuffle
        | Op::UpsampleNearest => 2,
        Op::Linear => rng.between(0, 3),
        Op::Softmax | Op::Add | Op::Mul | Op::Activation | Op::Concat | Op::Narrow => rng.between(1, 5),
        _ => rng.pick(&[1, 2, 2, 2, 2, 3]),
    };
    let mut p = Problem::new(op, rank);
    if matches!(op, Op::Linear | Op::Softmax | Op::Add | Op::Mul | Op::Activation | Op::Concat | Op::Narrow) {
        p.kernel = Vec::new();
    }
    let windowed =
        op.operator().is_some() || matches!(op, Op::SeparableConv | Op::InvolutionLayer | Op::MaxPool | Op::AvgPool);
    if windowed {
        // A plain one, whose shaders are the fastest and the most particular, or anything.
        let plain = rng.one_in(2);
        let same = rng.pick(&[1, 3, 3, 3, 5, 7]);
        let (stride, dilation) = (rng.pick(&[1, 1, 1, 2]), rng.pick(&[1, 1, 1, 2, 3]));
        for axis in 0..rank {
            let (k, s, d) = (rng.between(1, 5), rng.pick(&[1, 1, 2, 2, 3, 5]), rng.pick(&[1, 1, 1, 2, 2, 3, 4]));
            (p.kernel[axis], p.stride[axis], p.dilation[axis]) =
                if plain { (same, stride, dilation) } else { (k, s, d) };
        }
        if rank == 3 {
            p.kernel.iter_mut().for_each(|k| *k = (*k).min(3));
        }
    }
    let groups = if op == Op::Conv && rng.one_in(2) { particular(&mut p, rng) } else { groups };
    match op {
        Op::Conv => {
            p.border = if rng.one_in(5) {
                rng.pick(&[BorderMode::Reflect, BorderMode::Replicate, BorderMode::Circular])
            } else {
                BorderMode::Zeros
            };
            p.flip = rng.one_in(4);
            p.fast_math = rng.one_in(3);
        }
        Op::DeformConv => p.mask = rng.one_in(2),
        Op::SeparableConv => p.between = rng.one_in(2),
        Op::AvgPool => p.dilation = vec![1; rank],
        // Odd kernels keep the extents; a mean of four at most is exact.
        Op::InvolutionLayer => {
            p.kernel.iter_mut().for_each(|k| *k |= 1);
            p.stride.iter_mut().for_each(|s| *s = (*s).min(2));
        }
        _ => {}
    }
    // Another shader with it.
    p.residual = rng.one_in(3);
    p.activation = if rng.one_in(10) { rng.pick(&CURVED) } else { ActivationKind::Identity };
    (p, groups)
}

/// A geometry that has a kernel of its own.
fn particular(p: &mut Problem, rng: &mut Rng) -> Groups {
    let rank = p.extents.len();
    let (groups, kernel, stride, dilation) = match rng.below(6) {
        // Winograd's.
        0 | 1 => (Groups::Fours, 3, 1, 1),
        2 => (Groups::Grouped, 3, rng.pick(&[1, 2]), 1),
        3 => (Groups::Depthwise, rng.pick(&[3, 5, 7]), rng.pick(&[1, 2]), rng.pick(&[1, 1, 2, 3])),
        4 => (Groups::Few, rng.pick(&[3, 5, 7]), rng.pick(&[1, 2]), 1),
        _ => (rng.pick(&[Groups::Dense, Groups::Fours, Groups::Fours, Groups::Grouped]), 1, 1, 1),
    };
    (p.kernel, p.stride, p.dilation) = (vec![kernel; rank], vec![stride; rank], vec![dilation; rank]);
    // Of those along one axis.
    if rank > 1 && rng.one_in(5) {
        p.kernel[rank - 2] = 1;
    }
    if rank == 3 {
        (p.kernel[0], p.stride[0]) = (1, 1);
    }
    groups
}

fn sizes(p: &mut Problem, groups: Groups, rng: &mut Rng) {
    p.batch = rng.pick(&[1, 1, 1, 2, 3, 5]);
    let rank = p.extents.len();
    let large = rng.below(rank.max(1) * 2);
    for axis in 0..rank {
        // At most one axis is long.
        p.extents[axis] = if axis == large { rng.pick(&EXTENTS) } else { EXTENTS[rng.below(20)] };
        if axis + 1 == rank && rng.one_in(12) {
            p.extents[axis] = rng.between(60, 300);
        }
    }
    if groups == Groups::Fours && rank > 0 && rng.one_in(2) {
        p.extents[rank - 1] = p.extents[rank - 1].next_multiple_of(4);
    }
    let channel = |rng: &mut Rng| rng.pick(&CHANNELS);
    let fours = [4, 8, 12, 16, 20, 28, 32, 36, 64];
    (p.groups, p.channels) = match groups {
        Groups::Dense => (1, [channel(rng), channel(rng)]),
        Groups::Grouped => (rng.between(2, 5), [CHANNELS[rng.below(20)], CHANNELS[rng.below(20)]]),
        Groups::Depthwise => (channel(rng), [1, rng.pick(&[1, 1, 1, 2, 3])]),
        Groups::Few => (1, [rng.between(1, 4), channel(rng)]),
        Groups::Fours => (rng.pick(&[1, 1, 2]), [rng.pick(&fours), rng.pick(&fours)]),
    };
    match p.op {
        Op::Linear => {
            (p.batch, p.groups) = (1, 1);
            if rng.one_in(4) {
                p.channels[0] = rng.between(100, 1500);
            }
        }
        Op::InvolutionLayer => p.parts[0] = rng.between(1, 9),
        Op::SeparableConv => (p.groups, p.channels) = (1, [p.c_in(), p.c_out()]),
        Op::DeformConv => {
            let divisors: Vec<usize> = (1..=p.c_in()).filter(|d| p.c_in().is_multiple_of(*d)).collect();
            p.offset_groups = if rng.one_in(2) { 1 } else { rng.pick(&divisors) };
        }
        // Long lines have kernels of their own.
        Op::Softmax | Op::GlobalAvgPool if rng.one_in(4) => {
            p.extents.iter_mut().for_each(|extent| *extent = rng.between(1, 2));
            p.extents[rank - 1] = rng.between(3000, 9000);
        }
        Op::PixelShuffle => p.parts = [rng.between(1, 4), 1],
        Op::UpsampleNearest => p.parts = [rng.between(1, 4), rng.between(1, 4)],
        Op::Narrow => p.parts = [rng.between(0, 9), rng.between(0, 9)],
        Op::Concat => p.parts = [rng.between(1, 9), rng.between(0, 6)],
        Op::Add | Op::Mul => {
            p.leading = rng.below(rank);
            p.spread = [rng.below(1 << rank) as u32, rng.below(1 << rank) as u32];
            // An axis of extent 1 in both would make the output another one, which is as good.
            if rng.one_in(2) {
                (p.leading, p.spread) = (0, [0, 0]);
            }
        }
        _ => {}
    }
    let axis = rng.below(rank.max(1));
    if matches!(p.op, Op::Softmax | Op::Concat | Op::Narrow) {
        p.axis = if p.extents[rank - 1] < 3000 { axis } else { rank - 1 };
    }
    pads(p, rng);
    shrink_to_fit(p);
}

fn pads(p: &mut Problem, rng: &mut Rng) {
    let kind = rng.below(4);
    for axis in 0..p.kernel.len().min(p.pads.len()) {
        let reach = p.dilation[axis] * (p.kernel[axis] - 1);
        p.pads[axis] = match (p.op, kind) {
            (Op::GlobalAvgPool | Op::PixelShuffle | Op::UpsampleNearest, _) => (0, 0),
            (Op::InvolutionLayer, _) => (reach / 2, reach / 2),
            (Op::MaxPool | Op::AvgPool, _) => [(0, 0), (p.kernel[axis] / 2, p.kernel[axis] / 2)][rng.below(2)],
            (_, 0) => (0, 0),
            (_, 1) => (reach / 2, reach - reach / 2),
            (_, 2) => (rng.between(0, reach + 2), rng.between(0, reach + 2)),
            _ => (rng.between(0, 2), rng.between(0, 2)),
        };
        if p.op == Op::ConvTranspose {
            // Elements that are cut off; not all of them.
            p.pads[axis] = (p.pads[axis].0.min(reach), p.pads[axis].1.min(reach));
            p.output_padding[axis] = rng.below(p.stride[axis].max(p.dilation[axis]));
        } else if !rng.one_in(12) {
            // Mostly a window fits; now and then it does not, which both sides must refuse.
            let missing = (reach + 1).saturating_sub(p.extents[axis] + p.pads[axis].0 + p.pads[axis].1);
            p.extents[axis] += missing;
            if p.border != BorderMode::Zeros {
                p.extents[axis] = p.extents[axis].max(p.pads[axis].0.max(p.pads[axis].1) + 1);
            }
        }
    }
    p.ceil = matches!(p.op, Op::MaxPool | Op::AvgPool) && rng.one_in(2);
    p.include_pad = p.op == Op::AvgPool && rng.one_in(2);
}

/// Halves what is largest until the reference is quick.
fn shrink_to_fit(p: &mut Problem) {
    while p.work() > MOST_WORK {
        let longest = p.extents.iter().copied().max().unwrap_or(1);
        let widest = p.channels[0].max(p.channels[1]).max(p.groups);
        if p.batch > 1 {
            p.batch = 1;
        } else if longest >= widest && longest > 8 {
            p.extents.iter_mut().filter(|extent| **extent == longest).for_each(|extent| *extent = longest * 2 / 3);
        } else if p.groups == widest && widest > 1 {
            p.groups = widest * 2 / 3;
            p.offset_groups = 1;
        } else if widest > 1 {
            p.channels.iter_mut().filter(|count| **count == widest).for_each(|count| *count = widest * 2 / 3);
            p.offset_groups = 1;
        } else {
            break;
        }
    }
}

fn epilogue(p: &mut Problem, rng: &mut Rng) {
    let sums = p.has_weights();
    p.bias = sums && !rng.one_in(3);
    p.residual &= sums;
    let has_activation =
        !matches!(p.op, Op::Softmax | Op::Concat | Op::Narrow | Op::PixelShuffle | Op::UpsampleNearest);
    if !has_activation {
        p.activation = ActivationKind::Identity;
    } else if p.activation == ActivationKind::Identity {
        p.activation = rng.pick(&PIECEWISE);
    }
}

fn fill(p: &Problem, rng: &mut Rng) -> Fill {
    let curved = CURVED.contains(&p.activation);
    match rng.below(20) {
        0..8 => Fill::Integers,
        8..13 => Fill::Reals,
        // Such a function of what is not finite is not part of the promise.
        13..16 if curved => Fill::Reals,
        13..16 => Fill::Spike(rng.below(3) as u8),
        16 if p.op == Op::InvolutionLayer => Fill::Zeros,
        16 => rng.pick(&[Fill::Zeros, Fill::Alternating]),
        // Products of three of them would be too large.
        17 if p.op == Op::InvolutionLayer => Fill::Reals,
        17 => Fill::Huge,
        18 => rng.pick(&[Fill::Tiny, Fill::Denormal]),
        _ => Fill::Scales,
    }
}

/// Breaks one number, so that both sides must refuse the problem.
fn spoil(p: &mut Problem, rng: &mut Rng) {
    if p.op.operator().is_none() {
        return;
    }
    let axis = rng.below(p.extents.len());
    match rng.below(5) {
        0 => p.stride[axis] = 0,
        1 => p.dilation[axis] = 0,
        2 if p.op != Op::ConvTranspose => p.kernel[axis] = p.extents[axis] + p.pads[axis].0 + p.pads[axis].1 + 1,
        3 => p.output_padding[axis] = p.stride[axis].max(p.dilation[axis]),
        _ => p.pads[axis].0 = 1 << 40,
    }
}
