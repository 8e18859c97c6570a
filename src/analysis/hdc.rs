//! Hybrid dilated convolution: rules for the dilation rates of a stack of layers, and rates that have no holes.

use std::fmt;

use super::receptive_field::positive;
use crate::error::{Error, Result};

const OP: &str = "hdc";

/// A run of layers whose rates do not fall, judged by the rules of hybrid dilated convolution.
///
/// `M_n = r_n` and `M_i = max(M_(i+1) - 2*r_i, 2*r_i - M_(i+1), r_i)` is the largest distance between pixels that layers `i..n` see.
/// The layers before can fill the gaps where `M_2` is at most the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HdcGroup {
    rates: Vec<usize>,
    distances: Vec<usize>,
    divisor: usize,
}

impl HdcGroup {
    /// Judges rates as one group, whether they rise or not. [`hdc`] splits a list where the rates fall.
    ///
    /// # Errors
    /// [`Error::Invalid`] for no rate at all, a rate of 0 and one above `usize::MAX / 2`.
    ///
    /// # Example
    /// ```
    /// use wgconv::analysis::HdcGroup;
    /// assert_eq!(HdcGroup::new(&[1, 2, 5])?.distances(), [1, 2, 5]);
    /// assert_eq!(HdcGroup::new(&[1, 2, 9])?.max_distance(), Some(5));
    /// # Ok::<(), wgconv::Error>(())
    /// ```
    pub fn new(rates: &[usize]) -> Result<Self> {
        check_rates(rates)?;
        let mut distances = rates.to_vec();
        for i in (1..rates.len()).rev() {
            // max(M - 2r, 2r - M, r)
            distances[i - 1] = distances[i].abs_diff(2 * rates[i - 1]).max(rates[i - 1]);
        }
        Ok(Self { rates: rates.to_vec(), distances, divisor: rates.iter().copied().fold(0, gcd) })
    }

    /// The dilation rates, of the first layer first.
    #[must_use]
    pub fn rates(&self) -> &[usize] {
        &self.rates
    }

    /// `M_1` to `M_n`, in pixels.
    #[must_use]
    pub fn distances(&self) -> &[usize] {
        &self.distances
    }

    /// `M_2`, which must be at most the kernel. A single layer has none.
    #[must_use]
    pub fn max_distance(&self) -> Option<usize> {
        self.distances.get(1).copied()
    }

    /// The greatest common divisor of the rates, which must be 1.
    #[must_use]
    pub fn divisor(&self) -> usize {
        self.divisor
    }

    /// What is wrong with it; nothing where the rules hold.
    fn reasons(&self, kernel: usize) -> Vec<String> {
        let mut reasons = vec![];
        if self.rates[0] != 1 {
            reasons.push(format!("{self}: the first rate is {}, not 1", self.rates[0]));
        }
        if let Some(distance) = self.max_distance().filter(|&distance| distance > kernel) {
            reasons.push(format!("{self}: M_2 = {distance} is more than the kernel of {kernel}"));
        }
        if self.divisor > 1 {
            reasons.push(format!("{self}: {} divides every rate", self.divisor));
        }
        reasons
    }
}

impl fmt::Display for HdcGroup {
    /// The rates, such as `1,2,5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&list(&self.rates))
    }
}

/// A list of dilation rates judged by the rules of hybrid dilated convolution. Printed, it is the verdict and its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HdcReport {
    kernel: usize,
    groups: Vec<HdcGroup>,
}

/// Judges the dilation rates of a stack of layers of one kernel size (Wang et al. 2018, Understanding Convolution for Semantic
/// Segmentation, <https://arxiv.org/abs/1702.08502>).
///
/// The list is split into groups where the rates fall. The rules:
/// - In each group `M_2` is at most the kernel; see [`HdcGroup`].
/// - The rates of a group have no common divisor above 1.
/// - Saw-tooth: every group repeats the first one; the last may stop early.
/// - Since the others say nothing without it: each group begins with rate 1, and the kernel is odd.
///
/// Rates that pass have no holes. Of others, the [`GriddingMap`](super::GriddingMap) decides: rates 2, 3 with kernel 3 pass the first
/// two rules and have holes; 1, 2, 5, 1, 2, 5 taken as one group fails the first rule and has none.
///
/// # Errors
/// [`Error::Invalid`] for no rate at all, a rate of 0 or above `usize::MAX / 2`, and a kernel of 0.
///
/// # Example
/// ```
/// use wgconv::analysis::hdc;
/// assert!(hdc(&[1, 2, 5, 1, 2, 5], 3)?.holds());
/// let report = hdc(&[1, 2, 9], 3)?;
/// assert_eq!(report.to_string(), "HDC does not hold: 1,2,9: M_2 = 5 is more than the kernel of 3");
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn hdc(rates: &[usize], kernel: usize) -> Result<HdcReport> {
    positive(OP, "kernel", kernel)?;
    check_rates(rates)?;
    let groups = rates.chunk_by(|before, after| before <= after).map(HdcGroup::new).collect::<Result<_>>()?;
    Ok(HdcReport { kernel, groups })
}

impl HdcReport {
    /// The groups, in order.
    #[must_use]
    pub fn groups(&self) -> &[HdcGroup] {
        &self.groups
    }

    /// Whether all rules hold.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.reasons().is_empty()
    }

    /// Why the rules do not hold, a short sentence each; empty where they do.
    #[must_use]
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = vec![];
        if self.kernel.is_multiple_of(2) {
            reasons.push(format!("the kernel of {} is even: the rules are for odd ones", self.kernel));
        }
        let mut judged: Vec<&HdcGroup> = vec![];
        for group in &self.groups {
            // A saw has the same tooth many times; its faults are told once.
            if !judged.contains(&group) {
                judged.push(group);
                reasons.extend(group.reasons(self.kernel));
            }
        }
        let (first, last) = (&self.groups[0], self.groups.len() - 1);
        let repeats = |(i, group): (usize, &HdcGroup)| {
            if i < last { group == first } else { first.rates.starts_with(&group.rates) }
        };
        if let Some(at) = self.groups.iter().enumerate().position(|group| !repeats(group)) {
            reasons.push(format!("no saw-tooth: group {} is {}, the first is {first}", at + 1, self.groups[at]));
        }
        reasons
    }
}

impl fmt::Display for HdcReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reasons() {
            reasons if reasons.is_empty() => f.write_str("HDC holds"),
            reasons => write!(f, "HDC does not hold: {}", reasons.join("; ")),
        }
    }
}

/// The shortest list of dilation rates whose layers, of stride 1, see every pixel of a receptive field of the wanted size and whose
/// first rate and `M_2` follow [`hdc`]'s rules. Where the kernel cannot give this very size, the next larger one is taken: sizes are
/// `1 + (kernel-1) * (sum of the rates)`.
///
/// The rates rise from 1, so that for an odd kernel all rules hold. A size of 1 needs no layer and gives an empty list.
///
/// # Errors
/// [`Error::Invalid`] for a receptive field or a kernel of 0, for a kernel of 1 with a larger field, and for an overflow.
///
/// # Example
/// ```
/// use wgconv::analysis::propose_rates;
/// assert_eq!(propose_rates(17, 3)?, [1, 2, 5]);
/// # Ok::<(), wgconv::Error>(())
/// ```
pub fn propose_rates(receptive_field: usize, kernel: usize) -> Result<Vec<usize>> {
    const OP: &str = "propose_rates";
    positive(OP, "receptive_field", receptive_field)?;
    positive(OP, "kernel", kernel)?;
    if receptive_field == 1 {
        return Ok(vec![]);
    }
    let grow = kernel - 1;
    if grow == 0 {
        return Err(Error::invalid(OP, "kernel", format!("at least 2 for a field of {receptive_field}"), 1));
    }
    let mut sum = (receptive_field - 1).div_ceil(grow);
    if sum.checked_mul(grow).is_none_or(|reach| reach == usize::MAX) {
        let expected = format!("a field of at most {} pixels", usize::MAX);
        let got = format!("{receptive_field} with a kernel of {kernel}");
        return Err(Error::invalid(OP, "receptive_field", expected, got));
    }
    // Where the rates rise from 1, with `sum` that of those before, a rate of at most `1 + (kernel-1)*sum` leaves no hole, and one of
    // at most `kernel - 2 + 2*sum` keeps M_2 within the kernel. The last layer takes the greatest rate that obeys both, then the one
    // before it: no other choice leaves less to the layers before.
    let each = grow.min(2);
    let mut rates = vec![];
    while sum > 0 {
        let rate = ((kernel - each + each * sum) / (each + 1)).min(sum - 1).max(1);
        rates.push(rate);
        sum -= rate;
    }
    rates.reverse();
    Ok(rates)
}

fn check_rates(rates: &[usize]) -> Result<()> {
    const MOST: usize = usize::MAX / 2;
    if rates.is_empty() {
        return Err(Error::invalid(OP, "rates", "at least one", "none"));
    }
    match rates.iter().find(|rate| !(1..=MOST).contains(*rate)) {
        Some(rate) => Err(Error::invalid(OP, "rates", format!("rates from 1 to {MOST}"), rate)),
        None => Ok(()),
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn list(rates: &[usize]) -> String {
    rates.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// By the set of pixels itself.
    fn has_holes(rates: &[usize], kernel: usize) -> bool {
        let mut seen = BTreeSet::from([0]);
        for rate in rates {
            seen = seen.iter().flat_map(|pixel| (0..kernel).map(move |tap| pixel + tap * rate)).collect();
        }
        seen.len() <= *seen.last().unwrap()
    }

    fn field(rates: &[usize], kernel: usize) -> usize {
        1 + (kernel - 1) * rates.iter().sum::<usize>()
    }

    /// All lists of a length with rates up to `most`.
    fn lists(length: u32, most: usize) -> impl Iterator<Item = Vec<usize>> {
        (0..most.pow(length)).map(move |n| (0..length).map(|i| n / most.pow(i) % most + 1).collect())
    }

    #[test]
    fn distances_of_the_papers_lists() {
        let distances = |rates: &[usize]| HdcGroup::new(rates).unwrap().distances().to_vec();
        assert_eq!(distances(&[1, 2, 5]), [1, 2, 5]);
        assert_eq!(distances(&[1, 2, 9]), [3, 5, 9]);
        assert_eq!(distances(&[2, 4, 8]), [2, 4, 8]);
        assert_eq!(distances(&[1, 2, 3, 4]), [1, 2, 3, 4]);
        assert_eq!(distances(&[7]), [7]);
    }

    #[test]
    fn the_map_and_the_rules_may_disagree() {
        let two_three = HdcGroup::new(&[2, 3]).unwrap();
        assert_eq!((two_three.max_distance(), two_three.divisor()), (Some(3), 1));
        assert!(has_holes(&[2, 3], 3));
        assert_eq!(hdc(&[2, 3], 3).unwrap().reasons(), ["2,3: the first rate is 2, not 1"]);
        let saw = [1, 2, 5, 1, 2, 5];
        assert_eq!(HdcGroup::new(&saw).unwrap().max_distance(), Some(5));
        assert!(!has_holes(&saw, 3));
        assert!(hdc(&saw, 3).unwrap().holds());
    }

    #[test]
    fn reasons_name_the_rule() {
        let reasons = |rates: &[usize], kernel| hdc(rates, kernel).unwrap().reasons();
        assert_eq!(reasons(&[1, 2, 5], 3), [""; 0]);
        assert_eq!(reasons(&[1, 1, 1], 3), [""; 0]);
        assert_eq!(reasons(&[1, 2, 5, 1, 2, 5, 1, 2], 3), [""; 0]);
        assert_eq!(reasons(&[1, 2, 9], 3), ["1,2,9: M_2 = 5 is more than the kernel of 3"]);
        assert_eq!(reasons(&[1, 2, 9], 5), [""; 0]);
        assert_eq!(reasons(&[2, 2, 2], 3), ["2,2,2: the first rate is 2, not 1", "2,2,2: 2 divides every rate"]);
        assert_eq!(
            reasons(&[2, 4, 8, 2, 4, 8], 3),
            [
                "2,4,8: the first rate is 2, not 1",
                "2,4,8: M_2 = 4 is more than the kernel of 3",
                "2,4,8: 2 divides every rate"
            ]
        );
        assert_eq!(reasons(&[1, 2, 1, 2, 5], 3), ["no saw-tooth: group 2 is 1,2,5, the first is 1,2"]);
        assert_eq!(reasons(&[1, 2, 1, 1, 2], 3), ["no saw-tooth: group 2 is 1,1,2, the first is 1,2"]);
        assert_eq!(reasons(&[1, 2, 5, 1, 2, 1, 2, 5], 3), ["no saw-tooth: group 2 is 1,2, the first is 1,2,5"]);
        assert_eq!(reasons(&[1, 2], 4), ["the kernel of 4 is even: the rules are for odd ones"]);
        assert_eq!(hdc(&[1, 2, 1], 3).unwrap().to_string(), "HDC holds");
    }

    #[test]
    fn lists_that_pass_have_no_holes() {
        let (mut passed, mut failed) = (0, 0);
        for (length, most) in [(1, 20), (2, 14), (3, 11), (4, 7), (5, 4)] {
            for (rates, kernel) in lists(length, most).flat_map(|rates| [1, 3, 5].map(|kernel| (rates.clone(), kernel)))
            {
                if hdc(&rates, kernel).unwrap().holds() {
                    passed += 1;
                    assert!(!has_holes(&rates, kernel), "{rates:?} {kernel}");
                } else {
                    failed += 1;
                }
            }
        }
        assert!(passed > 400 && failed > 400, "{passed} {failed}");
    }

    #[test]
    fn proposals_have_no_holes_and_hold() {
        for (kernel, wanted) in (2..9).flat_map(|kernel| (1..400).map(move |wanted| (kernel, wanted))) {
            let rates = propose_rates(wanted, kernel).unwrap();
            assert!(!has_holes(&rates, kernel), "{rates:?} {kernel}");
            let got = field(&rates, kernel);
            assert!((wanted..wanted + kernel - 1).contains(&got), "{rates:?} {kernel}: {got} for {wanted}");
            if kernel % 2 == 1 && wanted > 1 {
                let report = hdc(&rates, kernel).unwrap();
                assert!(report.holds(), "{rates:?} {kernel}: {report}");
            }
        }
        assert_eq!(propose_rates(27, 3).unwrap(), [1, 3, 9]);
        assert_eq!(propose_rates(13, 3).unwrap(), [1, 1, 4]);
        assert_eq!(propose_rates(85, 5).unwrap(), [1, 5, 15]);
    }

    #[test]
    fn no_shorter_list_passes() {
        for (kernel, length) in [(2, 3), (3, 3), (4, 3), (5, 3), (7, 2)] {
            let good = |rates: &Vec<usize>| {
                let group = HdcGroup::new(rates).unwrap();
                rates[0] == 1 && rates.is_sorted() && group.distances()[1] <= kernel && !has_holes(rates, kernel)
            };
            for rates in lists(length, 30).filter(good) {
                let proposed = propose_rates(field(&rates, kernel), kernel).unwrap();
                assert!(proposed.len() <= rates.len(), "{rates:?} against {proposed:?}, kernel {kernel}");
            }
        }
    }

    #[test]
    fn mistakes_are_errors() {
        const MAX: usize = usize::MAX;
        for (rates, kernel) in [(&[][..], 3), (&[1, 0], 3), (&[1, 2], 0), (&[MAX], 3), (&[MAX / 2 + 1], 3)] {
            assert!(hdc(rates, kernel).is_err(), "{rates:?} {kernel}");
        }
        let far = HdcGroup::new(&[MAX / 2, 1, MAX / 2]).unwrap();
        assert_eq!(far.distances(), [MAX / 2 + 2, MAX / 2 - 2, MAX / 2]);
        assert_eq!(HdcGroup::new(&[1, MAX / 2, 1]).unwrap().max_distance(), Some(MAX - 2));
        for (wanted, kernel) in [(0, 3), (3, 0), (3, 1), (MAX - 1, 4), (MAX, MAX - 1)] {
            assert!(propose_rates(wanted, kernel).is_err(), "{wanted} {kernel}");
        }
        assert_eq!(propose_rates(MAX, MAX).unwrap(), [1]);
        assert_eq!(propose_rates(MAX, 3).unwrap().iter().sum::<usize>(), (MAX - 1) / 2);
        assert_eq!(propose_rates(1, 1).unwrap(), [0; 0]);
    }
}
