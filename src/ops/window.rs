//! Windows: parts of a buffer that a dispatch binds where the whole is over the adapter's limit.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::plan::{Access, Binding, Slot};
use crate::profile::Profile;

/// Parts that a problem is cut into at most: the plan of so many takes a hundred megabytes.
const MOST_PARTS: u64 = 1 << 17;

/// A window of a buffer in elements, with its start aligned down for the binding.
pub(crate) fn window(profile: &Profile, slot: Slot, range: Range<u64>, total: u64, write: bool) -> (Binding, u32) {
    let access = if write { Access::Write } else { Access::Read };
    let total_bytes = (total * 4).next_multiple_of(16);
    if total_bytes <= profile.max_binding {
        return (Binding { slot, offset: 0, size: 0, access }, 0);
    }
    let align = u64::from(profile.offset_alignment.max(16));
    let offset = range.start * 4 / align * align;
    let size = (range.end * 4).next_multiple_of(16) - offset;
    (Binding { slot, offset, size, access }, (offset / 4) as u32)
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

/// Refuses a problem that would be cut into so many parts along each of its axes that the plan alone exhausts the memory.
pub(crate) fn check_parts(op: &'static str, counts: &[u64]) -> Result<()> {
    let parts = counts.iter().fold(1u64, |product, &count| product.saturating_mul(count));
    if parts > MOST_PARTS {
        let expected = format!("a problem of at most {MOST_PARTS} parts that fit this adapter's bindings");
        return Err(Error::invalid(op, "input", expected, parts));
    }
    Ok(())
}

/// The error for so many elements that have to be bound at once and do not fit.
pub(crate) fn too_large(profile: &Profile, op: &'static str, argument: &'static str, elements: u64) -> Error {
    let alignment = profile.max_binding - window_elements(profile) * 4;
    Error::TooLarge {
        op,
        argument,
        bytes: elements.saturating_mul(4).saturating_add(alignment),
        limit_name: "max_storage_buffer_binding_size",
        limit: profile.max_binding,
    }
}

/// Refuses a bias that no binding holds, for kernels that bind it whole.
pub(crate) fn check_bias(profile: &Profile, op: &'static str, has_bias: bool, channels: u32) -> Result<()> {
    let fits = (u64::from(channels) * 4).next_multiple_of(16) <= profile.max_binding;
    if has_bias && !fits { Err(too_large(profile, op, "bias", channels.into())) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Epilogue;
    use crate::ops::conv::{ConvKernel, choose, problem};
    use crate::ops::conv_transpose::{self, ConvTransposeKernel};
    use crate::ops::deform::{self, DeformKernel};
    use crate::plan::Plan;
    use crate::{Conv1d, ConvTranspose1d, DeformConv2d};

    #[test]
    fn a_plan_that_would_exhaust_the_memory_is_refused() {
        assert!(check_parts("op", &[1 << 10, 1 << 7]).is_ok());
        for counts in [&[1 << 10, 1 << 8][..], &[u64::MAX, 2]] {
            assert!(matches!(check_parts("op", counts), Err(Error::Invalid { op: "op", .. })));
        }
        // One part a channel.
        let planned = Conv1d::new().groups(1 << 26).plan(&Profile::baseline(), &[1, 1 << 26, 1], &[1 << 26, 1, 1]);
        assert!(matches!(planned, Err(Error::Invalid { op: "conv1d", .. })), "{planned:?}");
    }

    /// One element more than a window has is four bytes more than a binding.
    #[test]
    fn an_error_of_size_counts_the_alignment() {
        let profile = Profile::baseline();
        let error = too_large(&profile, "op", "input", window_elements(&profile) + 1);
        let Error::TooLarge { bytes, limit, .. } = error else { panic!("{error}") };
        assert_eq!((bytes, limit), (profile.max_binding + 4, profile.max_binding));
    }

    /// More output channels than a binding has elements, over one position.
    #[test]
    fn a_bias_over_the_binding_is_refused() {
        let (profile, channels) = (Profile::baseline(), (128 << 18) + 4);
        let planned = |has_bias| -> [Result<Plan>; 3] {
            let epilogue = Epilogue { has_bias, ..Epilogue::default() };
            let conv = problem::Problem::new(&Conv1d::new(), &[1, 1, 1], &[channels, 1, 1]).expect("conv");
            let up = ConvTranspose1d::new();
            let up = conv_transpose::problem::Problem::new(&up, &[1, 1, 1], &[1, channels, 1]).expect("transposed");
            let deform = DeformConv2d::new();
            let deform = deform::problem::Problem::new(&deform, &[1, 1, 1, 1], &[channels, 1, 1, 1]).expect("deform");
            [
                choose::plan(&conv, &epilogue, ConvKernel::Auto, &profile),
                conv_transpose::choose::plan(&up, &epilogue, ConvTransposeKernel::Auto, &profile),
                deform::choose::plan(&deform, &epilogue, false, DeformKernel::Auto, &profile),
            ]
        };
        assert!(planned(false).iter().all(Result::is_ok));
        let refused = |planned: &Result<Plan>| matches!(planned, Err(Error::TooLarge { argument: "bias", .. }));
        assert!(planned(true).iter().all(refused));
    }

    fn profile() -> Profile {
        Profile { max_binding: 128, offset_alignment: 32, ..Profile::baseline() }
    }

    #[test]
    fn windows_are_aligned_and_end_in_whole_vec4s() {
        let of = |range: Range<u64>, total| {
            let (binding, base) = window(&profile(), Slot::Arg(1), range, total, true);
            assert_eq!((binding.slot, binding.access), (Slot::Arg(1), Access::Write));
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
        assert_eq!((of(4, 4).len(), of(4, 4)[0].clone()), (1, 0..4));
        assert_eq!((of(3, 9).len(), of(3, 9)[0].clone()), (1, 0..3));
        assert_eq!(of(2, 0), [0..1, 1..2], "one at a time where not even one fits");
        for (count, most) in (1..40).flat_map(|count| (1..40).map(move |most| (count, most))) {
            let list = of(count, most);
            assert_eq!(list.len() as u64, count.div_ceil(most));
            assert_eq!(list.iter().map(|range| range.end - range.start).sum::<u64>(), count);
            assert!(list.iter().all(|range| !range.is_empty() && range.end - range.start <= most), "{list:?}");
        }
    }
}
