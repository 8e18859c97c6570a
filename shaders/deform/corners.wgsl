// The four neighbours of a sampling point (torchvision's bilinear rule), for every channel that shares it:
//
//   sample = sum over the neighbours inside the image of weight * x[at]
//
// Neighbours in the order top left, top right, bottom left, bottom right. A point with y <= -1, y >= h, x <= -1, x >= w or a
// coordinate that is no finite number has no neighbour inside. Indices are always in the image, whatever the data.
struct Corners {
    at: vec4<u32>,
    inside: vec4<bool>,
    weight: vec4<f32>,
}

fn corners(y: f32, x: f32, h: i32, w: i32) -> Corners {
    // By their bits: compilers may take it that no comparison sees a NaN.
    let finite = all((bitcast<vec2<u32>>(vec2<f32>(y, x)) & vec2<u32>(0x7f800000u)) != vec2<u32>(0x7f800000u));
    let near = finite && y > -1.0 && y < f32(h) && x > -1.0 && x < f32(w);
    // A far point becomes the origin: its weights are numbers, and nothing of it is inside.
    let near_y = select(0.0, y, near);
    let near_x = select(0.0, x, near);
    let top = floor(near_y);
    let left = floor(near_x);
    let below = near_y - top;
    let right = near_x - left;
    let rows = vec4<i32>(i32(top)) + vec4<i32>(0, 0, 1, 1);
    let columns = vec4<i32>(i32(left)) + vec4<i32>(0, 1, 0, 1);
    let zero = vec4<i32>();
    let at = clamp(rows, zero, vec4<i32>(h - 1)) * w + clamp(columns, zero, vec4<i32>(w - 1));
    let inside = (rows >= zero) & (rows < vec4<i32>(h)) & (columns >= zero) & (columns < vec4<i32>(w)) & vec4<bool>(near);
    let weight = vec4<f32>(1.0 - below, 1.0 - below, below, below) * vec4<f32>(1.0 - right, right, 1.0 - right, right);
    return Corners(vec4<u32>(at), inside, weight);
}
