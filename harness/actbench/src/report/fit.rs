//! Tables within the width of a terminal.

use comfy_table::{ContentArrangement, Table};

/// Wraps the cells of `table` so that no line is longer than `width`; without a width no line is wrapped, so that the text of a
/// pipe or a file does not depend on a terminal.
pub fn fit(table: &mut Table, width: Option<u16>) {
    match width {
        Some(width) => table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width),
        None => table.set_content_arrangement(ContentArrangement::Disabled),
    };
}
