// Transposed convolution of any rank, stride, dilation, padding and grouping, gathered; the fallback of every adapter and every size.
//
//   y[n,o,q] = act(bias[o] + sum over c in o's group, i, k with i*stride - pad + k*dilation = q of x[n,c,i] * w[c, o mod OG, k]
//                  + residual[n,o,q])
//
// x [N,C,D,H,W], w [C,OG,KD,KH,KW], y and residual [N,O,QD,QH,QW]; lower ranks have extents of 1 in front.
// Along an axis the taps that reach q are k0, k0 + k_step, ... with k_step = stride / gcd(stride, dilation), k0 the first for which
// q + pad - k0*dilation divides by the stride; from each to the next the input goes back by i_step = dilation / gcd. A thread makes OB output channels of one group at four positions of a row, `turn`
// apart; turn is a multiple of the stride, so the four share their taps and each weight is loaded once for all of them.
// A dispatch may cover a part of the output and, with `first` or `last` zero, of the input channels: then y holds partial sums.
// Bindings may be windows: the bases say where they start, and x_low and x_high which positions of a row are in x's.
struct Params {
    first_group: u32,
    c_in: u32, c_out: u32, cg: u32, og: u32,
    in_d: i32, in_h: i32, in_w: i32, activation: u32,
    out_d: i32, out_h: i32, out_w: i32, slope: f32,
    k_d: i32, k_h: i32, k_w: i32, has_bias: u32,
    s_d: i32, s_h: i32, s_w: i32, has_residual: u32,
    d_d: i32, d_h: i32, d_w: i32, turn: i32,
    p_d: i32, p_h: i32, p_w: i32, row_threads: u32,
    k_step_d: i32, k_step_h: i32, k_step_w: i32, total: u32,
    // the part: positions, images, groups, output and input channels of a group
    q_d: i32, q_h: i32, q_w: i32, n0: u32,
    count_d: u32, count_h: u32, count_w: u32, g0: u32,
    g_count: u32, o0: u32, o_count: u32, c0: u32,
    c_count: u32, x_base: u32, w_base: u32, y_base: u32,
    x_low: i32, x_high: i32, first: u32, last: u32,
    i_step_d: i32, i_step_h: i32, i_step_w: i32, apart: i32,
    o_blocks: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
//% include "common/grid.wgsl"
//% include "common/activation.wgsl"

// Along one axis: (the first tap that reaches position `at` of the unpadded output, the input index under it); k where there is none.
// Divides once and steps from there, since integer division is the dearest operation here.
fn first_tap(at: i32, k: i32, k_step: i32, stride: i32, dilation: i32) -> vec2<i32> {
    var input = at / stride;
    var rest = at - input * stride;
    let input_step = dilation / stride;
    let rest_step = dilation - input_step * stride;
    for (var tap = 0; tap < min(k, k_step); tap++) {
        if (rest == 0) {
            return vec2<i32>(tap, input);
        }
        rest -= rest_step;
        input -= input_step + i32(rest < 0);
        rest += select(0, stride, rest < 0);
    }
    return vec2<i32>(k, 0);
}

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups) * 64u + local;
    if (index >= params.total) {
        return;
    }
    let rows = index / params.row_threads;
    let t = index - rows * params.row_threads;
    let slices = rows / params.count_h;
    let q_h = params.q_h + i32(rows - slices * params.count_h);
    let volumes = slices / params.count_d;
    let q_d = params.q_d + i32(slices - volumes * params.count_d);
    let planes = volumes / params.o_blocks;
    let part_o = (volumes - planes * params.o_blocks) * {{ OB }}u;
    let image = planes / params.g_count;
    let g = params.g0 + planes - image * params.g_count;
    let n = params.n0 + image;
    let o = params.o0 + part_o;
    let valid = min(params.o_count - part_o, {{ OB }}u);

    let turn = u32(params.turn);
    let at_w = params.q_w + i32(t) + params.p_w;
    let first_d = first_tap(q_d + params.p_d, params.k_d, params.k_step_d, params.s_d, params.d_d);
    let first_h = first_tap(q_h + params.p_h, params.k_h, params.k_step_h, params.s_h, params.d_h);
    let first_w = first_tap(at_w, params.k_w, params.k_step_w, params.s_w, params.d_w);
    let plane = u32(params.in_d * params.in_h * params.in_w);
    let taps = u32(params.k_d * params.k_h * params.k_w);
    let w_stride = params.og * taps;
    let x_start = (n * params.c_in + g * params.cg + params.c0) * plane - params.x_base;
    let w_start = ((g * params.cg + params.c0) * params.og + o) * taps - params.w_base;
    let positions = u32(params.out_d * params.out_h * params.out_w);
    let y_at = (n * params.c_out + g * params.og + o) * positions
        + u32((q_d * params.out_h + q_h) * params.out_w + params.q_w) + t - params.y_base;

//% for p in range(4)
    let stored{{ p }} = t + {{ p }}u * turn < params.count_w;
//% endfor
//% for j in range(OB)
    var sum{{ j }} = vec4<f32>();
    if (params.first == 0u && {{ j }}u < valid) {
//% for p in range(4)
        if (stored{{ p }}) {
            sum{{ j }}[{{ p }}] = y[y_at + {{ j }}u * positions + {{ p }}u * turn];
        }
//% endfor
    }
//% endfor

    // Inputs of the four positions under one tap lie `apart`.
    let first_i_w = first_w.y + params.apart * vec4<i32>(0, 1, 2, 3);
    var i_d = first_d.y;
    for (var kd = first_d.x; kd < params.k_d; kd += params.k_step_d) {
        var i_h = first_h.y;
        for (var kh = first_h.x; kh < params.k_h; kh += params.k_step_h) {
            var i_w = first_i_w;
            for (var kw = first_w.x; kw < params.k_w; kw += params.k_step_w) {
                // A position without an input under this tap keeps its sum: 0 times an infinite weight would be NaN.
                let inside = vec4<bool>(i_d >= 0 && i_d < params.in_d && i_h >= 0 && i_h < params.in_h)
                    & (i_w >= vec4<i32>()) & (i_w < vec4<i32>(params.in_w));
                if (any(inside)) {
                    let row = vec4<i32>((i_d * params.in_h + i_h) * params.in_w);
                    let x_at = vec4<u32>(row + clamp(i_w, vec4<i32>(params.x_low), vec4<i32>(params.x_high)));
                    let w_at = u32((kd * params.k_h + kh) * params.k_w + kw);
                    for (var c = 0u; c < params.c_count; c++) {
                        let xc = x_start + c * plane + x_at;
                        let wc = w_start + c * w_stride + w_at;
                        let v = vec4<f32>(x[xc.x], x[xc.y], x[xc.z], x[xc.w]);
//% for j in range(OB)
                        sum{{ j }} = select(sum{{ j }}, sum{{ j }} + w[wc + min({{ j }}u, valid - 1u) * taps] * v, inside);
//% endfor
                    }
                }
                i_w -= vec4<i32>(params.i_step_w);
            }
            i_h -= params.i_step_h;
        }
        i_d -= params.i_step_d;
    }

//% for j in range(OB)
    if ({{ j }}u < valid) {
        let row = y_at + {{ j }}u * positions;
        if (params.last == 1u) {
            if (params.has_bias == 1u) {
                sum{{ j }} += vec4<f32>(bias[g * params.og + o + {{ j }}u]);
            }
            if (params.has_residual == 1u) {
//% for p in range(4)
                if (stored{{ p }}) {
                    sum{{ j }}[{{ p }}] += residual[row + {{ p }}u * turn];
                }
//% endfor
            }
            sum{{ j }} = activate_any(sum{{ j }}, params.activation, params.slope);
        }
//% for p in range(4)
        if (stored{{ p }}) {
            y[row + {{ p }}u * turn] = sum{{ j }}[{{ p }}];
        }
//% endfor
    }
//% endfor
}
