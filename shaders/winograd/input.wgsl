// Winograd's transform of input tiles, as the input of a pointwise GEMM with one group for each position of a tile.
//
//   out[a*A + b, c, t] = (BT d BT^T)[a, b],   d = x[n, c, th*M - pad .. + A, tw*M - pad .. + A], 0 outside;   A = M + 2
//
// x [N,C,H,W]; out [A*A, C, T] of vec4s over four tiles that are neighbours in a row; t counts the tiles of `rows` rows of tiles,
// each `quads` vec4s, from row `first_row` of all images' rows on. A thread makes one vec4 of tiles of one channel.
// With VEC, W is a multiple of four and the padding 1: the inner columns are loaded as vec4s.
{%- from "winograd/matrices.wgsl" import BT, combine %}
{%- from "common/element.wgsl" import element %}
//% set A = M + 2
//% set COLUMNS = 4 * M + 2
struct Params {
    first_group: u32,
    channels: u32, rows: u32, quads: u32, first_row: u32,
    in_h: i32, in_w: i32, p_h: i32, p_w: i32,
    tiles_h: u32, x_base: u32, total: u32, size: i32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ "Quad" if VEC else "f32" }}>;
@group(0) @binding(2) var<storage, read_write> out: array<Quad>;
//% include "common/grid.wgsl"
//% include "common/wide.wgsl"

fn x_at(index: u32) -> f32 {
    return {{ element("x", "index", VEC) }};
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
    let row = index / params.quads % params.rows;
    let c = index / params.quads / params.rows;
    let n = (params.first_row + row) / params.tiles_h;
    let top = i32((params.first_row + row) % params.tiles_h * {{ M }}u) - params.p_h;
    let left = i32(quad * {{ 4 * M }}u) - params.p_w;
    let plane = (n * params.channels + c) * u32(params.in_h * params.in_w) - params.x_base;
    // Rows come in, and columns go out, at one place each, and the others move up: written out for every row and column, this shader
    // took three times as long to compile. Their number is a parameter lest a compiler unroll the loops.
//% for a in range(A)
//% for b in range(A)
    var h{{ a }}_{{ b }} = vec4<f32>();
//% endfor
//% endfor
    var r = 0;
    loop {
        let inside = (top + r >= 0) & (top + r < params.in_h);
        let start = i32(plane) + clamp(top + r, 0, params.in_h - 1) * params.in_w;
//% for j in range(COLUMNS)
//% if VEC and j > 0 and j < COLUMNS - 1
//% if j % 4 == 1
        let block{{ j // 4 }} = select(vec4<f32>(), unpack(x[u32(start + min(left + {{ j }}, params.in_w - 4)) / 4u]), inside & (left + {{ j }} < params.in_w));
//% endif
        let c{{ j }} = block{{ (j - 1) // 4 }}[{{ (j - 1) % 4 }}];
//% else
        let c{{ j }} = select(0.0, x_at(u32(start + clamp(left + {{ j }}, 0, params.in_w - 1))), inside & (left + {{ j }} >= 0) & (left + {{ j }} < params.in_w));
//% endif
//% endfor
//% for k in range(A)
        let d{{ k }} = vec4<f32>(c{{ k }}, c{{ k + M }}, c{{ k + 2 * M }}, c{{ k + 3 * M }});
//% endfor
//% for b in range(A)
//% for a in range(A - 1)
        h{{ a }}_{{ b }} = h{{ a + 1 }}_{{ b }};
//% endfor
        h{{ A - 1 }}_{{ b }} = {{ combine(BT[M][b], "d", "") }};
//% endfor
        r++;
        if (r >= params.size) {
            break;
        }
    }
    // One position of the tile after another: `total` is the number of vec4s of each.
    var at = index;
    var b = 0;
    loop {
//% for a in range(A)
        out[at + {{ a * A }}u * params.total] = pack({{ combine(BT[M][a], "h", "_0") }});
//% endfor
        at += params.total;
//% for a in range(A)
//% for b in range(A - 1)
        h{{ a }}_{{ b }} = h{{ a }}_{{ b + 1 }};
//% endfor
//% endfor
        b++;
        if (b >= params.size) {
            break;
        }
    }
}
