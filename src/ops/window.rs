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
    let size = ((range.end * 4).next_multiple_of(16) - offset).min(total_bytes - offset);
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

/// Splits `0..count` into the fewest ranges of at most `most`.
pub(crate) fn ranges(count: u64, most: u64) -> impl Iterator<Item = Range<u64>> {
    let parts = count.div_ceil(most.max(1));
    let each = count.div_ceil(parts);
    (0..parts).map(move |i| i * each..((i + 1) * each).min(count)).filter(|range| !range.is_empty())
}
