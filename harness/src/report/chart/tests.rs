//! Charts of made-up cells.
