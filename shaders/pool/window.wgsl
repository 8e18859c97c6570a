// Max and average pooling: a thread makes T neighbouring outputs of a row.
//
//   max:  y[p,q] = act(max over taps k inside the input of x[p, q*stride - pad + k*dilation])     NaN in the window gives NaN
//   avg:  y[p,q] = act(sum over taps k inside the input of x[p, q*stride - pad + k] / count)
//
// x [P,D,H,W], y [P,OD,OH,OW], P planes: images times channels. count: the window's positions in the input, or in the input and
// its padding; what a window of ceil mode has beyond the padding never counts. A sum runs along a row first, then over rows and
// slices, which keeps its error below that of as many additions as the three kernel extents added up.
// Planes plane0.., of each the lines (pairs of depth and height) line0.., of each the columns w0...
// Whole-number divisions are dear, so there are only those that find the thread's place.
struct Params {
    first_group: u32,
    in_d: i32, in_h: i32, in_w: i32, plane0: u32,
    out_d: i32, out_h: i32, out_w: i32, planes: u32,
    k_d: i32, k_h: i32, k_w: i32, line0: u32,
    s_d: i32, s_h: i32, s_w: i32, lines: u32,
    d_d: i32, d_h: i32, d_w: i32, w0: i32,
    p_d: i32, p_h: i32, p_w: i32, w_count: i32,
    x_base: u32, y_base: u32, include_pad: u32, lowest: f32,
    activation: u32, slope: f32, tiles: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
//% include "common/grid.wgsl"
//% include "common/activation.wgsl"
//% if not MAX

// Positions of an undilated window that count.
fn counted(start: i32, extent: i32, k: i32, pad: i32) -> f32 {
    let edge = select(0, pad, params.include_pad == 1u);
    return f32(min(start + k, extent + edge) - max(start, -edge));
}
//% endif

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups) * 64u + local;
    if (index >= params.planes * params.lines * params.tiles) {
        return;
    }
    let row_index = index / params.tiles;
    let column = i32(index - row_index * params.tiles) * {{ T }};
    let plane_index = row_index / params.lines;
    let line = i32(params.line0 + row_index - plane_index * params.lines);
    let plane = params.plane0 + plane_index;
    let q_d = line / params.out_h;
    let at_d = q_d * params.s_d - params.p_d;
    let at_h = (line - q_d * params.out_h) * params.s_h - params.p_h;
    let at_w = (params.w0 + column) * params.s_w - params.p_w;
    let x_at = plane * u32(params.in_d * params.in_h * params.in_w) - params.x_base;
//% if MAX
    var best = vec4<f32>(params.lowest);
    var nan = vec4<f32>();
    var has_nan = vec4<bool>();
//% else
    var sum = vec4<f32>();
//% endif
    for (var k_d = 0; k_d < params.k_d; k_d++) {
        let i_d = at_d + k_d * params.d_d;
        if (i_d < 0 || i_d >= params.in_d) {
            continue;
        }
//% if not MAX
        var slice = vec4<f32>();
//% endif
        for (var k_h = 0; k_h < params.k_h; k_h++) {
            let i_h = at_h + k_h * params.d_h;
            if (i_h < 0 || i_h >= params.in_h) {
                continue;
            }
            let row = x_at + u32((i_d * params.in_h + i_h) * params.in_w);
//% if not MAX
            var line_sum = vec4<f32>();
//% endif
            for (var k_w = 0; k_w < params.k_w; k_w++) {
                // Taps outside read the row's end, and are left out.
                let first = at_w + k_w * params.d_w;
                var v = vec4<f32>();
                var inside = vec4<bool>();
//% for j in range(T)
                let i{{ j }} = first + {{ j }} * params.s_w;
                v[{{ j }}] = x[row + u32(clamp(i{{ j }}, 0, params.in_w - 1))];
                inside[{{ j }}] = i{{ j }} >= 0 && i{{ j }} < params.in_w;
//% endfor
//% if MAX
                best = select(best, v, inside & (v > best));
                // On the bits, since a compiler may take NaN for impossible.
                let is_nan = inside & ((bitcast<vec4<u32>>(v) & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u));
                nan = select(nan, v, is_nan);
                has_nan = has_nan | is_nan;
//% else
                line_sum += select(vec4<f32>(), v, inside);
//% endif
            }
//% if not MAX
            slice += line_sum;
//% endif
        }
//% if not MAX
        sum += slice;
//% endif
    }
//% if MAX
    let result = activate_any(select(best, nan, has_nan), params.activation, params.slope);
//% else
    let plane_count = counted(at_d, params.in_d, params.k_d, params.p_d) * counted(at_h, params.in_h, params.k_h, params.p_h);
    var count = vec4<f32>(1.0);
//% for j in range(T)
    count[{{ j }}] = plane_count * counted(at_w + {{ j }} * params.s_w, params.in_w, params.k_w, params.p_w);
//% endfor
    let result = activate_any(sum / count, params.activation, params.slope);
//% endif
    let y_at = (plane * u32(params.out_d * params.out_h) + u32(line)) * u32(params.out_w) + u32(params.w0 + column) - params.y_base;
//% for j in range(T)
    if (column + {{ j }} < params.w_count) {
        y[y_at + {{ j }}u] = result[{{ j }}];
    }
//% endfor
}
