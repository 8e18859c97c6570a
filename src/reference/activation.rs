//! Activations, with the formulas of `torch.nn.functional`.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// Which function an epilogue or an activation applies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum ActivationKind {
    /// `x`
    #[default]
    Identity,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x` where positive, else `slope * x`; the slope is given.
    LeakyRelu(f64),
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `tanh(x)`
    Tanh,
    /// `x * sigmoid(x)`, also called swish.
    Silu,
    /// `x * Phi(x)` with the normal distribution function, `x/2 * (1 + erf(x/sqrt(2)))`.
    Gelu,
    /// GELU by `x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`.
    GeluTanh,
    /// `relu6(x + 3) / 6`
    HardSigmoid,
    /// `x * relu6(x + 3) / 6`
    HardSwish,
}

/// The activation of one value. NaN gives NaN for every kind.
#[must_use]
pub fn apply(kind: ActivationKind, x: f64) -> f64 {
    match kind {
        ActivationKind::Identity => x,
        ActivationKind::Relu => relu(x),
        ActivationKind::Relu6 => relu6(x),
        ActivationKind::LeakyRelu(slope) => {
            if x > 0.0 {
                x
            } else {
                slope * x
            }
        }
        ActivationKind::Sigmoid => sigmoid(x),
        ActivationKind::Tanh => x.tanh(),
        ActivationKind::Silu => x / (1.0 + (-x).exp()),
        // 1 + erf(z) is erfc(-z), and 1 + tanh(z) is 2 sigmoid(2z): neither cancels where x is very negative.
        ActivationKind::Gelu => 0.5 * x * libm::erfc(-x * FRAC_1_SQRT_2),
        ActivationKind::GeluTanh => x * sigmoid(2.0 * (2.0 / PI).sqrt() * (x + 0.044715 * x * x * x)),
        ActivationKind::HardSigmoid => relu6(x + 3.0) / 6.0,
        ActivationKind::HardSwish => x * relu6(x + 3.0) / 6.0,
    }
}

/// Not `f64::max`, which would turn NaN into 0.
fn relu(x: f64) -> f64 {
    if x <= 0.0 { 0.0 } else { x }
}

fn relu6(x: f64) -> f64 {
    if x >= 6.0 { 6.0 } else { relu(x) }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ActivationKind::*;

    const ALL: [ActivationKind; 11] =
        [Identity, Relu, Relu6, LeakyRelu(0.1), Sigmoid, Tanh, Silu, Gelu, GeluTanh, HardSigmoid, HardSwish];

    #[test]
    fn known_values() {
        // At 1 and at -2, from the closed forms.
        let expected = [
            (1.0, -2.0),
            (1.0, 0.0),
            (1.0, 0.0),
            (1.0, -0.2),
            (0.731_058_578_630_004_9, 0.119_202_922_022_117_56),
            (0.761_594_155_955_764_9, -0.964_027_580_075_816_9),
            (0.731_058_578_630_004_9, -0.238_405_844_044_235_1),
            (0.841_344_746_068_542_9, -0.045_500_263_896_358_42),
            (0.841_191_990_608_276_7, -0.045_402_305_912_346_03),
            (4.0 / 6.0, 1.0 / 6.0),
            (4.0 / 6.0, -2.0 / 6.0),
        ];
        for (kind, (at_one, at_minus_two)) in ALL.into_iter().zip(expected) {
            assert!((apply(kind, 1.0) - at_one).abs() < 1e-12, "{kind:?}(1) = {}", apply(kind, 1.0));
            assert!((apply(kind, -2.0) - at_minus_two).abs() < 1e-12, "{kind:?}(-2) = {}", apply(kind, -2.0));
        }
        assert_eq!(apply(Relu6, 7.0), 6.0);
        assert_eq!(apply(HardSwish, 7.0), 7.0);
        assert_eq!(apply(HardSigmoid, -4.0), 0.0);
    }

    #[test]
    fn nan_stays_nan_and_large_values_stay_finite() {
        for kind in ALL {
            assert!(apply(kind, f64::NAN).is_nan(), "{kind:?}");
            for x in [-1e30, -800.0, 800.0, 1e30] {
                assert!(apply(kind, x).is_finite(), "{kind:?}({x})");
            }
        }
    }
}
