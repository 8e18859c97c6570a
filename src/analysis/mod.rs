//! What a network sees and what it costs, worked out from shapes alone, without a GPU.
//!
//! - [`receptive_field`]: size, stride and start of what one output of a stack of [`Layer`]s sees; [`effective_kernel`] and
//!   [`Layer::same_padding`] for one layer.
//! - [`GriddingMap`]: which pixels of that field are seen, and along how many paths. It decides whether there are holes.
//! - [`hdc`]: the rules of hybrid dilated convolution for a list of rates, and why they fail; [`propose_rates`]: rates for a wanted
//!   receptive field, without holes.
//! - [`cost`]: parameters, multiplications, MACs, FLOPs, bytes and arithmetic intensity of every operator and, by `+`, of blocks.
//!
//! Sizes are counted in pixels (elements along an axis). Every mistake, an overflow as well, is an [`Error`](crate::Error).
//!
//! # Example
//! Three 3x3 layers of rates 2, 2, 2 see only one pixel in four. The rates 1, 2, 5 see them all, and further:
//! ```
//! use wgconv::analysis::{GriddingMap, Layer, hdc, receptive_field};
//! let stack = |rates: [usize; 3]| rates.map(|rate| Layer::<2>::new(3).dilation(rate));
//! assert_eq!(receptive_field(&stack([2, 2, 2]))?[0].size, 13);
//! assert!(GriddingMap::new(&stack([2, 2, 2]))?.has_holes());
//! assert_eq!(receptive_field(&stack([1, 2, 5]))?[0].size, 17);
//! assert!(!GriddingMap::new(&stack([1, 2, 5]))?.has_holes());
//! assert!(hdc(&[1, 2, 5], 3)?.holds());
//! # Ok::<(), wgconv::Error>(())
//! ```

pub mod cost;
mod gridding;
mod hdc;
mod receptive_field;
#[cfg(test)]
mod tests;

pub use gridding::{GriddingMap, MAX_CELLS};
pub use hdc::{HdcGroup, HdcReport, hdc, propose_rates};
pub use receptive_field::{Layer, ReceptiveField, effective_kernel, receptive_field};
