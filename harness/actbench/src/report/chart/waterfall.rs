//! From the full plan to the plan without any rule, one step for the effect of each rule alone.
//!
//! Rules overlap (prefix sharing needs packing), so their effects do not add up to the total. The step `together` is the
//! remainder; it is negative if several rules save the same work.

use plotters::style::text_anchor::HPos;

use super::axis::{ChartAxis, tick_text};
use super::canvas::{Area, EAGER, GRID, INK, LAZY, LAZY_DISK, LEGEND, Marker, WIDTH, legend, svg, text_style, write};
use super::xy::fill;
use super::{Chart, largest};
use crate::case::Method;
use crate::crossover::Cell;
use crate::crossover::answer::count;
use crate::error::Result;
use crate::report::document::{Table, number_cell, text_cell};
use crate::report::format::seconds;
use crate::results::ablation::AblationResult;

/// Height of a bar with its margins, and left and right edge of the bars, in pixels.
const ROW: i32 = 26;
const EDGES: (i32, i32) = (92, 400);

/// A bar of the waterfall.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WaterfallStep {
    /// Its name under the bar.
    pub name: String,
    /// Its lower or upper start, in seconds.
    pub from: f64,
    /// Its end, in seconds.
    pub to: f64,
    /// Whether it is a total from 0 and not a step between two heights.
    pub is_total: bool,
}

/// One chart per setting and lazy mode with an ablation, of the run with the most samples.
pub(super) fn charts(cells: &[Cell]) -> Result<Vec<Chart>> {
    let mut charts = Vec::new();
    for cell in largest(cells, |cell| !cell.ablation.is_empty()) {
        for effects in cell.ablation.chunk_by(|a, b| a.method == b.method) {
            if let Some(steps) = steps(effects) {
                charts.push(chart(charts.len(), cell, effects[0].method, &steps)?);
            }
        }
    }
    Ok(charts)
}

/// The steps from the full plan, which comes first in `effects`; none if it never completed.
///
/// A rule's step is the median time of the full plan multiplied by the ratio within blocks, not a difference of medians:
/// drift of the machine cancels in the ratio.
pub(super) fn steps(effects: &[AblationResult]) -> Option<Vec<WaterfallStep>> {
    let full = effects.first().filter(|effect| effect.without.is_none())?.elapsed_s?;
    let mut steps = vec![WaterfallStep { name: "full plan".to_owned(), from: 0.0, to: full, is_total: true }];
    let mut height = full;
    for effect in effects {
        if let (Some(rule), Some(ratio)) = (effect.without.as_deref().filter(|rule| *rule != "all"), effect.time) {
            let to = height + full * (ratio.estimate - 1.0);
            steps.push(WaterfallStep { name: rule.to_owned(), from: height, to, is_total: false });
            height = to;
        }
    }
    let without_all =
        effects.iter().find(|effect| effect.without.as_deref() == Some("all")).and_then(|effect| effect.time);
    if let Some(ratio) = without_all {
        let all = full * ratio.estimate;
        steps.push(WaterfallStep { name: "together".to_owned(), from: height, to: all, is_total: false });
        steps.push(WaterfallStep { name: "no rules".to_owned(), from: 0.0, to: all, is_total: true });
    }
    (steps.len() > 1).then_some(steps)
}

fn chart(index: usize, cell: &Cell, method: Method, steps: &[WaterfallStep]) -> Result<Chart> {
    let title = format!("Optimizer rules: {method}, {}, {} samples", cell.setting.label(), count(cell.samples as f64));
    let description = "From the time of the full plan to the time without any rule. Each step is the time added by leaving out \
                       one rule; 'together' is the remainder, because rules overlap.";
    let mut table = Table::new("", &["step", "#seconds", "#up to s"]);
    for step in steps {
        let own = if step.is_total { step.to } else { step.to - step.from };
        table.push(vec![
            text_cell(&step.name),
            number_cell(Some(own), signed_seconds),
            number_cell(Some(step.to), seconds),
        ]);
    }
    let height = LEGEND + ROW * steps.len() as i32 + 44;
    Ok(Chart {
        name: format!("rules-{}", index + 1),
        svg: svg((WIDTH, height.unsigned_abs()), &title, description, |area| draw(area, steps))?,
        description: description.to_owned(),
        table,
        title,
    })
}

/// Seconds of a step, which may be negative.
fn signed_seconds(value: Option<f64>) -> String {
    match value {
        Some(value) if value < 0.0 => format!("-{}", seconds(Some(-value))),
        value => seconds(value),
    }
}

fn draw(area: &Area<'_>, steps: &[WaterfallStep]) -> Result<()> {
    let ((left, right), bottom) = (EDGES, LEGEND + ROW * steps.len() as i32);
    let axis = ChartAxis::from_zero("s", steps.iter().flat_map(|step| [step.from, step.to]));
    let x_of = |value: f64| left + (f64::from(right - left) * axis.fraction(value)).round() as i32;
    for tick in axis.ticks() {
        fill(area, (x_of(*tick), LEGEND), (x_of(*tick) + 1, bottom), GRID)?;
        write(area, &tick_text(*tick), (x_of(*tick), bottom + 14), &text_style(13, INK, HPos::Center))?;
    }
    legend(
        area,
        &[
            ("whole plans".to_owned(), LAZY, Marker::Square),
            ("saved by a rule".to_owned(), EAGER, Marker::Square),
            ("saved more than once".to_owned(), LAZY_DISK, Marker::Square),
        ],
    )?;
    for (index, step) in steps.iter().enumerate() {
        let top = LEGEND + ROW * index as i32;
        let color = match step {
            WaterfallStep { is_total: true, .. } => LAZY,
            step if step.to >= step.from => EAGER,
            _ => LAZY_DISK,
        };
        let (start, end) = (x_of(step.from.min(step.to)), x_of(step.from.max(step.to)));
        // A step of less than a pixel is drawn as a line.
        fill(area, (start, top + 4), (end.max(start + 1), top + ROW - 4), color)?;
        if index + 1 < steps.len() {
            fill(area, (x_of(step.to), top + ROW - 4), (x_of(step.to) + 1, top + ROW + 4), INK)?;
        }
        let own = if step.is_total { step.to } else { step.to - step.from };
        let middle = top + ROW / 2;
        write(area, &step.name, (left - 8, middle), &text_style(14, INK, HPos::Right))?;
        write(area, &signed_seconds(Some(own)), (end + 6, middle), &text_style(13, INK, HPos::Left))?;
    }
    fill(area, (left, LEGEND), (left + 1, bottom), INK)?;
    write(area, "seconds", ((left + right) / 2, bottom + 32), &text_style(14, INK, HPos::Center))
}
