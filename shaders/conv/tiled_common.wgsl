// What conv/tiled.wgsl and conv/tiled_sum.wgsl share: the parameters, `TiledParams` in src/ops/conv/tiled.rs, the inputs, and the slow
// way to one output.
//
// Lower ranks have extents of 1 in front. x_start, y_start: the element of the binding where the dispatch's first image starts.
struct Params {
    first_group: u32,
    cg: u32, og: u32, groups: u32, blocks: u32,
    in_d: i32, in_h: i32, in_w: i32, border: u32,
    out_d: i32, out_h: i32, out_w: i32, activation: u32,
    k_d: i32, k_h: i32, k_w: i32, has_bias: u32,
    s_d: i32, s_h: i32, s_w: i32, has_residual: u32,
    d_d: i32, d_h: i32, d_w: i32, slope: f32,
    p_d: i32, p_h: i32, p_w: i32, bm: u32,
    // K steps that a thread goes forward from one group of four channels to its next
    hop_d: u32, hop_h: u32, hop_w: u32, hop_b: u32,
    tiles: u32, position_tiles: u32, positions: u32, total: u32,
    // split K: parts, slices of a part and of all, elements of a part's sums
    splits: u32, part: u32, slices: u32, sums: u32,
    x_start: u32, y_start: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
//% include "common/border.wgsl"
//% include "common/finite.wgsl"

fn in_plane() -> u32 {
    return u32(params.in_d * params.in_h * params.in_w);
}

fn out_plane() -> u32 {
    return u32(params.out_d * params.out_h * params.out_w);
}

// The element of x where a group of an image starts.
fn image(n: u32, g: u32) -> u32 {
    return params.x_start + (n * params.groups + g) * params.cg * in_plane();
}

// The input position under the first tap of an output position.
fn window_start(q: u32) -> vec3<i32> {
    let j = i32(q);
    let at = vec3<i32>(j / params.out_w / params.out_h, j / params.out_w % params.out_h, j % params.out_w);
    return at * vec3<i32>(params.s_d, params.s_h, params.s_w) - vec3<i32>(params.p_d, params.p_h, params.p_w);
}

// The bias of output channel o; without one the buffer is a few zeros, of which the first is read.
fn bias_of(o: u32) -> f32 {
    return bias[select(0u, o, params.has_bias == 1u)];
}

// One output, channel o of group g, by a loop that leaves out the taps in the padding. The fast path multiplies them by 0, which is
// wrong for a weight that is infinite or NaN: a sum that is not finite is made again here. `x_at`: image(n, g).
fn exact(x_at: u32, g: u32, o: u32, start: vec3<i32>) -> f32 {
    var sum = 0.0;
    let taps = params.k_d * params.k_h * params.k_w;
    let rows = u32(taps) * params.blocks * 4u;
    let w_at = (g * params.tiles + o / params.bm) * rows * params.bm + o % params.bm;
    for (var t = 0; t < taps; t++) {
        let k = vec3<i32>(t / params.k_w / params.k_h, t / params.k_w % params.k_h, t % params.k_w);
        let i = start + k * vec3<i32>(params.d_d, params.d_h, params.d_w);
        let i_d = border_index(i.x, params.in_d, params.border);
        let i_h = border_index(i.y, params.in_h, params.border);
        let i_w = border_index(i.z, params.in_w, params.border);
        if (i_d >= 0 && i_h >= 0 && i_w >= 0) {
            for (var c = 0u; c < params.cg; c++) {
                let at = w_at + (u32(t) * params.blocks * 4u + c) * params.bm;
                let p = u32((i_d * params.in_h + i_h) * params.in_w + i_w);
                sum += w[at / 4u][at % 4u] * x[x_at + c * in_plane() + p];
            }
        }
    }
    return sum;
}
