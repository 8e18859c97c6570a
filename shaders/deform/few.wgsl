// Deformable convolution of few input channels, version 1 and, with MASK, version 2, without columns and without barriers: a workgroup
// is one subgroup.
//
//   y[n,o,p] = act(bias[o] + sum over c, k of w[o,c,k] * m[n,d,k,p] * x[n, g*CG + c, p*stride - pad + k*dilation + offset[n,d,k,p]]
//              + residual[n,o,p])      d = (g*CG + c) / CD, the offset group; x sampled as deform/corners.wgsl says
//
// A subgroup of LANES makes OC output channels x 4*LANES positions: each lane four neighbouring ones of an image, quads of positions
// counted through images. A step is one channel and tap: 16 neighbours a lane, and OC weights, of which each lane loads N and hands
// them round by broadcast. x [N,C,H,W], with UNIFORM of at most so many vec4s; offset [N,D,K,2,P], mask [N,D,K,P]; w [G,T,CG,K,OC]
// (conv/pack.wgsl, taps inside channels); y, residual [N,O,P]. With VEC, P is a multiple of 4.
struct Params {
    first_group: u32,
    in_h: i32, in_w: i32, out_w: i32, positions: u32,
    k_w: i32, taps: u32, s_h: i32, s_w: i32,
    d_h: i32, d_w: i32, p_h: i32, p_w: i32,
    c_in: u32, cg: u32, cd: u32, offset_groups: u32,
    og: u32, groups: u32, tiles: u32, quads: u32,
    quad_tiles: u32, total: u32, activation: u32, slope: f32,
    has_bias: u32, x_base: u32, offset_base: u32, mask_base: u32,
    y_base: u32,
}
//% set OC = 16
// Weights of a lane, neighbours in the tile.
//% set N = [OC // LANES, 1] | max
@group(0) @binding(0) var<uniform> params: Params;
//% if UNIFORM
@group(0) @binding(1) var<uniform> x: array<vec4<f32>, {{ UNIFORM }}>;
//% else
@group(0) @binding(1) var<storage, read> x: array<f32>;
//% endif
@group(0) @binding(2) var<storage, read> offset: array<{{ "Quad" if VEC else "f32" }}>;
//% if MASK
@group(0) @binding(3) var<storage, read> mask: array<{{ "Quad" if VEC else "f32" }}>;
//% endif
@group(0) @binding(4) var<storage, read> w: array<{{ "Quad" if N == 4 else "Pair" if N == 2 else "f32" }}>;
@group(0) @binding(5) var<storage, read> bias: array<f32>;
@group(0) @binding(6) var<storage, read> residual: array<{{ "Quad" if VEC else "f32" }}>;
@group(0) @binding(7) var<storage, read_write> y: array<{{ "Quad" if VEC else "f32" }}>;
//% include "common/grid.wgsl"
//% include "common/activate.wgsl"
//% include "common/wide.wgsl"
//% include "deform/corners.wgsl"
{%- macro x_at(at) %}{% if UNIFORM %}x[{{ at }} / 4u][{{ at }} % 4u]{% else %}x[{{ at }}]{% endif %}{% endmacro %}
{%- macro four(buffer, at) %}vec4<f32>({% for i in range(4) %}{{ buffer }}[{{ at }} + (q{{ i }} - q)]{{ "" if loop.last else ", " }}{% endfor %}){% endmacro %}

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
    let image_quads = (params.positions + 3u) / 4u;
    let n = flat / image_quads;
    let q = (flat - n * image_quads) * 4u;
    let columns = min(params.positions - q, 4u);
//% for i in range(4)
    let q{{ i }} = q + min({{ i }}u, columns - 1u);
    let row{{ i }} = i32(q{{ i }}) / params.out_w;
    let at_h{{ i }} = row{{ i }} * params.s_h - params.p_h;
    let at_w{{ i }} = (i32(q{{ i }}) - row{{ i }} * params.out_w) * params.s_w - params.p_w;
//% endfor
    let plane = u32(params.in_h * params.in_w);
//% for o in range(OC)
    var sum{{ o }} = vec4<f32>();
//% endfor
    let w_lane = min(lane, {{ OC // N - 1 }}u);
    var w_at = (g * params.tiles + tile) * params.taps * params.cg * {{ OC // N }}u;
    var c = g * params.cg;
    loop {
        let x_at = (n * params.c_in + c) * plane - params.x_base;
        let field = (n * params.offset_groups + c / params.cd) * params.taps;
        var offset_at = field * 2u * params.positions + q - params.offset_base;
//% if MASK
        var mask_at = field * params.positions + q - params.mask_base;
//% endif
        var kh = 0;
        var kw = 0;
        // Neighbours are found anew for each channel: with channels inside taps, or rows of taps as a loop of their own, a software driver
        // merges all sums once more for each loop that they leave.
        var k = 0u;
        loop {
//% if VEC
            let off_h = unpack(offset[offset_at / 4u]);
            let off_w = unpack(offset[(offset_at + params.positions) / 4u]);
//% if MASK
            let m = unpack(mask[mask_at / 4u]);
//% endif
//% else
            let off_h = {{ four("offset", "offset_at") }};
            let off_w = {{ four("offset", "offset_at + params.positions") }};
//% if MASK
            let m = {{ four("mask", "mask_at") }};
//% endif
//% endif
//% for i in range(4)
            // The coordinate is one f32 addition, by definition.
            let point_y{{ i }} = f32(at_h{{ i }} + kh * params.d_h) + off_h[{{ i }}];
            let point_x{{ i }} = f32(at_w{{ i }} + kw * params.d_w) + off_w[{{ i }}];
            let near{{ i }} = corners(point_y{{ i }}, point_x{{ i }}, params.in_h, params.in_w);
            let at{{ i }} = near{{ i }}.at + x_at;
            let loaded{{ i }} = vec4<f32>({% for corner in ["x", "y", "z", "w"] %}{{ x_at("at" ~ i ~ "." ~ corner) }}{{ "" if loop.last else ", " }}{% endfor %});
            // A neighbour outside is left out; one inside is multiplied, also by 0.
            let part{{ i }} = select(vec4<f32>(), loaded{{ i }}, near{{ i }}.inside) * near{{ i }}.weight;
            let value{{ i }} = (part{{ i }}.x + part{{ i }}.y) + (part{{ i }}.z + part{{ i }}.w);
//% endfor
            let value = vec4<f32>(value0, value1, value2, value3){% if MASK %} * m{% endif %};
            let weights = {{ "unpack" if N == 4 else "unpack_pair" if N == 2 else "" }}(w[w_at + w_lane]);
//% for o in range(OC)
            sum{{ o }} += subgroupBroadcast(weights{% if N > 1 %}[{{ o % N }}]{% endif %}, {{ o // N }}u) * value;
//% endfor
            w_at += {{ OC // N }}u;
            offset_at += 2u * params.positions;
//% if MASK
            mask_at += params.positions;
//% endif
            kw++;
            let row_done = kw == params.k_w;
            kw = select(kw, 0, row_done);
            kh = select(kh, kh + 1, row_done);
            k++;
            if (k >= params.taps) {
                break;
            }
        }
        c++;
        if (c >= (g + 1u) * params.cg) {
            break;
        }
    }

    let o_first = g * params.og + tile * {{ OC }}u;
    let outputs = min(params.og - tile * {{ OC }}u, {{ OC }}u);
    let out_plane = params.positions;
    let y_at = (n * params.og * params.groups + o_first) * out_plane + q - params.y_base;
    let stored = live & (quad < params.quads);
//% include "common/store_quads.wgsl"
}
