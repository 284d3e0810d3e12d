//! The style of the tables that are printed as plain text.

use comfy_table::{ContentLineStyle, LineStyle, TableStyle};

/// A line under the header and no other: rows are few and short.
pub(super) fn table_style() -> TableStyle {
    TableStyle::new()
        .header_lines(ContentLineStyle::none().junction(' '))
        .header_separator(LineStyle::none().fill('─').junction('─'))
        .content_lines(ContentLineStyle::none().junction(' '))
}
