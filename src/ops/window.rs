//! Windows: parts of a buffer that a dispatch binds where the whole is over the adapter's limit.

use std::ops::Range;

use crate::plan::{Binding, Slot};
use crate::profile::Profile;

/// A window of a buffer in elements, with its start aligned down for the binding.
pub(crate) fn window(profile: &Profile, slot: Slot, range: Range<u64>, total: u64, write: bool) -> (Binding, u32) {
    let total_bytes = (total * 4).next_multiple_of(16);
    if total_bytes <= profile.max_binding {
        return (Binding { slot, offset: 0, size: 0, write }, 0);
    }
    let align = u64::from(profile.offset_alignment.max(16));
    let offset = range.start * 4 / align * align;
    let size = (range.end * 4).next_multiple_of(16) - offset;
    (Binding { slot, offset, size, write }, (offset / 4) as u32)
}

/// A window over some images of a tensor with so many elements an image; the base counts from the first of them, below which it may lie.
pub(crate) fn image_window(
    profile: &Profile,
    slot: Slot,
    (batch, elements): (u32, u64),
    images: &Range<u64>,
    write: bool,
) -> (Binding, u32) {
    let start = images.start * elements;
    let (binding, base) = window(profile, slot, start..images.end * elements, u64::from(batch) * elements, write);
    (binding, (u64::from(base) as i64 - start as i64) as u32)
}

/// Elements that a window may span, its alignment taken into account.
pub(crate) fn window_elements(profile: &Profile) -> u64 {
    (profile.max_binding - u64::from(profile.offset_alignment.max(16)) - 16) / 4
}

/// Splits `0..count` into the fewest ranges of at most `most`. None is empty: `each` is at most `most`, of which one range less would not do.
pub(crate) fn ranges(count: u64, most: u64) -> impl Iterator<Item = Range<u64>> {
    let parts = count.div_ceil(most.max(1));
    let each = count.div_ceil(parts);
    (0..parts).map(move |i| i * each..((i + 1) * each).min(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile() -> Profile {
        Profile { max_binding: 128, offset_alignment: 32, ..Profile::baseline() }
    }

    #[test]
    fn windows_are_aligned_and_end_in_whole_vec4s() {
        let of = |range: Range<u64>, total| {
            let (binding, base) = window(&profile(), Slot::Arg(1), range, total, true);
            assert_eq!((binding.slot, binding.write), (Slot::Arg(1), true));
            (binding.offset, binding.size, base)
        };
        assert_eq!(of(9..13, 32), (0, 0, 0), "the whole, as long as it fits");
        assert_eq!(of(9..13, 29), (0, 0, 0), "with the rest of its last vec4");
        assert_eq!(of(7..13, 33), (0, 64, 0));
        assert_eq!(of(8..12, 33), (32, 16, 8));
        assert_eq!(of(15..17, 33), (32, 48, 8));
        assert_eq!(of(16..33, 33), (64, 80, 16), "up to the end");
        let fine = Profile { offset_alignment: 4, ..profile() };
        assert_eq!(window(&fine, Slot::Out, 7..8, 33, false).1, 4, "no finer than a vec4");
    }

    #[test]
    fn bases_count_from_the_first_image() {
        let of = |images: Range<u64>, batch| {
            let (binding, base) = image_window(&profile(), Slot::Out, (batch, 7), &images, false);
            (binding.offset, binding.size, base as i32)
        };
        // Three images of 7 elements are bound whole, so that the base of the second lies 7 below it.
        assert_eq!(of(1..2, 3), (0, 0, -7));
        assert_eq!(of(0..2, 5), (0, 64, 0));
        // Elements 14 to 28 from element 8 on.
        assert_eq!(of(2..4, 5), (32, 80, -6));
    }

    /// Wherever so many elements start, their window fits the binding.
    #[test]
    fn a_window_spans_its_elements() {
        for offset_alignment in [4, 16, 32] {
            let profile = Profile { offset_alignment, ..profile() };
            let most = window_elements(&profile);
            assert_eq!(most, (128 - u64::from(offset_alignment.max(16)) - 16) / 4);
            for start in 0..64 {
                let (binding, base) = window(&profile, Slot::Out, start..start + most, 256, true);
                assert!(binding.size <= 128, "{start}: {binding:?}");
                assert!(u64::from(base) <= start && (start + most - u64::from(base)) * 4 <= binding.size, "{start}");
            }
        }
    }

    #[test]
    fn ranges_are_few_and_of_equal_lengths() {
        let of = |count, most| ranges(count, most).collect::<Vec<_>>();
        assert_eq!(of(10, 4), [0..4, 4..8, 8..10]);
        assert_eq!(of(9, 4), [0..3, 3..6, 6..9]);
        assert_eq!(of(4, 4), [0..4]);
        assert_eq!(of(3, 9), [0..3]);
        assert_eq!(of(2, 0), [0..1, 1..2], "one at a time where not even one fits");
        for (count, most) in (1..40).flat_map(|count| (1..40).map(move |most| (count, most))) {
            let list = of(count, most);
            assert_eq!(list.len() as u64, count.div_ceil(most));
            assert_eq!(list.iter().map(|range| range.end - range.start).sum::<u64>(), count);
            assert!(list.iter().all(|range| !range.is_empty() && range.end - range.start <= most), "{list:?}");
        }
    }
}
