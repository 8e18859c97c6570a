// Involution with a kernel KW wide, stride SW and no dilation along rows: a thread makes 4 neighbouring positions of RH rows.
//
//   y[n,c,i,j] = act(bias[c] + sum over kh, kw of w[n,g(c),kh,kw,i,j] * x[n,c, i*s - p + kh*d, j*SW - p + kw] + residual[n,c,i,j])
//
// x [N,C,H,W], w [N,G,KH,KW,HO,WO], y and residual [N,C,HO,WO], bias [C]; g(c) = c / (C/G).
// A thread makes CB channels of one group at rows i..i+RH-1, positions j..j+3. It walks over the input rows that these read: of each
// channel it loads the stretch of the row that the four windows cover, once for all taps and all RH rows; then, for each of the RH
// rows, KW weights of four positions each, once for all channels. RH above 1 takes stride 1 and dilation 1 along columns.
// With PART a dispatch may have a part of the taps; without, it has all of them.
// With VEC all of it lies in aligned vec4s: W and WO are multiples of four and the padding at the start is (KW-1)/2.
//% include "involution/params.wgsl"
//% set SHIFT = (4 - (KW - 1) // 2 % 4) % 4
//% set SPAN = SW * 3 + KW
@group(0) @binding(0) var<uniform> params: Params;
//% if VEC
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> w: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y: array<vec4<f32>>;
//% else
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> w: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read> residual: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;
//% endif
//% include "common/grid.wgsl"
//% include "common/activate.wgsl"

@compute @workgroup_size(64)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let index = group_index(group, groups) * 64u + local;
    let blocks = (params.c_count + {{ CB - 1 }}u) / {{ CB }}u;
    let bands = (params.row_count + {{ RH - 1 }}u) / {{ RH }}u;
    let out_w = u32(params.out_w);
    let quads = (out_w + 3u) / 4u;
    if (index >= params.n_count * params.g_count * bands * blocks * quads) {
        return;
    }
    let j = index % quads * 4u;
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
    let plane = u32(params.in_h * params.in_w);
    let out_plane = u32(params.out_h) * out_w;
    let start = i32(j) * {{ SW }} - params.p_w;

    // Which positions' windows have tap k inside the row. Both factors of a tap in the padding become 0: neither may be infinite.
//% for k in range(KW)
    let column{{ k }} = vec4<i32>(start + {{ k }}) + vec4<i32>(0, {{ SW }}, {{ 2 * SW }}, {{ 3 * SW }});
    let inside{{ k }} = (column{{ k }} >= vec4<i32>()) & (column{{ k }} < vec4<i32>(params.in_w));
//% endfor
//% if VEC
//% for b in range((SHIFT + SPAN + 3) // 4)
    let first{{ b }} = start + {{ b * 4 - SHIFT }};
    let loaded{{ b }} = first{{ b }} >= 0 && first{{ b }} < params.in_w;
    let from{{ b }} = u32(clamp(first{{ b }}, 0, params.in_w - 4));
//% endfor
//% else
//% for e in range(SPAN)
    let loaded{{ e }} = start + {{ e }} >= 0 && start + {{ e }} < params.in_w;
    let from{{ e }} = u32(clamp(start + {{ e }}, 0, params.in_w - 1));
//% endfor
//% for p in range(4)
    let more{{ p }} = min(j + {{ p }}u, out_w - 1u) - j;
//% endfor
//% endif
    // Past the last channel the last is loaded again, and not stored; so are rows.
//% for c in range(CB)
    let x_at{{ c }} = (n * params.channels + c + min({{ c }}u, valid - 1u)) * plane - params.x_base;
//% endfor
    let y_at = (n * params.channels + c) * out_plane + i * out_w + j - params.y_base;
    let w_at = (n * params.groups + g) * u32(params.k_h) * {{ KW }}u * out_plane + i * out_w + j - params.w_base;
//% for a in range(RH)
    let row_at{{ a }} = min({{ a }}u, valid_rows - 1u) * out_w;
//% for c in range(CB)
    var sum{{ c }}_{{ a }} = vec4<f32>();
//% endfor
//% endfor
//% if PART
    if (params.first == 0u) {
//% for c in range(CB)
//% for a in range(RH)
        let at{{ c }}_{{ a }} = y_at + min({{ c }}u, valid - 1u) * out_plane + row_at{{ a }};
//% if VEC
        sum{{ c }}_{{ a }} = y[at{{ c }}_{{ a }} / 4u];
//% else
        sum{{ c }}_{{ a }} = vec4<f32>({% for p in range(4) %}y[at{{ c }}_{{ a }} + more{{ p }}]{{ ", " if p < 3 }}{% endfor %});
//% endif
//% endfor
//% endfor
    }
//% endif

    var r = params.kh0;
    loop {
        let row = i32(i) * params.s_h - params.p_h + r * params.d_h;
        if (row >= 0 && row < params.in_h) {
            let in_row = u32(row * params.in_w);
//% for c in range(CB)
//% if VEC
//% for b in range((SHIFT + SPAN + 3) // 4)
            let x{{ c }}_{{ b }} = select(vec4<f32>(), x[(x_at{{ c }} + in_row + from{{ b }}) / 4u], loaded{{ b }});
//% endfor
//% else
//% for e in range(SPAN)
            let x{{ c }}_{{ e }} = select(0.0, x[x_at{{ c }} + in_row + from{{ e }}], loaded{{ e }});
//% endfor
//% endif
//% endfor
//% for a in range(RH)
//% if RH > 1
            if (r >= params.kh0 + {{ a }} && r < params.kh1 + {{ a }}) {
//% else
            {
//% endif
                let w_row = w_at + row_at{{ a }} + u32((r - {{ a }}) * {{ KW }}) * out_plane;
//% for k in range(KW)
//% if VEC
                let w{{ k }} = select(vec4<f32>(), w[(w_row + {{ k }}u * out_plane) / 4u], inside{{ k }});
//% else
                let at{{ k }} = w_row + {{ k }}u * out_plane;
                let w{{ k }} = select(vec4<f32>(), vec4<f32>({% for p in range(4) %}w[at{{ k }} + more{{ p }}]{{ ", " if p < 3 }}{% endfor %}), inside{{ k }});
//% endif
//% endfor
//% for c in range(CB)
//% for k in range(KW)
//% if VEC
                sum{{ c }}_{{ a }} += w{{ k }} * vec4<f32>({% for p in range(4) %}{% set e = SHIFT + SW * p + k %}x{{ c }}_{{ e // 4 }}[{{ e % 4 }}]{{ ", " if p < 3 }}{% endfor %});
//% else
                sum{{ c }}_{{ a }} += w{{ k }} * vec4<f32>({% for p in range(4) %}x{{ c }}_{{ SW * p + k }}{{ ", " if p < 3 }}{% endfor %});
//% endif
//% endfor
//% endfor
            }
//% endfor
        }
        r++;
        if (r >= params.kh1 + {{ RH - 1 }}) {
            break;
        }
    }

    // A channel a round, the others then moved down: written out for all of them, the stores would be most of the shader's length.
    var m = 0u;
    loop {
        // Without a bias the buffer is a few zeros, of which the first is read.
        let shift = bias[select(0u, c + m - params.b_base, params.has_bias == 1u)];
//% for a in range(RH)
        let to{{ a }} = y_at + m * out_plane + row_at{{ a }};
        var stored{{ a }} = sum0_{{ a }};
//% if PART
        if (params.last == 1u) {
//% else
        {
//% endif
            stored{{ a }} += shift;
//% if RESIDUAL and VEC
            stored{{ a }} += residual[to{{ a }} / 4u];
//% elif RESIDUAL
            stored{{ a }} += vec4<f32>({% for p in range(4) %}residual[to{{ a }} + more{{ p }}]{{ ", " if p < 3 }}{% endfor %});
//% endif
            stored{{ a }} = activate(stored{{ a }}, params.activation, params.slope);
        }
//% if VEC
        if ({{ a }}u < valid_rows) {
            y[to{{ a }} / 4u] = stored{{ a }};
        }
//% else
//% for p in range(4)
        if ({{ a }}u < valid_rows && j + {{ p }}u < out_w) {
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
