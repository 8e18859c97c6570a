// Convolution of few input channels, as a network's first layer has it, in one or two dimensions, without barriers: a workgroup is
// one subgroup.
//
//   y[n,o,q] = act(bias[o] + sum over c, kh, kw of w[o,c,kh,kw] * x[n, g*CG + c, q*stride - pad + (kh*dilation, kw)] + residual[n,o,q])
//
// A subgroup of LANES makes OC output channels x 4*LANES positions: each lane four neighbouring columns, quads of columns counted
// through rows and images. A step is one channel and kernel row: 3*S + KW input columns a lane, loaded once for all KW taps, and
// KW*OC weights, of which each lane loads a vec4 or a few and hands them round by broadcast. KW, OC and the stride S along rows are constants.
// x [N,C,H,W]; w [G,T,CG,KH,KW,OC] (conv/pack.wgsl, taps inside channels); y, residual [N,O,QH,QW]. With VEC, QW is a multiple of 4.
struct Params {
    first_group: u32,
    cg: u32, og: u32, groups: u32, tiles: u32,
    in_h: i32, in_w: i32, out_h: i32, out_w: i32,
    k_h: i32, s_h: i32, d_h: i32, p_h: i32,
    p_w: i32, quads: u32, quad_tiles: u32, row_quads: u32,
    activation: u32, slope: f32, has_bias: u32, total: u32,
    x_base: u32, y_base: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<Quad>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<{{ "Quad" if VEC else "f32" }}>;
@group(0) @binding(5) var<storage, read_write> y: array<{{ "Quad" if VEC else "f32" }}>;
//% include "common/grid.wgsl"
//% include "common/activate.wgsl"
//% include "common/finite.wgsl"
//% include "common/wide.wgsl"
{%- from "common/element.wgsl" import element, put %}
//% set OC = 16
//% set COLUMNS = 3 * S + KW
//% set WEIGHTS = KW * OC // 4

// One output by a loop that leaves out the taps in the padding. The fast path multiplies them by 0, which is wrong for a weight that
// is infinite or NaN: a lane whose sums are not all finite comes here.
fn exact(x_image: u32, w_tile: u32, o: u32, q_h: i32, q_w: i32) -> f32 {
    var sum = 0.0;
    for (var t = 0; t < i32(params.cg) * params.k_h * {{ KW }}; t++) {
        let i_h = q_h * params.s_h - params.p_h + t / {{ KW }} % params.k_h * params.d_h;
        let i_w = q_w * {{ S }} - params.p_w + t % {{ KW }};
        if (i_h >= 0 && i_h < params.in_h && i_w >= 0 && i_w < params.in_w) {
            let w_at = (w_tile + u32(t)) * {{ OC }}u + o;
            let c = t / {{ KW }} / params.k_h;
            sum += unpack(w[w_at / 4u])[w_at % 4u] * x[x_image + u32((c * params.in_h + i_h) * params.in_w + i_w)];
        }
    }
    return sum;
}

@compute @workgroup_size({{ LANES }})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let index = group_index(group, groups);
    let live = index < params.total;
    var rest = min(index, params.total - 1u);
    let tile = rest % params.tiles;
    rest /= params.tiles;
    let g = rest / params.quad_tiles;
    let quad = rest % params.quad_tiles * {{ LANES }}u + lane;
    let flat = min(quad, params.quads - 1u);
    let q_w = i32(flat % params.row_quads * 4u);
    let q_h = i32(flat / params.row_quads % u32(params.out_h));
    let n = flat / params.row_quads / u32(params.out_h);
    let x_image = (n * params.groups + g) * params.cg * u32(params.in_h * params.in_w) - params.x_base;
    let w_tile = (g * params.tiles + tile) * params.cg * u32(params.k_h) * {{ KW }}u;
    let left = q_w * {{ S }} - params.p_w;
//% for i in range(COLUMNS)
    let column{{ i }} = clamp(left + {{ i }}, 0, params.in_w - 1);
    let inside{{ i }} = (left + {{ i }} >= 0) & (left + {{ i }} < params.in_w);
//% endfor
//% for o in range(OC)
    var sum{{ o }} = vec4<f32>();
//% endfor
    var w_at = w_tile * {{ OC // 4 }}u;
    var c = 0u;
    loop {
        var k = 0;
        loop {
            let i_h = q_h * params.s_h - params.p_h + k * params.d_h;
            let row_inside = (i_h >= 0) & (i_h < params.in_h);
            let row = i32(x_image) + (i32(c) * params.in_h + clamp(i_h, 0, params.in_h - 1)) * params.in_w;
//% for i in range(COLUMNS)
            let c{{ i }} = select(0.0, x[u32(row + column{{ i }})], row_inside & inside{{ i }});
//% endfor
//% for kw in range(KW)
            let v{{ kw }} = vec4<f32>(c{{ kw }}, c{{ kw + S }}, c{{ kw + 2 * S }}, c{{ kw + 3 * S }});
//% endfor
//% for part in range((WEIGHTS + LANES - 1) // LANES)
            let w{{ part }} = unpack(w[w_at + min(lane + {{ part * LANES }}u, {{ WEIGHTS - 1 }}u)]);
//% endfor
            // All taps of the row for one output, then the next: each sum is loaded and stored once a step.
//% for o in range(OC)
//% for kw in range(KW)
//% set at = kw * OC // 4 + o // 4
            sum{{ o }} += subgroupBroadcast(w{{ at // LANES }}[{{ o % 4 }}], {{ at % LANES }}u) * v{{ kw }};
//% endfor
//% endfor
            w_at += {{ WEIGHTS }}u;
            k++;
            if (k >= params.k_h) {
                break;
            }
        }
        c++;
        if (c >= params.cg) {
            break;
        }
    }

    let o_first = g * params.og + tile * {{ OC }}u;
    let outputs = min(params.og - tile * {{ OC }}u, {{ OC }}u);
    let out_plane = u32(params.out_h * params.out_w);
    let y_at = (n * params.og * params.groups + o_first) * out_plane + u32(q_h * params.out_w + q_w) - params.y_base;
    let stored = live & (quad < params.quads);
    let columns = u32(min(params.out_w - q_w, 4));
    var exponent = vec4<u32>();
//% for o in range(OC)
    exponent = max(exponent, exponent_bits(sum{{ o }}));
//% endfor
//% include "common/store_quads.wgsl"
    if (stored & any(exponent == vec4<u32>(0x7f800000u))) {
        for (var i = 0u; i < outputs * columns; i++) {
            let o = i / columns;
            let p = i % columns;
            var value = exact(x_image, w_tile, o, q_h, q_w + i32(p)) + bias[bias_at + min(o, bias_last)];
            let at = y_at + o * out_plane + p;
//% if RESIDUAL
            value += {{ element("residual", "at", VEC) }};
//% endif
            {{ put("y", "at", "activate(vec4<f32>(value), params.activation, params.slope).x", VEC) }}
        }
    }
}
