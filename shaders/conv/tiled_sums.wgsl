// What a thread of a tiled GEMM multiplies, as part of its main function (conv/tiled.wgsl says which outputs it owns): its place in the
// tile, its positions and where these lie in workgroup memory, and its sums.
    let tx = local % {{ TX }}u;
    let ty = local / {{ TX }}u;
//% for p in range(TN)
    let p{{ p }} = {% if VEC %}{{ p // 4 * BN // 2 + p % 4 }}u + 4u * tx{% else %}{{ p * TX }}u + tx{% endif %};
    let slot{{ p }} = slot(p{{ p }});
//% for h in range(TM // 4)
    var sum{{ p }}_{{ h }} = vec4<f32>();
//% endfor
//% endfor
