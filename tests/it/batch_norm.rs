//! Folding of batch normalisation into the layer before it.

use ndarray::{ArrayD, ArrayViewD, IxDyn, arr1};
use wgconv::reference::{ConvSpec, ConvTransposeSpec, batch_norm, conv, conv_transpose};
use wgconv::{BatchNorm, Error, fold_batch_norm, ndarray};

use crate::common::{assert_within, reals};

const EPS: f64 = 1e-5;

/// gamma, beta, mean and var of `[C]`.
struct Vectors([ArrayD<f32>; 4]);

impl Vectors {
    fn new(channels: usize) -> Self {
        let [gamma, beta, mean, var] = [1, 2, 3, 4].map(|seed| reals(&[channels], seed));
        Self([gamma, beta, mean, var.mapv(|v| v.abs() + 0.1)])
    }

    fn norm(&self) -> BatchNorm<'_> {
        let [gamma, beta, mean, var] = &self.0;
        BatchNorm { gamma: gamma.view(), beta: beta.view(), mean: mean.view(), var: var.view(), eps: EPS }
    }

    fn apply(&self, y: ArrayViewD<f64>) -> ArrayD<f64> {
        let [gamma, beta, mean, var] = self.0.each_ref().map(|vector| vector.mapv(f64::from));
        batch_norm(y, gamma.view(), beta.view(), mean.view(), var.view(), EPS).expect("reference")
    }
}

/// Rounding each folded weight once moves a sum by at most half an ULP of each product; 1e-5 is far above it and below any mistake.
fn close(what: &str, got: &ArrayD<f64>, want: &ArrayD<f64>) {
    assert_within(what, &got.mapv(|v| v as f32), want, |_| 1e-5);
}

#[test]
fn folded_convolution_is_convolution_then_norm() {
    let (x, w, bias) = (reals(&[2, 6, 5, 4], 10), reals(&[8, 3, 3, 2], 11), reals(&[8], 12));
    let vectors = Vectors::new(8);
    let spec = ConvSpec { groups: 2, ..ConvSpec::new(2) };
    for bias in [None, Some(&bias)] {
        let view = bias.map(|bias| bias.view());
        let y = conv(x.view(), w.view(), view.clone(), &spec).expect("reference");
        let (folded, shift) = vectors.norm().fold(w.view(), view).expect("fold");
        let got = conv(x.view(), folded.view(), Some(shift.view()), &spec).expect("reference");
        close("conv", &got, &vectors.apply(y.view()));
    }
}

#[test]
fn folded_transposed_convolution() {
    for groups in [1, 3] {
        let (x, w) = (reals(&[1, 6, 4, 5], 13), reals(&[6, 2, 3, 3], 14));
        let vectors = Vectors::new(2 * groups);
        let spec = ConvTransposeSpec { groups, stride: vec![2, 1], ..ConvTransposeSpec::new(2) };
        let y = conv_transpose(x.view(), w.view(), None, &spec).expect("reference");
        let (folded, shift) = vectors.norm().fold_transposed(w.view(), None, groups).expect("fold");
        let got = conv_transpose(x.view(), folded.view(), Some(shift.view()), &spec).expect("reference");
        close("conv_transpose", &got, &vectors.apply(y.view()));
    }
}

/// s = gamma / sqrt(var + eps) = 4 / 2, in f64 and rounded once.
#[test]
fn by_hand() {
    let vector = |v: f32| arr1(&[v]).into_dyn();
    let (w, bias) = (arr1(&[3.0f32]).into_dyn(), vector(7.0));
    let (gamma, beta, mean, var) = (vector(4.0), vector(10.0), vector(5.0), vector(3.5));
    let given = (gamma.view(), beta.view(), mean.view(), var.view());
    let folded = fold_batch_norm(w.view(), Some(bias.view()), given.0, given.1, given.2, given.3, 0.5).expect("fold");
    assert_eq!(folded, (vector(6.0), vector(14.0)));
}

#[test]
fn mistakes_are_typed_errors() {
    let vectors = Vectors::new(4);
    let argument = |result: wgconv::Result<(ArrayD<f32>, ArrayD<f32>)>| match result {
        Err(Error::Invalid { op: "fold_batch_norm", argument, .. }) => argument,
        other => panic!("{other:?}"),
    };
    let w = |shape: &[usize]| ArrayD::<f32>::zeros(IxDyn(shape));
    assert_eq!(argument(vectors.norm().fold(w(&[]).view(), None)), "weight");
    assert_eq!(argument(vectors.norm().fold(w(&[4, 0]).view(), None)), "weight");
    assert_eq!(argument(vectors.norm().fold(w(&[5, 1]).view(), None)), "gamma");
    let bias = w(&[3]);
    assert_eq!(argument(vectors.norm().fold(w(&[4, 1]).view(), Some(bias.view()))), "bias");
    assert_eq!(argument(vectors.norm().fold_transposed(w(&[6, 4]).view(), None, 4)), "groups");
    assert_eq!(argument(vectors.norm().fold_transposed(w(&[6, 4]).view(), None, 0)), "groups");
    assert_eq!(argument(vectors.norm().fold_transposed(w(&[6]).view(), None, 1)), "weight");
    for (eps, value) in [(0.0, 0.0), (-1.0, 0.5), (f64::NAN, 0.5), (1.0, f32::NAN)] {
        let var = ArrayD::from_elem(IxDyn(&[4]), value);
        let norm = BatchNorm { var: var.view(), eps, ..vectors.norm() };
        assert_eq!(argument(norm.fold(w(&[4, 1]).view(), None)), "var");
    }
}
