// The involution layer's last two steps in one: the 1x1 convolution that spans the kernels feeds the involution, tap row by tap row, so that
// the kernels never lie in memory. Kernels KW wide, stride SW and no dilation along rows.
//
//   w[k] = bias[g*K + k] + sum over r of span[g,k,r] * reduced[n,r,i,j],   k = kh*KW + kw, K = KH*KW
//   y[n,c,i,j] = act(sum over k of w[k] * x[n,c, i*s - p + kh*d, j*SW - p + kw] + residual[n,c,i,j])
//
// x [N,C,H,W], reduced [N,R,HO,WO], span [G,KH,R,ceil(KW/4)] of vec4s over kw (0 past KW), bias [G*K], y and residual [N,C,HO,WO].
// A thread makes CB channels of one group at row i, positions j..j+3. Of each row of taps it first makes the KW weights of its positions,
// for which it reads R vec4s of `reduced`; then it loads, of each channel, the stretch of the input row that the four windows cover.
// Bindings may be windows: the bases count from the dispatch's first image.
//% set VEC = FLAGS % 2
//% set RESIDUAL = FLAGS // 2
//% set VALUE = "vec4<f32>" if VEC else "f32"
//% set SPAN = SW * 3 + KW
//% set QUADS = (KW + 3) // 4
struct Params {
    first_group: u32,
    channels: u32, cg: u32, groups: u32, reduced: u32,
    in_h: i32, in_w: i32, out_h: i32, out_w: i32,
    s_h: i32, d_h: i32, p_h: i32, p_w: i32,
    k_h: i32, images: u32, activation: u32, slope: f32,
    has_bias: u32, x_base: u32, r_base: u32, y_base: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> reduced: array<{{ VALUE }}>;
@group(0) @binding(3) var<storage, read> span: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read> residual: array<{{ VALUE }}>;
@group(0) @binding(6) var<storage, read_write> y: array<{{ VALUE }}>;
//% include "common/grid.wgsl"
//% include "common/activate.wgsl"

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups) * 64u + local;
    let blocks = (params.cg + {{ CB - 1 }}u) / {{ CB }}u;
    let out_w = u32(params.out_w);
    let quads = (out_w + 3u) / 4u;
    if (index >= params.images * params.groups * blocks * u32(params.out_h) * quads) {
        return;
    }
    let j = index % quads * 4u;
    var rest = index / quads;
    let i = rest % u32(params.out_h);
    rest /= u32(params.out_h);
    let block = rest % blocks;
    rest /= blocks;
    let g = rest % params.groups;
    let n = rest / params.groups;
    let c = g * params.cg + block * {{ CB }}u;
    let valid = min(params.cg - block * {{ CB }}u, {{ CB }}u);
    let plane = u32(params.in_h * params.in_w);
    let out_plane = u32(params.out_h) * out_w;
    let start = i32(j) * {{ SW }} - params.p_w;
    let position = i * out_w + j;

    // Which positions' windows have tap k inside the row. Both factors of a tap in the padding become 0: neither may be infinite.
//% for k in range(KW)
    let column{{ k }} = vec4<i32>(start + {{ k }}) + vec4<i32>(0, {{ SW }}, {{ 2 * SW }}, {{ 3 * SW }});
    let inside{{ k }} = (column{{ k }} >= vec4<i32>()) & (column{{ k }} < vec4<i32>(params.in_w));
//% endfor
//% for e in range(SPAN)
    let loaded{{ e }} = (start + {{ e }} >= 0) & (start + {{ e }} < params.in_w);
    let from{{ e }} = u32(clamp(start + {{ e }}, 0, params.in_w - 1));
//% endfor
//% if not VEC
    let further = min(vec4<u32>(j) + vec4<u32>(0u, 1u, 2u, 3u), vec4<u32>(out_w - 1u)) - vec4<u32>(j);
//% endif
    // Past the last channel the last is loaded again, and not stored.
//% for c in range(CB)
    let x_at{{ c }} = (n * params.channels + c + min({{ c }}u, valid - 1u)) * plane - params.x_base;
    var sum{{ c }} = vec4<f32>();
//% endfor
    for (var kh = 0; kh < params.k_h; kh++) {
        let row = i32(i) * params.s_h - params.p_h + kh * params.d_h;
        if (row >= 0 && row < params.in_h) {
            let tap = (g * u32(params.k_h) + u32(kh)) * {{ KW }}u;
//% for k in range(KW)
            var w{{ k }} = vec4<f32>(bias[select(0u, tap + {{ k }}u, params.has_bias == 1u)]);
//% endfor
            var span_at = (g * u32(params.k_h) + u32(kh)) * params.reduced * {{ QUADS }}u;
            var r_at = n * params.reduced * out_plane + position - params.r_base;
            for (var r = 0u; r < params.reduced; r++) {
//% if VEC
                let value = reduced[r_at / 4u];
//% else
                let value = vec4<f32>({% for p in range(4) %}reduced[r_at + further[{{ p }}]]{{ ", " if p < 3 }}{% endfor %});
//% endif
//% for q in range(QUADS)
                let span{{ q }} = span[span_at + {{ q }}u];
//% endfor
//% for k in range(KW)
                w{{ k }} += span{{ k // 4 }}[{{ k % 4 }}] * value;
//% endfor
                span_at += {{ QUADS }}u;
                r_at += out_plane;
            }
//% for k in range(KW)
            w{{ k }} = select(vec4<f32>(), w{{ k }}, inside{{ k }});
//% endfor
            let in_row = u32(row * params.in_w);
//% for c in range(CB)
//% for e in range(SPAN)
            let x{{ c }}_{{ e }} = select(0.0, x[x_at{{ c }} + in_row + from{{ e }}], loaded{{ e }});
//% endfor
//% for k in range(KW)
            sum{{ c }} += w{{ k }} * vec4<f32>({% for p in range(4) %}x{{ c }}_{{ SW * p + k }}{{ ", " if p < 3 }}{% endfor %});
//% endfor
//% endfor
        }
    }

    // A channel a round, the others then moved down: written out for all of them, the stores would be most of the shader's length.
    let y_at = (n * params.channels + c) * out_plane + position - params.y_base;
    for (var m = 0u; m < valid; m++) {
        let to = y_at + m * out_plane;
//% if VEC
        y[to / 4u] = activate(sum0{% if RESIDUAL %} + residual[to / 4u]{% endif %}, params.activation, params.slope);
//% else
        let stored = activate(sum0{% if RESIDUAL %} + vec4<f32>({% for p in range(4) %}residual[to + further[{{ p }}]]{{ ", " if p < 3 }}{% endfor %}){% endif %}, params.activation, params.slope);
//% for p in range(4)
        if (j + {{ p }}u < out_w) {
            y[to + {{ p }}u] = stored[{{ p }}];
        }
//% endfor
//% endif
//% for c in range(CB - 1)
        sum{{ c }} = sum{{ c + 1 }};
//% endfor
    }
}
