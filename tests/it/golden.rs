//! The golden vectors of PyTorch and torchvision: the reference against them, and every kernel that is offered for a case.

use std::path::{Path, PathBuf};

use wgconv::ndarray::ArrayD;

use crate::common::{gpu, poisoned};
// `verify` reads and judges such cases, so what it does is what is tested here.
use crate::examples_verify::verify::case::{Case, find, name_of};
use crate::examples_verify::verify::launch::{Tensors, launch};
use crate::examples_verify::verify::operation::{At, DOUBLE, SINGLE};

fn cases() -> Vec<PathBuf> {
    let files = find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")).expect("tests/golden");
    assert_eq!(files.len(), 102, "golden vectors");
    files
}

#[test]
fn the_reference_gives_what_pytorch_gives() {
    for path in cases() {
        let case = Case::read(&path).expect("case");
        let got = case.operation.reference(&case.arrays, At::All).expect("reference");
        let result = case.judge(&got, "reference", DOUBLE).expect("bound");
        assert!(result.passed, "{}: {result:?}", name_of(&path));
    }
}

#[test]
fn single_elements_of_the_reference() {
    for path in cases() {
        let case = Case::read(&path).expect("case");
        let whole = case.operation.reference(&case.arrays, At::All).expect("reference");
        let some: Vec<usize> = (0..whole.len()).step_by(37).collect();
        let elements = case.operation.reference(&case.arrays, At::Some(&some)).expect("elements");
        let bound = case.operation.magnitude(&case.arrays, "reference", At::Some(&some)).expect("bound").bound(DOUBLE);
        for ((&i, element), bound) in some.iter().zip(elements).zip(bound) {
            // The two may sum in another order.
            assert!((element - whole[i]).abs() <= 2.0 * bound, "{}: {i}: {element} {}", name_of(&path), whole[i]);
        }
    }
}

#[test]
fn every_kernel_gives_what_pytorch_gives() {
    let mut kernels = 0;
    for path in cases() {
        let case = Case::read(&path).expect("case");
        let tensors = Tensors::upload(&gpu(), &case.arrays).expect("upload");
        let candidates = launch(&case.operation).expect("operator").candidates(&tensors).expect("candidates");
        assert!(!candidates.is_empty(), "{}", name_of(&path));
        for operator in candidates {
            let output = poisoned(case.output.shape());
            operator.forward_into(&tensors, &output).expect("forward");
            let got = output.to_array().expect("read");
            let plan = operator.plan(&tensors).expect("plan");
            let kernel = plan.kernel();
            let result = case.judge(&wide(&got), kernel, SINGLE).expect("bound");
            assert!(result.passed, "{} {kernel}: {result:?}", name_of(&path));
            kernels += 1;
        }
    }
    assert!(kernels >= 102);
}

fn wide(array: &ArrayD<f32>) -> Vec<f64> {
    array.iter().map(|&value| f64::from(value)).collect()
}
