// Winograd's transform back, with the epilogue.
//
//   y[n, o, th*M + i, tw*M + j] = act((AT m AT^T)[i, j] + bias[o] + residual),   m[a, b] = products[a*A + b, o, t];   A = M + 2
//
// products [A*A, O, T] of vec4s over four tiles, as winograd/input.wgsl lays them; y, residual [N,O,QH,QW]. A thread makes four tiles
// of one channel. x [N,C,H,W] and w [O,CG,3,3] are read only by tiles with a result that is not finite. With VEC_Y, QW is a multiple of 4.
{%- from "winograd/matrices.wgsl" import AT, combine %}
{%- from "common/element.wgsl" import element, put %}
//% set A = M + 2
struct Params {
    first_group: u32,
    outputs: u32, rows: u32, quads: u32, first_row: u32,
    out_h: i32, out_w: i32, tiles_h: u32, y_base: u32,
    activation: u32, slope: f32, has_bias: u32, flip: u32,
    cg: u32, og: u32, groups: u32, x_base: u32,
    in_h: i32, in_w: i32, p_h: i32, p_w: i32,
    total: u32, taps: i32, size: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> products: array<Quad>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> residual: array<{{ "Quad" if VEC_Y else "f32" }}>;
@group(0) @binding(4) var<storage, read> x: array<f32>;
@group(0) @binding(5) var<storage, read> w: array<f32>;
@group(0) @binding(6) var<storage, read_write> y: array<{{ "Quad" if VEC_Y else "f32" }}>;
//% include "common/grid.wgsl"
//% include "common/activate.wgsl"
//% include "common/finite.wgsl"
//% include "common/wide.wgsl"

// One output as a plain sum that leaves out the taps in the padding. A tile mixes its inputs: an infinity, a NaN or an overflow
// reaches outputs that do not have it in their window, so what is not finite is made anew.
// The number of taps is a parameter lest a compiler unroll this loop, which hardly ever runs: that took most of the compilation.
fn exact(n: u32, o: u32, q_h: i32, q_w: i32) -> f32 {
    var sum = 0.0;
    for (var c = 0u; c < params.cg; c++) {
        let plane = ((n * params.groups + o / params.og) * params.cg + c) * u32(params.in_h * params.in_w) - params.x_base;
        for (var k = 0; k < params.taps; k++) {
            let i_h = q_h - params.p_h + k / 3;
            let i_w = q_w - params.p_w + k % 3;
            if (i_h >= 0 && i_h < params.in_h && i_w >= 0 && i_w < params.in_w) {
                let tap = u32(select(k, 8 - k, params.flip == 1u));
                sum += w[(o * params.cg + c) * 9u + tap] * x[plane + u32(i_h * params.in_w + i_w)];
            }
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
    let row = index / params.quads % params.rows;
    let o = index / params.quads / params.rows;
    let n = (params.first_row + row) / params.tiles_h;
    let top = i32((params.first_row + row) % params.tiles_h * {{ M }}u);
    let left = i32(quad * {{ 4 * M }}u);
    let plane = (n * params.outputs + o) * u32(params.out_h * params.out_w) - params.y_base;
    let shift = select(0.0, bias[select(0u, o, params.has_bias == 1u)], params.has_bias == 1u);
    // Columns come in, and rows go out, at one place each, and the others move up, as in winograd/input.wgsl.
//% for i in range(M)
//% for b in range(A)
    var s{{ i }}_{{ b }} = vec4<f32>();
//% endfor
//% endfor
    var b = 0u;
    loop {
//% for a in range(A)
        let m{{ a }} = unpack(products[index + ({{ a * A }}u + b) * params.total]);
//% endfor
//% for i in range(M)
//% for b in range(A - 1)
        s{{ i }}_{{ b }} = s{{ i }}_{{ b + 1 }};
//% endfor
        s{{ i }}_{{ A - 1 }} = {{ combine(AT[M][i], "m", "") }};
//% endfor
        b++;
        if (b >= params.size) {
            break;
        }
    }
    var exponent = vec4<u32>();
//% for i in range(M)
//% for j in range(M)
    let r{{ i }}_{{ j }} = {{ combine(AT[M][j], "s" ~ i ~ "_", "") }};
    exponent = max(exponent, exponent_bits(r{{ i }}_{{ j }}));
//% endfor
//% for b in range(M)
    var v{{ i }}_{{ b }} = vec4<f32>({% for e in range(4 * b, 4 * b + 4) %}r{{ i }}_{{ e % M }}[{{ e // M }}]{{ ", " if not loop.last }}{% endfor %});
//% endfor
//% endfor
    var q_h = top;
    loop {
//% for b in range(M)
        let count{{ b }} = min(params.out_w - left - {{ 4 * b }}, 4);
        if (count{{ b }} > 0) {
            let at = plane + u32(q_h * params.out_w + left + {{ 4 * b }});
            var value = v0_{{ b }} + vec4<f32>(shift);
//% if VEC_Y
//% if RESIDUAL
            value += unpack(residual[at / 4u]);
//% endif
            y[at / 4u] = pack(activate(value, params.activation, params.slope));
//% else
//% if RESIDUAL
            for (var e = 0; e < count{{ b }}; e++) {
                value[e] += residual[at + u32(e)];
            }
//% endif
            let stored = activate(value, params.activation, params.slope);
            for (var e = 0; e < count{{ b }}; e++) {
                y[at + u32(e)] = stored[e];
            }
//% endif
        }
//% for i in range(M - 1)
        v{{ i }}_{{ b }} = v{{ i + 1 }}_{{ b }};
//% endfor
//% endfor
        q_h++;
        if (q_h >= min(top + {{ M }}, params.out_h)) {
            break;
        }
    }
    if (any(exponent == vec4<u32>(0x7f800000u))) {
        for (var e = 0; e < {{ 4 * M * M }}; e++) {
            let q_h = top + e / {{ 4 * M }};
            let q_w = left + e % {{ 4 * M }};
            if (q_h < params.out_h && q_w < params.out_w) {
                let at = plane + u32(q_h * params.out_w + q_w);
                var value = exact(n, o, q_h, q_w) + shift;
//% if RESIDUAL
                value += {{ element("residual", "at", VEC_Y) }};
//% endif
                {{ put("y", "at", "activate(vec4<f32>(value), params.activation, params.slope).x", VEC_Y) }}
            }
        }
    }
}
