// Convolution, and transposed convolution by output phase, as an implicit GEMM without barriers: a workgroup is one subgroup.
//
//   y[n,o,q] = act(bias[o] + sum over taps k, channels c of w[o,c,k] * x[n,c,i(q,k)] + residual[n,o,q])
//
// A subgroup of S lanes makes OC output channels x 4*S positions: lane l owns positions 4l..4l+3, one vec4 an output channel.
// Each lane loads another vec4 of the weights and hands it round by broadcast, so that OC weights cost one or two loads.
// x: blocks of four channels [N,G,B,P] (conv/blocks.wgsl, with a vec4 of zeros at `zero`) or, with PLANAR (X 1), [N,C,P] read as vec4s
// of four positions, which are also four of y: PLANAR comes with VEC. With COLUMNS (X 2) x has a column of taps and blocks for each
// position, the in_w = 4*S positions of a tile together: [N*Q/(4*S),G,K,B,4*S]; the kernel is K planes of one element then.
// w: [G,T,K,4B,OC] (conv/pack.wgsl). y, residual: [N,O,Q].
// Along each axis the output has `phases` interleaved parts (1 but for a transposed convolution, where it is the stride): position
// j of part r is q = j*phases + r, it reads the taps k = k0, k0 + k_step, ... at i = base + j*step + t*tap_step, t = 0, 1, ...
// The tile of OC channels is the fastest index of the grid, unless `positions_first`. A planar x starts at its vec4 `x_start`.
struct Params {
    first_group: u32,
    cg: u32, og: u32, groups: u32, blocks: u32,
    in_d: i32, in_h: i32, in_w: i32, zero: u32,
    out_d: i32, out_h: i32, out_w: i32, tiles: u32,
    part_d: i32, part_h: i32, part_w: i32, positions: u32,
    k_d: i32, k_h: i32, k_w: i32, position_tiles: u32,
    phases_d: i32, phases_h: i32, phases_w: i32, activation: u32,
    step_d: i32, step_h: i32, step_w: i32, slope: f32,
    tap_d: i32, tap_h: i32, tap_w: i32, has_bias: u32,
    k_step_d: i32, k_step_h: i32, k_step_w: i32, has_residual: u32,
    p_d: i32, p_h: i32, p_w: i32, positions_first: u32,
    d_d: i32, d_h: i32, d_w: i32, total: u32,
    y_base: u32, x_start: u32,
}
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<Quad>;
@group(0) @binding(2) var<storage, read> w: array<Quad>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
//% if VEC
@group(0) @binding(4) var<storage, read> residual: array<Quad>;
@group(0) @binding(5) var<storage, read_write> y: array<Quad>;
//% else
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
//% endif
{%- from "common/element.wgsl" import element, put %}
//% set PLANAR = X == 1
//% set COLUMNS = X == 2
//% include "common/grid.wgsl"
//% include "common/activate.wgsl"
//% include "common/finite.wgsl"
//% include "common/wide.wgsl"

//% if not PLANAR
// Along one axis: (first tap, number of taps, input index of position 0 of the part under the first tap).
fn part_taps(r: i32, phases: i32, k: i32, k_step: i32, pad: i32, dilation: i32) -> vec3<i32> {
//% if TRANSPOSED
    var first = 0;
    while (first < min(k, k_step) && (r + pad - first * dilation) % phases != 0) {
        first++;
    }
    if (first >= min(k, k_step)) {
        return vec3<i32>(0, 0, 0);
    }
    return vec3<i32>(first, (k - first + k_step - 1) / k_step, (r + pad - first * dilation) / phases);
//% else
    return vec3<i32>(0, k, -pad);
//% endif
}

// One output by a loop that leaves out the taps in the padding. The fast path multiplies them by 0, which is wrong for a weight that
// is infinite or NaN: a lane whose sums are not all finite comes here. `x_image` is the first vec4 of the image's group, or of the
// position's column, `start` the input position under the first taps.
fn exact(x_image: u32, w_tile: u32, o: u32, start: vec3<i32>, taps_d: vec3<i32>, taps_h: vec3<i32>, taps_w: vec3<i32>) -> f32 {
    var sum = 0.0;
//% if not COLUMNS
    let plane = u32(params.in_d * params.in_h * params.in_w);
//% endif
    for (var t = 0; t < taps_d.y * taps_h.y * taps_w.y; t++) {
        let t_w = t % taps_w.y;
        let t_h = t / taps_w.y % taps_h.y;
        let t_d = t / taps_w.y / taps_h.y;
        let i = start + vec3<i32>(t_d * params.tap_d, t_h * params.tap_h, t_w * params.tap_w);
        if (all(i >= vec3<i32>()) && i.x < params.in_d && i.y < params.in_h && i.z < params.in_w) {
            let k_d = taps_d.x + t_d * params.k_step_d;
            let k_h = taps_h.x + t_h * params.k_step_h;
            let k = u32((k_d * params.k_h + k_h) * params.k_w + taps_w.x + t_w * params.k_step_w);
            for (var c = 0u; c < params.cg; c++) {
                let w_at = ((w_tile + k) * params.blocks * 4u + c) * {{ OC }}u + o;
//% if COLUMNS
                let at = x_image + (k * params.blocks + c / 4u) * u32(params.in_w);
//% else
                let at = x_image + c / 4u * plane + u32((i.x * params.in_h + i.y) * params.in_w + i.z);
//% endif
                sum += unpack(w[w_at / 4u])[w_at % 4u] * unpack(x[at])[c % 4u];
            }
        }
    }
    return sum;
}
//% endif

// Channels of a step. A longer loop body outgrows the instruction cache of a software adapter; blocks bring four at once.
//% set STEP = 2 if PLANAR and OC > 16 else 4
// The weights of a step are OC/4 vec4s a channel, one after the other: so many loads, each lane another vec4.
//% set PARTS = (STEP * OC // 4 + S - 1) // S
// The products of a step: weights at w_at, inputs x0, x1, ...
{%- macro multiply() %}
//% for part in range(PARTS)
        let w{{ part }} = unpack(w[w_at + w_lane{{ part }}]);
//% endfor
        // All channels of the step for one output, then the next: each sum is loaded and stored once a step.
//% for o in range(OC)
//% for c in range(STEP)
//% set at = c * OC // 4 + o // 4
        let b{{ c }}_{{ o }} = subgroupBroadcast(w{{ at // S }}[{{ o % 4 }}], {{ at % S }}u);
        sum{{ o }} += b{{ c }}_{{ o }} * x{{ c }};
//% endfor
//% endfor
        w_at += {{ OC * STEP // 4 }}u;
{%- endmacro %}
// Four positions of a channel from four channels of a position.
{%- macro channels() %}
//% for c in range(4)
        let x{{ c }} = vec4<f32>(v0[{{ c }}], v1[{{ c }}], v2[{{ c }}], v3[{{ c }}]);
//% endfor
{%- endmacro %}
@compute @workgroup_size({{ S }})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let index = group_index(group, groups);
    let live = index < params.total;
    var rest = min(index, params.total - 1u);
    var tile = rest % params.tiles;
    var position_tile = rest / params.tiles % params.position_tiles;
    if (params.positions_first == 1u) {
        position_tile = rest % params.position_tiles;
        tile = rest / params.position_tiles % params.tiles;
    }
    rest = rest / params.tiles / params.position_tiles;
    let g = rest % params.groups;
    let part_positions = u32(params.part_d * params.part_h * params.part_w);
//% if COLUMNS
    let x_tile = (position_tile * params.groups + g) * u32(params.k_d) * params.blocks * u32(params.in_w);
//% else
    let plane = u32(params.in_d * params.in_h * params.in_w);
//% endif
    let first = (position_tile * {{ S }}u + lane) * 4u;
//% if PLANAR
    // Four positions of one image, and the same of the output.
    let flat0 = min(first, params.positions - 1u);
    let n0 = flat0 / part_positions;
    let j0 = flat0 % part_positions;
//% else
    let part = i32(rest / params.groups);
    let r_w = part % params.phases_w;
    let r_h = part / params.phases_w % params.phases_h;
    let r_d = part / params.phases_w / params.phases_h;
    let taps_d = part_taps(r_d, params.phases_d, params.k_d, params.k_step_d, params.p_d, params.d_d);
    let taps_h = part_taps(r_h, params.phases_h, params.k_h, params.k_step_h, params.p_h, params.d_h);
    let taps_w = part_taps(r_w, params.phases_w, params.k_w, params.k_step_w, params.p_w, params.d_w);
//% for p in range(4)
    let flat{{ p }} = min(first + {{ p }}u, params.positions - 1u);
    let n{{ p }} = flat{{ p }} / part_positions;
    let j{{ p }} = i32(flat{{ p }} % part_positions);
    let j_w{{ p }} = j{{ p }} % params.part_w;
    let j_h{{ p }} = j{{ p }} / params.part_w % params.part_h;
    let j_d{{ p }} = j{{ p }} / params.part_w / params.part_h;
//% endfor
//% endif
//% if not PLANAR and not COLUMNS
    // The least and the greatest input position of the tile's first taps along each axis, from what is the same in the whole subgroup: no
    // lane's own position and no subgroup operation may steer the loop of broadcasts.
    let flat_a = min(position_tile * {{ 4 * S }}u, params.positions - 1u);
    let flat_z = min(flat_a + {{ 4 * S - 1 }}u, params.positions - 1u);
    let j_a = i32(flat_a % part_positions);
    let j_z = i32(flat_z % part_positions);
    let row_a = j_a / params.part_w;
    let row_z = j_z / params.part_w;
    let one_image = flat_a / part_positions == flat_z / part_positions;
    let one_plane = one_image & (row_a / params.part_h == row_z / params.part_h);
    let one_row = one_image & (row_a == row_z);
    let tile_a = select(vec3<i32>(), vec3<i32>(row_a / params.part_h, row_a % params.part_h, j_a % params.part_w), vec3<bool>(one_image, one_plane, one_row));
    let tile_z = select(vec3<i32>(params.part_d, params.part_h, params.part_w) - 1, vec3<i32>(row_z / params.part_h, row_z % params.part_h, j_z % params.part_w), vec3<bool>(one_image, one_plane, one_row));
    let steps = vec3<i32>(params.step_d, params.step_h, params.step_w);
    let extents = vec3<i32>(params.in_d, params.in_h, params.in_w);
    let least = vec3<i32>(taps_d.z, taps_h.z, taps_w.z) + tile_a * steps;
    let greatest = vec3<i32>(taps_d.z, taps_h.z, taps_w.z) + tile_z * steps;
//% endif
//% for o in range(OC)
    var sum{{ o }} = vec4<f32>();
//% endfor
//% for part in range(PARTS)
    let w_lane{{ part }} = min(lane + {{ part * S }}u, {{ STEP * OC // 4 - 1 }}u);
//% endfor
    let w_tile = (g * params.tiles + tile) * u32(params.k_d * params.k_h * params.k_w);

    // This loop, like all that run at least once, tests at its end: docs/adding-an-operator.md.
//% if PLANAR
    var w_at = w_tile * params.blocks * {{ OC }}u;
    var x_at = params.x_start + (n0 * params.groups + g) * params.cg * (plane / 4u) + j0 / 4u;
    var b = 0u;
    loop {
//% for c in range(STEP)
        let x{{ c }} = unpack(x[x_at + {{ c }}u * (plane / 4u)]);
//% endfor
        x_at += plane / {{ 4 // STEP }}u;
{{- multiply() }}
        b++;
        if (b >= params.blocks * {{ 4 // STEP }}u) {
            break;
        }
    }
//% elif COLUMNS
    var w_at = w_tile * params.blocks * {{ OC }}u;
//% for p in range(4)
    var x_at{{ p }} = x_tile + flat{{ p }} - position_tile * u32(params.in_w);
//% endfor
    var b = 0u;
    loop {
//% for p in range(4)
        let v{{ p }} = unpack(x[x_at{{ p }}]);
        x_at{{ p }} += u32(params.in_w);
//% endfor
{{- channels() }}
{{- multiply() }}
        b++;
        if (b >= u32(params.k_d) * params.blocks) {
            break;
        }
    }
//% else
//% if TRANSPOSED
    // A part of the output may have no tap.
    if (all(vec3<i32>(taps_d.y, taps_h.y, taps_w.y) > vec3<i32>())) {
//% endif
    var t_d = 0;
    loop {
        var t_h = 0;
        loop {
            var t_w = 0;
            loop {
                let k_d = taps_d.x + t_d * params.k_step_d;
                let k_h = taps_h.x + t_h * params.k_step_h;
                let k_w = taps_w.x + t_w * params.k_step_w;
                let k = u32((k_d * params.k_h + k_h) * params.k_w + k_w);
                var w_at = (w_tile + k) * params.blocks * {{ OC }}u;
//% for p in range(4)
                let i_d{{ p }} = taps_d.z + j_d{{ p }} * params.step_d + t_d * params.tap_d;
                let i_h{{ p }} = taps_h.z + j_h{{ p }} * params.step_h + t_h * params.tap_h;
                let i_w{{ p }} = taps_w.z + j_w{{ p }} * params.step_w + t_w * params.tap_w;
                // `&` and not `&&`, here and below: a short cut is a branch, of which a driver makes a good deal more code.
                let inside{{ p }} = (i_d{{ p }} >= 0) & (i_d{{ p }} < params.in_d) & (i_h{{ p }} >= 0) & (i_h{{ p }} < params.in_h)
                    & (i_w{{ p }} >= 0) & (i_w{{ p }} < params.in_w);
                let at{{ p }} = u32((i_d{{ p }} * params.in_h + i_h{{ p }}) * params.in_w + i_w{{ p }});
                var x_at{{ p }} = select(params.zero, (n{{ p }} * params.groups + g) * params.blocks * plane + at{{ p }}, inside{{ p }});
                let x_step{{ p }} = select(0u, plane, inside{{ p }});
//% endfor
                // A tap that lies in the padding for the whole tile is left out: with a large dilation that is every third or second.
                let reach = vec3<i32>(t_d * params.tap_d, t_h * params.tap_h, t_w * params.tap_w);
                let any_inside = all((least + reach < extents) & (greatest + reach >= vec3<i32>()));
                if (any_inside) {
                    var b = 0u;
                    loop {
//% for p in range(4)
                        let v{{ p }} = unpack(x[x_at{{ p }}]);
                        x_at{{ p }} += x_step{{ p }};
//% endfor
{{- channels() }}
{{- multiply() }}
                        b++;
                        if (b >= params.blocks) {
                            break;
                        }
                    }
                }
                t_w++;
                if (t_w >= taps_w.y) {
                    break;
                }
            }
            t_h++;
            if (t_h >= taps_h.y) {
                break;
            }
        }
        t_d++;
        if (t_d >= taps_d.y) {
            break;
        }
    }
//% if TRANSPOSED
    }
//% endif
//% endif

    let channels = params.og * params.groups;
    let out_plane = u32(params.out_d * params.out_h * params.out_w);
    let o_first = tile * {{ OC }}u;
//% if PLANAR
    let store0 = live & (first < params.positions);
    let y_at0 = (n0 * channels + g * params.og + o_first) * out_plane + j0 - params.y_base;
//% else
//% for p in range(4)
    let q_d{{ p }} = j_d{{ p }} * params.phases_d + r_d;
    let q_h{{ p }} = j_h{{ p }} * params.phases_h + r_h;
    let q_w{{ p }} = j_w{{ p }} * params.phases_w + r_w;
    let store{{ p }} = live & (first + {{ p }}u < params.positions)
        & (q_d{{ p }} < params.out_d) & (q_h{{ p }} < params.out_h) & (q_w{{ p }} < params.out_w);
    let y_at{{ p }} = (n{{ p }} * channels + g * params.og + o_first) * out_plane
        + u32((q_d{{ p }} * params.out_h + q_h{{ p }}) * params.out_w + q_w{{ p }}) - params.y_base;
//% endfor
//% endif
    // Without a bias the buffer is a few zeros, of which the first is read. Each lane loads those of four other channels.
    let outputs = min(params.og - o_first, {{ OC }}u);
    let bias_at = select(0u, g * params.og + o_first, params.has_bias == 1u);
    let bias_last = select(0u, outputs - 1u, params.has_bias == 1u);
//% for part in range((OC // 4 + S - 1) // S)
    let bias{{ part }} = vec4<f32>(
//% for j in range(4)
        bias[bias_at + min((lane + {{ part * S }}u) * 4u + {{ j }}u, bias_last)],
//% endfor
    );
//% endfor
    var exponent = vec4<u32>();
    // Four outputs a round, the others then moved down: written out for all, the stores would be most of the shader's length and take
    // most of its compilation (4.5 times less so, llvmpipe).
    var o = 0u;
    loop {
        var shift = subgroupShuffle(bias0, o / 4u % {{ S }}u);
//% for part in range(1, (OC // 4 + S - 1) // S)
        shift = select(shift, subgroupShuffle(bias{{ part }}, o / 4u % {{ S }}u), o >= {{ part * S * 4 }}u);
//% endfor
//% for j in range(4)
        let o{{ j }} = o + {{ j }}u;
        exponent = max(exponent, exponent_bits(sum{{ j }}));
        let biased{{ j }} = sum{{ j }} + vec4<f32>(shift[{{ j }}]);
//% if VEC
        let at{{ j }} = (y_at0 + o{{ j }} * out_plane) / 4u;
//% if RESIDUAL
        let result{{ j }} = activate(biased{{ j }} + unpack(residual[at{{ j }}]), params.activation, params.slope);
//% else
        let result{{ j }} = activate(biased{{ j }}, params.activation, params.slope);
//% endif
        if (store0 & (o{{ j }} < outputs)) {
            y[at{{ j }}] = pack(result{{ j }});
        }
//% else
        let at{{ j }} = o{{ j }} * out_plane;
//% if RESIDUAL
        let more{{ j }} = vec4<f32>(residual[y_at0 + at{{ j }}], residual[y_at1 + at{{ j }}], residual[y_at2 + at{{ j }}], residual[y_at3 + at{{ j }}]);
        let result{{ j }} = activate(biased{{ j }} + more{{ j }}, params.activation, params.slope);
//% else
        let result{{ j }} = activate(biased{{ j }}, params.activation, params.slope);
//% endif
//% for p in range(4)
        if (store{{ p }} & (o{{ j }} < outputs)) {
            y[y_at{{ p }} + at{{ j }}] = result{{ j }}[{{ p }}];
        }
//% endfor
//% endif
//% endfor
//% for o in range(OC - 4)
        sum{{ o }} = sum{{ o + 4 }};
//% endfor
        o += 4u;
        if (o >= outputs) {
            break;
        }
    }
//% if not PLANAR

    if (any(exponent == vec4<u32>(0x7f800000u))) {
        // One loop over outputs and positions, everything computed anew: written out it would double the length of the shader.
        for (var i = 0u; i < 4u * outputs; i++) {
            let o = i / 4u;
            let flat = first + i % 4u;
            let n = flat / part_positions;
            let j = i32(flat % part_positions);
            let j3 = vec3<i32>(j / params.part_w / params.part_h, j / params.part_w % params.part_h, j % params.part_w);
            let q = j3 * vec3<i32>(params.phases_d, params.phases_h, params.phases_w) + vec3<i32>(r_d, r_h, r_w);
            if (live && flat < params.positions && q.x < params.out_d && q.y < params.out_h && q.z < params.out_w) {
//% if COLUMNS
                let start = vec3<i32>();
                let x_image = x_tile + flat - position_tile * u32(params.in_w);
//% else
                let start = vec3<i32>(taps_d.z, taps_h.z, taps_w.z) + j3 * vec3<i32>(params.step_d, params.step_h, params.step_w);
                let x_image = (n * params.groups + g) * params.blocks * plane;
//% endif
                var value = exact(x_image, w_tile, o, start, taps_d, taps_h, taps_w) + bias[bias_at + min(o, bias_last)];
                let at = (n * channels + g * params.og + o_first + o) * out_plane
                    + u32((q.x * params.out_h + q.y) * params.out_w + q.z) - params.y_base;
//% if RESIDUAL
                value += {{ element("residual", "at", VEC) }};
//% endif
                {{ put("y", "at", "activate(vec4<f32>(value), params.activation, params.slope).x", VEC) }}
            }
        }
    }
//% endif
}
