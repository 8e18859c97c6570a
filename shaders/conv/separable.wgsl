// Depthwise separable convolution in one pass, for GPUs: what lies between the depthwise and the pointwise convolution never goes to
// memory.
//
//   u[n,c,q] = act_d(bias_d[c] + sum over taps k of v[c,k] * x[n, c, q*stride - pad + k*dilation])
//   y[n,o,q] = act(bias[o] + sum over channels c of w[o,c] * u[n,c,q] + residual[n,o,q])
//
// The matrix product of conv/tiled.wgsl, whose memory, multiplication and epilogue these are: BM output channels x BN positions (n, q) a
// workgroup, TM x TN a thread, over the channels in slices of BK. Its input tile is u: a thread stays at one position and makes four
// channels at once straight into workgroup memory, anew for each of the tiles of output channels.
// x [N,C,H,W]; v [C,Kh,Kw], bias_d [C]; w [T,4B,BM] (conv/pack.wgsl with OC = BM), B = ceil(C/4) blocks of four channels, T tiles;
// bias [O]; y, residual [N,O,Q], as vec4s with VEC: Q in multiples of four. x_start, y_start: the element of the binding where the
// dispatch's first image starts. DACT 1: act_d is any activation, told apart at run time; 0: one of those that ACT 0 stands for.
//
// A thread goes through the taps inside the image only, so that no weight meets the padding, not even an infinite one. A 1x1 has no
// padding; and what an infinite or NaN weight of it is multiplied by is u, as in two passes.
//
// Error: a plain sum of taps and bias, the activation, then a plain sum of channels, bias and residual (docs/numerics.md).
//% set THREADS = BM * BN // (TM * TN)
//% set TX = BN // TN
//% set SIDE = THREADS // BN
//% set A = BK * BM // 4
//% set B = BK // 4 * BN
//% set OUT = "vec4<f32>" if VEC else "f32"
struct Params {
    first_group: u32,
    channels: u32, og: u32, groups: u32, blocks: u32,
    in_h: i32, in_w: i32, out_h: i32, out_w: i32,
    k_h: i32, k_w: i32, s_h: i32, s_w: i32,
    d_h: i32, d_w: i32, p_h: i32, p_w: i32,
    tiles: u32, position_tiles: u32, positions: u32, total: u32,
    slices: u32, x_start: u32, y_start: u32, has_bias: u32,
    has_residual: u32, activation: u32, slope: f32, has_between_bias: u32,
    between_activation: u32, between_slope: f32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<{{ OUT }}>;
@group(0) @binding(5) var<storage, read> depthwise: array<f32>;
@group(0) @binding(6) var<storage, read> between_bias: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<{{ OUT }}>;
//% include "common/grid.wgsl"
//% include "common/activate.wgsl"
//% include "conv/tiled_memory.wgsl"

fn out_plane() -> u32 {
    return u32(params.out_h * params.out_w);
}

// The bias of output channel o; without one the buffer is a few zeros, of which the first is read.
fn bias_of(o: u32) -> f32 {
    return bias[select(0u, o, params.has_bias == 1u)];
}

// What lies under a position: where its first tap is, and the taps that are inside the image, from `first` to before `end`.
struct Window {
    start: vec2<i32>,
    first: vec2<i32>,
    end: vec2<i32>,
}

fn window_of(q: i32) -> Window {
    let start = vec2<i32>(q / params.out_w, q % params.out_w) * vec2<i32>(params.s_h, params.s_w) - vec2<i32>(params.p_h, params.p_w);
    let d = vec2<i32>(params.d_h, params.d_w);
    // Quotients rounded up where they are positive, else 0 or less.
    let first = (d - 1 - start) / d;
    let end = (vec2<i32>(params.in_h, params.in_w) - start + d - 1) / d;
    return Window(start, max(first, vec2<i32>()), min(end, vec2<i32>(params.k_h, params.k_w)));
}

// Four channels of u at one position; `x_at` is where the image starts. Those past the last are 0.
fn between(block: u32, x_at: u32, window: Window) -> vec4<f32> {
    let c = block * 4u;
    let lane = vec4<u32>(0u, 1u, 2u, 3u);
    let last = params.channels - 1u - c;
    let channel = c + min(lane, vec4<u32>(last));
    let from_x = x_at + channel * u32(params.in_h * params.in_w);
    let from_v = channel * u32(params.k_h * params.k_w);
    var sum = vec4<f32>();
    for (var h = window.first.x; h < window.end.x; h++) {
        let row = (window.start.x + h * params.d_h) * params.in_w + window.start.y;
        for (var i = window.first.y; i < window.end.y; i++) {
            let at = from_x + u32(row + i * params.d_w);
            let tap = from_v + u32(h * params.k_w + i);
            let weight = vec4<f32>(depthwise[tap.x], depthwise[tap.y], depthwise[tap.z], depthwise[tap.w]);
            sum += weight * vec4<f32>(x[at.x], x[at.y], x[at.z], x[at.w]);
        }
    }
    let b = select(vec4<u32>(), channel, params.has_between_bias == 1u);
    sum += vec4<f32>(between_bias[b.x], between_bias[b.y], between_bias[b.z], between_bias[b.w]);
//% if DACT
    let u = activate_any(sum, params.between_activation, params.between_slope);
//% else
    let u = activate_linear(sum, params.between_activation, params.between_slope);
//% endif
    return select(vec4<f32>(), u, lane <= vec4<u32>(last));
}

@compute @workgroup_size({{ THREADS }})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups);
    let live = index < params.total;
    // All that steers the loop of slices and its barriers comes from here and from the parameters: the same in the whole workgroup.
    let rest = min(index, params.total - 1u);
    let tile = rest % params.tiles;
    let first = rest / params.tiles * {{ BN }}u;
    let g = 0u;

    // What the thread loads: vec4s `local`, `local + THREADS`, ... of a slice of the packed weights; and what it makes: blocks of
    // channels at one position. Past the last position it makes the last again, which nobody stores.
    let rows = params.blocks * 4u;
    let w_end = (tile + 1u) * rows * {{ BM // 4 }}u;
    var w_at = w_end - rows * {{ BM // 4 }}u + local;
    let column = local % {{ BN }}u;
    let flat = min(first + column, params.positions - 1u);
    let x_at = params.x_start + flat / out_plane() * params.channels * u32(params.in_h * params.in_w);
    let window = window_of(i32(flat % out_plane()));
    var block = local / {{ BN }}u;
    let b_to = local / {{ BN }}u * {{ BN }}u + slot(column);

//% include "conv/tiled_sums.wgsl"

    // One barrier a slice is enough: conv/tiled.wgsl says why.
    for (var s = 0u; s <= params.slices; s++) {
        let half = s % 2u;
//% for i in range(A // THREADS)
        var a{{ i }} = vec4<f32>();
//% endfor
//% for i in range(B // THREADS)
        var b{{ i }} = vec4<f32>();
//% endfor
        if (s < params.slices) {
//% for i in range(A // THREADS)
            // Behind the last row stand other weights, whose NaN times 0 would be NaN.
            a{{ i }} = select(vec4<f32>(), w[min(w_at + {{ i * THREADS }}u, w_end - 1u)], w_at + {{ i * THREADS }}u < w_end);
//% endfor
            w_at += {{ A }}u;
//% for i in range(B // THREADS)
            if (block < params.blocks) {
                b{{ i }} = between(block, x_at, window);
            }
            block += {{ SIDE }}u;
//% endfor
        }
        if (s > 0u) {
//% include "conv/tiled_product.wgsl"
        }
        if (s < params.slices) {
//% for i in range(A // THREADS)
            a[half * {{ A }}u + local + {{ i * THREADS }}u] = a{{ i }};
//% endfor
//% for i in range(B // THREADS)
            b[half * {{ B }}u + b_to + {{ i * SIDE * BN }}u] = b{{ i }};
//% endfor
        }
        workgroupBarrier();
    }

    let y_first = params.y_start;
//% include "conv/tiled_store.wgsl"
}
