//! Tables within the width of a terminal.

use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Row, Table, Width};

/// The columns that are left out where there is no space for all, in this order.
const LEAST_IMPORTANT: [&str; 30] = [
    "TFLOP",
    "rows",
    "GFLOP",
    "GB",
    "median us",
    "calls",
    "tokens computed",
    "train+eval",
    "GPU reserved",
    "extract",
    "GPU memory",
    "disk",
    "peak heap",
    "intervals",
    "alarm above",
    "past mean",
    "pool",
    "layers",
    "observations",
    "runs since",
    "sizes measured",
    "samples",
    "build",
    "kernels",
    "pairs",
    "p",
    "base",
    "head",
    "warm-up",
    "start",
];

/// A column of text keeps this width, or that of its text, while there are columns to leave out: shorter lines are not legible.
const LEGIBLE_WIDTH: usize = 20;

/// A longer cell is a sentence, even if it begins with a digit.
const MAX_FIGURE_WIDTH: usize = 32;

/// Padding to the left and the right of a cell in a table that had to be narrowed.
const NARROW_PADDING: (u16, u16) = (1, 0);

/// The widths of a column, without padding.
struct ColumnWidths {
    /// The first line of its heading.
    name: String,
    /// Nothing is wrapped.
    full: usize,
    /// Text is wrapped, to lines of [`LEGIBLE_WIDTH`].
    legible: usize,
    /// Each word has a line of its own, and each figure.
    unbroken: usize,
}

/// The text of `table`, which ends in a newline, in lines of at most `width` columns. Text wraps at spaces, and the least
/// important columns are left out and named in a line below. No word and no number is broken, and a cell with a figure and its
/// unit is not wrapped: if this is not enough, the table is wider. Without a width, all columns are shown and no line is wrapped,
/// so that the text of a pipe or a file does not depend on a terminal.
pub fn fitted(mut table: Table, width: Option<u16>) -> String {
    table.set_content_arrangement(ContentArrangement::Disabled);
    let hidden = width.map_or_else(Vec::new, |width| shrink(&mut table, usize::from(width)));
    let note = if hidden.is_empty() { String::new() } else { format!("not shown: {}\n", hidden.join(", ")) };
    format!("{}\n{note}", table.trim_fmt())
}

/// Narrows `table` if it is wider than `width`, and returns the names of the columns that are left out.
fn shrink(table: &mut Table, width: usize) -> Vec<String> {
    let padding: usize = table.column_iter().map(|column| usize::from(column.padding_width())).sum();
    let columns = measured(table);
    let content: usize = columns.iter().map(|column| column.full).sum();
    if content + padding + columns.len().saturating_sub(1) <= width {
        return Vec::new();
    }
    for column in table.column_iter_mut() {
        column.set_padding(NARROW_PADDING);
    }
    if total(columns.iter().map(|column| column.full)) <= width {
        return Vec::new();
    }
    wrap_intervals(table);
    let columns = measured(table);
    let (mut hidden, mut widths) = minimum(&columns, width);
    hidden.sort_unstable();
    let is_shown = |index: usize| !hidden.contains(&index);
    let shown = widths.iter().enumerate().filter(|(index, _)| is_shown(*index)).map(|(_, width)| *width);
    // The space that is left goes to the columns that are wrapped most.
    for _ in 0..width.saturating_sub(total(shown)) {
        let lacking = |index: &usize| columns[*index].full.saturating_sub(widths[*index]);
        let wrapped = (0..columns.len()).filter(|index| is_shown(*index) && lacking(index) > 0);
        let Some(index) = wrapped.max_by_key(lacking) else { break };
        widths[index] += 1;
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let padded = widths[index] + usize::from(column.padding_width());
        column.set_constraint(if hidden.contains(&index) {
            ColumnConstraint::Hidden
        } else {
            ColumnConstraint::Absolute(Width::Fixed(u16::try_from(padded).unwrap_or(u16::MAX)))
        });
    }
    hidden.into_iter().map(|index| columns[index].name.clone()).collect()
}

/// The columns to leave out, and the least widths of all: text is wrapped to legible lines if that is enough, else to words.
fn minimum(columns: &[ColumnWidths], width: usize) -> (Vec<usize>, Vec<usize>) {
    let position = |name: &&str| columns.iter().position(|column| column.name == **name);
    let order: Vec<usize> = LEAST_IMPORTANT.iter().filter_map(position).collect();
    let legible: Vec<usize> = columns.iter().map(|column| column.legible).collect();
    let unbroken: Vec<usize> = columns.iter().map(|column| column.unbroken).collect();
    for widths in [&legible, &unbroken] {
        for n in 0..=order.len() {
            let shown = widths.iter().enumerate().filter(|(index, _)| !order[..n].contains(index));
            if total(shown.map(|(_, width)| *width)) <= width {
                return (order[..n].to_vec(), widths.clone());
            }
        }
    }
    (order, unbroken)
}

/// The width of a narrowed table whose columns have these widths: each has a space before it and one between it and the next.
fn total(widths: impl Iterator<Item = usize>) -> usize {
    widths.map(|width| width + 2).sum::<usize>().saturating_sub(1)
}

/// Moves the interval of each figure to a second line: `2.00x (1.96 to 2.04)`.
fn wrap_intervals(table: &mut Table) {
    for row in table.row_iter_mut() {
        let cells = row.cell_iter().map(|cell| {
            let text = cell.content();
            if is_figure(&text) { text.replace(" (", "\n(") } else { text }
        });
        *row = Row::from(cells.collect::<Vec<String>>());
    }
}

fn measured(table: &Table) -> Vec<ColumnWidths> {
    (0..table.column_iter().count()).map(|index| column_widths(table, index)).collect()
}

fn column_widths(table: &Table, index: usize) -> ColumnWidths {
    let mut texts = table.column_cells_with_header_iter(index).map(|cell| cell.map_or_else(String::new, Cell::content));
    let head = texts.next().unwrap_or_default();
    let word = longest(head.split_whitespace());
    let mut widths = ColumnWidths {
        name: head.lines().next().unwrap_or_default().to_owned(),
        full: longest(head.lines()),
        legible: word,
        unbroken: word,
    };
    for text in texts {
        for line in text.lines() {
            let full = line.chars().count();
            let unbroken = if is_figure(line) { full } else { longest(line.split_whitespace()) };
            widths.full = widths.full.max(full);
            widths.unbroken = widths.unbroken.max(unbroken);
            widths.legible = widths.legible.max(unbroken).max(full.min(LEGIBLE_WIDTH));
        }
    }
    widths
}

/// Whether the text is a number with its unit, its interval or its count.
fn is_figure(text: &str) -> bool {
    text.chars().count() <= MAX_FIGURE_WIDTH
        && text.starts_with(|first: char| first.is_ascii_digit() || "(<+-".contains(first))
}

fn longest<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use comfy_table::CellAlignment;
    use pairgate::export::table_style;

    use super::*;

    const HEADS: [&str; 11] =
        ["task", "method", "time", "extract", "peak RSS", "peak heap", "GPU memory", "disk", "rows", "TFLOP", "fits"];

    const CELLS: [&str; 11] = [
        "train",
        "lazy-disk",
        "38 h 5 min",
        "0.041 s",
        "26.2 MiB",
        "7.2 MiB",
        "6.9 MiB",
        "0.0 MiB",
        "2,512",
        "0.010",
        "no: memory",
    ];

    fn table(heads: &[&str], cells: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(table_style()).set_header(heads).add_row(cells);
        for column in table.column_iter_mut().skip(2).take(8) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    #[test]
    fn figures_are_whole_at_every_width() {
        for width in 40..140 {
            let text = fitted(table(&HEADS, &CELLS), Some(width));
            let (shown, hidden) = text.split_once("not shown: ").unwrap_or((text.as_str(), ""));
            let hidden: Vec<&str> = hidden.trim_end().split(", ").collect();
            for (head, cell) in HEADS.iter().zip(CELLS) {
                // Text may wrap at its space.
                let is_shown = if *head == "fits" { shown.contains("no:") } else { shown.contains(cell) };
                assert_ne!(is_shown, hidden.contains(head), "{head} at {width}:\n{text}");
            }
            let longest = shown.lines().map(|line| line.chars().count()).max().unwrap_or(0);
            assert!(longest <= usize::from(width) || width < 47, "{longest} at {width}:\n{text}");
        }
    }

    #[test]
    fn least_important_columns_are_left_out_and_named() {
        insta::assert_snapshot!(fitted(table(&HEADS, &CELLS), Some(80)), @r"
 task   method           time  peak RSS     peak        GPU     disk  fits
                                            heap     memory
────────────────────────────────────────────────────────────────────────────────
 train  lazy-disk  38 h 5 min  26.2 MiB  7.2 MiB    6.9 MiB  0.0 MiB  no: memory
not shown: extract, rows, TFLOP
");
    }

    #[test]
    fn intervals_and_sentences_wrap_at_spaces() {
        let heads = ["case", "metric", "base", "head", "head / base", "verdict", "note"];
        let note = "past runs scatter: only +44% or more would be seen";
        let cells = ["train/eager", "peak RSS, MiB", "187", "197", "1.051 (1.042 to 1.060)", "inconclusive", note];
        let (narrow, free) = (fitted(table(&heads, &cells), Some(80)), fitted(table(&heads, &cells), None));
        for figure in ["1.051", "(1.042 to 1.060)", "+44%", "inconclusive"] {
            assert!(narrow.contains(figure), "{narrow}");
        }
        assert!(narrow.lines().all(|line| line.chars().count() <= 80), "{narrow}");
        assert!(free.contains(note) && free.contains("1.051 (1.042 to 1.060)"), "{free}");
    }
}
