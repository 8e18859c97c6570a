//! Deformable convolution in two passes over slices of the output: sample into columns, multiply by `conv/subgroup.wgsl`.
//!
//! The columns stand in tiles of the multiplication's positions, so that it reads them one after the other. A slice is some positions
//! of an image or some whole images: its columns and the copy of its images in blocks of four channels take no more memory than input and
//! offsets do, or than that copy and the columns of one tile of positions. Only to a small input the copy comes on top.

use crate::ops::Epilogue;
use crate::ops::conv::subgroup::{Gemm, Layout, WeightLayout, lanes};
use crate::ops::window::{image_window, window, window_elements};
use crate::params::params;
use crate::plan::{Binding, Instance, Pack, Params, Slot, Step};
use crate::profile::{AdapterClass, Profile};

use super::blocks;
use super::problem::{Problem, area, i32s};
use super::{BIAS, INPUT, RESIDUAL, WEIGHT};

params! {
    /// `Params` of `deform/sample.wgsl`.
    pub struct SampleParams {
        in_h: i32, in_w: i32, out_w: i32, positions: u32,
        k_w: i32, taps: u32, s_h: i32, s_w: i32,
        d_h: i32, d_w: i32, p_h: i32, p_w: i32,
        bd: u32, each: u32, rounds: u32, offset_groups: u32,
        first: u32, count: u32, total: u32, zero: u32,
        offset_base: u32, mask_base: u32, width: u32, columns: u32,
        group_blocks: u32,
    }
}

params! {
    /// `Params` of `deform/sample_flat.wgsl`.
    pub struct FlatParams {
        in_h: i32, in_w: i32, out_w: i32, positions: u32,
        k_w: u32, taps: u32, s_h: i32, s_w: i32,
        d_h: i32, d_w: i32, p_h: i32, p_w: i32,
        c_in: u32, cg: u32, cd: u32, offset_groups: u32,
        groups: u32, blocks: u32, first: u32, count: u32,
        total: u32, x_base: u32, offset_base: u32, mask_base: u32,
        width: u32, columns: u32,
    }
}

/// Elements of input and offsets up to which the copy is not counted: it is a few MiB at most, and short slices would cost a quarter of the
/// time (docs/performance.md).
const SMALL: u64 = 1 << 20;

pub(crate) fn sample_instance(mask: bool, wide: bool) -> Instance {
    Instance::new("deform/sample.wgsl").with("MASK", mask.into()).with("WIDE", wide.into())
}

pub(crate) fn flat_instance(mask: bool) -> Instance {
    Instance::new("deform/sample_flat.wgsl").with("MASK", mask.into())
}

/// A problem cut into slices.
pub(crate) struct Sliced<'a> {
    p: &'a Problem,
    profile: &'a Profile,
    has_mask: bool,
    /// Columns are made of blocks of four channels and not of four neighbours of the list of (channel, tap).
    blocked: bool,
}

/// Whole images, or positions of one image.
struct Slice {
    image: u64,
    images: u64,
    first: u64,
    count: u64,
}

impl<'a> Sliced<'a> {
    /// None where the adapter or the size of a tensor rules it out.
    pub fn new(p: &'a Problem, profile: &'a Profile, has_mask: bool) -> Option<Self> {
        let sliced = Self { p, profile, has_mask, blocked: blocks::pay(p) };
        let most = window_elements(profile);
        let image = p.image().max(2 * p.mask_image()).max(sliced.copied_image() + 4);
        let fits = image <= most && sliced.gemm(1).fits(profile);
        fits.then_some(sliced)
    }

    /// Positions of the multiplication's tile.
    fn tile(&self) -> u64 {
        u64::from(lanes(self.profile).0) * 4
    }

    fn blocks(&self) -> u64 {
        let list = if self.blocked { u64::from(self.p.cg()) } else { u64::from(self.p.cg()) * self.p.taps() };
        list.div_ceil(4)
    }

    /// Elements of the copy of one image in blocks.
    fn copied_image(&self) -> u64 {
        if self.blocked { blocks::image(self.p) } else { 0 }
    }

    /// Elements of the columns of one position.
    fn column(&self) -> u64 {
        let taps = if self.blocked { self.p.taps() } else { 1 };
        u64::from(self.p.groups) * self.blocks() * 4 * taps
    }

    /// The multiplication over the columns of some images; its input is a tile of them.
    fn gemm(&self, images: u64) -> Gemm {
        let p = self.p;
        let (taps, list) = if self.blocked { (p.taps() as u32, 1) } else { (1, p.taps() as u32) };
        Gemm {
            batch: images as u32,
            c_in: p.c_in * list,
            c_out: p.c_out,
            groups: p.groups,
            input: [taps, 1, self.tile() as u32],
            output: [1, 1, area(p.output) as u32],
            kernel: [taps, 1, 1],
            phases: [1; 3],
            step: [1; 3],
            tap: [1; 3],
            k_step: [1; 3],
            pad: [0; 3],
            dilation: [1; 3],
        }
    }

    pub fn pack(&self) -> Pack {
        let (cg, taps) = (self.p.cg(), self.p.taps() as u32);
        let list = cg * taps;
        let input = if self.blocked { taps } else { 1 };
        let layout = WeightLayout { group: self.p.og() * list, output: list, input, flip: false };
        self.gemm(1).pack(WEIGHT, &layout)
    }

    /// The images of a slice and the positions of an image.
    fn extents(&self) -> (u64, u64) {
        let p = self.p;
        let (batch, positions, most) = (u64::from(p.batch), area(p.output), window_elements(self.profile));
        let budget = batch * (p.image() + 2 * p.mask_image());
        let copied = if budget > SMALL { self.copied_image() } else { 0 };
        let tile = self.tile();
        let columns = |images: u64| (images * positions).next_multiple_of(tile) * self.column();
        let largest = p.image().max(2 * p.mask_image()).max(p.out_image()).max(self.copied_image() + 4);
        let image = positions * self.column();
        let at_most = (budget / (image + copied)).min(most / largest.max(image)).min(batch);
        let fits = |images: &u64| columns(*images) <= most && images * copied + columns(*images) <= budget;
        let images = (1..=at_most).rev().find(fits).unwrap_or(0);
        if images > 0 {
            return (batch.div_ceil(batch.div_ceil(images)), positions);
        }
        let count = budget.saturating_sub(copied).min(most) / self.column() / tile * tile;
        (1, positions.div_ceil(positions.div_ceil(count.max(tile))).next_multiple_of(tile).min(positions))
    }

    /// Dispatches and scratch bytes: the columns, and the copy in blocks.
    pub fn steps(&self, epilogue: &Epilogue) -> (Vec<Step>, Vec<u64>) {
        let (batch, positions) = (u64::from(self.p.batch), area(self.p.output));
        let (each, width) = self.extents();
        let mut steps = Vec::new();
        for image in (0..batch).step_by(each as usize) {
            let images = each.min(batch - image);
            if self.blocked {
                steps.push(blocks::copy_step(self.p, self.profile, &(image..image + images), 1));
            }
            for first in (0..positions).step_by(width as usize) {
                let slice = Slice { image, images, first, count: width.min(positions - first) };
                steps.push(if self.blocked { self.sample_step(&slice) } else { self.flat_step(&slice) });
                steps.push(self.multiply_step(epilogue, &slice));
            }
        }
        let mut scratch = vec![(each * width).next_multiple_of(self.tile()) * self.column() * 4];
        if self.blocked {
            scratch.push(each * self.copied_image() * 4 + 16);
        }
        (steps, scratch)
    }

    fn sample_step(&self, slice: &Slice) -> Step {
        let p = self.p;
        let images = slice.image..slice.image + slice.images;
        let ((offset, offset_base), (mask, mask_base)) = blocks::fields(p, self.profile, self.has_mask, &images);
        let bd = u64::from(p.groups) * self.blocks() / u64::from(p.offset_groups);
        // A software adapter has threads enough; a GPU wants many, and finds the neighbours again for each.
        let each = bd.min(if self.profile.class == AdapterClass::Cpu { 32 } else { 8 });
        let rounds = bd.div_ceil(each);
        let (columns, width) = (slice.images * slice.count, self.tile());
        let total = u64::from(p.offset_groups) * rounds * p.taps() * columns.next_multiple_of(width);
        let ([in_h, in_w], [_, out_w], [_, k_w]) = (i32s(p.input), i32s(p.output), i32s(p.kernel));
        let ([s_h, s_w], [d_h, d_w], [p_h, p_w]) = (i32s(p.stride), i32s(p.dilation), i32s(p.pad_start));
        let params = SampleParams {
            in_h,
            in_w,
            out_w,
            positions: area(p.output) as u32,
            k_w,
            taps: p.taps() as u32,
            s_h,
            s_w,
            d_h,
            d_w,
            p_h,
            p_w,
            bd: bd as u32,
            each: each as u32,
            rounds: rounds as u32,
            offset_groups: p.offset_groups,
            first: slice.first as u32,
            count: slice.count as u32,
            total: total as u32,
            zero: (slice.images * self.copied_image() / 4) as u32,
            offset_base,
            mask_base,
            width: width as u32,
            columns: columns as u32,
            group_blocks: self.blocks() as u32,
        };
        Step {
            instance: sample_instance(self.has_mask, self.profile.wide_loads),
            params: Params::new(&params),
            bindings: vec![Binding::read(Slot::Scratch(1)), offset, mask, Binding::write(Slot::Scratch(0))],
            groups: total.div_ceil(64),
            work: columns * self.column() * 8,
        }
    }

    fn flat_step(&self, slice: &Slice) -> Step {
        let p = self.p;
        let images = slice.image..slice.image + slice.images;
        let ((offset, offset_base), (mask, mask_base)) = blocks::fields(p, self.profile, self.has_mask, &images);
        let (x, x_base) = image_window(self.profile, Slot::Arg(INPUT), (p.batch, p.image()), &images, false);
        let (columns, width) = (slice.images * slice.count, self.tile());
        let total = columns.next_multiple_of(width) * self.column() / 4;
        let ([in_h, in_w], [_, out_w]) = (i32s(p.input), i32s(p.output));
        let ([s_h, s_w], [d_h, d_w], [p_h, p_w]) = (i32s(p.stride), i32s(p.dilation), i32s(p.pad_start));
        let params = FlatParams {
            in_h,
            in_w,
            out_w,
            positions: area(p.output) as u32,
            k_w: p.kernel[1],
            taps: p.taps() as u32,
            s_h,
            s_w,
            d_h,
            d_w,
            p_h,
            p_w,
            c_in: p.c_in,
            cg: p.cg(),
            cd: p.cd(),
            offset_groups: p.offset_groups,
            groups: p.groups,
            blocks: self.blocks() as u32,
            first: slice.first as u32,
            count: slice.count as u32,
            total: total as u32,
            x_base,
            offset_base,
            mask_base,
            width: width as u32,
            columns: columns as u32,
        };
        Step {
            instance: flat_instance(self.has_mask),
            params: Params::new(&params),
            bindings: vec![x, offset, mask, Binding::write(Slot::Scratch(0))],
            groups: total.div_ceil(64),
            work: total * 64,
        }
    }

    fn multiply_step(&self, epilogue: &Epilogue, slice: &Slice) -> Step {
        let out_image = self.p.out_image();
        let start = slice.image * out_image;
        let range = start..start + slice.images * out_image;
        let (y, y_base) = window(self.profile, Slot::Out, range, u64::from(self.p.batch) * out_image, true);
        let residual = epilogue.residual(RESIDUAL, y);
        let columns = Binding::read(Slot::Scratch(0));
        let bindings = vec![columns, Binding::read(Slot::Packed), Binding::read(Slot::Arg(BIAS)), residual, y];
        let gemm = self.gemm(slice.images);
        let part = [1, 1, slice.count as u32];
        let y_start = (start + slice.first) as i64 - i64::from(y_base);
        gemm.gemm_step(self.profile, epilogue, bindings, (slice.images as u32, part), y_start, Layout::Columns)
    }
}
