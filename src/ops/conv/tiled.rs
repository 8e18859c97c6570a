//! Plans for `conv/tiled.wgsl`: an implicit GEMM through workgroup memory, split along K where there are few tiles.

use crate::ops::Epilogue;
use crate::ops::activation::Activation;
use crate::ops::window::{window, window_elements};
use crate::params::params;
use crate::plan::{Binding, Instance, Pack, Params, Slot, Step};
use crate::profile::{AdapterClass, Profile};

use super::problem::{Problem, volume};
use super::subgroup::{PackParams, WeightLayout};

params! {
    /// `Params` of `conv/tiled.wgsl` and `conv/tiled_sum.wgsl`.
    pub struct TiledParams {
        cg: u32, og: u32, groups: u32, blocks: u32,
        in_d: i32, in_h: i32, in_w: i32, border: u32,
        out_d: i32, out_h: i32, out_w: i32, activation: u32,
        k_d: i32, k_h: i32, k_w: i32, has_bias: u32,
        s_d: i32, s_h: i32, s_w: i32, has_residual: u32,
        d_d: i32, d_h: i32, d_w: i32, slope: f32,
        p_d: i32, p_h: i32, p_w: i32, bm: u32,
        hop_d: u32, hop_h: u32, hop_w: u32, hop_b: u32,
        tiles: u32, position_tiles: u32, positions: u32, total: u32,
        splits: u32, part: u32, slices: u32, sums: u32,
        x_start: u32, y_start: u32,
    }
}

/// What a workgroup makes: `bm` output channels x `bn` positions, `tm` x `tn` a thread, K in slices of `bk`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    pub bm: u32,
    pub bn: u32,
    pub bk: u32,
    pub tm: u32,
    pub tn: u32,
}

/// The tiles that the shader is instantiated for. Threads must be a multiple of `bn`, and load whole rounds of both slices.
pub(crate) const TILES: [Tile; 5] = [
    Tile { bm: 128, bn: 128, bk: 16, tm: 8, tn: 8 },
    Tile { bm: 128, bn: 128, bk: 8, tm: 8, tn: 8 },
    Tile { bm: 64, bn: 64, bk: 16, tm: 8, tn: 8 },
    Tile { bm: 32, bn: 64, bk: 16, tm: 4, tn: 8 },
    Tile { bm: 32, bn: 32, bk: 16, tm: 4, tn: 4 },
];

/// Threads of the smallest of them.
const LEAST_THREADS: u32 = 64;
/// Least products of a part where K is split.
const LEAST_PART: u64 = 128;
/// Most parts, which bounds the scratch memory: so many times the output.
const MOST_SPLITS: u64 = 16;
/// What a second dispatch costs, in the units of [`Tile::step_cost`]: some microseconds of a GPU.
const SUM_COST: u64 = 8000;

impl Tile {
    fn threads(&self) -> u32 {
        self.bm * self.bn / (self.tm * self.tn)
    }

    /// Bytes of workgroup memory: two slices of weights and of inputs.
    fn bytes(&self) -> u32 {
        2 * 4 * self.bk * (self.bm + self.bn)
    }

    /// A shader with this tile's constants.
    pub fn instance(&self, shader: &'static str) -> Instance {
        Instance::new(shader)
            .with("BM", self.bm)
            .with("BN", self.bn)
            .with("BK", self.bk)
            .with("TM", self.tm)
            .with("TN", self.tn)
    }

    /// Groups of four input channels that the workgroup's threads load side by side.
    pub fn side(&self) -> u32 {
        self.threads() / self.bn
    }

    /// A thread's cost of one step of K, in multiply-adds: its products; four for each vec4 that it reads from workgroup memory, of which
    /// a step takes `(tm + tn) / 4`; six for each load from global memory, one a weight and `loads` an input.
    fn step_cost(&self, loads: u64) -> u64 {
        let brought = 6 * (u64::from(self.bm) + loads * u64::from(self.bn)) / u64::from(self.threads());
        u64::from(self.tm * self.tn + self.tm + self.tn) + brought
    }
}

/// Threads that keep an adapter of the class busy.
fn capacity(class: AdapterClass) -> u64 {
    match class {
        AdapterClass::Cpu => 256,
        AdapterClass::Integrated => 4096,
        AdapterClass::Discrete => 32768,
    }
}

/// The numbers of a plan: the tile, and into how many parts its K is split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tiling {
    pub tile: Tile,
    /// Slices of a part; all of them where K is not split.
    part: u64,
    splits: u64,
}

/// Steps of K: the channels of the group in blocks of four, under every tap.
pub(crate) fn steps_of_k(p: &Problem) -> u64 {
    p.taps() * u64::from(p.cg().next_multiple_of(4))
}

fn packed_bytes(p: &Problem, tile: Tile) -> u64 {
    u64::from(p.groups * p.og().div_ceil(tile.bm)) * steps_of_k(p) * u64::from(tile.bm) * 4
}

impl Tiling {
    /// The tile and the split of the least estimated time: waves of workgroups, times a thread's steps of K, times their cost. None
    /// where the adapter cannot run the kernel on this problem.
    pub fn of(p: &Problem, profile: &Profile) -> Option<Self> {
        Self::best(p, profile, (true, profile.max_invocations), 1)
    }

    /// The same with K in one part, for a kernel that makes its inputs itself, of so many loads each. A CPU adapter gains nothing by a
    /// large tile, and compiles the smallest in a fraction of the time.
    pub fn making(p: &Problem, profile: &Profile, loads: u64) -> Option<Self> {
        let most_threads = if profile.class == AdapterClass::Cpu { LEAST_THREADS } else { profile.max_invocations };
        Self::best(p, profile, (false, most_threads), loads)
    }

    fn best(p: &Problem, profile: &Profile, (may_split, most_threads): (bool, u32), loads: u64) -> Option<Self> {
        let (image, out_image) = (u64::from(p.c_in) * volume(p.input), u64::from(p.c_out) * volume(p.output));
        // A tile that is mostly empty would multiply the weights' memory.
        if p.og() < 4 || image.max(out_image) > window_elements(profile) {
            return None;
        }
        let fits = |tile: &Tile| {
            tile.threads() <= most_threads
                && tile.bytes() <= profile.workgroup_bytes
                && packed_bytes(p, *tile) <= profile.max_binding
        };
        let options = TILES.into_iter().filter(fits).flat_map(|tile| {
            let most = if may_split { Self::most_splits(p, profile, tile) } else { 1 };
            [1, most].map(|splits| Self::split(p, tile, splits))
        });
        options.min_by_key(|tiling| tiling.cost(p, profile, loads))
    }

    fn split(p: &Problem, tile: Tile, splits: u64) -> Self {
        let slices = steps_of_k(p).div_ceil(tile.bk.into());
        let part = slices.div_ceil(splits);
        Self { tile, part, splits: slices.div_ceil(part) }
    }

    pub fn workgroups(p: &Problem, tile: Tile, batch: u64) -> u64 {
        let positions = batch * volume(p.output);
        u64::from(p.groups * p.og().div_ceil(tile.bm)) * positions.div_ceil(tile.bn.into())
    }

    /// Parts that fill the adapter, each of enough products, their sums within a binding.
    fn most_splits(p: &Problem, profile: &Profile, tile: Tile) -> u64 {
        let threads = Self::workgroups(p, tile, p.batch.into()) * u64::from(tile.threads());
        let sums = u64::from(p.batch) * u64::from(p.c_out) * volume(p.output);
        let most = (capacity(profile.class) / threads).min(steps_of_k(p) / LEAST_PART);
        most.min(window_elements(profile) / sums).clamp(1, MOST_SPLITS)
    }

    fn cost(&self, p: &Problem, profile: &Profile, loads: u64) -> u64 {
        let workgroups = Self::workgroups(p, self.tile, p.batch.into()) * self.splits;
        let waves = (workgroups * u64::from(self.tile.threads())).div_ceil(capacity(profile.class));
        let sum = if self.splits > 1 { SUM_COST } else { 0 };
        waves * self.part * u64::from(self.tile.bk) * self.tile.step_cost(loads) + sum
    }
}

/// Whether the kernel is the best by rule: on GPUs, for tiles of output channels that are at least half full. On a CPU adapter
/// barriers and workgroup memory cost more than they save.
pub(crate) fn leads(p: &Problem, profile: &Profile) -> bool {
    profile.class != AdapterClass::Cpu && p.og() >= 16
}

/// The packed weights, `[G, T, taps, 4B, BM]`.
pub(crate) fn pack(p: &Problem, tiling: &Tiling, arg: usize, layout: &WeightLayout) -> Pack {
    let bytes = packed_bytes(p, tiling.tile);
    let (bm, taps, flip) = (tiling.tile.bm, p.taps() as u32, layout.flip.into());
    let params = PackParams {
        cg: p.cg(),
        og: p.og(),
        taps,
        channels: p.cg().next_multiple_of(4),
        group_stride: layout.group,
        o_stride: layout.output,
        c_stride: layout.input,
        flip,
        tiles: p.og().div_ceil(bm),
        total: (bytes / 16) as u32,
        taps_inside: 0,
    };
    let key = [bm, p.cg(), p.og(), taps, layout.group, layout.output, layout.input, flip];
    Pack { arg, key: ("tiled", key), bytes, steps: vec![params.step(arg, bm)] }
}

/// Dispatches and scratch bytes: as many images at once as a binding holds.
pub(crate) fn steps(p: &Problem, tiling: &Tiling, epilogue: &Epilogue, profile: &Profile) -> (Vec<Step>, Vec<u64>) {
    let (image, out_image) = (u64::from(p.c_in) * volume(p.input), u64::from(p.c_out) * volume(p.output));
    let batch = u64::from(p.batch);
    let each = (window_elements(profile) / image.max(out_image)).clamp(1, batch);
    let mut steps = Vec::new();
    let mut first = 0;
    while first < batch {
        let count = each.min(batch - first);
        let range = first * image..(first + count) * image;
        let (x, x_base) = window(profile, Slot::Arg(0), range, batch * image, false);
        let out_range = first * out_image..(first + count) * out_image;
        let (y, y_base) = window(profile, Slot::Out, out_range, batch * out_image, true);
        let residual = epilogue.residual(3, y);
        let (x_start, y_start) = (first * image - u64::from(x_base), first * out_image - u64::from(y_base));
        let weights = Binding::read(Slot::Packed);
        let (bias, nothing) = (Binding::read(Slot::Arg(2)), Binding::read(Slot::Nothing));
        let whole = parameters(p, tiling, epilogue, count, (x_start, y_start));
        if tiling.splits == 1 {
            steps.push(gemm_step(p, tiling, whole, epilogue.activation, vec![x, weights, bias, residual, y]));
        } else {
            let parts = Binding::write(Slot::Scratch(0));
            let partial = parameters(p, tiling, &Epilogue::default(), count, (x_start, 0));
            let bindings = vec![x, weights, nothing, nothing, parts];
            steps.push(gemm_step(p, tiling, partial, Activation::Identity, bindings));
            steps.push(Step {
                instance: sum_instance(epilogue.activation.constant()),
                params: Params::new(&whole),
                bindings: vec![x, weights, bias, residual, y, Binding::read(Slot::Scratch(0))],
                groups: (count * out_image).div_ceil(64),
                work: count * out_image * tiling.splits,
            });
        }
        first += count;
    }
    let scratch = (tiling.splits > 1).then(|| tiling.splits * each * out_image * 4);
    (steps, scratch.into_iter().collect())
}

fn gemm_step(
    p: &Problem,
    tiling: &Tiling,
    params: TiledParams,
    activation: Activation,
    bindings: Vec<Binding>,
) -> Step {
    let vec = volume(p.output).is_multiple_of(4) && params.y_start.is_multiple_of(4);
    let border = p.has_border();
    Step {
        instance: instance(tiling.tile, activation.constant(), vec, border),
        params: Params::new(&params),
        bindings,
        groups: params.total.into(),
        work: p.flops() / u64::from(p.batch) * u64::from(params.positions) / volume(p.output),
    }
}

/// The parameters of a dispatch over `count` images that start at such elements of the bindings of x and y.
fn parameters(
    p: &Problem,
    tiling: &Tiling,
    epilogue: &Epilogue,
    count: u64,
    (x_start, y_start): (u64, u64),
) -> TiledParams {
    let tile = tiling.tile;
    let i = |axes: [u32; 3]| axes.map(|value| value as i32);
    let ([in_d, in_h, in_w], [out_d, out_h, out_w]) = (i(p.input), i(p.output));
    let ([k_d, k_h, k_w], [s_d, s_h, s_w]) = (i(p.kernel), i(p.stride));
    let ([d_d, d_h, d_w], [p_d, p_h, p_w]) = (i(p.dilation), i(p.pad_start));
    let blocks = p.cg().div_ceil(4);
    let hop_taps = tile.side() / blocks;
    let positions = count * volume(p.output);
    TiledParams {
        cg: p.cg(),
        og: p.og(),
        groups: p.groups,
        blocks,
        in_d,
        in_h,
        in_w,
        border: p.border.code(),
        out_d,
        out_h,
        out_w,
        activation: epilogue.activation.code(),
        k_d,
        k_h,
        k_w,
        has_bias: epilogue.has_bias.into(),
        s_d,
        s_h,
        s_w,
        has_residual: epilogue.has_residual.into(),
        d_d,
        d_h,
        d_w,
        slope: epilogue.activation.slope(),
        p_d,
        p_h,
        p_w,
        bm: tile.bm,
        hop_d: hop_taps / p.kernel[2] / p.kernel[1],
        hop_h: hop_taps / p.kernel[2] % p.kernel[1],
        hop_w: hop_taps % p.kernel[2],
        hop_b: tile.side() % blocks,
        tiles: p.og().div_ceil(tile.bm),
        position_tiles: positions.div_ceil(tile.bn.into()) as u32,
        positions: positions as u32,
        total: (Tiling::workgroups(p, tile, count) * tiling.splits) as u32,
        splits: tiling.splits as u32,
        part: tiling.part as u32,
        slices: steps_of_k(p).div_ceil(tile.bk.into()) as u32,
        sums: (count * u64::from(p.c_out) * volume(p.output)) as u32,
        x_start: x_start as u32,
        y_start: y_start as u32,
    }
}

pub(crate) fn instance(tile: Tile, activation: u32, vec: bool, border: bool) -> Instance {
    tile.instance("conv/tiled.wgsl").with("ACT", activation).with("VEC", vec.into()).with("BORDER", border.into())
}

pub(crate) fn sum_instance(activation: u32) -> Instance {
    Instance::new("conv/tiled_sum.wgsl").with("ACT", activation)
}

#[cfg(test)]
mod tests {
    use super::{TILES, Tiling, leads};
    use crate::ops::conv::problem::Problem;
    use crate::profile::{AdapterClass, Profile};
    use crate::{Conv1d, Conv2d};

    fn discrete() -> Profile {
        Profile { class: AdapterClass::Discrete, workgroup_bytes: 48 << 10, ..Profile::baseline() }
    }

    fn problem(x: [usize; 4], w: [usize; 4]) -> Problem {
        Problem::new(&Conv2d::new().padding(w[2] / 2).groups(x[1] / w[1]), &x, &w).expect("problem")
    }

    /// bm, bn, bk and the splits.
    fn chosen(x: [usize; 4], w: [usize; 4], profile: &Profile) -> (u32, u32, u32, u64) {
        let tiling = Tiling::of(&problem(x, w), profile).expect("tiling");
        (tiling.tile.bm, tiling.tile.bn, tiling.tile.bk, tiling.splits)
    }

    /// What the shader takes for granted.
    #[test]
    fn tiles_divide_evenly() {
        for tile in TILES {
            let threads = tile.threads();
            assert_eq!(
                (threads % tile.bn, tile.bk * tile.bm / 4 % threads, tile.bk / 4 * tile.bn % threads),
                (0, 0, 0)
            );
            assert!(tile.tm % 4 == 0 && tile.tn % 4 == 0 && tile.bn >= 32 && tile.bn.is_power_of_two(), "{tile:?}");
            assert!(tile.tm <= 8 && tile.tn <= 8, "two halves at most: {tile:?}");
        }
    }

    #[test]
    fn large_problems_take_large_tiles_and_long_ones_are_split() {
        let gpu = discrete();
        assert_eq!(chosen([32, 256, 56, 56], [256, 256, 3, 3], &gpu), (128, 128, 16, 1));
        // Half of a tile of 128 channels would be empty, three quarters of one of 64.
        assert_eq!(chosen([32, 64, 56, 56], [64, 64, 3, 3], &gpu), (64, 64, 16, 1));
        assert_eq!(chosen([32, 64, 112, 112], [24, 64, 1, 1], &gpu), (32, 64, 16, 1));
        // WebGPU's default limits have half the memory.
        let small = Profile { workgroup_bytes: 16 << 10, ..gpu.clone() };
        assert_eq!(chosen([32, 256, 56, 56], [256, 256, 3, 3], &small), (128, 128, 8, 1));
        // Few tiles: one image of 7x7 or 14x14.
        let (.., splits) = chosen([1, 512, 7, 7], [512, 512, 3, 3], &gpu);
        assert!(splits > 4, "{splits}");
        let (.., splits) = chosen([1, 64, 14, 14], [64, 64, 1, 1], &gpu);
        assert_eq!(splits, 1);
        // Parts of no fewer than 128 products; two of 144 would save less than their sum costs.
        assert_eq!(chosen([1, 64, 7, 7], [64, 64, 3, 3], &gpu), (32, 32, 16, 4));
        assert_eq!(chosen([1, 32, 7, 7], [64, 32, 3, 3], &gpu), (32, 32, 16, 1));
    }

    #[test]
    fn parts_are_never_empty_and_cover_k() {
        for cin in [16, 100, 512, 777] {
            let p = problem([1, cin, 7, 7], [40, cin, 3, 3]);
            for tile in TILES {
                for splits in 1..=16 {
                    let tiling = Tiling::split(&p, tile, splits);
                    let slices = (9 * cin.next_multiple_of(4) as u64).div_ceil(tile.bk.into());
                    assert!(tiling.splits <= splits && tiling.part * tiling.splits >= slices);
                    assert!(tiling.part * (tiling.splits - 1) < slices, "{tiling:?}");
                }
            }
        }
    }

    #[test]
    fn offered_where_it_fits_and_first_on_gpus() {
        let gpu = discrete();
        let dense = problem([1, 64, 14, 14], [64, 64, 3, 3]);
        assert!(leads(&dense, &gpu) && leads(&dense, &Profile::baseline()));
        assert!(!leads(&dense, &Profile { class: AdapterClass::Cpu, ..gpu.clone() }));
        assert!(!leads(&problem([1, 128, 14, 14], [128, 4, 3, 3]), &gpu), "four channels a group");
        assert!(Tiling::of(&dense, &Profile { workgroup_bytes: 4 << 10, ..gpu.clone() }).is_none());
        assert!(Tiling::of(&dense, &Profile { max_invocations: 32, ..gpu.clone() }).is_none());
        assert!(Tiling::of(&problem([1, 64, 14, 14], [64, 1, 3, 3]), &gpu).is_none(), "depthwise");
        let long = Problem::new(&Conv1d::new(), &[1, 4, 1 << 25], &[4, 4, 1]).expect("problem");
        assert!(Tiling::of(&long, &gpu).is_none(), "an image over the binding");
    }
}
