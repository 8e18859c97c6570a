//! Options and shapes of every operator: an error or the right shape, and plans whose bindings lie within their tensors. No GPU.

#[path = "plan/analysis.rs"]
mod analysis;
#[path = "bytes.rs"]
mod bytes;
#[path = "plan/check.rs"]
mod check;
#[path = "plan/layers.rs"]
mod layers;
#[path = "plan/windows.rs"]
mod windows;

use bytes::Bytes;

/// The first byte says which operator, then comes the adapter and all the rest.
pub fn run(data: &[u8]) {
    let mut bytes = Bytes(data);
    let operator = bytes.byte() % 24;
    let profile = check::profile(&mut bytes);
    let (bytes, profile) = (&mut bytes, &profile);
    match operator {
        0 => windows::conv::<1>(bytes, profile),
        1 | 2 => windows::conv::<2>(bytes, profile),
        3 => windows::conv::<3>(bytes, profile),
        4 => layers::conv_transpose::<1>(bytes, profile),
        5 => layers::conv_transpose::<2>(bytes, profile),
        6 => layers::conv_transpose::<3>(bytes, profile),
        7 | 8 => windows::deform(bytes, profile),
        9 | 10 => windows::involution(bytes, profile),
        11 => windows::separable(bytes, profile),
        12 => layers::pool::<1>(bytes, profile),
        13 => layers::pool::<2>(bytes, profile),
        14 => layers::pool::<3>(bytes, profile),
        15 => layers::pointwise(bytes, profile),
        16 => layers::linear(bytes, profile),
        17 => layers::binary(bytes, profile),
        18 => layers::concat(bytes, profile),
        19 | 20 => layers::rearrange(bytes, profile),
        21 => analysis::fields(bytes),
        22 => analysis::rates(bytes),
        _ => analysis::costs(bytes),
    }
}
