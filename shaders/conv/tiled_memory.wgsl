// Workgroup memory of the tiled GEMMs (conv/tiled.wgsl describes it): two slices of weights and two of inputs, one of each being filled
// while the other is read.
var<workgroup> a: array<vec4<f32>, {{ 2 * A }}>;
var<workgroup> b: array<vec4<f32>, {{ 2 * B }}>;

// Where in its row of b a position of the tile lies.
fn slot(p: u32) -> u32 {
//% if VEC
    return p % 4u * {{ BN // 4 }}u + ((p / 4u) ^ (p % 4u * 2u));
//% else
    return p;
//% endif
}
