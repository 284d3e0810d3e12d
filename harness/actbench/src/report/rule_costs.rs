//! The cost of a plan with and without each rule, for a terminal.

use actbench_activations::plan::{RuleCostRow, RuleCosts};
use comfy_table::{CellAlignment, Table};
use pairgate::export::table_style;

use super::fit::fitted;

const HEADER: [&str; 8] = ["", "tokens", "batches", "blocks", "FLOPs", "ratio", "bytes out", "ratio"];

/// The text of `costs`, and in a terminal of fewer columns a table with lines of at most `width` columns.
pub fn render(costs: &RuleCosts, width: Option<u16>) -> String {
    let text = costs.to_string();
    let fits = |width: u16| text.lines().all(|line| line.chars().count() <= usize::from(width));
    if width.is_none_or(fits) {
        return text;
    }
    let mut table = Table::new();
    table.load_style(table_style()).set_header(HEADER);
    for RuleCostRow { name, figures: [tokens, batches, blocks, flops, bytes], factors } in costs.rows() {
        let [flops_ratio, bytes_ratio] = factors.map(|factor| factor.unwrap_or_else(|| "-".to_owned()));
        table.add_row([name, tokens, batches, blocks, flops, flops_ratio, bytes, bytes_ratio]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    format!("{}\n{}", costs.summary(), fitted(table, width).trim_end())
}

#[cfg(test)]
mod tests {
    use actbench_activations::plan::{PlanCost, Rule};

    use super::*;

    #[test]
    fn table_fits_80_columns_and_keeps_ratios() {
        let cost = PlanCost { tokens_computed: 1776, batches: 4, blocks: 5, ..PlanCost::default() };
        let with_rules = PlanCost { flops: 6_890_000_000, bytes_out: 15 << 10, ..cost };
        let without = PlanCost { flops: 11_230_000_000, bytes_out: 30 << 10, blocks: 8, ..cost };
        let costs = RuleCosts {
            with_rules,
            without: vec![(Rule::Depth, without)],
            without_all: PlanCost { batches: 5, ..without },
        };
        assert_eq!(render(&costs, None), costs.to_string());
        assert!(costs.to_string().lines().any(|line| line.len() > 80), "{costs}");
        let narrow = render(&costs, Some(80));
        let table: Vec<&str> = narrow.lines().skip(2).collect();
        assert!(table.iter().all(|line| line.chars().count() <= 80), "{narrow}");
        for figure in ["with these rules", "without depth", "6.89 G", "1.63x", "30.0 KiB", "2.00x"] {
            assert!(table.join("\n").contains(figure), "{figure} is not in:\n{narrow}");
        }
    }
}
