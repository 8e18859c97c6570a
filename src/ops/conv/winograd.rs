//! Plans for `winograd/*.wgsl`: 3x3 convolution by Winograd's minimal filtering (Lavin and Gray 2016), F(2x2, 3x3) and F(4x4, 3x3).
//!
//! Three passes, a slice of tiles at a time: the input's tiles are transformed, multiplied with the transformed weights (a pointwise
//! convolution with one group for each position of a tile), and transformed back.

use crate::ops::Epilogue;
use crate::ops::activation::Activation;
use crate::ops::window::{ranges, window, window_elements};
use crate::params::params;
use crate::plan::{Binding, Instance, Pack, Params, Slot, Step};
use crate::profile::{AdapterClass, Profile};

use super::ConvKernel;
use super::problem::{Problem, volume};
use super::subgroup::{Gemm, Layout};

params! {
    /// `Params` of `winograd/weights.wgsl`.
    pub struct WeightsParams {
        cg: u32, og: u32, groups: u32, tiles: u32,
        flip: u32, total: u32, size: u32, lanes: u32,
    }
}

params! {
    /// `Params` of `winograd/input.wgsl`.
    pub struct InputParams {
        channels: u32, rows: u32, quads: u32, first_row: u32,
        in_h: i32, in_w: i32, p_h: i32, p_w: i32,
        tiles_h: u32, x_base: u32, total: u32, size: i32,
    }
}

params! {
    /// `Params` of `winograd/output.wgsl`.
    pub struct OutputParams {
        outputs: u32, rows: u32, quads: u32, first_row: u32,
        out_h: i32, out_w: i32, tiles_h: u32, y_base: u32,
        activation: u32, slope: f32, has_bias: u32, flip: u32,
        cg: u32, og: u32, groups: u32, x_base: u32,
        in_h: i32, in_w: i32, p_h: i32, p_w: i32,
        total: u32, taps: i32, size: u32,
    }
}

/// Outputs of a tile along an axis, and the kernel's name.
pub(crate) const SIZES: [(u32, ConvKernel); 2] = [(2, ConvKernel::Winograd), (4, ConvKernel::WinogradF4)];

pub(crate) fn weights_instance(m: u32, tile: u32) -> Instance {
    Instance::new("winograd/weights.wgsl").with("M", m).with("OC", tile)
}

pub(crate) fn input_instance(m: u32, vec: bool, wide: bool) -> Instance {
    Instance::new("winograd/input.wgsl").with("M", m).with("VEC", vec.into()).with("WIDE", wide.into())
}

pub(crate) fn output_instance(m: u32, activation: u32, (vec, wide): (bool, bool), residual: bool) -> Instance {
    Instance::new("winograd/output.wgsl")
        .with("M", m)
        .with("ACT", activation)
        .with("VEC_Y", vec.into())
        .with("RESIDUAL", residual.into())
        .with("WIDE", wide.into())
}

/// A convolution in tiles of `m` x `m` outputs.
pub(crate) struct Winograd<'a> {
    p: &'a Problem,
    m: u32,
}

impl<'a> Winograd<'a> {
    pub fn new(p: &'a Problem, m: u32) -> Self {
        Self { p, m }
    }

    /// Positions of a tile.
    fn positions(&self) -> u32 {
        (self.m + 2) * (self.m + 2)
    }

    /// Rows of tiles of an image, and vec4s of tiles in each.
    fn grid(&self) -> (u32, u32) {
        let [_, out_h, out_w] = self.p.output;
        (out_h.div_ceil(self.m), out_w.div_ceil(4 * self.m))
    }

    /// The multiplication over a slice of `rows` rows of tiles, as a pointwise convolution.
    fn gemm(&self, rows: u64) -> Gemm {
        let tiles = [1, 1, (rows * u64::from(self.grid().1) * 4) as u32];
        Gemm {
            batch: 1,
            c_in: self.p.c_in * self.positions(),
            c_out: self.p.c_out * self.positions(),
            groups: self.p.groups * self.positions(),
            input: tiles,
            output: tiles,
            kernel: [1; 3],
            phases: [1; 3],
            step: [1; 3],
            tap: [1; 3],
            k_step: [1; 3],
            pad: [0; 3],
            dilation: [1; 3],
        }
    }

    /// Elements of scratch memory for a row of tiles: of the transformed input and of the products.
    fn row_elements(&self) -> [u64; 2] {
        let tiles = u64::from(self.positions() * self.grid().1) * 4;
        [tiles * u64::from(self.p.c_in), tiles * u64::from(self.p.c_out)]
    }

    pub fn fits(&self, profile: &Profile) -> bool {
        let p = self.p;
        let [input, products] = self.row_elements();
        let most = window_elements(profile);
        let images = (u64::from(p.c_in) * volume(p.input)).max(u64::from(p.c_out) * volume(p.output));
        let channels = u64::from(p.c_in.max(p.c_out)) * u64::from(self.positions());
        p.kernel == [1, 3, 3]
            && p.stride == [1; 3]
            && p.dilation == [1; 3]
            && p.input[0] == 1
            && (p.pad_start[0], p.pad_end[0]) == (0, 0)
            && !p.has_border()
            && p.cg().is_multiple_of(4)
            && channels < 1 << 30
            && input.max(products).max(images) <= most
            && self.gemm(1).fits(profile)
    }

    /// Whether it is likely to be faster than a GEMM over all taps. In multiplications: the transforms cost about 130 a channel and
    /// tile on a software adapter for m = 2, loads and stores counted.
    pub fn pays(&self) -> bool {
        let (p, (rows, quads)) = (self.p, self.grid());
        let (cg, og) = (u64::from(p.cg()), u64::from(p.og()));
        let transforms = 130 * u64::from(self.positions()) / 16 * (cg + og);
        let tiled = u64::from(rows) * u64::from(quads) * 4 * (u64::from(self.positions()) * cg * og + transforms);
        tiled < volume(p.output) * 9 * cg * og
    }

    pub fn pack(&self) -> Pack {
        let (p, gemm) = (self.p, self.gemm(1));
        let tile = gemm.tile();
        let bytes = gemm.packed_bytes();
        let total = (bytes / 16 / u64::from(self.positions())) as u32;
        let params = WeightsParams {
            cg: p.cg(),
            og: p.og(),
            groups: p.groups,
            tiles: p.og().div_ceil(tile),
            flip: p.flip.into(),
            total,
            size: self.m + 2,
            lanes: 4,
        };
        let step = Step {
            instance: weights_instance(self.m, tile),
            params: Params::new(&params),
            bindings: vec![Binding::read(Slot::Arg(1)), Binding::write(Slot::Packed)],
            groups: u64::from(total).div_ceil(64),
            work: u64::from(total) * 4 * u64::from(self.positions()) * 6,
        };
        let key = [self.m, tile, p.cg(), p.og(), p.groups, p.flip.into(), 0, 0];
        Pack { arg: 1, key: ("winograd", key), bytes, steps: vec![step] }
    }

    /// Dispatches and scratch bytes.
    pub fn steps(&self, profile: &Profile, epilogue: &Epilogue) -> (Vec<Step>, Vec<u64>) {
        let (tiles_h, _) = self.grid();
        let rows = u64::from(self.p.batch) * u64::from(tiles_h);
        let [input, products] = self.row_elements();
        // A slice's scratch stays in a CPU's cache; a GPU wants long dispatches.
        let budget: u64 = if profile.class == AdapterClass::Cpu { 4 << 20 } else { 64 << 20 };
        let (image, out_image) = self.images();
        // The images of a slice are bound as one window, and a slice may begin and end inside an image.
        let images = (window_elements(profile) / image.max(out_image)).max(1);
        let whole = if images < u64::from(self.p.batch) { images * u64::from(tiles_h) } else { rows };
        let most = (budget / (input + products)).clamp(1, whole).min(window_elements(profile) / input.max(products));
        let each = rows.div_ceil(rows.div_ceil(most));
        let mut steps = Vec::new();
        let parts: Vec<_> = if images < u64::from(self.p.batch) {
            // Slices that keep to one window of images.
            let windows = ranges(u64::from(self.p.batch), images);
            let of = |w: std::ops::Range<u64>| {
                let (first, count) = (w.start * u64::from(tiles_h), (w.end - w.start) * u64::from(tiles_h));
                ranges(count, most).map(move |r| first + r.start..first + r.end)
            };
            windows.flat_map(of).collect()
        } else {
            ranges(rows, most).collect()
        };
        for part in parts {
            let (first, count) = (part.start, part.end - part.start);
            let images = first / u64::from(tiles_h)..(first + count).div_ceil(u64::from(tiles_h));
            self.slice(profile, epilogue, (first as u32, count as u32), images, &mut steps);
        }
        (steps, vec![input * each * 4, products * each * 4])
    }

    /// Elements of an image of the input and of the output.
    fn images(&self) -> (u64, u64) {
        (u64::from(self.p.c_in) * volume(self.p.input), u64::from(self.p.c_out) * volume(self.p.output))
    }

    fn slice(
        &self,
        profile: &Profile,
        epilogue: &Epilogue,
        (first_row, rows): (u32, u32),
        images: std::ops::Range<u64>,
        steps: &mut Vec<Step>,
    ) {
        let p = self.p;
        let (tiles_h, quads) = self.grid();
        let (image, out_image) = self.images();
        let batch = u64::from(p.batch);
        let (x, x_base) = window(profile, Slot::Arg(0), images.start * image..images.end * image, batch * image, false);
        let out_range = images.start * out_image..images.end * out_image;
        let (y, y_base) = window(profile, Slot::Out, out_range, batch * out_image, true);
        let ([_, in_h, in_w], [_, out_h, out_w]) = (p.input.map(|e| e as i32), p.output.map(|e| e as i32));
        let [_, p_h, p_w] = p.pad_start.map(|e| e as i32);
        let total = p.c_in * rows * quads;
        let params = InputParams {
            channels: p.c_in,
            rows,
            quads,
            first_row,
            in_h,
            in_w,
            p_h,
            p_w,
            tiles_h,
            x_base,
            total,
            size: self.m as i32 + 2,
        };
        steps.push(Step {
            instance: input_instance(self.m, in_w % 4 == 0 && p_w == 1, profile.wide_loads),
            params: Params::new(&params),
            bindings: vec![x, Binding::write(Slot::Scratch(0))],
            groups: u64::from(total).div_ceil(64),
            work: u64::from(total * self.positions()) * 16,
        });

        let gemm = self.gemm(rows.into());
        let plain = Epilogue { has_bias: false, has_residual: false, activation: Activation::Identity };
        let nothing = Binding::read(Slot::Nothing);
        let products = Binding::write(Slot::Scratch(1));
        let bindings = vec![Binding::read(Slot::Scratch(0)), Binding::read(Slot::Packed), nothing, nothing, products];
        steps.push(gemm.gemm_step(profile, &plain, bindings, (1, gemm.input), 0, Layout::Planar(0)));

        let total = p.c_out * rows * quads;
        let params = OutputParams {
            outputs: p.c_out,
            rows,
            quads,
            first_row,
            out_h,
            out_w,
            tiles_h,
            y_base,
            activation: epilogue.activation.code(),
            slope: epilogue.activation.slope(),
            has_bias: epilogue.has_bias.into(),
            flip: p.flip.into(),
            cg: p.cg(),
            og: p.og(),
            groups: p.groups,
            x_base,
            in_h,
            in_w,
            p_h,
            p_w,
            total,
            taps: 9,
            size: self.m + 2,
        };
        let residual = epilogue.residual(3, y);
        let constant = epilogue.activation.constant();
        steps.push(Step {
            instance: output_instance(self.m, constant, (out_w % 4 == 0, profile.wide_loads), epilogue.has_residual),
            params: Params::new(&params),
            bindings: vec![
                Binding::read(Slot::Scratch(1)),
                Binding::read(Slot::Arg(2)),
                residual,
                x,
                Binding::read(Slot::Arg(1)),
                y,
            ],
            groups: u64::from(total).div_ceil(64),
            work: u64::from(total * self.positions()) * 16,
        });
    }
}
