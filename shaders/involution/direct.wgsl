// Involution of any kernel size, stride, dilation and padding; the fallback of every adapter and every size.
//
//   y[n,c,i,j] = act(bias[c] + sum over kh, kw of w[n,g(c),kh,kw,i,j] * x[n,c, i*s - p + kh*d, j*s - p + kw*d] + residual[n,c,i,j])
//
// x [N,C,H,W], w [N,G,KH,KW,HO,WO], y and residual [N,C,HO,WO], bias [C]; g(c) = c / (C/G).
// A thread makes CB channels of one group at one position, so that a weight is loaded once for all of them.
//% include "involution/params.wgsl"
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
//% include "common/grid.wgsl"
//% include "common/activation.wgsl"

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups) * 64u + local;
    let blocks = (params.c_count + {{ CB - 1 }}u) / {{ CB }}u;
    let out_w = u32(params.out_w);
    if (index >= params.n_count * params.g_count * params.row_count * blocks * out_w) {
        return;
    }
    let j = index % out_w;
    var rest = index / out_w;
    let block = rest % blocks;
    rest /= blocks;
    let i = params.row0 + rest % params.row_count;
    rest /= params.row_count;
    let g = params.g0 + rest % params.g_count;
    let n = params.n0 + rest / params.g_count;
    let c = g * params.cg + params.c0 + block * {{ CB }}u;
    let valid = min(params.c_count - block * {{ CB }}u, {{ CB }}u);
    let plane = u32(params.in_h * params.in_w);
    let out_plane = u32(params.out_h) * out_w;
    let at = i * out_w + j;
    let x_at = (n * params.channels + c) * plane - params.x_base;
    let w_at = (n * params.groups + g) * u32(params.k_h * params.k_w) * out_plane + at - params.w_base;
    let y_at = (n * params.channels + c) * out_plane + at - params.y_base;
//% for c in range(CB)
    // Past the last channel the last is loaded again, and not stored.
    let x_more{{ c }} = min({{ c }}u, valid - 1u) * plane;
    var sum{{ c }} = 0.0;
//% endfor
    if (params.first == 0u) {
//% for c in range(CB)
        sum{{ c }} = y[y_at + min({{ c }}u, valid - 1u) * out_plane];
//% endfor
    }
    for (var kh = params.kh0; kh < params.kh1; kh++) {
        let row = i32(i) * params.s_h - params.p_h + kh * params.d_h;
        for (var kw = params.kw0; kw < params.kw1; kw++) {
            let column = i32(j) * params.s_w - params.p_w + kw * params.d_w;
            // A tap in the padding is left out: 0 times an infinite weight would be NaN.
            if (row >= 0 && row < params.in_h && column >= 0 && column < params.in_w) {
                let weight = w[w_at + u32(kh * params.k_w + kw) * out_plane];
                let tap = x_at + u32(row * params.in_w + column);
//% for c in range(CB)
                sum{{ c }} += weight * x[tap + x_more{{ c }}];
//% endfor
            }
        }
    }
//% for c in range(CB)
    if ({{ c }}u < valid) {
        if (params.last == 1u) {
            if (params.has_bias == 1u) {
                sum{{ c }} += bias[c + {{ c }}u - params.b_base];
            }
            if (params.has_residual == 1u) {
                sum{{ c }} += residual[y_at + {{ c }}u * out_plane];
            }
            sum{{ c }} = activate_any(vec4<f32>(sum{{ c }}), params.activation, params.slope).x;
        }
        y[y_at + {{ c }}u * out_plane] = sum{{ c }};
    }
//% endfor
}
