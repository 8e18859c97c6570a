// The end of a tiled GEMM's main function (conv/tiled.wgsl): a thread's sums with bias, residual and activation into y. `first` is the
// tile's first position, `tile` and `g` its output channels' tile and group, `y_first` the element of y where the first image starts.
    let channels = params.og * params.groups;
    let o_tile = tile * {{ BM }}u + 4u * ty;
//% for h in range(TM // 4)
    let o{{ h }} = o_tile + {{ h * BM // 2 }}u;
    let last{{ h }} = params.og - 1u - min(o{{ h }}, params.og - 1u);
    let bias{{ h }} = vec4<f32>(
//% for r in range(4)
        bias_of(min(o{{ h }}, params.og - 1u) + g * params.og + min({{ r }}u, last{{ h }})),
//% endfor
    );
//% endfor
//% for p in range(0, TN, 4 if VEC else 1)
    let flat{{ p }} = first + p{{ p }};
    if (live & (flat{{ p }} < params.positions)) {
        let n = flat{{ p }} / out_plane();
        let y_at = y_first + (n * channels + g * params.og) * out_plane() + flat{{ p }} % out_plane();
//% for h in range(TM // 4)
        if (o{{ h }} < params.og) {
            let at = y_at + o{{ h }} * out_plane();
//% if VEC
//% for r in range(4)
            if ({{ r }}u <= last{{ h }}) {
                let at4 = (at + {{ r }}u * out_plane()) / 4u;
                var v = vec4<f32>(sum{{ p }}_{{ h }}[{{ r }}], sum{{ p + 1 }}_{{ h }}[{{ r }}], sum{{ p + 2 }}_{{ h }}[{{ r }}], sum{{ p + 3 }}_{{ h }}[{{ r }}]);
                v += bias{{ h }}[{{ r }}];
                if (params.has_residual == 1u) {
                    v += residual[at4];
                }
                y[at4] = activate(v, params.activation, params.slope);
            }
//% endfor
//% else
            var v = sum{{ p }}_{{ h }} + bias{{ h }};
            if (params.has_residual == 1u) {
                v += vec4<f32>(
//% for r in range(4)
                    residual[at + min({{ r }}u, last{{ h }}) * out_plane()],
//% endfor
                );
            }
            v = activate(v, params.activation, params.slope);
//% for r in range(4)
            if ({{ r }}u <= last{{ h }}) {
                y[at + {{ r }}u * out_plane()] = v[{{ r }}];
            }
//% endfor
//% endif
        }
//% endfor
    }
//% endfor

