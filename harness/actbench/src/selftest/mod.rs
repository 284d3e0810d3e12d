//! The gate tried on what is known: no difference, and slowdowns of a known size. What it then says is its rate of
//! false alarms, its power, and the smallest slowdown that it can be trusted to see.
//!
//! [`noise`] and [`replay`] do it on recorded noise, thousands of times in seconds; [`live`] does it with real
//! processes on this machine.

pub mod live;
pub mod noise;
pub mod replay;
