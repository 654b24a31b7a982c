// SPDX-License-Identifier: GPL-2.0

//! `simulate`: a fleet and its churn over time.

use crate::{
    cli::Simulate,
    error::{Error, Result},
    module::Config,
    output::{self, Table},
    simulation::{
        engine::{self, Outcome},
        flows::{self, milliseconds, Session},
        plot, Sample, World,
    },
};
use serde::Serialize;
use std::fs;

/// Samples of a run.
const SAMPLES: u64 = 240;

pub fn run(args: &Simulate, json: bool) -> Result<()> {
    let session = Session::parse(&args.session).map_err(Error::Usage)?;
    let weights = args.weights.iter().copied().cycle();
    let world = World {
        config: Config {
            size: args.table_size,
            balance: args.balance,
            ..Config::default()
        },
        weights: weights.take(args.servers as usize).collect(),
        gap: milliseconds(args.gap).max(1),
        timeout: milliseconds(args.timeout).max(1),
        linger: milliseconds(args.linger),
    };
    let end = milliseconds(args.duration * 60.0);
    let flows = flows::flows(args, session);
    let outcome = engine::run(&world, flows, &flows::changes(args), end, SAMPLES);
    let outcome = outcome.map_err(Error::Usage)?;
    if let Some(path) = &args.svg {
        let svg = plot::svg(&outcome.samples, &title(args)).map_err(Error::Answer)?;
        fs::write(path, svg).map_err(Error::io(path.display().to_string()))?;
    }
    let summary = Summary::new(&outcome);
    if json {
        #[derive(Serialize)]
        struct All<'a> {
            #[serde(flatten)]
            summary: &'a Summary,
            samples: &'a [Sample],
        }
        let (summary, samples) = (&summary, &*outcome.samples);
        return output::json(&All { summary, samples });
    }
    output::text(&format!("{}\n\n{}", title(args), summary.text()))
}

fn title(args: &Simulate) -> String {
    format!(
        "{} servers, {} slots, {} changes a minute ({}), {} flows a second of {} s",
        args.servers, args.table_size, args.updates, args.removal, args.rate, args.session
    )
}

/// What a balancer came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
struct Balancer {
    entries_mean: f64,
    entries_peak: u64,
    broken: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Summary {
    flows: u64,
    changes: u64,
    unstable_mean: f64,
    unstable_peak: u64,
    mhs: Balancer,
    stateful: Balancer,
    plain: Balancer,
}

impl Summary {
    /// Means are over the second half, when the fleet is warm.
    fn new(outcome: &Outcome) -> Self {
        let samples = &outcome.samples;
        let warm = samples.get(samples.len() / 2..).unwrap_or_default();
        let mean = |get: fn(&Sample) -> u64| {
            let sum: u64 = warm.iter().map(get).sum();
            sum as f64 / warm.len().max(1) as f64
        };
        let peak = |get: fn(&Sample) -> u64| samples.iter().map(get).max().unwrap_or(0);
        let last = samples.last().copied().unwrap_or_default();
        Self {
            flows: outcome.flows,
            changes: outcome.changes,
            unstable_mean: mean(|s| s.unstable_slots),
            unstable_peak: peak(|s| s.unstable_slots),
            mhs: Balancer {
                entries_mean: mean(|s| s.mhs_entries),
                entries_peak: peak(|s| s.mhs_entries),
                broken: last.mhs_broken,
            },
            stateful: Balancer {
                entries_mean: mean(|s| s.stateful_entries),
                entries_peak: peak(|s| s.stateful_entries),
                broken: last.stateful_broken,
            },
            plain: Balancer {
                broken: last.plain_broken,
                ..Balancer::default()
            },
        }
    }

    fn text(&self) -> String {
        let mut table = Table::new(&["", ">Entries, mean", ">Peak", ">Broken connections"]);
        let rows = [
            ("mhs", self.mhs),
            ("stateful Maglev", self.stateful),
            ("plain hash", self.plain),
        ];
        for (name, balancer) in rows {
            table.row([
                name.to_owned(),
                format!("{:.0}", balancer.entries_mean),
                balancer.entries_peak.to_string(),
                balancer.broken.to_string(),
            ]);
        }
        format!(
            "{}\n{} flows, {} changes; {:.0} slots unstable on average, {} at the peak\n",
            table.render(""),
            self.flows,
            self.changes,
            self.unstable_mean,
            self.unstable_peak
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;
    use expect_test::expect;

    fn simulate(line: &str) -> Summary {
        let args = ["x", "simulate"].into_iter().chain(line.split_whitespace());
        let Command::Simulate(args) = Cli::parse_from(args).command else {
            unreachable!()
        };
        let session = Session::parse(&args.session).unwrap();
        let world = World {
            config: Config {
                size: args.table_size,
                ..Config::default()
            },
            weights: vec![1; args.servers as usize],
            gap: milliseconds(args.gap),
            timeout: milliseconds(args.timeout),
            linger: milliseconds(args.linger),
        };
        let end = milliseconds(args.duration * 60.0);
        let flows = flows::flows(&args, session);
        Summary::new(&engine::run(&world, flows, &flows::changes(&args), end, 60).unwrap())
    }

    /// The same on every machine and in every version: somebody compares with last year's.
    #[test]
    fn golden() {
        let summary = simulate("--servers 20 --table-size 4093 --rate 50 --duration 20");
        expect![[r#"
                             Entries, mean  Peak  Broken connections
            mhs                       1464  1818                   0
            stateful Maglev           9063  9283                   0
            plain hash                   0     0               36082

            60303 flows, 31 changes; 232 slots unstable on average, 369 at the peak
        "#]]
        .assert_eq(&summary.text());
    }

    #[test]
    fn nothing_changes_nothing_is_stored() {
        let summary =
            simulate("--servers 20 --table-size 1021 --rate 20 --updates 0 --duration 10");
        assert_eq!((summary.mhs.entries_peak, summary.unstable_peak), (0, 0));
        assert_eq!(
            (
                summary.mhs.broken,
                summary.stateful.broken,
                summary.plain.broken
            ),
            (0, 0, 0)
        );
        // Little's law: 20 a second, 60 s each and 120 s after.
        assert!((summary.stateful.entries_mean / 3600.0 - 1.0).abs() < 0.15);
    }

    #[test]
    fn a_drain_breaks_nothing_but_the_plain_hash() {
        let summary = simulate("--servers 20 --table-size 1021 --rate 20 --duration 20");
        assert_eq!((summary.mhs.broken, summary.stateful.broken), (0, 0));
        assert!(summary.plain.broken > summary.flows / 2);
        assert!(summary.mhs.entries_peak > 0);
        assert!(summary.mhs.entries_mean < summary.stateful.entries_mean);
    }

    #[test]
    fn a_delete_gives_short_flows_the_time_to_end() {
        let summary = simulate("--servers 20 --table-size 1021 --rate 20 --duration 40 --removal delete --session exp:20");
        assert_eq!(summary.mhs.broken, 0);
        assert!(summary.stateful.broken > 0);
    }
}
