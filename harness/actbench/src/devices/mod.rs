//! GPUs: which ones a process may use ([`discover`]), how they are opened ([`open`]), and which of them a model goes on
//! ([`choose`]).
//!
//! Discovery creates no CUDA context, so the parent of a run may do it; only the process of a case opens a GPU. The module
//! knows no model: a caller passes the number of bytes that has to fit.

pub mod choose;
pub mod discover;
pub mod open;
