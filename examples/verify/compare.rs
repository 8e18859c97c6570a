//! Comparison of a result with what it should be, element by element under a bound each.

use super::operation::index_of;

/// The element to report: the one with the largest error, or where some are over their bounds, the one furthest over.
#[derive(Clone, Debug)]
pub struct Comparison {
    pub passed: bool,
    /// Infinite where one of the two is no number and the other is another.
    pub error: f64,
    pub bound: f64,
    pub index: Vec<usize>,
    pub got: f64,
    pub want: f64,
}

/// Compares elements that come in the same order; `flat` gives the place in `shape` of each of them.
pub fn compare(got: &[f64], want: &[f64], bound: &[f64], shape: &[usize], flat: impl Fn(usize) -> usize) -> Comparison {
    let elements = got.iter().zip(want).zip(bound).enumerate();
    let judged = elements.map(|(i, ((&got, &want), &bound))| {
        let same = got == want || got.is_nan() && want.is_nan();
        let error = if same { 0.0 } else { (got - want).abs() };
        let error = if error.is_nan() { f64::INFINITY } else { error };
        (i, error, same || error <= bound)
    });
    // By how much a failure exceeds its bound, and any failure before any error within its bound.
    let weight = |&(i, error, passed): &(usize, f64, bool)| match passed {
        true => (0, error),
        false => (1, if bound[i] > 0.0 { error / bound[i] } else { f64::INFINITY }),
    };
    let worst = judged.max_by(|a, b| {
        let (a, b) = (weight(a), weight(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    });
    match worst {
        Some((i, error, passed)) => {
            let index = index_of(flat(i), shape);
            Comparison { passed, error, bound: bound[i], index, got: got[i], want: want[i] }
        }
        None => Comparison { passed: true, error: 0.0, bound: 0.0, index: Vec::new(), got: 0.0, want: 0.0 },
    }
}
