//! From the full plan to the plan without any rule, a step for what each rule is worth alone.
//!
//! Rules overlap (without packing no prefix can be shared), so their worths do not add up to the whole: the step
//! `together` is what is left, and is below 0 where several rules save the same work.

use plotters::element::PathElement;
use plotters::style::text_anchor::HPos;

use super::axis::{Axis, tick_text};
use super::canvas::{Area, EAGER, GRID, INK, LAZY, LAZY_DISK, LEGEND, Marker, failed, legend, svg, text_style, write};
use super::xy::fill;
use super::{Chart, largest};
use crate::case::Method;
use crate::crossover::Cell;
use crate::error::Result;
use crate::report::document::{Table, number_cell, text_cell};
use crate::report::format::seconds;
use crate::results::ablation::AblationResult;

/// A bar of the waterfall.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Step {
    /// Its name under the bar.
    pub name: String,
    /// Where it begins, in seconds.
    pub from: f64,
    /// Where it ends.
    pub to: f64,
    /// Whether it is a whole time and not a step between two.
    pub whole: bool,
}

/// A chart for each setting and lazy mode whose rules were measured, of the run with the most samples.
pub(super) fn charts(cells: &[Cell]) -> Result<Vec<Chart>> {
    let mut charts = Vec::new();
    for cell in largest(cells, |cell| !cell.ablation.is_empty()) {
        for worths in cell.ablation.chunk_by(|a, b| a.method == b.method) {
            if let Some(steps) = steps(worths) {
                charts.push(chart(charts.len(), cell, worths[0].method, &steps)?);
            }
        }
    }
    Ok(charts)
}

/// The steps from the full plan, which comes first in `worths`; none where it never came through.
///
/// A rule's step is the full plan's median time by the ratio within blocks, not a difference of medians: the ratio is what
/// drift of the machine does not reach.
pub(super) fn steps(worths: &[AblationResult]) -> Option<Vec<Step>> {
    let full = worths.first().filter(|worth| worth.without.is_none())?.elapsed_s?;
    let mut steps = vec![Step { name: "full plan".to_owned(), from: 0.0, to: full, whole: true }];
    let mut height = full;
    for worth in worths {
        if let (Some(rule), Some(ratio)) = (worth.without.as_deref().filter(|rule| *rule != "all"), worth.time) {
            let to = height + full * (ratio.estimate - 1.0);
            steps.push(Step { name: rule.to_owned(), from: height, to, whole: false });
            height = to;
        }
    }
    let without_all = worths.iter().find(|worth| worth.without.as_deref() == Some("all")).and_then(|worth| worth.time);
    if let Some(ratio) = without_all {
        let all = full * ratio.estimate;
        steps.push(Step { name: "together".to_owned(), from: height, to: all, whole: false });
        steps.push(Step { name: "no rules".to_owned(), from: 0.0, to: all, whole: true });
    }
    (steps.len() > 1).then_some(steps)
}

fn chart(index: usize, cell: &Cell, method: Method, steps: &[Step]) -> Result<Chart> {
    let title =
        format!("What each optimiser rule is worth: {method}, {}, {} samples", cell.setting.label(), cell.samples);
    let description = "From the time of the full plan to that without any rule; each step is the time that leaving out one \
                       rule alone adds, and 'together' what they share or gain in company.";
    let mut table = Table::new("", &["step", "#seconds", "#up to s"]);
    for step in steps {
        let own = if step.whole { step.to } else { step.to - step.from };
        table.push(vec![
            text_cell(&step.name),
            number_cell(Some(own), signed_seconds),
            number_cell(Some(step.to), seconds),
        ]);
    }
    Ok(Chart {
        name: format!("rules-{}", index + 1),
        svg: svg((720, 400), &title, description, |area| draw(area, steps))?,
        description: description.to_owned(),
        table,
        title,
    })
}

/// Seconds of a step, which may be below 0.
fn signed_seconds(value: Option<f64>) -> String {
    match value {
        Some(value) if value < 0.0 => format!("-{}", seconds(Some(-value))),
        value => seconds(value),
    }
}

fn draw(area: &Area<'_>, steps: &[Step]) -> Result<()> {
    let (left, right, top, bottom) = (70, 700, LEGEND + 20, 350);
    let axis = Axis::from_zero("s", steps.iter().flat_map(|step| [step.from, step.to]));
    let at = |value: f64| bottom - (f64::from(bottom - top) * axis.share(value)).round() as i32;
    for tick in axis.ticks() {
        fill(area, (left, at(*tick)), (right, at(*tick) + 1), GRID)?;
        write(area, &tick_text(*tick), (left - 8, at(*tick)), &text_style(14, INK, HPos::Right))?;
    }
    legend(
        area,
        &[
            ("whole plans, s".to_owned(), LAZY, Marker::Square),
            ("what a rule saves".to_owned(), EAGER, Marker::Square),
            ("steps down".to_owned(), LAZY_DISK, Marker::Square),
        ],
    )?;
    let width = (right - left) / steps.len() as i32;
    for (index, step) in steps.iter().enumerate() {
        let x = left + width * index as i32;
        let colour = match step {
            Step { whole: true, .. } => LAZY,
            step if step.to >= step.from => EAGER,
            _ => LAZY_DISK,
        };
        let (upper, lower) = (at(step.from.max(step.to)), at(step.from.min(step.to)));
        // A step too small to be seen is still a line.
        fill(area, (x + 4, upper), (x + width - 4, lower.max(upper + 1)), colour)?;
        let next = (x + width - 4, at(step.to));
        if index + 1 < steps.len() {
            area.draw(&PathElement::new(vec![next, (next.0 + 8, next.1)], INK)).map_err(failed)?;
        }
        let own = if step.whole { step.to } else { step.to - step.from };
        let middle = x + width / 2;
        write(area, &signed_seconds(Some(own)), (middle, upper - 10), &text_style(13, INK, HPos::Center))?;
        write(area, &step.name, (middle, bottom + 14), &text_style(13, INK, HPos::Center))?;
    }
    fill(area, (left, bottom), (right, bottom + 1), INK)?;
    write(area, "rule that is left out", ((left + right) / 2, bottom + 36), &text_style(15, INK, HPos::Center))
}
