// Grouped convolution with few channels a group, in one or two dimensions; dilation 1.
//
//   y[n,o,q] = act(bias[o] + sum over c, kh, kw of w[o,c,kh,kw] * x[n, g(o)*CG + c, q*S - pad + (kh,kw)] + residual[n,o,q])
//
// x [N,G*CG,H,W], w [G*OG,CG,KH,KW], y and residual [N,G*OG,QH,QW].
// A thread makes 4 columns x R rows of OB output channels of one group, and goes over the group's input channels: of each it loads the rows
// that its own need once, for all of its outputs. KH, KW and the stride S are constants.
// With VEC, rows are multiples of four elements and the padding is (KW-1)/2: vec4 loads, wholly inside or outside.
// With LANES, a workgroup is one subgroup of so many lanes, all on the same output channels: each lane loads another few of the weights
// and hands them round, and columns that a neighbour lane has loaded come from it.
//% set VEC = FLAGS % 2
//% set VEC_Y = FLAGS // 2 % 2
//% set RESIDUAL = FLAGS // 4
struct Params {
    first_group: u32,
    cg: u32, og: u32, groups: u32, tiles: u32,
    in_h: i32, in_w: i32, out_h: i32, out_w: i32,
    p_h: i32, p_w: i32, quads: u32, strips: u32,
    threads: u32, workgroups: u32, activation: u32, slope: f32,
    has_bias: u32, flip: u32, x_base: u32, y_base: u32,
    taps: i32,
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
//% set TAPS = KH * KW
//% set R = 1 if KH == 1 else 4 // S
//% set ROWS = (R - 1) * S + KH
//% set P = (KW - 1) // 2
//% set COLUMNS = 3 * S + KW
//% set FIRST = -1 if P > 0 else 0
//% set LAST = (COLUMNS - 1 - P) // 4
//% set WORKGROUP = LANES if LANES else 64

fn x_at(index: u32) -> f32 {
    return {{ element("x", "index", VEC) }};
}

// Where a tap of output channel `o` of the whole lies in channel 0.
fn w_index(o: u32, k: u32) -> u32 {
    return o * params.cg * {{ TAPS }}u + select(k, {{ TAPS - 1 }}u - k, params.flip == 1u);
}

// One output by scalar loads that leave out the taps in the padding. The fast path multiplies them by 0, which is wrong for an
// infinite or NaN weight: a thread whose sums are not all finite comes here. `planes` is where the group's first channel starts.
// The number of taps is a parameter lest a compiler unroll this loop, which hardly ever runs: that took most of the compilation.
fn exact(planes: u32, o: u32, q_h: i32, q_w: i32) -> f32 {
    var sum = 0.0;
    for (var c = 0u; c < params.cg; c++) {
        for (var k = 0; k < params.taps; k++) {
            let i_h = q_h * {{ S }} - params.p_h + k / {{ KW }};
            let i_w = q_w * {{ S }} - params.p_w + k % {{ KW }};
            if (i_h >= 0 && i_h < params.in_h && i_w >= 0 && i_w < params.in_w) {
                let at = planes + c * u32(params.in_h * params.in_w) + u32(i_h * params.in_w + i_w);
                sum += w[w_index(o, u32(k)) + c * {{ TAPS }}u] * x_at(at);
            }
        }
    }
    return sum;
}

@compute @workgroup_size({{ WORKGROUP }})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin({{ "subgroup_invocation_id" if LANES else "local_invocation_index" }}) lane: u32,
) {
    let workgroup = group_index(group, groups);
    // Of a tile of output channels, `workgroups` make the positions of all images.
    let thread = workgroup % params.workgroups * {{ WORKGROUP }}u + lane;
    let all_tiles = params.groups * params.tiles;
    let live = (thread < params.threads) & (workgroup / params.workgroups < all_tiles);
    let tile = min(workgroup / params.workgroups, all_tiles - 1u);
    let index = min(thread, params.threads - 1u);
    let g = tile / params.tiles;
    let o_first = tile % params.tiles * {{ OB }}u;
    let o_count = min(params.og - o_first, {{ OB }}u);
    let o_at = g * params.og + o_first;
    let quad = index % params.quads;
    let strip = i32(index / params.quads % params.strips);
    let n = index / params.quads / params.strips;
    let plane = u32(params.in_h * params.in_w);
    let out_plane = u32(params.out_h * params.out_w);
    let planes = (n * params.groups + g) * params.cg * plane - params.x_base;
    let q_w = i32(quad) * 4;
    let q_h = strip * {{ R }};
    let to = (n * params.groups * params.og + o_at) * out_plane + u32(q_h * params.out_w + q_w) - params.y_base;
    let left = q_w * {{ S }}{% if not VEC %} - params.p_w{% endif %};
//% for g in range(ROWS)
    let i_h{{ g }} = q_h * {{ S }} - params.p_h + {{ g }};
    let inside{{ g }} = (i_h{{ g }} >= 0) & (i_h{{ g }} < params.in_h);
    let start{{ g }} = u32(clamp(i_h{{ g }}, 0, params.in_h - 1) * params.in_w);
//% endfor
//% if LANES
//% for part in range((OB * TAPS + LANES - 1) // LANES)
    let e{{ part }} = min(lane + {{ part * LANES }}u, {{ OB * TAPS - 1 }}u);
    let w_at{{ part }} = w_index(o_at + min(e{{ part }} / {{ TAPS }}u, o_count - 1u), e{{ part }} % {{ TAPS }}u);
//% endfor
//% endif
//% for o in range(OB)
//% for r in range(R)
    var sum{{ o }}_{{ r }} = vec4<f32>();
//% endfor
//% endfor
    var c = 0u;
    loop {
        let x_start = planes + c * plane;
//% for g in range(ROWS)
//% if VEC
//% for b in range(FIRST if not LANES else 0, (LAST + 1) if not LANES else S)
        let at{{ g }}_{{ b + 1 }} = left + {{ b * 4 }};
        let block{{ g }}_{{ b + 1 }} = select(vec4<f32>(), unpack(x[(x_start + start{{ g }} + u32(clamp(at{{ g }}_{{ b + 1 }}, 0, params.in_w - 4))) / 4u]),
            inside{{ g }} & (at{{ g }}_{{ b + 1 }} >= 0) & (at{{ g }}_{{ b + 1 }} < params.in_w));
//% endfor
//% if LANES
        // Only the lanes at the subgroup's ends load once more; at the ends of a row lies padding.
        let edge_at{{ g }} = select(left + {{ 4 * S }}, left - 4, lane == 0u);
        var edge{{ g }} = vec4<f32>();
        if (((lane == 0u) | (lane == {{ LANES - 1 }}u)) & inside{{ g }} & (edge_at{{ g }} >= 0) & (edge_at{{ g }} < params.in_w)) {
            edge{{ g }} = unpack(x[(x_start + start{{ g }} + u32(edge_at{{ g }})) / 4u]);
        }
//% endif
//% for i in range(COLUMNS)
//% set b = (i - P + 4) // 4 - 1
//% if not LANES or (b >= 0 and b < S)
        let c{{ g }}_{{ i }} = block{{ g }}_{{ b + 1 }}[{{ (i - P + 4) % 4 }}];
//% elif b < 0
        let from{{ g }}_{{ i }} = subgroupShuffle(block{{ g }}_{{ S }}[{{ (i - P + 4) % 4 }}], max(lane, 1u) - 1u);
        let c{{ g }}_{{ i }} = select(0.0, select(from{{ g }}_{{ i }}, edge{{ g }}[{{ (i - P + 4) % 4 }}], lane == 0u), left > 0);
//% else
        let from{{ g }}_{{ i }} = subgroupShuffle(block{{ g }}_1[{{ (i - P + 4) % 4 }}], min(lane + 1u, {{ LANES - 1 }}u));
        let c{{ g }}_{{ i }} = select(0.0, select(from{{ g }}_{{ i }}, edge{{ g }}[{{ (i - P + 4) % 4 }}], lane == {{ LANES - 1 }}u), left + {{ 4 * S }} < params.in_w);
//% endif
//% endfor
//% else
//% for i in range(COLUMNS)
        let at{{ g }}_{{ i }} = left + {{ i }};
        let in{{ g }}_{{ i }} = inside{{ g }} & (at{{ g }}_{{ i }} >= 0) & (at{{ g }}_{{ i }} < params.in_w);
//% if LANES and i >= 4 * S
        // Loaded by a lane further on, where that has the same row.
        let near{{ g }}_{{ i }} = (lane + {{ i // (4 * S) }}u < {{ LANES }}u) & (quad + {{ i // (4 * S) }}u < params.quads);
        let from{{ g }}_{{ i }} = subgroupShuffle(c{{ g }}_{{ i % (4 * S) }}, min(lane + {{ i // (4 * S) }}u, {{ LANES - 1 }}u));
        var c{{ g }}_{{ i }} = select(0.0, from{{ g }}_{{ i }}, near{{ g }}_{{ i }});
        if (!near{{ g }}_{{ i }} & in{{ g }}_{{ i }}) {
            c{{ g }}_{{ i }} = x[x_start + start{{ g }} + u32(at{{ g }}_{{ i }})];
        }
//% else
        let c{{ g }}_{{ i }} = select(0.0, x[x_start + start{{ g }} + u32(clamp(at{{ g }}_{{ i }}, 0, params.in_w - 1))], in{{ g }}_{{ i }});
//% endif
//% endfor
//% endif
//% for kw in range(KW)
        let v{{ g }}_{{ kw }} = vec4<f32>(c{{ g }}_{{ kw }}, c{{ g }}_{{ kw + S }}, c{{ g }}_{{ kw + 2 * S }}, c{{ g }}_{{ kw + 3 * S }});
//% endfor
//% endfor
//% if LANES
//% for part in range((OB * TAPS + LANES - 1) // LANES)
        let w{{ part }} = w[w_at{{ part }} + c * {{ TAPS }}u];
//% endfor
//% endif
//% for o in range(OB)
//% for k in range(TAPS)
//% if LANES
        let f{{ o }}_{{ k }} = subgroupBroadcast(w{{ (o * TAPS + k) // LANES }}, {{ (o * TAPS + k) % LANES }}u);
//% else
        let f{{ o }}_{{ k }} = w[w_index(o_at + min({{ o }}u, o_count - 1u), {{ k }}u) + c * {{ TAPS }}u];
//% endif
//% endfor
//% for r in range(R)
//% for k in range(TAPS)
        sum{{ o }}_{{ r }} += f{{ o }}_{{ k }} * v{{ r * S + k // KW }}_{{ k % KW }};
//% endfor
//% endfor
//% endfor
        c++;
        if (c >= params.cg) {
            break;
        }
    }

    // An output channel a round, the sums of the next moved up: written out for all of them, the stores are most of the code.
    var exponent = vec4<u32>();
    var o = 0u;
    loop {
        let shift = select(0.0, bias[select(0u, o_at + o, params.has_bias == 1u)], params.has_bias == 1u);
//% for r in range(R)
        exponent = max(exponent, exponent_bits(sum0_{{ r }}));
        if (live & (q_h + {{ r }} < params.out_h)) {
            let at = to + o * out_plane + u32({{ r }} * params.out_w);
//% if VEC_Y
            y[at / 4u] = pack(activate(sum0_{{ r }} + vec4<f32>(shift){% if RESIDUAL %} + unpack(residual[at / 4u]){% endif %}, params.activation, params.slope));
//% else
            var result = sum0_{{ r }} + vec4<f32>(shift);
//% if RESIDUAL
//% for j in range(4)
            if (q_w + {{ j }} < params.out_w) {
                result[{{ j }}] += residual[at + {{ j }}u];
            }
//% endfor
//% endif
            let stored = activate(result, params.activation, params.slope);
//% for j in range(4)
            if (q_w + {{ j }} < params.out_w) {
                y[at + {{ j }}u] = stored[{{ j }}];
            }
//% endfor
//% endif
        }
//% endfor
//% for o in range(1, OB)
//% for r in range(R)
        sum{{ o - 1 }}_{{ r }} = sum{{ o }}_{{ r }};
//% endfor
//% endfor
        o++;
        if (o >= o_count) {
            break;
        }
    }
    if (live && any(exponent == vec4<u32>(0x7f800000u))) {
        // One loop over channels, rows and columns, everything computed anew.
        for (var i = 0u; i < o_count * {{ 4 * R }}u; i++) {
            let o = i / {{ 4 * R }}u;
            let row = q_h + i32(i / 4u % {{ R }}u);
            let column = q_w + i32(i % 4u);
            if (row < params.out_h && column < params.out_w) {
                let at = to + o * out_plane + (i / 4u % {{ R }}u) * u32(params.out_w) + i % 4u;
                var value = exact(planes, o_at + o, row, column);
                value += select(0.0, bias[select(0u, o_at + o, params.has_bias == 1u)], params.has_bias == 1u);
//% if RESIDUAL
                value += {{ element("residual", "at", VEC_Y) }};
//% endif
                {{ put("y", "at", "activate(vec4<f32>(value), params.activation, params.slope).x", VEC_Y) }}
            }
        }
    }
}
