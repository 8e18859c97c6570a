//! Winograd's kernels: exact on small integers where the matrices are dyadic, within their own bounds on reals, and nothing that is
//! not finite beyond its window.

use wgconv::reference::{ConvSpec, conv};
use wgconv::{Activation, Conv2d, ConvKernel, ndarray};

use crate::common::{abs, assert_bounded, assert_exact, gpu, integers, largest, linear_bound, reals, tight, upload};
use ndarray::{ArrayD, IxDyn};

/// Shapes of input and weight, groups, padding.
type Case = ([usize; 4], [usize; 4], usize, [(usize, usize); 2]);

/// Odd and even extents, tails of a vec4 of tiles, one pixel, no padding and more than the
/// kernel, groups.
const SHAPES: [Case; 8] = [
    ([1, 8, 8, 8], [8, 8, 3, 3], 1, [(1, 1), (1, 1)]),
    ([2, 16, 9, 12], [19, 16, 3, 3], 1, [(1, 1), (1, 1)]),
    ([3, 4, 7, 7], [5, 4, 3, 3], 1, [(1, 1), (1, 1)]),
    ([1, 24, 14, 20], [33, 8, 3, 3], 3, [(0, 0), (0, 0)]),
    ([2, 8, 5, 31], [40, 4, 3, 3], 2, [(2, 0), (0, 3)]),
    ([1, 4, 3, 3], [4, 4, 3, 3], 1, [(0, 0), (0, 0)]),
    ([1, 4, 1, 2], [8, 4, 3, 3], 1, [(4, 3), (5, 4)]),
    ([1, 4, 2, 16], [8, 4, 3, 3], 1, [(0, 1), (1, 1)]),
];

fn both(groups: usize, pads: [(usize, usize); 2], flip: bool) -> (Conv2d, ConvSpec) {
    let options = Conv2d::new().padding(pads).groups(groups).flip_kernel(flip).fast_math(true);
    (options, ConvSpec { pads: pads.into(), groups, flip_kernel: flip, ..ConvSpec::new(2) })
}

fn offered(options: &Conv2d, x: &[usize], w: &[usize]) -> Vec<ConvKernel> {
    let all = options.candidates(gpu().profile(), x, w).expect("candidates");
    all.into_iter().filter(|k| [ConvKernel::Winograd, ConvKernel::WinogradF4].contains(k)).collect()
}

#[test]
fn integers_are_exact() {
    for (i, (x, w, groups, pads)) in SHAPES.into_iter().enumerate() {
        let (options, spec) = both(groups, pads, i % 2 == 1);
        let (x, w) = (integers(&x, 1, 4), integers(&w, 2, 3));
        let bias = integers(&[w.shape()[0]], 3, 9);
        let sums = conv(x.view(), w.view(), Some(bias.view()), &spec).expect("reference");
        let residual = integers(sums.shape(), 4, 9);
        let want = (&sums + &residual.mapv(f64::from)).mapv(|v| v.max(0.0));
        let options = options.residual(&upload(&residual)).activation(Activation::Relu).kernel(ConvKernel::Winograd);
        for gpu in [gpu(), tight()] {
            if !options.candidates(gpu.profile(), x.shape(), w.shape()).expect("shapes").contains(&ConvKernel::Winograd)
            {
                // Without subgroups of a known size, or where an image is over the tight limit.
                continue;
            }
            let on = |a: &ArrayD<f32>| wgconv::Tensor::from_array(&gpu, a).expect("upload");
            let out = on(&ArrayD::from_elem(IxDyn(want.shape()), f32::NAN));
            let options = options.clone().residual(&on(&residual));
            options.forward_into(&on(&x), &on(&w), Some(&on(&bias)), &out).expect("forward");
            assert_exact(&format!("{:?} {:?}", x.shape(), w.shape()), &out.to_array().expect("read"), &want);
        }
    }
}

/// The bound of F(m x m, 3 x 3) on every output, u = eps/2.
///
/// Along one axis an output is `sum over e, d, k of A[e] B[e,d] x[d] G[e,k] w[k]`. The absolute values of its terms sum to at most
/// `g * sum|x[d]| * sum|w[k]|` over the inputs d that it depends on, where g is the largest of `sum over e |A[e]||B[e,d]| max|G[e,k]|`:
/// for m = 2, g = 2 and the d are those of the window (the others cancel in A B already); for m = 4, g = 64/6 and the d reach up to 2
/// beyond the window (of the tile's inputs 0..=5 output 0 depends on 0..=4, 1 and 2 on 1..=4, 3 on 1..=5). Two axes square g. A term meets
/// these roundings: the products of the GEMM, one an input channel; the transforms, at most 10 for m = 2 (weights 4, input 2, output 4)
/// and 24 for m = 4 (8 each, of which 2 for the matrix's own entries); bias and residual 2.
///
/// What is flushed to 0 in a transform is magnified by those that follow: by at most 344 times max|x|, and less times max|w|, for each
/// channel where m = 2, and 103,224 where m = 4 (docs/numerics.md).
pub fn bound(m: usize, x: &ArrayD<f32>, w: &ArrayD<f32>, bias: &ArrayD<f32>, spec: &ConvSpec) -> ArrayD<f64> {
    let (growth, reach, roundings, flushed) = if m == 2 { (2.0, 0, 13, 344.0) } else { (64.0 / 6.0, 2, 27, 103_300.0) };
    let s = w.shape();
    let side = 3 + 2 * reach;
    let sums = abs(w).sum_axis(ndarray::Axis(3)).sum_axis(ndarray::Axis(2));
    let spread = ArrayD::from_shape_fn(IxDyn(&[s[0], s[1], side, side]), |i| sums[[i[0], i[1]]]);
    let wide = ConvSpec { pads: spec.pads.iter().map(|&(a, b)| (a + reach, b + reach)).collect(), ..spec.clone() };
    let absolute = conv(abs(x).view(), spread.view(), Some(abs(bias).view()), &wide).expect("reference");
    let most = flushed * (largest(x.view()) + largest(w.view()) + 1.0);
    linear_bound(s[1] + roundings, &(absolute * (growth * growth)), most, 1.001)
}

#[test]
fn reals_keep_the_bound() {
    for (i, (x, w, groups, pads)) in SHAPES.into_iter().enumerate() {
        let (options, spec) = both(groups, pads, i % 2 == 0);
        let (x, w, bias) = (reals(&x, 1), reals(&w, 2), reals(&[w[0]], 3));
        let want = conv(x.view(), w.view(), Some(bias.view()), &spec).expect("reference");
        for kernel in offered(&options, x.shape(), w.shape()) {
            let m = if kernel == ConvKernel::Winograd { 2 } else { 4 };
            let options = options.clone().kernel(kernel);
            let run = || options.forward(&upload(&x), &upload(&w), Some(&upload(&bias))).and_then(|y| y.to_array());
            let got = run().expect("forward");
            assert_bounded(&format!("{kernel:?} {:?}", x.shape()), &got, &want, &bound(m, &x, &w, &bias, &spec));
            assert!(run().expect("again").iter().zip(&got).all(|(a, b)| a.to_bits() == b.to_bits()));
        }
    }
}

/// Also where values are so large that the transforms overflow and the sum does not.
#[test]
fn what_is_not_finite_stays_in_its_window() {
    let (x, w, groups, pads) = ([2, 8, 9, 12], [6, 8, 3, 3], 1, [(1, 1), (1, 1)]);
    let (options, spec) = both(groups, pads, false);
    let (x0, w0) = (integers(&x, 1, 4), integers(&w, 2, 3).mapv(|v| if v == 0.0 { 1.0 } else { v }));
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 2.5e38] {
        let (mut xs, mut ws) = (x0.clone(), w0.clone());
        xs[[0, 2, 4, 3]] = value;
        ws[[3, 0, 0, 0]] = value;
        let (x_small, w_small) = (x0.mapv(|v| v / 8.0), w0.mapv(|v| v.signum() / 4.0));
        if value.is_finite() {
            xs = x_small.clone();
            xs[[0, 2, 4, 3]] = value;
            xs[[0, 2, 4, 5]] = -value;
            xs[[0, 2, 6, 3]] = -value;
        }
        let weights = if value.is_finite() { &w_small } else { &w0 };
        for (x, w) in [(&xs, weights), (&x0, &ws)] {
            if value.is_finite() && std::ptr::eq(x, &x0) {
                continue;
            }
            let want = conv(x.view(), w.view(), None, &spec).expect("reference");
            for kernel in offered(&options, x.shape(), w.shape()) {
                let got = options.clone().kernel(kernel).forward(&upload(x), &upload(w), None);
                for ((index, g), v) in got.and_then(|y| y.to_array()).expect("forward").indexed_iter().zip(&want) {
                    let near = (f64::from(*g) - v).abs() <= v.abs().max(1.0) * 1e-3;
                    let same = if v.is_nan() { g.is_nan() } else { f64::from(*g) == *v || near };
                    assert!(same, "{kernel:?} {value} at {index:?}: got {g}, want {v}");
                }
            }
        }
    }
}
