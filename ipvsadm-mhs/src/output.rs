// SPDX-License-Identifier: GPL-2.0

//! What is printed: tables for people, JSON for programs.

use crate::error::{Error, Result};
use serde::Serialize;
use std::io::{self, Write};

/// Prints text. A reader that has seen enough is no error.
pub fn text(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(Error::io("standard output")),
    }
}

/// Prints a line.
pub fn line(line: impl AsRef<str>) -> Result<()> {
    text(&format!("{}\n", line.as_ref()))
}

/// Prints a value as one line of JSON.
pub fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|error| Error::Answer(error.to_string()))?;
    line(text)
}

/// On which side of a column the shorter cells stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Left,
    Right,
}

/// A table: a head, rows, as wide as it needs to be.
pub struct Table {
    head: Vec<(&'static str, Side)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows. The names of columns of numbers begin with `>`.
    pub fn new(head: &[&'static str]) -> Self {
        let column = |name: &'static str| match name.strip_prefix('>') {
            Some(name) => (name, Side::Right),
            None => (name, Side::Left),
        };
        Self {
            head: head.iter().map(|name| column(name)).collect(),
            rows: Vec::new(),
        }
    }

    pub fn row(&mut self, row: impl IntoIterator<Item = String>) {
        self.rows.push(row.into_iter().collect());
    }

    /// The text, each line indented by `indent`.
    pub fn render(&self, indent: &str) -> String {
        let head: Vec<String> = self
            .head
            .iter()
            .map(|(name, _)| (*name).to_owned())
            .collect();
        let all = || std::iter::once(&head).chain(&self.rows);
        let width = |column: usize| {
            let cells = all().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut text = String::new();
        for row in all() {
            let mut line = indent.to_owned();
            for ((cell, (_, side)), &width) in row.iter().zip(&self.head).zip(&widths) {
                match side {
                    Side::Left => line += &format!("{cell:<width$}  "),
                    Side::Right => line += &format!("{cell:>width$}  "),
                }
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// A part as percent.
pub fn percent(part: f64) -> String {
    let percent = part * 100.0;
    match percent {
        0.0 => "0 %".into(),
        p if p < 0.095 => format!("{p:.2} %"),
        p => format!("{p:.1} %"),
    }
}

/// One number over another, 0 over nothing.
pub fn ratio(part: impl Into<f64>, whole: impl Into<f64>) -> f64 {
    let whole: f64 = whole.into();
    match whole == 0.0 {
        true => 0.0,
        false => part.into() / whole,
    }
}

/// A number that may be large, in at most 5 characters: 12345, 1.2M, 34G.
pub fn short(number: f64) -> String {
    const UNITS: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    if number < 100_000.0 {
        return format!("{number:.0}");
    }
    let (mut value, mut unit) = (number, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    match value < 9.95 {
        true => format!("{value:.1}{}", UNITS[unit]),
        false => format!("{value:.0}{}", UNITS[unit]),
    }
}

/// A time in milliseconds, as people read it: 850ms, 12.3s, 14m59s, 2h05m.
pub fn time(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..=59 => format!("{:.1}s", ms as f64 / 1000.0),
        60..=3599 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn tables() {
        let mut table = Table::new(&["Server", ">Slots", "State"]);
        table.row(["192.0.2.11:80".into(), "5461".into(), "live".into()]);
        table.row(["[2001:db8::12]:80".into(), "0".into(), String::new()]);
        expect![[r#"
            |Server             Slots  State
            |192.0.2.11:80       5461  live
            |[2001:db8::12]:80      0
        "#]]
        .assert_eq(&table.render("|"));
    }

    #[test]
    fn numbers() {
        let all = [0.0, 99_999.0, 100_000.0, 1_234_567.0, 9.96e6, 1e9, 1.5e18];
        let all: Vec<String> = all.into_iter().map(short).collect();
        expect!["0 99999 100k 1.2M 10M 1.0G 1500P"].assert_eq(&all.join(" "));
        let all = [0.0, 0.0004, 0.05, 1.0].map(percent);
        expect!["0 %, 0.04 %, 5.0 %, 100.0 %"].assert_eq(&all.join(", "));
        let all = [0, 850, 1000, 59_949, 60_000, 899_000, 7_500_000].map(time);
        expect!["0ms 850ms 1.0s 59.9s 1m00s 14m59s 2h05m"].assert_eq(&all.join(" "));
    }
}
