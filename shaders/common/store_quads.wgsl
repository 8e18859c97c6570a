    // Stores the sums of OC output channels, each a vec4 of neighbouring positions in every lane, after bias, residual and activation:
    // `outputs` channels from o_first on, `columns` positions from y_at on, the channels out_plane apart, where `stored`.
    // Without a bias the buffer is a few zeros, of which the first is read. Lanes 0 to 3 load those of four channels each.
    let bias_at = select(0u, o_first, params.has_bias == 1u);
    let bias_last = select(0u, outputs - 1u, params.has_bias == 1u);
    let bias4 = vec4<f32>(
//% for j in range(4)
        bias[bias_at + min(lane * 4u + {{ j }}u, bias_last)],
//% endfor
    );
    // Four outputs a round, the others then moved down: written out for all, the stores would be most of the shader's length and take
    // most of its compilation.
    var o = 0u;
    loop {
        let shift = subgroupShuffle(bias4, o / 4u);
//% for j in range(4)
        var value{{ j }} = sum{{ j }} + vec4<f32>(shift[{{ j }}]);
        let at{{ j }} = y_at + (o + {{ j }}u) * out_plane;
        if (stored & (o + {{ j }}u < outputs)) {
//% if VEC
//% if RESIDUAL
            value{{ j }} += unpack(residual[at{{ j }} / 4u]);
//% endif
            y[at{{ j }} / 4u] = pack(activate(value{{ j }}, params.activation, params.slope));
//% else
//% if RESIDUAL
            for (var p = 0u; p < columns; p++) {
                value{{ j }}[p] += residual[at{{ j }} + p];
            }
//% endif
            let result{{ j }} = activate(value{{ j }}, params.activation, params.slope);
            for (var p = 0u; p < columns; p++) {
                y[at{{ j }} + p] = result{{ j }}[p];
            }
//% endif
        }
//% endfor
//% for o in range(OC - 4)
        sum{{ o }} = sum{{ o + 4 }};
//% endfor
        o += 4u;
        if (o >= outputs) {
            break;
        }
    }
