//! The values of a problem's arrays, from its seed.

use wgconv::ndarray::{ArrayD, IxDyn};

use super::super::operation::Arrays;
use super::problem::{Op, Problem};

/// What the arrays hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fill {
    /// Small ones, a fifth of them zero: sums are exact in any order.
    Integers,
    /// In -1..1.
    Reals,
    /// Zeros in the input.
    Zeros,
    /// Every other value of the other sign, all of one size: sums cancel.
    Alternating,
    /// Around 2^50: products well below f32's maximum, transforms too.
    Huge,
    /// Around 2^-60: products near the least normal number.
    Tiny,
    /// Below the least normal number.
    Denormal,
    /// Of very different sizes side by side.
    Scales,
    /// Integers with one element of the input that is NaN (0), infinite (1) or minus infinity (2).
    Spike(u8),
}

impl Fill {
    /// Whether f32 sums of products of such values are exact in any order.
    pub fn is_exact(self) -> bool {
        matches!(self, Fill::Integers | Fill::Zeros | Fill::Alternating | Fill::Spike(_))
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A stream of its own for each list of numbers.
    pub fn new(numbers: &[u64]) -> Self {
        let mut rng = Self(0x6a09_e667_f3bc_c908);
        for &number in numbers {
            rng.0 ^= number;
            rng.0 = rng.next();
        }
        rng
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0..count`.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.next()) * count.max(1) as u128) >> 64) as usize
    }

    /// In `from..=to`.
    pub fn between(&mut self, from: usize, to: usize) -> usize {
        from + self.below(to.saturating_sub(from) + 1)
    }

    /// Once in so many times.
    pub fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// In -1..1.
    fn real(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `-most..=most`, a fifth of them zero.
    fn integer(&mut self, most: i32) -> f32 {
        if self.one_in(5) { 0.0 } else { self.below(2 * most as usize + 1) as f32 - most as f32 }
    }
}

/// The role of an array: by it the streams of values differ.
#[derive(Clone, Copy)]
enum Role {
    Input,
    Weight,
    Bias,
    Offset,
    Mask,
    Residual,
}

fn array(p: &Problem, role: Role, shape: &[usize]) -> ArrayD<f32> {
    let mut rng = Rng::new(&[p.seed, role as u64]);
    // Add and softmax and their like have no products: what is exact for products is for them too.
    let most = match role {
        Role::Input => 4,
        Role::Weight => 3,
        _ => 9,
    };
    let mut sign = 1.0;
    let value = || -> f32 {
        match (role, p.fill) {
            (Role::Offset, Fill::Reals | Fill::Scales) => rng.real() * 4.0,
            (Role::Mask, Fill::Reals | Fill::Scales) => rng.real().abs(),
            // Halves: bilinear weights of quarters are exact, and samples at the very edges are among them.
            (Role::Offset, _) => rng.integer(7) / 2.0,
            (Role::Mask, _) => rng.integer(4).abs() / 2.0,
            (_, Fill::Integers | Fill::Spike(_)) => rng.integer(most),
            (_, Fill::Reals) => rng.real(),
            (Role::Input, Fill::Zeros) => 0.0,
            (_, Fill::Zeros) => rng.integer(most),
            (Role::Input | Role::Weight, Fill::Alternating) => {
                sign = -sign;
                sign * if matches!(role, Role::Input) { 100.0 } else { 1.0 }
            }
            (_, Fill::Alternating) => rng.integer(most),
            (Role::Input | Role::Weight, Fill::Huge) => rng.real() * 2f32.powi(50),
            (_, Fill::Huge) => rng.real() * 2f32.powi(100),
            (Role::Input | Role::Weight, Fill::Tiny) => rng.real() * 2f32.powi(-60),
            (_, Fill::Tiny) => rng.real() * 2f32.powi(-120),
            (Role::Weight, Fill::Denormal) => rng.real(),
            (_, Fill::Denormal) => f32::from_bits(rng.below(1 << 23) as u32 | (rng.below(2) as u32) << 31),
            (_, Fill::Scales) => rng.real() * 2f32.powi(rng.below(40) as i32 - 20),
        }
    };
    ArrayD::from_shape_simple_fn(IxDyn(shape), value)
}

/// The arrays of a problem with an output of that shape, and its residual.
pub fn arrays(p: &Problem, output: &[usize]) -> (Arrays, Option<ArrayD<f32>>) {
    let mut input = array(p, Role::Input, &p.input_shape());
    if let Fill::Spike(kind) = p.fill {
        let at = Rng::new(&[p.seed, 99]).below(input.len());
        if let Some(value) = input.iter_mut().nth(at) {
            *value = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][usize::from(kind % 3)];
        }
    }
    let plane = &output[output.len().min(2)..];
    let fields = |per_tap: usize| [&[p.batch, per_tap * p.offset_groups * p.taps()], plane].concat();
    let of = |given: bool, role, shape: &[usize]| given.then(|| array(p, role, shape));
    let deformable = p.op == Op::DeformConv;
    let weight = p.weight_shape(output).unwrap_or_else(|| vec![1]);
    let arrays = Arrays {
        input,
        weight: array(p, Role::Weight, &weight),
        bias: of(p.bias, Role::Bias, &[p.bias_len()]),
        // Concat takes its third input here, a separable convolution its depthwise part with its bias as the mask, an involution layer
        // what reduces the channels: halves, lest sums of sums outgrow what f32 holds exactly.
        offset: match p.op {
            Op::InvolutionLayer => of(true, Role::Offset, &[p.parts[0], p.c_in(), 1, 1]),
            Op::SeparableConv => of(true, Role::Offset, &[&[p.c_in(), 1], &p.kernel[..]].concat()),
            Op::Concat if p.parts[1] > 0 => of(true, Role::Bias, &p.with_axis(p.parts[1])),
            _ => of(deformable, Role::Offset, &fields(2)),
        },
        mask: match p.op {
            Op::SeparableConv => of(p.bias, Role::Mask, &[p.c_in()]),
            _ => of(deformable && p.mask, Role::Mask, &fields(1)),
        },
    };
    (arrays, of(p.residual, Role::Residual, output))
}
