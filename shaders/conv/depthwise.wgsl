// Depthwise convolution in one or two dimensions, with rolling rows; any dilation.
//
//   y[n,o,q] = act(bias[o] + sum over kh, kw of w[o,kh,kw] * x[n, o/M, q*stride - pad + (kh,kw)*dilation] + residual[n,o,q])
//
// x [N,C,H,W], w [C*M,KH,KW], y and residual [N,C*M,QH,QW]; M outputs a channel.
// A thread makes 4 columns and goes down `rows` rows, U rows a step: each input row is loaded once and used for every kernel row, and the
// D - 1 output rows that a step leaves unfinished are kept in registers. With dilation d and stride s, its columns (and rows) are
// spread = d / gcd(s,d) apart, so that the taps of neighbouring ones fall on each other as they do without dilation under the stride
// S = s / gcd(s,d). A single row is cut: its parts (or, dilated, its phases) take the place of rows, `w_step` columns apart.
// With VEC, rows are multiples of four elements, the padding is (KW-1)/2 and the dilation 1: vec4 loads, wholly inside or outside.
// With LANES, a workgroup is one subgroup of so many lanes, and columns that a neighbour lane has loaded come from it.
struct Params {
    first_group: u32,
    channels: u32, multiplier: u32, in_h: i32, in_w: i32,
    out_h: i32, out_w: i32, p_h: i32, p_w: i32,
    s_h: i32, s_w: i32, d_h: i32, d_w: i32,
    phases_h: u32, phases_w: u32, spread_w: i32, row_in: i32,
    h_step: i32, w_step: i32, quads: u32, strips: u32,
    rows: i32, row_count: i32, total: u32, flip: u32,
    activation: u32, slope: f32, has_bias: u32, x_base: u32,
    y_base: u32, taps: i32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ "Quad" if VEC else "f32" }}>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<{{ "Quad" if VEC_Y else "f32" }}>;
@group(0) @binding(5) var<storage, read_write> y: array<{{ "Quad" if VEC_Y else "f32" }}>;
//% include "common/grid.wgsl"
//% include "common/activate.wgsl"
//% include "common/finite.wgsl"
//% include "common/wide.wgsl"
{%- from "common/element.wgsl" import element, put %}
//% set D = (KH + S - 1) // S
//% set P = (KW - 1) // 2
//% set COLUMNS = 3 * S + KW
// Output rows of a step: enough to pay for the loop, few enough that its body stays in the instruction cache.
//% set U = 2 if KH > 3 else (4 // S)
// The first and last block of four columns that a thread needs beside its own S ones.
//% set FIRST = -1 if P > 0 else 0
//% set LAST = (COLUMNS - 1 - P) // 4

fn x_at(index: u32) -> f32 {
    return {{ element("x", "index", VEC) }};
}

// One output by scalar loads that leave out the taps in the padding. The fast path multiplies them by 0, which is wrong for an
// infinite or NaN weight: a thread whose sums are not all finite comes here.
// The number of taps is a parameter lest a compiler unroll this loop, which hardly ever runs: that took most of the compilation.
fn exact(plane: u32, w_at: u32, q_h: i32, q_w: i32) -> f32 {
    var sum = 0.0;
    for (var k = 0; k < params.taps; k++) {
        let i_h = q_h * params.s_h - params.p_h + k / {{ KW }} * params.d_h;
        let i_w = q_w * params.s_w - params.p_w + k % {{ KW }} * params.d_w;
        if (i_h >= 0 && i_h < params.in_h && i_w >= 0 && i_w < params.in_w) {
            sum += w[w_at + u32(select(k, params.taps - 1 - k, params.flip == 1u))] * x_at(plane + u32(i_h * params.in_w + i_w));
        }
    }
    return sum;
}

@compute @workgroup_size({{ LANES if LANES else 64 }})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
//% if LANES
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let thread = group_index(group, groups) * {{ LANES }}u + lane;
//% else
    @builtin(local_invocation_index) local: u32,
) {
    let thread = group_index(group, groups) * 64u + local;
//% endif
    let live = thread < params.total;
    let index = min(thread, params.total - 1u);
    let quad = index % params.quads;
    var rest = index / params.quads;
    let f_w = i32(rest % params.phases_w);
    rest /= params.phases_w;
    let strip = i32(rest % params.strips);
    rest /= params.strips;
    let f_h = i32(rest % params.phases_h);
    let image_channel = rest / params.phases_h;
    let outputs = params.channels * params.multiplier;
    let n = image_channel / outputs;
    let o = image_channel % outputs;
    let plane = (n * params.channels + o / params.multiplier) * u32(params.in_h * params.in_w) - params.x_base;
    let y_plane = image_channel * u32(params.out_h * params.out_w) - params.y_base;
    let first_row = strip * params.rows;
    let last_row = min(first_row + params.rows, params.row_count);
    // The first output column of row 0, and the input row under the first tap of row 0.
    let column = f_w + i32(quad) * 4 * params.spread_w;
    let i_top = f_h * params.s_h - params.p_h;
    let w_at = o * {{ KH * KW }}u;
//% for k in range(KH * KW)
    let w{{ k }} = w[w_at + select({{ k }}u, {{ KH * KW - 1 - k }}u, params.flip == 1u)];
//% endfor
    let shift = select(0.0, bias[select(0u, o, params.has_bias == 1u)], params.has_bias == 1u);
//% for d in range(D - 1)
    var carry{{ d }} = vec4<f32>();
//% endfor
    var exponent = vec4<u32>();
    var step = 0;
    loop {
//% for u in range(U)
        let row{{ u }} = first_row + step * {{ U }} + {{ u }};
        let q_w{{ u }} = column{% if KH == 1 %} + row{{ u }} * params.w_step{% endif %};
//% for s in range(S)
//% if s < KH
//% set g = u * S + s
        let i_h{{ g }} = i_top{% if KH == 1 %} + row{{ u }} * params.row_in{% else %} + (row{{ u }} * {{ S }} + {{ s }}) * params.d_h{% endif %};
        let inside{{ g }} = (i_h{{ g }} >= 0) & (i_h{{ g }} < params.in_h);
        let start{{ g }} = i32(plane) + clamp(i_h{{ g }}, 0, params.in_h - 1) * params.in_w;
//% if VEC
        let left{{ g }} = q_w{{ u }} * {{ S }};
//% for b in range(FIRST if not LANES else 0, (LAST + 1) if not LANES else S)
        let at{{ g }}_{{ b + 1 }} = left{{ g }} + {{ b * 4 }};
        let block{{ g }}_{{ b + 1 }} = select(vec4<f32>(), unpack(x[u32(start{{ g }} + clamp(at{{ g }}_{{ b + 1 }}, 0, params.in_w - 4)) / 4u]),
            inside{{ g }} & (at{{ g }}_{{ b + 1 }} >= 0) & (at{{ g }}_{{ b + 1 }} < params.in_w));
//% endfor
//% if LANES
        // Only the lanes at the subgroup's ends load once more; at the ends of a row lies padding.
        let edge_at{{ g }} = select(left{{ g }} + {{ 4 * S }}, left{{ g }} - 4, lane == 0u);
        var edge{{ g }} = vec4<f32>();
        if (((lane == 0u) | (lane == {{ LANES - 1 }}u)) & inside{{ g }} & (edge_at{{ g }} >= 0) & (edge_at{{ g }} < params.in_w)) {
            edge{{ g }} = unpack(x[u32(start{{ g }} + edge_at{{ g }}) / 4u]);
        }
//% endif
//% for i in range(COLUMNS)
//% set b = (i - P + 4) // 4 - 1
//% if not LANES or (b >= 0 and b < S)
        let c{{ g }}_{{ i }} = block{{ g }}_{{ b + 1 }}[{{ (i - P + 4) % 4 }}];
//% elif b < 0
        let from{{ g }}_{{ i }} = subgroupShuffle(block{{ g }}_{{ S }}[{{ (i - P + 4) % 4 }}], max(lane, 1u) - 1u);
        let c{{ g }}_{{ i }} = select(0.0, select(from{{ g }}_{{ i }}, edge{{ g }}[{{ (i - P + 4) % 4 }}], lane == 0u), left{{ g }} > 0);
//% else
        let from{{ g }}_{{ i }} = subgroupShuffle(block{{ g }}_1[{{ (i - P + 4) % 4 }}], min(lane + 1u, {{ LANES - 1 }}u));
        let c{{ g }}_{{ i }} = select(0.0, select(from{{ g }}_{{ i }}, edge{{ g }}[{{ (i - P + 4) % 4 }}], lane == {{ LANES - 1 }}u), left{{ g }} + {{ 4 * S }} < params.in_w);
//% endif
//% endfor
//% else
        let left{{ g }} = q_w{{ u }} * params.s_w - params.p_w;
//% for i in range(COLUMNS)
        let at{{ g }}_{{ i }} = left{{ g }} + {{ i }} * params.d_w;
        let in{{ g }}_{{ i }} = inside{{ g }} & (at{{ g }}_{{ i }} >= 0) & (at{{ g }}_{{ i }} < params.in_w);
//% if LANES and i >= 4 * S
        // Loaded by a lane further on, where that has the same row.
        let near{{ g }}_{{ i }} = (lane + {{ i // (4 * S) }}u < {{ LANES }}u) & (quad + {{ i // (4 * S) }}u < params.quads);
        let from{{ g }}_{{ i }} = subgroupShuffle(c{{ g }}_{{ i % (4 * S) }}, min(lane + {{ i // (4 * S) }}u, {{ LANES - 1 }}u));
        var c{{ g }}_{{ i }} = select(0.0, from{{ g }}_{{ i }}, near{{ g }}_{{ i }});
        if (!near{{ g }}_{{ i }} & in{{ g }}_{{ i }}) {
            c{{ g }}_{{ i }} = x[u32(start{{ g }} + at{{ g }}_{{ i }})];
        }
//% else
        let c{{ g }}_{{ i }} = select(0.0, x[u32(start{{ g }} + clamp(at{{ g }}_{{ i }}, 0, params.in_w - 1))], in{{ g }}_{{ i }});
//% endif
//% endfor
//% endif
//% for kw in range(KW)
        let v{{ g }}_{{ kw }} = vec4<f32>(c{{ g }}_{{ kw }}, c{{ g }}_{{ kw + S }}, c{{ g }}_{{ kw + 2 * S }}, c{{ g }}_{{ kw + 3 * S }});
//% endfor
//% endif
//% endfor
//% endfor
        // Output row `row0 + d - (D - 1)` takes all its products of this step one after the other.
//% for d in range(D - 1 + U)
        var sum{{ d }} = {% if d < D - 1 %}carry{{ d }}{% else %}vec4<f32>(){% endif %};
//% for g in range(U * S)
//% set kh = g - (d - (D - 1)) * S
//% if kh >= 0 and kh < KH
//% for kw in range(KW)
        sum{{ d }} += w{{ kh * KW + kw }} * v{{ g }}_{{ kw }};
//% endfor
//% endif
//% endfor
//% endfor
//% for d in range(U)
        let done{{ d }} = row0 + {{ d - (D - 1) }};
        exponent = max(exponent, exponent_bits(sum{{ d }}));
        let q_h{{ d }} = f_h + done{{ d }} * params.h_step;
        // The last part of a row that is cut ends behind the row.
        if (live & (done{{ d }} >= first_row) & (done{{ d }} < last_row) & (q_h{{ d }} < params.out_h){% if KH == 1 %} & (q_w{{ d }} < params.out_w){% endif %}) {
            let to = u32(q_h{{ d }} * params.out_w + {% if KH == 1 %}q_w{{ d }}{% else %}column{% endif %}) + y_plane;
//% if VEC_Y
            y[to / 4u] = pack(activate(sum{{ d }} + vec4<f32>(shift){% if RESIDUAL %} + unpack(residual[to / 4u]){% endif %}, params.activation, params.slope));
//% else
            let room = params.out_w - {% if KH == 1 %}q_w{{ d }}{% else %}column{% endif %};
            var result = sum{{ d }} + vec4<f32>(shift);
//% if RESIDUAL
//% for j in range(4)
            if ({{ j }} * params.spread_w < room) {
                result[{{ j }}] += residual[to + u32({{ j }} * params.spread_w)];
            }
//% endfor
//% endif
            let stored = activate(result, params.activation, params.slope);
//% for j in range(4)
            if ({{ j }} * params.spread_w < room) {
                y[to + u32({{ j }} * params.spread_w)] = stored[{{ j }}];
            }
//% endfor
//% endif
        }
//% endfor
//% for d in range(D - 1)
        carry{{ d }} = sum{{ d + U }};
//% endfor
        step++;
        if (step >= (params.rows + {{ D + U - 2 }}) / {{ U }}) {
            break;
        }
    }
    if (live && any(exponent == vec4<u32>(0x7f800000u))) {
        for (var i = first_row * 4; i < last_row * 4; i++) {
            let row = i / 4;
            let q_h = f_h + row * params.h_step;
            let q_w = column + row * params.w_step + i % 4 * params.spread_w;
            if (q_h < params.out_h && q_w < params.out_w) {
                let to = u32(q_h * params.out_w + q_w) + y_plane;
                var value = exact(plane, w_at, q_h, q_w) + shift;
//% if RESIDUAL
                value += {{ element("residual", "to", VEC_Y) }};
//% endif
                {{ put("y", "to", "activate(vec4<f32>(value), params.activation, params.slope).x", VEC_Y) }}
            }
        }
    }
}
