// Winograd's transform of 3x3 weights, laid out for the pointwise GEMM: one group for each of the A*A positions of a tile.
//
//   out[(a*A + b)*G + g, t, c, o] = (Gm w[g*OG + t*OC + o, c] Gm^T)[a, b]     0 past the last channel; A = M + 2
//
// w [O,CG,3,3]; out [A*A*G, T, CG, OC] as vec4s over o, T = ceil(OG/OC), CG in fours. With flip, taps count from the last.
{%- from "winograd/matrices.wgsl" import G, combine %}
//% set A = M + 2
struct Params {
    first_group: u32,
    cg: u32, og: u32, groups: u32, tiles: u32,
    flip: u32, total: u32, size: u32, lanes: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> w: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
//% include "common/grid.wgsl"

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
    let o4 = index % {{ OC // 4 }}u * 4u;
    var rest = index / {{ OC // 4 }}u;
    let c = rest % params.cg;
    rest /= params.cg;
    let o = rest % params.tiles * {{ OC }}u + o4;
    let g = rest / params.tiles;
//% for k in range(9)
    var w{{ k // 3 }}_{{ k % 3 }} = vec4<f32>();
//% endfor
    // Channels come in, and rows go out, at one place each, and the others move up, as in winograd/input.wgsl.
    for (var j = 0u; j < params.lanes; j++) {
        let at = ((g * params.og + min(o + j, params.og - 1u)) * params.cg + c) * 9u;
//% for k in range(9)
        w{{ k // 3 }}_{{ k % 3 }} = vec4<f32>(w{{ k // 3 }}_{{ k % 3 }}.yzw, select(0.0, w[at + select({{ k }}u, {{ 8 - k }}u, params.flip == 1u)], o + j < params.og));
//% endfor
    }
//% for a in range(A)
//% for k in range(3)
    var r{{ a }}_{{ k }} = {{ combine(G[M][a], "w", "_" ~ k) }};
//% endfor
//% endfor
    for (var a = 0u; a < params.size; a++) {
//% for b in range(A)
        out[index + (a * {{ A }}u + {{ b }}u) * params.total] = {{ combine(G[M][b], "r0_", "") }};
//% endfor
//% for k in range(3)
//% for a in range(A - 1)
        r{{ a }}_{{ k }} = r{{ a + 1 }}_{{ k }};
//% endfor
//% endfor
    }
}
