// The parameters of all involution kernels, `InvolutionParams` in src/ops/involution/parts.rs. A dispatch covers a part of the
// problem: images, groups, channels of a group, output rows, and taps; with `first` or `last` zero y holds partial sums.
// Bindings may be windows: the bases say at which element they start, and are multiples of four.
struct Params {
    first_group: u32,
    channels: u32, cg: u32, groups: u32, activation: u32,
    in_h: i32, in_w: i32, out_h: i32, out_w: i32,
    s_h: i32, s_w: i32, d_h: i32, d_w: i32,
    p_h: i32, p_w: i32, k_h: i32, k_w: i32,
    n0: u32, g0: u32, c0: u32, row0: u32,
    n_count: u32, g_count: u32, c_count: u32, row_count: u32,
    kh0: i32, kh1: i32, kw0: i32, kw1: i32,
    x_base: u32, w_base: u32, b_base: u32, y_base: u32,
    first: u32, last: u32, has_bias: u32, has_residual: u32,
    slope: f32, rounds: u32,
}
