// What stands at index i of an axis of n elements, beyond its ends: 0 zeros, 1 reflect, 2 replicate, 3 circular.
// Gives -1 where it is a zero. Padding is less than n for reflect and at most n for circular, so one step brings i back.
fn border_index(i: i32, n: i32, border: u32) -> i32 {
    if (i >= 0 && i < n) {
        return i;
    }
    switch border {
        case 1u: {
            return clamp(select(2 * (n - 1) - i, -i, i < 0), 0, n - 1);
        }
        case 2u: {
            return clamp(i, 0, n - 1);
        }
        case 3u: {
            return clamp(select(i - n, i + n, i < 0), 0, n - 1);
        }
        default: {
            return -1;
        }
    }
}
