//! The program: parse, dispatch, exit status.

fn main() {}
