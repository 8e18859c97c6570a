//! What a fuzzer's bytes are made into: choices, and numbers that are small, awkward or huge. Bytes that are missing count as 0, so that
//! an input keeps its meaning when another is appended to it.

/// The bytes that are left.
pub struct Bytes<'a>(pub &'a [u8]);

/// Where sums and products of sizes overflow, or are just not too large.
const EDGES: [usize; 16] = [
    usize::MAX,
    usize::MAX - 1,
    usize::MAX / 2,
    usize::MAX / 2 + 1,
    1 << 62,
    (1 << 32) + 1,
    1 << 32,
    u32::MAX as usize,
    1 << 31,
    i32::MAX as usize,
    (1 << 30) + 1,
    1 << 30,
    (1 << 30) - 1,
    (1 << 24) + 1,
    1 << 24,
    0,
];

impl Bytes<'_> {
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    pub fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    /// An extent of an axis or a count: mostly up to 40.
    pub fn extent(&mut self) -> usize {
        match self.byte() {
            small @ 0..160 => usize::from(small % 40),
            near @ 160..208 => {
                let power = 1u128 << (self.byte() % 65);
                usize::try_from(power + u128::from(near % 3)).map_or(usize::MAX, |number| number.saturating_sub(1))
            }
            high @ 208..232 => usize::from(high - 208) << 8 | usize::from(self.byte()),
            _ => self.pick(&EDGES),
        }
    }

    /// A stride, a dilation or a number of groups: mostly 1 to 4.
    pub fn step(&mut self) -> usize {
        match self.byte() {
            small @ 0..176 => 1 + usize::from(small % 4),
            more @ 176..224 => usize::from(more - 176),
            _ => self.extent(),
        }
    }

    /// Elements of padding: mostly none or few.
    pub fn padding(&mut self) -> usize {
        match self.byte() {
            small @ 0..192 => usize::from(small % 4),
            more @ 192..224 => usize::from(more - 192),
            _ => self.extent(),
        }
    }

    pub fn extents<const N: usize>(&mut self) -> [usize; N] {
        std::array::from_fn(|_| self.extent())
    }

    pub fn steps<const N: usize>(&mut self) -> [usize; N] {
        std::array::from_fn(|_| self.step())
    }

    pub fn paddings<const N: usize>(&mut self) -> [usize; N] {
        std::array::from_fn(|_| self.padding())
    }

    /// A shape of up to nine axes.
    pub fn shape(&mut self) -> Vec<usize> {
        let rank = self.byte() % 10;
        (0..rank).map(|_| self.extent()).collect()
    }

    /// Now and then spoils a shape that fits the others: another extent, an axis more, an axis fewer.
    pub fn spoil(&mut self, shape: &mut Vec<usize>) {
        match self.byte() {
            0..224 => {}
            224..248 if !shape.is_empty() => {
                let at = usize::from(self.byte()) % shape.len();
                shape[at] = self.extent();
            }
            248..252 => shape.push(self.extent()),
            _ => drop(shape.pop()),
        }
    }
}
