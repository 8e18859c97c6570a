// Involution with a kernel KW wide, stride 1 and no dilation along rows, without barriers: a workgroup is one subgroup of LANES.
//
//   y[n,c,i,j] = act(bias[c] + sum over kh, kw of w[n,g(c),kh,kw,i,j] * x[n,c, i*s - p + kh*d, j - (KW-1)/2 + kw] + residual[n,c,i,j])
//
// x [N,C,H,W], w [N,G,KH,KW,HO,WO], y and residual [N,C,HO,WO], bias [C]; g(c) = c / (C/G).
// A lane makes CB channels of one group at rows i..i+RH-1, positions j..j+3, as a thread of involution/rows.wgsl does. It loads the same four
// columns of the input for itself and its neighbours, who hand them round: four positions at least for each four columns of the input.
// RH above 1 takes stride 1 and dilation 1 along columns.
// Loads and stores are of BY numbers, of which W and WO are multiples: four, two or one.
//% include "involution/params.wgsl"
//% set VALUE = "Quad" if BY == 4 else "Pair" if BY == 2 else "f32"
//% set P = (KW - 1) // 2
// Channels of a round; `rounds` of them are CB.
//% set U = 2
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ VALUE }}>;
@group(0) @binding(2) var<storage, read> w: array<{{ VALUE }}>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<{{ VALUE }}>;
@group(0) @binding(5) var<storage, read_write> y: array<{{ VALUE }}>;
//% include "common/grid.wgsl"
//% include "common/activate.wgsl"
//% include "common/wide.wgsl"
//% macro four(array, at, further)
{% if BY == 4 %}unpack({{ array }}[({{ at }} + {{ further }}) / 4u]){% elif BY == 2 %}vec4<f32>(unpack_pair({{ array }}[({{ at }} + {{ further }}.x) / 2u]), unpack_pair({{ array }}[({{ at }} + {{ further }}.y) / 2u])){% else %}vec4<f32>({% for p in range(4) %}{{ array }}[{{ at }} + {{ further }}[{{ p }}]]{{ ", " if p < 3 }}{% endfor %}){% endif %}
//% endmacro

@compute @workgroup_size({{ LANES }})
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(subgroup_invocation_id) lane: u32,
) {
    let blocks = (params.c_count + {{ CB - 1 }}u) / {{ CB }}u;
    let bands = (params.row_count + {{ RH - 1 }}u) / {{ RH }}u;
    let out_w = u32(params.out_w);
    let quads = (out_w + 3u) / 4u;
    let threads = params.n_count * params.g_count * bands * blocks * quads;
    let thread = group_index(group, groups) * {{ LANES }}u + lane;
    // No lane may leave: its neighbours ask it.
    let live = thread < threads;
    let index = min(thread, threads - 1u);
    let quad = index % quads;
    let j = quad * 4u;
    var rest = index / quads;
    let block = rest % blocks;
    rest /= blocks;
    let band = rest % bands * {{ RH }}u;
    let i = params.row0 + band;
    rest /= bands;
    let g = params.g0 + rest % params.g_count;
    let n = params.n0 + rest / params.g_count;
    let c = g * params.cg + params.c0 + block * {{ CB }}u;
    let valid = min(params.c_count - block * {{ CB }}u, {{ CB }}u);
    let valid_rows = min(params.row_count - band, {{ RH }}u);
    let in_w = u32(params.in_w);
    let plane = u32(params.in_h) * in_w;
    let out_plane = u32(params.out_h) * out_w;

    // Which positions' windows have tap k inside the row. Both factors of a tap in the padding become 0: neither may be infinite.
    let position = vec4<u32>(j) + vec4<u32>(0u, 1u, 2u, 3u);
//% for k in range(KW)
    let inside{{ k }} = (position + vec4<u32>({{ k }}u) >= vec4<u32>({{ P }}u)) & (position + vec4<u32>({{ k }}u) < vec4<u32>(in_w + {{ P }}u));
//% endfor
    // Columns j..j+3 are this lane's, those before and behind are its neighbours'. The lanes at the subgroup's ends load once more.
    let own = position < vec4<u32>(in_w);
    let before = quad > 0u;
    let behind = quad + 1u < quads;
    let end = ((lane == 0u) & before) | ((lane == {{ LANES - 1 }}u) & behind);
    let end_position = select(position + vec4<u32>(4u), position - vec4<u32>(4u), lane == 0u);
    let end_own = end_position < vec4<u32>(in_w);
    // Where the four are loaded from, in numbers by which W and WO are whole: past a row's end its last.
//% set LOADS = "u32" if BY == 4 else "vec2<u32>" if BY == 2 else "vec4<u32>"
//% set OF = ".x" if BY == 4 else ".xz" if BY == 2 else ""
    let held = min(position{{ OF }}, {{ LOADS }}(in_w - {{ BY }}u));
    let end_held = min(end_position{{ OF }}, {{ LOADS }}(in_w - {{ BY }}u));
    let further = min(position{{ OF }}, {{ LOADS }}(out_w - {{ BY }}u)) - {{ LOADS }}(j);
    // Past the last channel the last is loaded again, and not stored; so are rows.
    let x_at = (n * params.channels + c) * plane - params.x_base;
    let y_at = (n * params.channels + c) * out_plane + i * out_w + j - params.y_base;
    let w_at = (n * params.groups + g) * u32(params.k_h) * {{ KW }}u * out_plane + i * out_w + j - params.w_base;
//% for a in range(RH)
    let row_at{{ a }} = min({{ a }}u, valid_rows - 1u) * out_w;
//% for c in range(CB)
    var sum{{ c }}_{{ a }} = vec4<f32>();
//% endfor
//% endfor

    var r = params.kh0;
    loop {
        let row = i32(i) * params.s_h - params.p_h + r * params.d_h;
        let row_inside = (row >= 0) & (row < params.in_h);
        let in_row = x_at + u32(clamp(row, 0, params.in_h - 1)) * in_w;
//% for a in range(RH)
        // The output rows of which this input row is under a tap.
        let under{{ a }} = (r >= params.kh0 + {{ a }}) & (r < params.kh1 + {{ a }});
        let w_row{{ a }} = w_at + row_at{{ a }} + u32((clamp(r, params.kh0 + {{ a }}, params.kh1 + {{ a - 1 }}) - {{ a }}) * {{ KW }}) * out_plane;
//% for k in range(KW)
        let w{{ k }}_{{ a }} = select(vec4<f32>(), {{ four("w", "w_row" ~ a ~ " + " ~ k ~ "u * out_plane", "further") | trim }}, inside{{ k }} & vec4<bool>(row_inside));
//% endfor
//% endfor
        // Two channels a round, the sums moved round: written out for all, the loads would be most of the shader's length.
        var m = 0u;
        loop {
//% for c in range(U)
            let x_row{{ c }} = in_row + min(m * {{ U }}u + {{ c }}u, valid - 1u) * plane;
            let x{{ c }}_1 = select(vec4<f32>(), {{ four("x", "x_row" ~ c, "held") | trim }}, own & vec4<bool>(row_inside));
            var end{{ c }} = vec4<f32>();
            if (end & row_inside) {
                end{{ c }} = select(vec4<f32>(), {{ four("x", "x_row" ~ c, "end_held") | trim }}, end_own);
            }
            let before{{ c }} = subgroupShuffle(x{{ c }}_1, max(lane, 1u) - 1u);
            let behind{{ c }} = subgroupShuffle(x{{ c }}_1, min(lane + 1u, {{ LANES - 1 }}u));
            let x{{ c }}_0 = select(vec4<f32>(), select(before{{ c }}, end{{ c }}, lane == 0u), before);
            let x{{ c }}_2 = select(vec4<f32>(), select(behind{{ c }}, end{{ c }}, lane == {{ LANES - 1 }}u), behind);
//% endfor
//% for a in range(RH)
            if (under{{ a }}) {
//% for c in range(U)
//% for k in range(KW)
                sum{{ c }}_{{ a }} += w{{ k }}_{{ a }} * vec4<f32>({% for p in range(4) %}{% set e = 4 - P + p + k %}x{{ c }}_{{ e // 4 }}[{{ e % 4 }}]{{ ", " if p < 3 }}{% endfor %});
//% endfor
//% endfor
            }
//% for c in range(U)
            let first{{ c }}_{{ a }} = sum{{ c }}_{{ a }};
//% endfor
//% for c in range(CB - U)
            sum{{ c }}_{{ a }} = sum{{ c + U }}_{{ a }};
//% endfor
//% for c in range(U)
            sum{{ CB - U + c }}_{{ a }} = first{{ c }}_{{ a }};
//% endfor
//% endfor
            m++;
            if (m >= params.rounds) {
                break;
            }
        }
        r++;
        if (r >= params.kh1 + {{ RH - 1 }}) {
            break;
        }
    }

    // A channel a round, the others then moved down.
    var m = 0u;
    loop {
        // Without a bias the buffer is a few zeros, of which the first is read.
        let shift = bias[select(0u, c + m - params.b_base, params.has_bias == 1u)];
//% for a in range(RH)
        let to{{ a }} = y_at + m * out_plane + row_at{{ a }};
        let stored{{ a }} = activate(sum0_{{ a }} + shift{% if RESIDUAL %} + {{ four("residual", "to" ~ a, "further") | trim }}{% endif %}, params.activation, params.slope);
//% if BY == 4
        if (live && {{ a }}u < valid_rows) {
            y[to{{ a }} / 4u] = pack(stored{{ a }});
        }
//% elif BY == 2
//% for p in range(0, 4, 2)
        if (live && {{ a }}u < valid_rows && j + {{ p }}u < out_w) {
            y[(to{{ a }} + {{ p }}u) / 2u] = pack_pair(stored{{ a }}.{{ "xy" if p == 0 else "zw" }});
        }
//% endfor
//% else
//% for p in range(4)
        if (live && {{ a }}u < valid_rows && j + {{ p }}u < out_w) {
            y[to{{ a }} + {{ p }}u] = stored{{ a }}[{{ p }}];
        }
//% endfor
//% endif
//% for c in range(CB - 1)
        sum{{ c }}_{{ a }} = sum{{ c + 1 }}_{{ a }};
//% endfor
//% endfor
        m++;
        if (m >= valid) {
            break;
        }
    }
}
