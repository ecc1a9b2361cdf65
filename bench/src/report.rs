//! Medians, ratios, and the table that shows them.

use std::fmt;

/// What a ratio is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
    /// Nothing: it is shown for scale.
    Shown,
}

impl Target {
    fn met_by(self, ratio: f64) -> Option<bool> {
        match self {
            Self::AtLeast(least) => Some(ratio >= least),
            Self::AtMost(most) => Some(ratio <= most),
            Self::Shown => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "≥ {least}"),
            Self::AtMost(most) => write!(f, "≤ {most}"),
            Self::Shown => Ok(()),
        }
    }
}

/// One line of the table: something of ours beside what it is compared with, both taken in this run.
#[derive(Clone, Debug)]
pub struct Row {
    /// What was measured.
    pub measure: String,
    /// Our value.
    pub ours: f64,
    /// What it is compared with.
    pub against: String,
    /// Its value.
    pub other: f64,
    /// Of both values.
    pub unit: &'static str,
    /// What `ours / other` is to reach.
    pub target: Target,
}

impl Row {
    /// Ours over the other's.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.ours / self.other
    }
}

/// The middle value; of an even number the mean of the two middle ones. NaN of none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The value that `share` (0 to 1) of the values don't exceed. NaN of none.
#[must_use]
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

/// The rows as an aligned table.
#[must_use]
pub fn table(rows: &[Row]) -> String {
    let mut cells =
        vec![["measure", "ours", "compared with", "theirs", "unit", "ratio", "target", ""].map(str::to_owned)];
    for row in rows {
        let mark = match row.target.met_by(row.ratio()) {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        cells.push([
            row.measure.clone(),
            number(row.ours),
            row.against.clone(),
            number(row.other),
            row.unit.to_owned(),
            format!("{:.2}", row.ratio()),
            row.target.to_string(),
            mark.to_owned(),
        ]);
    }
    let width = |column: usize| cells.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..8).map(width).collect();
    let mut text = String::new();
    for row in &cells {
        let line: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text.push_str(line.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_values_in_the_middle_and_near_the_end() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.99), 99.0);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn the_table_says_which_targets_are_missed() {
        let row = |target| Row { measure: "m".into(), ours: 1.0, against: "b".into(), other: 2.0, unit: "s", target };
        let text = table(&[row(Target::AtLeast(0.8)), row(Target::AtMost(0.8)), row(Target::Shown)]);
        let marks: Vec<bool> = text.lines().skip(1).map(|line| line.contains("MISSED")).collect();
        assert_eq!(marks, [true, false, false]);
    }
}
