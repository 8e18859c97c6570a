// Depthwise convolution in one or two dimensions, with rolling rows.
//
//   y[n,o,q] = act(bias[o] + sum over kh, kw of w[o,kh,kw] * x[n, o/M, q*S - pad + (kh,kw)] + residual[n,o,q])
//
// x [N,C,H,W], w [C*M,KH,KW], y and residual [N,C*M,QH,QW]; M outputs a channel; dilation 1.
// A thread makes 4 neighbouring columns and goes down `rows` rows: each input row is loaded once and used for every kernel row;
// the D = ceil(KH/S) output rows under way are kept in registers. KH, KW and the stride S are constants.
// With VEC, rows are multiples of four elements and the padding is (KW-1)/2: vec4 loads, which are wholly inside or wholly outside.
struct Params {
    channels: u32, multiplier: u32, in_h: i32, in_w: i32,
    out_h: i32, out_w: i32, p_h: i32, p_w: i32,
    quads: u32, strips: u32, rows: i32, total: u32,
    activation: u32, slope: f32, has_bias: u32, flip: u32,
    x_base: u32, y_base: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ "vec4<f32>" if VEC else "f32" }}>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<{{ "vec4<f32>" if VEC_Y else "f32" }}>;
//% include "common/grid.wgsl"
//% include "common/activate.wgsl"
//% include "common/finite.wgsl"
//% set D = (KH + S - 1) // S
//% set P = (KW - 1) // 2
//% set COLUMNS = 3 * S + KW

fn x_at(index: u32) -> f32 {
{% if VEC %}    return x[index / 4u][index % 4u];{% else %}    return x[index];{% endif %}
}

// One output by scalar loads that leave out the taps in the padding. The fast path multiplies them by 0, which is wrong for an
// infinite or NaN weight: a result that is not finite comes here.
fn exact(plane: u32, w_at: u32, q_h: i32, q_w: i32) -> f32 {
    var sum = 0.0;
    for (var k = 0; k < {{ KH * KW }}; k++) {
        let i_h = q_h * {{ S }} - params.p_h + k / {{ KW }};
        let i_w = q_w * {{ S }} - params.p_w + k % {{ KW }};
        if (i_h >= 0 && i_h < params.in_h && i_w >= 0 && i_w < params.in_w) {
            sum += w[w_at + u32(select(k, {{ KH * KW - 1 }} - k, params.flip == 1u))] * x_at(plane + u32(i_h * params.in_w + i_w));
        }
    }
    return sum;
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
    let quad = index % params.quads;
    let strip = index / params.quads % params.strips;
    let image_channel = index / params.quads / params.strips;
    let outputs = params.channels * params.multiplier;
    let n = image_channel / outputs;
    let o = image_channel % outputs;
    let q_w = i32(quad * 4u);
    let plane = (n * params.channels + o / params.multiplier) * u32(params.in_h * params.in_w) - params.x_base;
    let first_row = i32(strip) * params.rows;
    let last_row = min(first_row + params.rows, params.out_h);
    let w_at = o * {{ KH * KW }}u;
//% for k in range(KH * KW)
    let w{{ k }} = w[w_at + select({{ k }}u, {{ KH * KW - 1 - k }}u, params.flip == 1u)];
//% endfor
    let shift = select(0.0, bias[select(0u, o, params.has_bias == 1u)], params.has_bias == 1u);
//% for d in range(D)
    var sum{{ d }} = vec4<f32>();
//% endfor
    let left = q_w * {{ S }}{% if not VEC %} - params.p_w{% endif %};
    // Step t loads S input rows; afterwards the output row t - (D - 1) of the strip is complete.
    for (var row = first_row; row < last_row + {{ D - 1 }}; row++) {
//% for s in range(S)
        let i_h{{ s }} = row * {{ S }} - params.p_h + {{ s }};
        let row_inside{{ s }} = (i_h{{ s }} >= 0) & (i_h{{ s }} < params.in_h);
        let start{{ s }} = i32(plane) + clamp(i_h{{ s }}, 0, params.in_h - 1) * params.in_w;
//% if VEC
//% for b in range((8 - P) // 4 - 2, (COLUMNS - 1 - P) // 4 + 1)
        let inside{{ s }}_{{ b + 2 }} = row_inside{{ s }} & (left + {{ b * 4 }} >= 0) & (left + {{ b * 4 }} < params.in_w);
        let block{{ s }}_{{ b + 2 }} = select(vec4<f32>(), x[u32(start{{ s }} + clamp(left + {{ b * 4 }}, 0, params.in_w - 4)) / 4u], inside{{ s }}_{{ b + 2 }});
//% endfor
//% for i in range(COLUMNS)
        let c{{ s }}_{{ i }} = block{{ s }}_{{ (i - P + 8) // 4 }}[{{ (i - P + 8) % 4 }}];
//% endfor
//% else
//% for i in range(COLUMNS)
        let at{{ s }}_{{ i }} = x[u32(start{{ s }} + clamp(left + {{ i }}, 0, params.in_w - 1))];
        let c{{ s }}_{{ i }} = select(0.0, at{{ s }}_{{ i }}, row_inside{{ s }} & (left + {{ i }} >= 0) & (left + {{ i }} < params.in_w));
//% endfor
//% endif
//% for kw in range(KW)
        let v{{ s }}_{{ kw }} = vec4<f32>(c{{ s }}_{{ kw }}, c{{ s }}_{{ kw + S }}, c{{ s }}_{{ kw + 2 * S }}, c{{ s }}_{{ kw + 3 * S }});
//% for d in range(D)
//% if d * S + s < KH
        sum{{ d }} += w{{ (d * S + s) * KW + kw }} * v{{ s }}_{{ kw }};
//% endif
//% endfor
//% endfor
//% endfor
        let q_h = row - {{ D - 1 }};
        if (q_h >= first_row) {
            var result = sum{{ D - 1 }};
            if (!all_finite(result)) {
                for (var j = 0; j < 4; j++) {
                    result[j] = exact(plane, w_at, q_h, min(q_w + j, params.out_w - 1));
                }
            }
            let at = image_channel * u32(params.out_h * params.out_w) + u32(q_h * params.out_w + q_w) - params.y_base;
            result += vec4<f32>(shift);
//% if RESIDUAL
//% for j in range(4)
            if (q_w + {{ j }} < params.out_w) {
                result[{{ j }}] += residual[at + {{ j }}u];
            }
//% endfor
//% endif
            let stored = activate(result, params.activation, params.slope);
//% if VEC_Y
            y[at / 4u] = stored;
//% else
//% for j in range(4)
            if (q_w + {{ j }} < params.out_w) {
                y[at + {{ j }}u] = stored[{{ j }}];
            }
//% endfor
//% endif
        }
//% for d in range(D - 1, 0, -1)
        sum{{ d }} = sum{{ d - 1 }};
//% endfor
        sum0 = vec4<f32>();
    }
}
