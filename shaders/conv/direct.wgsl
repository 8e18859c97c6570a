// Convolution of any rank, stride, dilation, padding, border and grouping; the fallback of every adapter and every size.
//
//   y[n,o,q] = act(bias[o] + sum over c, k of w[o,c,k] * x[n, g(o)*CG + c, q*stride - pad + k*dilation] + residual[n,o,q])
//
// x [N,C,D,H,W], w [O,CG,KD,KH,KW], y and residual [N,O,QD,QH,QW]; lower ranks have extents of 1 in front.
// A thread makes OB output channels of one group at one position. A dispatch may cover a part of the output and, with
// `first` or `last` zero, of the input channels: then y holds partial sums. Bindings may be windows: the bases say where they start.
struct Params {
    first_group: u32,
    c_in: u32, c_out: u32, cg: u32, og: u32,
    in_d: i32, in_h: i32, in_w: i32, border: u32,
    out_d: i32, out_h: i32, out_w: i32, flip: u32,
    k_d: i32, k_h: i32, k_w: i32, activation: u32,
    s_d: i32, s_h: i32, s_w: i32, slope: f32,
    d_d: i32, d_h: i32, d_w: i32, has_bias: u32,
    p_d: i32, p_h: i32, p_w: i32, has_residual: u32,
    // the part: images, blocks of OB output channels, positions, input channels of the group
    n0: u32, b0: u32, q0: u32, c0: u32,
    n_count: u32, b_count: u32, q_count: u32, c_count: u32,
    x_base: u32, w_base: u32, y_base: u32, first: u32,
    last: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
//% include "common/grid.wgsl"
//% include "common/border.wgsl"
//% include "common/activation.wgsl"

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups) * 64u + local;
    if (index >= params.n_count * params.b_count * params.q_count) {
        return;
    }
    let q = params.q0 + index % params.q_count;
    let block = params.b0 + index / params.q_count % params.b_count;
    let n = params.n0 + index / params.q_count / params.b_count;
    let blocks = (params.og + {{ OB - 1 }}u) / {{ OB }}u;
    let g = block / blocks;
    let o = g * params.og + block % blocks * {{ OB }}u;
    let valid = min(params.og - block % blocks * {{ OB }}u, {{ OB }}u);
    let qi = i32(q);
    let at_w = qi % params.out_w * params.s_w - params.p_w;
    let at_h = qi / params.out_w % params.out_h * params.s_h - params.p_h;
    let at_d = qi / params.out_w / params.out_h * params.s_d - params.p_d;
    let plane = params.in_d * params.in_h * params.in_w;
    let taps = params.k_d * params.k_h * params.k_w;
    let positions = u32(params.out_d * params.out_h * params.out_w);
    let y_at = (n * params.c_out + o) * positions + q - params.y_base;
    let w_stride = params.cg * u32(taps);

//% for j in range(OB)
    var sum{{ j }} = 0.0;
//% endfor
    if (params.first == 0u) {
//% for j in range(OB)
        if ({{ j }}u < valid) {
            sum{{ j }} = y[y_at + {{ j }}u * positions];
        }
//% endfor
    }
    for (var c = params.c0; c < params.c0 + params.c_count; c++) {
        let x_at = (n * params.c_in + g * params.cg + c) * u32(plane) - params.x_base;
        let w_at = (o * params.cg + c) * u32(taps) - params.w_base;
        for (var kd = 0; kd < params.k_d; kd++) {
            let i_d = border_index(at_d + kd * params.d_d, params.in_d, params.border);
            for (var kh = 0; kh < params.k_h; kh++) {
                let i_h = border_index(at_h + kh * params.d_h, params.in_h, params.border);
                for (var kw = 0; kw < params.k_w; kw++) {
                    let i_w = border_index(at_w + kw * params.d_w, params.in_w, params.border);
                    // A tap in the zero padding is left out: 0 times an infinite weight would be NaN.
                    if (i_d >= 0 && i_h >= 0 && i_w >= 0) {
                        let value = x[x_at + u32((i_d * params.in_h + i_h) * params.in_w + i_w)];
                        let k = (kd * params.k_h + kh) * params.k_w + kw;
                        let tap = w_at + u32(select(k, taps - 1 - k, params.flip == 1u));
//% for j in range(OB)
                        sum{{ j }} += w[tap + min({{ j }}u, valid - 1u) * w_stride] * value;
//% endfor
                    }
                }
            }
        }
    }
//% for j in range(OB)
    if ({{ j }}u < valid) {
        if (params.last == 1u) {
            if (params.has_bias == 1u) {
                sum{{ j }} += bias[o + {{ j }}u];
            }
            if (params.has_residual == 1u) {
                sum{{ j }} += residual[y_at + {{ j }}u * positions];
            }
            sum{{ j }} = activate_any(vec4<f32>(sum{{ j }}), params.activation, params.slope).x;
        }
        y[y_at + {{ j }}u * positions] = sum{{ j }};
    }
//% endfor
}
