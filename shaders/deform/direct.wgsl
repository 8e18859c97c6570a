// Deformable convolution, version 1 and, with MASK, version 2; the fallback of every adapter and every size.
//
//   y[n,o,p] = act(bias[o] + sum over c, k of w[o,c,k] * m[n,d,k,p] * x[n, g(o)*CG + c, p*stride - pad + k*dilation + offset[n,d,k,p]]
//              + residual[n,o,p])      d = (g(o)*CG + c) / CD, the offset group; x sampled as deform/corners.wgsl says
//
// x [N,C,H,W], offset [N,D,KH,KW,2,OH,OW] with dy before dx, mask [N,D,KH,KW,OH,OW], w [O,CG,KH,KW], y and residual [N,O,OH,OW].
// A thread makes OB output channels of one weight group at one position. A dispatch may cover a part of the output and, with
// `first` or `last` zero, of the input channels: then y holds partial sums. Bindings may be windows: the bases say where they start.
struct Params {
    first_group: u32,
    c_in: u32, c_out: u32, cg: u32, og: u32,
    in_h: i32, in_w: i32, out_h: i32, out_w: i32,
    k_h: i32, k_w: i32, s_h: i32, s_w: i32,
    d_h: i32, d_w: i32, p_h: i32, p_w: i32,
    cd: u32, offset_groups: u32, activation: u32, slope: f32,
    // the part: images, blocks of OB output channels, positions, input channels of the group
    n0: u32, b0: u32, q0: u32, c0: u32,
    n_count: u32, b_count: u32, q_count: u32, c_count: u32,
    x_base: u32, w_base: u32, y_base: u32, offset_base: u32,
    mask_base: u32, has_bias: u32, has_residual: u32, first: u32,
    last: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> offset: array<f32>;
//% if MASK
@group(0) @binding(3) var<storage, read> mask: array<f32>;
//% endif
@group(0) @binding(4) var<storage, read> w: array<f32>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read> residual: array<f32>;
@group(0) @binding(7) var<storage, read_write> y: array<f32>;
//% include "common/grid.wgsl"
//% include "common/activation.wgsl"
//% include "deform/corners.wgsl"

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
    let at_h = i32(q) / params.out_w * params.s_h - params.p_h;
    let at_w = i32(q) % params.out_w * params.s_w - params.p_w;
    let plane = u32(params.in_h * params.in_w);
    let positions = u32(params.out_h * params.out_w);
    let taps = u32(params.k_h * params.k_w);
    let y_at = (n * params.c_out + o) * positions + q - params.y_base;
    let w_stride = params.cg * taps;
    let c_first = g * params.cg + params.c0;
    let c_end = c_first + params.c_count;

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
    for (var kh = 0; kh < params.k_h; kh++) {
        for (var kw = 0; kw < params.k_w; kw++) {
            let k = u32(kh * params.k_w + kw);
            var c = c_first;
            // One round for each offset group that the channels fall into.
            while (c < c_end) {
                let d = c / params.cd;
                let round_end = min((d + 1u) * params.cd, c_end);
                let field = (n * params.offset_groups + d) * taps + k;
                let offset_at = field * 2u * positions + q - params.offset_base;
                // The coordinate is one f32 addition, by definition.
                let point_y = f32(at_h + kh * params.d_h) + offset[offset_at];
                let point_x = f32(at_w + kw * params.d_w) + offset[offset_at + positions];
                let near = corners(point_y, point_x, params.in_h, params.in_w);
//% if MASK
                let m = mask[field * positions + q - params.mask_base];
//% endif
                for (; c < round_end; c++) {
                    let x_at = vec4<u32>((n * params.c_in + c) * plane - params.x_base) + near.at;
                    let loaded = vec4<f32>(x[x_at.x], x[x_at.y], x[x_at.z], x[x_at.w]);
                    // A neighbour outside is left out; one inside is multiplied, also by 0.
                    let v = select(vec4<f32>(), loaded, near.inside) * near.weight;
                    let value = ((v.x + v.y) + (v.z + v.w)){% if MASK %} * m{% endif %};
                    let tap = (o * params.cg + c - g * params.cg) * taps + k - params.w_base;
//% for j in range(OB)
                    sum{{ j }} += w[tap + min({{ j }}u, valid - 1u) * w_stride] * value;
//% endfor
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
