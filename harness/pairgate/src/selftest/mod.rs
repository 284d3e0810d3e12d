//! Error rates of the gate: gates without a difference, and with slowdowns and memory growth of known size. The results are
//! the rate of false alarms, the power, and the smallest slowdown that is caught reliably.
//!
//! [`noise`] and [`replay`] run gates on recorded noise, thousands in seconds; [`live`] runs gates of real processes on this
//! machine, with the changes of [`trials`].

pub mod live;
pub mod noise;
pub mod replay;
pub mod resolution;
pub mod trials;

pub use resolution::Resolution;
