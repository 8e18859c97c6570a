//! What all tests need: the adapter, arrays of known contents, and the comparison with the reference.

use std::fmt::Debug;
use std::sync::OnceLock;

use ndarray::{ArrayD, ArrayViewD, Dimension, IxDyn};
use wgconv::{Cache, Gpu, GpuBuilder, Tensor, ndarray, wgpu};

/// The adapter under test, opened once: `WGCONV_ADAPTER` chooses it, `WGCONV_LIMITS=default` opens it with WebGPU's default limits and
/// without 64-bit integers.
pub fn gpu() -> Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    GPU.get_or_init(open).clone()
}

/// The same adapter with the same limits, not yet opened.
pub fn builder() -> GpuBuilder {
    let builder = Gpu::builder().adapter_from_env().cache(Cache::Off);
    match std::env::var("WGCONV_LIMITS").is_ok_and(|limits| limits == "default") {
        true => {
            builder.limits(wgpu::Limits::default()).features(wgpu::Features::SUBGROUP | wgpu::Features::TIMESTAMP_QUERY)
        }
        false => builder,
    }
}

/// A device of its own, for tests that lose it or count what it creates.
pub fn open() -> Gpu {
    builder()
        .build_blocking()
        .expect("the tests need an adapter: `cargo xtask setup` installs a software one on Debian and Ubuntu")
}

/// Which of the kernels that are offered a table of problems is to run: all, but with subgroups of 16, for which llvmpipe compiles a
/// shader several times as long, those that no subgroup's size changes. They were run with 8.
pub fn to_run<K: Debug>(kernels: Vec<K>) -> Vec<K> {
    const OF_ANY_SIZE: [&str; 4] = ["Direct", "Tiled", "Rows", "Fused"];
    let all = gpu().profile().subgroup != Some(16);
    kernels.into_iter().filter(|kernel| all || !OF_ANY_SIZE.contains(&format!("{kernel:?}").as_str())).collect()
}

/// Small integers from a seed, `-most..=most`, a fifth of them zero: float results on them are exact.
pub fn integers(shape: &[usize], seed: u64, most: i32) -> ArrayD<f32> {
    let mut state = seed;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        let bits = next(&mut state);
        if bits.is_multiple_of(5) { 0.0 } else { ((bits >> 8) % (2 * most as u64 + 1)) as f32 - most as f32 }
    })
}

/// Reals in `-1..1` from a seed.
pub fn reals(shape: &[usize], seed: u64) -> ArrayD<f32> {
    let mut state = seed ^ 0x5555;
    ArrayD::from_shape_simple_fn(IxDyn(shape), || (next(&mut state) >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
}

/// SplitMix64.
pub fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub fn upload<D: Dimension>(array: &ndarray::Array<f32, D>) -> Tensor {
    Tensor::from_array(&gpu(), array).expect("upload")
}

/// An output tensor full of NaN, so that an element which is not written shows.
pub fn poisoned(shape: &[usize]) -> Tensor {
    upload(&ArrayD::from_elem(IxDyn(shape), f32::NAN))
}

/// Panics unless the result is exactly the reference; names the first difference.
#[track_caller]
pub fn assert_exact(what: &str, got: &ArrayD<f32>, want: &ArrayD<f64>) {
    assert_within(what, got, want, |_| 0.0);
}

/// Panics unless every element is within `bound(index)` of the reference.
#[track_caller]
pub fn assert_within(what: &str, got: &ArrayD<f32>, want: &ArrayD<f64>, bound: impl Fn(&[usize]) -> f64) {
    assert_eq!(got.shape(), want.shape(), "{what}: shape");
    for ((index, &g), &w) in got.indexed_iter().zip(want) {
        let (error, bound) = ((f64::from(g) - w).abs(), bound(index.slice()));
        assert!(error <= bound, "{what}: at {:?} got {g}, want {w}, error {error:e}, bound {bound:e}", index.slice());
    }
}

/// The derived bound of a linear f32 kernel, one value an output element, with the unit roundoff `u = eps/2`: `c*u*n*S + n*2^-126*(max|w| + max|x| + 1)`, where `n` is
/// the number of products (bias and residual counted) and `S` the sum of their absolute values: the reference on absolute values.
pub fn linear_bound(n: usize, absolute: &ArrayD<f64>, largest: f64, c: f64) -> ArrayD<f64> {
    let n = n as f64;
    let tiny = n * 2f64.powi(-126) * (largest + 1.0);
    absolute.mapv(|s| c * f64::from(f32::EPSILON) / 2.0 * n * s + tiny)
}

/// Absolute values.
pub fn abs(array: &ArrayD<f32>) -> ArrayD<f32> {
    array.mapv(f32::abs)
}

/// The largest absolute value.
pub fn largest(array: ArrayViewD<f32>) -> f64 {
    array.iter().fold(0.0, |most, value| f64::max(most, f64::from(value.abs())))
}

/// Panics unless every element is within its element of `bound`.
#[track_caller]
pub fn assert_bounded(what: &str, got: &ArrayD<f32>, want: &ArrayD<f64>, bound: &ArrayD<f64>) {
    assert_eq!(got.shape(), want.shape(), "{what}: shape");
    for (((index, &g), &w), &b) in got.indexed_iter().zip(want).zip(bound) {
        let error = (f64::from(g) - w).abs();
        assert!(error <= b, "{what}: at {:?} got {g}, want {w}, error {error:e}, bound {b:e}", index.slice());
    }
}

/// A device whose storage bindings hold 4 KiB, so that small tensors must be bound in windows.
pub fn tight() -> Gpu {
    static GPU: OnceLock<Gpu> = OnceLock::new();
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 4096, ..wgpu::Limits::default() };
    GPU.get_or_init(|| {
        Gpu::builder().adapter_from_env().cache(Cache::Off).limits(limits).build_blocking().expect("adapter")
    })
    .clone()
}

/// [`assert_bounded`] where NaN stands for NaN and an infinity for the same one.
#[track_caller]
pub fn assert_near(what: &str, got: &ArrayD<f32>, want: &ArrayD<f64>, bound: impl Fn(usize) -> f64) {
    assert_eq!(got.shape(), want.shape(), "{what}: shape");
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let (g, same) = (f64::from(g), (g.is_nan() && w.is_nan()) || f64::from(g) == w);
        let (error, bound) = ((g - w).abs(), bound(i));
        assert!(same || error <= bound, "{what}: element {i}: got {g:e}, want {w:e}, error {error:e}, bound {bound:e}");
    }
}
