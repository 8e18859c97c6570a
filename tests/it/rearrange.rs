//! Operators that move elements, against the reference: exact, on every shape.

use ndarray::ArrayD;
use wgconv::reference::{concat, narrow, pixel_shuffle, upsample_nearest};
use wgconv::{Concat, Error, Gpu, Narrow, PixelShuffle, Tensor, UpsampleNearest, ndarray, wgpu};

use crate::common::{assert_exact, gpu, integers, tight, upload};

fn put(gpu: &Gpu, array: &ArrayD<f32>) -> Tensor {
    Tensor::from_array(gpu, array).expect("upload")
}

/// Into an output full of NaN.
#[track_caller]
fn check(what: &str, gpu: &Gpu, want: &ArrayD<f64>, run: impl FnOnce(&Tensor) -> Result<(), Error>) {
    let out = put(gpu, &ArrayD::from_elem(want.shape(), f32::NAN));
    run(&out).expect(what);
    assert_exact(what, &out.to_array().expect("read"), want);
}

#[track_caller]
fn check_concat(gpu: &Gpu, axis: usize, shapes: &[&[usize]]) {
    let arrays: Vec<_> = shapes.iter().zip(1..).map(|(shape, seed)| integers(shape, seed, 999)).collect();
    let want = concat(&arrays.iter().map(|array| array.view()).collect::<Vec<_>>(), axis).expect("reference");
    let tensors: Vec<_> = arrays.iter().map(|array| put(gpu, array)).collect();
    let inputs: Vec<&Tensor> = tensors.iter().collect();
    let concat = Concat::new(axis);
    assert_eq!(concat.output_shape(shapes).expect("shape"), want.shape());
    check(&format!("concat {axis} {shapes:?}"), gpu, &want, |out| concat.forward_into(&inputs, out));
}

#[track_caller]
fn check_narrow(gpu: &Gpu, shape: &[usize], (axis, start, length): (usize, usize, usize)) {
    let x = integers(shape, 1, 999);
    let want = narrow(x.view(), axis, start, length).expect("reference");
    let narrow = Narrow::new(axis, start, length);
    assert_eq!(narrow.output_shape(shape).expect("shape"), want.shape());
    check(&format!("narrow {shape:?} {axis} {start} {length}"), gpu, &want, |out| {
        narrow.forward_into(&put(gpu, &x), out)
    });
}

#[track_caller]
fn check_images(gpu: &Gpu, shape: &[usize], factor: usize, factors: [usize; 2]) {
    let x = integers(shape, 1, 999);
    let want = pixel_shuffle(x.view(), factor).expect("reference");
    let shuffle = PixelShuffle::new(factor);
    assert_eq!(shuffle.output_shape(shape).expect("shape"), want.shape());
    check(&format!("shuffle {shape:?} {factor}"), gpu, &want, |out| shuffle.forward_into(&put(gpu, &x), out));
    let want = upsample_nearest(x.view(), factors).expect("reference");
    let up = UpsampleNearest::new(factors);
    assert_eq!(up.output_shape(shape).expect("shape"), want.shape());
    check(&format!("nearest {shape:?} {factors:?}"), gpu, &want, |out| up.forward_into(&put(gpu, &x), out));
}

#[test]
fn several_ranks_and_tails() {
    let gpu = gpu();
    check_concat(&gpu, 0, &[&[5], &[1], &[4]]);
    check_concat(&gpu, 0, &[&[2, 3], &[1, 3]]);
    check_concat(&gpu, 1, &[&[2, 3], &[2, 8], &[2, 1]]);
    check_concat(&gpu, 1, &[&[2, 4, 3, 4], &[2, 8, 3, 4], &[2, 1, 3, 4]]);
    check_concat(&gpu, 1, &[&[3, 2, 5, 7], &[3, 1, 5, 7]]);
    check_concat(&gpu, 3, &[&[1, 2, 3, 4], &[1, 2, 3, 8]]);
    check_concat(&gpu, 6, &[&[2, 1, 2, 1, 2, 1, 3, 2], &[2, 1, 2, 1, 2, 1, 4, 2]]);
    check_concat(&gpu, 2, &[&[1, 1, 9]]);
    check_narrow(&gpu, &[9], (0, 3, 5));
    check_narrow(&gpu, &[3, 16], (1, 4, 8));
    check_narrow(&gpu, &[3, 16], (1, 5, 8));
    check_narrow(&gpu, &[2, 27, 5, 7], (1, 18, 9));
    check_narrow(&gpu, &[2, 8, 4, 4], (1, 3, 2));
    check_narrow(&gpu, &[4, 3, 2], (0, 1, 3));
    check_narrow(&gpu, &[2, 2, 2, 2, 2, 2, 5], (6, 4, 1));
    check_images(&gpu, &[1, 4, 3, 5], 2, [1, 1]);
    check_images(&gpu, &[2, 18, 5, 7], 3, [2, 3]);
    check_images(&gpu, &[2, 32, 1, 1], 4, [5, 7]);
    check_images(&gpu, &[1, 3, 4, 4], 1, [1, 4]);
}

/// Bindings of 4 KiB.
#[test]
fn windows_over_the_binding_limit() {
    let gpu = tight();
    let many = |plan: wgconv::Plan| assert!(plan.dispatches() > 1, "{plan}");
    let profile = gpu.profile();
    many(Narrow::new(0, 9, 2500).plan(profile, &[3000]).expect("plan"));
    many(PixelShuffle::new(2).plan(profile, &[1, 4, 31, 33]).expect("plan"));
    many(UpsampleNearest::new([40, 50]).plan(profile, &[1, 2, 1, 1]).expect("plan"));
    check_concat(&gpu, 0, &[&[3001], &[7], &[1300]]);
    check_concat(&gpu, 1, &[&[3, 7, 9, 11], &[3, 5, 9, 11]]);
    check_concat(&gpu, 1, &[&[2, 4, 16, 16], &[2, 8, 16, 16]]);
    check_concat(&gpu, 2, &[&[500, 3, 1], &[500, 3, 4]]);
    check_narrow(&gpu, &[3000], (0, 9, 2500));
    check_narrow(&gpu, &[2, 27, 8, 20], (1, 9, 17));
    check_narrow(&gpu, &[1500, 5], (1, 2, 1));
    // The planes of one output pixel span more than a window.
    check_images(&gpu, &[1, 4, 31, 33], 2, [3, 2]);
    check_images(&gpu, &[2, 18, 8, 12], 3, [1, 5]);
    check_images(&gpu, &[1, 4, 1, 1], 2, [40, 50]);
}

#[test]
fn encode_gives_the_same() {
    let (x, y) = (integers(&[1, 8, 5, 7], 1, 99), integers(&[1, 4, 5, 7], 2, 99));
    let (a, b) = (upload(&x), upload(&y));
    let mut encoder = gpu().device().create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
    let both = Concat::new(1).encode(&mut encoder, &[&a, &b]).expect("encode");
    let shuffled = PixelShuffle::new(2).encode(&mut encoder, both.output()).expect("encode");
    gpu().queue().submit([encoder.finish()]);
    let want = pixel_shuffle(concat(&[x.view(), y.view()], 1).expect("reference").view(), 2).expect("reference");
    let _ = both.submitted();
    assert_exact("encode", &shuffled.submitted().to_array().expect("read"), &want);
}

#[test]
fn mistakes_are_typed_errors() {
    #[track_caller]
    fn about<T: std::fmt::Debug>(result: Result<T, Error>, operator: &str, named: &str) {
        match result {
            Err(Error::Invalid { op, argument, .. } | Error::TooLarge { op, argument, .. })
                if (op, argument) == (operator, named) => {}
            other => panic!("expected an error of {operator} about {named}, got {other:?}"),
        }
    }
    let concat = |axis, shapes: &[&[usize]]| Concat::new(axis).output_shape(shapes);
    about(concat(0, &[]), "concat", "inputs");
    about(concat(2, &[&[1, 2]]), "concat", "axis");
    about(concat(0, &[&[1, 0]]), "concat", "inputs");
    about(concat(0, &[&[1, 2], &[1, 3]]), "concat", "inputs");
    about(concat(0, &[&[1, 2], &[2]]), "concat", "inputs");
    about(concat(0, &[&[1 << 30], &[1 << 30], &[1 << 30]]), "concat", "output");
    about(Narrow::new(2, 0, 1).output_shape(&[3, 4]), "narrow", "axis");
    about(Narrow::new(1, 2, 3).output_shape(&[3, 4]), "narrow", "length");
    about(Narrow::new(1, usize::MAX, 2).output_shape(&[3, 4]), "narrow", "length");
    about(Narrow::new(1, 0, 0).output_shape(&[3, 4]), "narrow", "length");
    about(Narrow::new(0, 0, 1).output_shape(&[]), "narrow", "input");
    about(PixelShuffle::new(2).output_shape(&[1, 6, 3, 3]), "pixel_shuffle", "factor");
    about(PixelShuffle::new(0).output_shape(&[1, 6, 3, 3]), "pixel_shuffle", "factor");
    about(PixelShuffle::new(usize::MAX).output_shape(&[1, 6, 3, 3]), "pixel_shuffle", "factor");
    about(PixelShuffle::new(1).output_shape(&[6, 3, 3]), "pixel_shuffle", "input");
    about(UpsampleNearest::new([2, 0]).output_shape(&[1, 1, 3, 3]), "upsample_nearest", "factors");
    about(UpsampleNearest::new([usize::MAX; 2]).output_shape(&[1, 1, 3, 3]), "upsample_nearest", "output");
    about(UpsampleNearest::new([2, 2]).output_shape(&[1, 3, 3]), "upsample_nearest", "input");
    let x = upload(&integers(&[1, 4, 3, 3], 1, 9));
    about(Concat::new(1).forward(&[]), "concat", "inputs");
    about(Concat::new(1).forward_into(&[&x], &x), "concat", "output");
    about(Narrow::new(1, 0, 4).forward_into(&x, &x), "narrow", "output");
    about(PixelShuffle::new(2).forward_into(&x, &upload(&integers(&[1, 4, 3, 3], 1, 9))), "pixel_shuffle", "output");
    about(UpsampleNearest::new([1, 1]).forward_into(&x, &x), "upsample_nearest", "output");
    let other = put(&tight(), &integers(&[1, 4, 3, 3], 1, 9));
    about(Concat::new(1).forward(&[&x, &other]), "concat", "inputs");
}
