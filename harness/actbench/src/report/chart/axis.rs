//! Axes: linear or logarithmic, with ticks at round numbers.

/// An axis between two values.
#[derive(Clone, Debug, PartialEq)]
pub struct ChartAxis {
    /// Its quantity and unit.
    pub label: String,
    logarithmic: bool,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    names: Vec<(f64, String)>,
}

impl ChartAxis {
    /// Logarithmic, around positive values, with a margin of a tenth of its length on both sides and ticks at 1, 2 and 5
    /// times powers of ten.
    pub fn logarithmic(label: &str, values: impl Iterator<Item = f64>) -> Self {
        let positive = values.filter(|value| value.is_finite() && *value > 0.0).map(|value| value.max(PLAUSIBLE.0));
        let (low, high) = range(positive).unwrap_or((1.0, 10.0));
        // A single value is in the middle.
        let (low, high) = if high / low < 1.5 { (low / 1.5, high * 1.5) } else { (low, high) };
        let margin = (high / low).powf(0.1);
        let (low, high) = (low / margin, high * margin);
        ChartAxis {
            label: label.to_owned(),
            logarithmic: true,
            low,
            high,
            ticks: decade_ticks(low, high),
            names: Vec::new(),
        }
    }

    /// Linear from 0 to a little more than the largest of `values`.
    pub fn from_zero(label: &str, values: impl Iterator<Item = f64>) -> Self {
        let high = range(values).map_or(1.0, |(_, high)| high).max(PLAUSIBLE.0) * 1.12;
        ChartAxis {
            label: label.to_owned(),
            logarithmic: false,
            low: 0.0,
            high,
            ticks: round_ticks(0.0, high),
            names: Vec::new(),
        }
    }

    /// Linear around whole numbers, with ticks at them.
    pub fn of_whole_numbers(label: &str, values: impl Iterator<Item = f64>) -> Self {
        let mut ticks: Vec<f64> = values.collect();
        let (low, high) = range(ticks.iter().copied()).unwrap_or((0.0, 1.0));
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        let margin = (0.08 * (high - low)).max(1.0);
        ChartAxis {
            label: label.to_owned(),
            logarithmic: false,
            low: low - margin,
            high: high + margin,
            ticks,
            names: Vec::new(),
        }
    }

    /// Linear around `values` and not from 0, so that small changes are visible; at least a tenth of the largest wide.
    pub fn around(label: &str, values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = range(values).unwrap_or((0.0, 1.0));
        let margin = (0.1 * (high - low)).max(0.05 * high).max(PLAUSIBLE.0);
        let (low, high) = ((low - margin).max(0.0), high + margin);
        let ticks = round_ticks(0.0, high - low);
        let step = ticks.get(1).copied().unwrap_or(high);
        let first = (low / step).ceil();
        let ticks = (0..20).map(|tick| (first + f64::from(tick)) * step).take_while(|tick| *tick <= high).collect();
        ChartAxis { label: label.to_owned(), logarithmic: false, low, high, ticks, names: Vec::new() }
    }

    /// With named ticks in place of numbers.
    #[must_use]
    pub fn with_names(mut self, names: Vec<(f64, String)>) -> Self {
        self.ticks = names.iter().map(|(value, _)| *value).collect();
        self.names = names;
        self
    }

    /// The text at a tick.
    pub fn text(&self, tick: f64) -> String {
        let name = self.names.iter().find(|(value, _)| *value == tick).map(|(_, name)| name.clone());
        name.unwrap_or_else(|| tick_text(tick))
    }

    /// With ticks at `ticks`, if they are far enough apart to be readable.
    #[must_use]
    pub fn with_ticks(mut self, mut ticks: Vec<f64>) -> Self {
        ticks.sort_by(f64::total_cmp);
        ticks.dedup();
        let min_distance = 0.08;
        let readable = ticks.windows(2).all(|pair| self.fraction(pair[1]) - self.fraction(pair[0]) >= min_distance);
        if readable {
            self.ticks = ticks;
        }
        self
    }

    /// The position of `value` on the axis, from 0 to 1.
    pub fn fraction(&self, value: f64) -> f64 {
        let map = |value: f64| if self.logarithmic { value.max(PLAUSIBLE.0).ln() } else { value };
        ((map(value) - map(self.low)) / (map(self.high) - map(self.low))).clamp(0.0, 1.0)
    }

    /// The ticks, ascending.
    pub fn ticks(&self) -> &[f64] {
        &self.ticks
    }
}

/// Times, sizes and ratios are far inside this range; values of an edited file outside of it are drawn at its end.
const PLAUSIBLE: (f64, f64) = (1e-12, 1e20);

/// The smallest and the largest value.
fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.map(|value| value.clamp(0.0, PLAUSIBLE.1)).fold(None, |range, value| match range {
        None => Some((value, value)),
        Some((low, high)) => Some((f64::min(low, value), f64::max(high, value))),
    })
}

/// 1, 2 and 5 times powers of ten within the range; fewer over many decades, more within one.
fn decade_ticks(low: f64, high: f64) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    let ticks_at = |steps: &[f64]| -> Vec<f64> {
        let all = (first..=last).flat_map(|decade| steps.iter().map(move |step| step * 10.0_f64.powi(decade)));
        all.filter(|tick| (low..=high).contains(tick)).collect()
    };
    match last - first {
        decades if decades > 4 => ticks_at(&[1.0]),
        _ => [ticks_at(&[1.0, 2.0, 5.0]), ticks_at(&[1.0, 1.5, 2.0, 3.0, 5.0, 7.0])]
            .into_iter()
            .find(|ticks| ticks.len() > 3)
            .unwrap_or_else(|| ticks_at(&[1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])),
    }
}

/// About five round numbers from `low` to `high`.
fn round_ticks(low: f64, high: f64) -> Vec<f64> {
    let raw = (high - low) / 5.0;
    let unit = 10.0_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * unit).find(|step| *step >= raw).unwrap_or(raw);
    (0..).map(|tick| low + step * f64::from(tick)).take_while(|tick| *tick <= high).take(20).collect()
}

/// A value of an axis with as few digits as needed.
pub fn tick_text(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 1000.0 => crate::crossover::answer::count(value),
        size if size >= 10.0 => format!("{value:.0}"),
        size if size >= 1.0 => trimmed(format!("{value:.1}")),
        size if size >= 0.01 => trimmed(format!("{value:.3}")),
        _ => format!("{value:.0e}"),
    }
}

fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_in_range() {
        let axis = ChartAxis::logarithmic("samples", [50.0, 3000.0].into_iter());
        assert_eq!(axis.ticks(), [50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0]);
        assert!((axis.fraction(50.0) - 1.0 / 12.0).abs() <= 1e-12, "the margin is a tenth of the range");
        let sizes = axis.with_ticks(vec![3000.0, 50.0, 400.0, 400.0]);
        assert_eq!(sizes.ticks(), [50.0, 400.0, 3000.0]);
        assert_eq!(sizes.clone().with_ticks(vec![50.0, 51.0]).ticks(), sizes.ticks());
        assert_eq!(ChartAxis::from_zero("s", [0.43].into_iter()).ticks(), [0.0, 0.1, 0.2, 0.30000000000000004, 0.4]);
        assert_eq!(ChartAxis::around("s", [2.0, 2.1].into_iter()).ticks(), [1.9000000000000001, 2.0, 2.1, 2.2]);
        let named =
            ChartAxis::of_whole_numbers("commit", [1.0, 2.0].into_iter()).with_names(vec![(2.0, "abc".to_owned())]);
        assert_eq!((named.ticks(), named.text(2.0).as_str(), named.text(1.0).as_str()), (&[2.0][..], "abc", "1"));
        assert_eq!(ChartAxis::logarithmic("x", [1e-3, 1e4].into_iter()).ticks().len(), 8);
    }

    #[test]
    fn axis_exists_without_spread() {
        for axis in [ChartAxis::logarithmic("x", [].into_iter()), ChartAxis::from_zero("x", [].into_iter())] {
            assert!(axis.fraction(2.0).is_finite() && !axis.ticks().is_empty());
        }
        assert!((ChartAxis::logarithmic("x", [7.0].into_iter()).fraction(7.0) - 0.5).abs() <= 1e-12);
        assert_eq!(ChartAxis::of_whole_numbers("layers", [8.0].into_iter()).fraction(8.0), 0.5);
    }

    #[test]
    fn tick_text_has_few_digits() {
        let texts = [0.0, 0.005, 0.25, 1.0, 2.5, 20.0, 12_000.0].map(tick_text);
        assert_eq!(texts, ["0", "5e-3", "0.25", "1", "2.5", "20", "12,000"]);
    }
}
