// SPDX-License-Identifier: GPL-2.0

//! What is printed: tables for people, JSON for programs.

use crate::error::{Error, Result};
use serde::Serialize;
use std::{
    fmt::Display,
    io::{self, Stdout, Write},
};

/// Prints text, the answer to a question. A reader that has seen enough is no error, and ends it.
///
/// What is told while something is changed goes by [`Progress`].
pub fn text(text: &str) -> Result<()> {
    match write(&mut io::stdout().lock(), text) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => written.map_err(Error::io("standard output")),
    }
}

fn write(out: &mut impl Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Prints a line.
pub fn line(line: impl AsRef<str>) -> Result<()> {
    text(&format!("{}\n", line.as_ref()))
}

/// Says something on standard error. Nobody may listen there either, and that is no reason to stop.
pub fn complain(text: impl Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// What a command tells while it changes something, or waits for what it changed.
///
/// That it can be told nobody any more does not stop a change half-way: it goes on in silence, and ends
/// with the status of what it did.
pub struct Progress<W = Stdout> {
    json: bool,
    /// `None` once it failed.
    out: Option<W>,
}

impl Progress {
    pub fn new(json: bool) -> Self {
        let out = Some(io::stdout());
        Self { json, out }
    }
}

impl<W: Write> Progress<W> {
    /// Tells `value` to a program, or `sentence` to people.
    pub fn tell(&mut self, value: &impl Serialize, sentence: impl FnOnce() -> String) {
        let Some(out) = &mut self.out else {
            return;
        };
        let line = match self.json {
            true => serde_json::to_string(value).map_err(io::Error::from),
            false => Ok(sentence()),
        };
        let Err(error) = line.and_then(|line| write(out, &format!("{line}\n"))) else {
            return;
        };
        self.out = None;
        // A reader that has seen enough knows.
        if error.kind() != io::ErrorKind::BrokenPipe {
            complain(format_args!(
                "ipvsadm-mhs: standard output: {error}; it goes on without"
            ));
        }
    }
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

    /// Takes so many lines, and then fails.
    struct Reader {
        lines: usize,
        error: io::ErrorKind,
        seen: Vec<u8>,
        tries: usize,
    }

    impl Write for &mut Reader {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.tries += 1;
            if self.tries > self.lines {
                return Err(self.error.into());
            }
            self.seen.extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_change_goes_on_when_its_reader_has_gone() {
        for error in [io::ErrorKind::BrokenPipe, io::ErrorKind::StorageFull] {
            let mut reader = Reader {
                lines: 1,
                error,
                seen: Vec::new(),
                tries: 0,
            };
            let mut progress = Progress {
                json: false,
                out: Some(&mut reader),
            };
            for step in ["one", "two", "three"] {
                progress.tell(&step, || step.into());
            }
            assert_eq!(reader.seen, b"one\n");
            assert_eq!(reader.tries, 2);
        }
    }

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
