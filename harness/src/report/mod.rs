//! Room for `report`.
