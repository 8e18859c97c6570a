// The multiplication of one slice, as part of a tiled GEMM's main function (conv/tiled.wgsl): four steps of K a round, of which a thread
// reads TM + TN vec4s and makes 4 * TM * TN multiply-adds. `half` is the half of workgroup memory that is being filled.
            let a_from = (1u - half) * {{ A }}u + ty;
            let b_from = (1u - half) * {{ B }}u;
            for (var q = 0u; q < {{ BK // 4 }}u; q++) {
//% for j in range(4)
//% for h in range(TM // 4)
                let a{{ j }}_{{ h }} = a[a_from + q * {{ BM }}u + {{ j * (BM // 4) + h * BM // 8 }}u];
//% endfor
//% endfor
//% for p in range(TN)
                let x{{ p }} = b[b_from + q * {{ BN }}u + slot{{ p }}];
//% for h in range(TM // 4)
//% for j in range(4)
                sum{{ p }}_{{ h }} += a{{ j }}_{{ h }} * x{{ p }}[{{ j }}];
//% endfor
//% endfor
//% endfor
            }
