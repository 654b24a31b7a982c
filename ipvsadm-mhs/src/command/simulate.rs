// SPDX-License-Identifier: GPL-2.0

//! `simulate`: a fleet and its churn over time.

use crate::{
    cli::Simulate,
    error::{Error, Result},
    module::Config,
    output::{self, Table},
    simulation::{
        clients::Clients,
        engine::{self, Outcome},
        flows::{milliseconds, Plan},
        plot, Change, Index, Sample, World,
    },
};
use mhs_core::hash;
use serde::Serialize;
use std::{fs, net::Ipv4Addr};

/// Samples of a run.
const SAMPLES: u64 = 240;

pub fn run(args: &Simulate, json: bool) -> Result<()> {
    let plan = Plan::new(args).map_err(Error::Usage)?;
    let changes = plan.changes(args);
    let end = milliseconds(args.duration * 60.0);
    let world = world(args);
    let outcome = engine::run(&world, plan.flows(args), &changes, end, SAMPLES);
    let outcome = outcome.map_err(Error::Usage)?;
    if let Some(path) = &args.plan {
        let all = Happening::new(args, &plan, &world, &changes, &outcome)?;
        let text = serde_json::to_string(&all).map_err(|error| Error::Answer(error.to_string()))?;
        fs::write(path, text).map_err(Error::io(path.display().to_string()))?;
    }
    if let Some(path) = &args.svg {
        let svg = plot::svg(&outcome.samples, &title(args)).map_err(Error::Answer)?;
        fs::write(path, svg).map_err(Error::io(path.display().to_string()))?;
    }
    let summary = Summary::new(&outcome, args.limit.is_some());
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

/// What `--plan` writes.
#[derive(Serialize)]
struct Happening<'a> {
    flows: Vec<Planned>,
    changes: &'a [(u64, Change)],
}

/// A flow, and what mhs makes of it.
#[derive(Serialize)]
struct Planned {
    start: u64,
    end: u64,
    gap: u64,
    /// Its slot is the flow's.
    client: Ipv4Addr,
    server: Option<Index>,
    tracked: bool,
}

impl<'a> Happening<'a> {
    fn new(
        args: &Simulate,
        plan: &Plan,
        world: &World,
        changes: &'a [(u64, Change)],
        outcome: &Outcome,
    ) -> Result<Self> {
        let mut clients = Clients::new(&world.config);
        let flows = plan.flows(args).zip(&outcome.flows).map(|(flow, told)| {
            let client = clients.of_slot(hash::slot(flow.hash, world.config.size));
            Ok(Planned {
                start: flow.start,
                end: flow.end,
                gap: flow.gap,
                client: client.ok_or_else(|| {
                    Error::Usage("--plan: more flows than there are addresses for".into())
                })?,
                server: told.server,
                tracked: told.tracked,
            })
        });
        Ok(Self {
            flows: flows.collect::<Result<_>>()?,
            changes,
        })
    }
}

fn world(args: &Simulate) -> World {
    let weights = args.weights.iter().copied().cycle();
    World {
        config: Config {
            size: args.table_size,
            balance: args.balance,
            ..Config::default()
        },
        weights: weights.take(args.servers as usize).collect(),
        timeout: milliseconds(args.timeout).max(1),
        linger: milliseconds(args.linger),
        expire_nodest_conn: args.expire_nodest_conn,
        limit: args.limit.map(|limit| limit as usize),
    }
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
    /// The flows that ever had an entry, of all.
    tracked: f64,
    broken: u64,
    /// What the busiest server has, as a multiple of its share: on average, and at the end.
    load_mean: f64,
    load_last: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Summary {
    flows: u64,
    changes: u64,
    live_mean: f64,
    live_peak: u64,
    unstable_mean: f64,
    unstable_peak: u64,
    mhs: Balancer,
    stateful: Balancer,
    #[serde(skip_serializing_if = "Option::is_none")]
    limited: Option<Balancer>,
    plain: Balancer,
}

impl Summary {
    /// Means are over the second half, when the fleet is warm.
    fn new(outcome: &Outcome, limited: bool) -> Self {
        let samples = &outcome.samples;
        let warm = samples.get(samples.len() / 2..).unwrap_or_default();
        let mean = |get: fn(&Sample) -> f64| {
            let sum: f64 = warm.iter().map(get).sum();
            sum / warm.len().max(1) as f64
        };
        let peak = |get: fn(&Sample) -> u64| samples.iter().map(get).max().unwrap_or(0);
        let last = samples.last().copied().unwrap_or_default();
        Self {
            flows: outcome.flows.len() as u64,
            changes: outcome.changes,
            live_mean: mean(|s| s.live_flows as f64),
            live_peak: peak(|s| s.live_flows),
            unstable_mean: mean(|s| s.unstable_slots as f64),
            unstable_peak: peak(|s| s.unstable_slots),
            mhs: Balancer {
                entries_mean: mean(|s| s.mhs_entries as f64),
                entries_peak: peak(|s| s.mhs_entries),
                tracked: outcome.tracked as f64 / outcome.flows.len().max(1) as f64,
                broken: last.mhs_broken,
                load_mean: mean(|s| s.mhs_load),
                load_last: last.mhs_load,
            },
            stateful: Balancer {
                entries_mean: mean(|s| s.stateful_entries as f64),
                entries_peak: peak(|s| s.stateful_entries),
                tracked: 1.0,
                broken: last.stateful_broken,
                load_mean: mean(|s| s.stateful_load),
                load_last: last.stateful_load,
            },
            limited: limited.then(|| Balancer {
                entries_mean: mean(|s| s.limited_entries as f64),
                entries_peak: peak(|s| s.limited_entries),
                tracked: 1.0,
                broken: last.limited_broken,
                load_mean: mean(|s| s.limited_load),
                load_last: last.limited_load,
            }),
            plain: Balancer {
                broken: last.plain_broken,
                load_mean: mean(|s| s.plain_load),
                load_last: last.plain_load,
                ..Balancer::default()
            },
        }
    }

    fn text(&self) -> String {
        let mut table = Table::new(&[
            "",
            ">Entries, mean",
            ">Peak",
            ">Tracked",
            ">Broken connections",
            ">Largest load",
        ]);
        let rows = [
            ("mhs", Some(self.mhs)),
            ("stateful Maglev", Some(self.stateful)),
            ("its table too small", self.limited),
            ("plain hash", Some(self.plain)),
        ];
        for (name, balancer) in rows {
            let Some(balancer) = balancer else {
                continue;
            };
            table.row([
                name.to_owned(),
                format!("{:.0}", balancer.entries_mean),
                balancer.entries_peak.to_string(),
                format!("{:.1} %", balancer.tracked * 100.0),
                balancer.broken.to_string(),
                format!("{:.2}", balancer.load_mean),
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
    use crate::{
        cli::{Cli, Command},
        forecast,
        simulation::Servers,
    };
    use clap::Parser;
    use expect_test::expect;

    fn parse(line: &str) -> Simulate {
        let args = ["x", "simulate"].into_iter().chain(line.split_whitespace());
        match Cli::parse_from(args).command {
            Command::Simulate(args) => args,
            _ => unreachable!(),
        }
    }

    fn simulate(line: &str) -> Summary {
        let args = parse(line);
        let plan = Plan::new(&args).unwrap();
        let end = milliseconds(args.duration * 60.0);
        let outcome = engine::run(
            &world(&args),
            plan.flows(&args),
            &plan.changes(&args),
            end,
            60,
        );
        Summary::new(&outcome.unwrap(), args.limit.is_some())
    }

    /// The same on every machine and in every version: somebody compares with last year's.
    #[test]
    fn golden() {
        let summary = simulate("--servers 20 --table-size 4093 --rate 50 --duration 20");
        expect![[r#"
                             Entries, mean  Peak  Tracked  Broken connections  Largest load
            mhs                       1464  1818    8.8 %                   0          1.20
            stateful Maglev           9063  9283  100.0 %                   0          1.20
            plain hash                   0     0    0.0 %               36082          1.34

            60303 flows, 31 changes; 232 slots unstable on average, 369 at the peak
        "#]]
        .assert_eq(&summary.text());
    }

    #[test]
    fn a_plan_says_what_becomes_of_a_packet_of_each_client() {
        let args = parse("--servers 20 --table-size 251 --rate 20 --updates 4 --duration 10");
        let (plan, world) = (Plan::new(&args).unwrap(), world(&args));
        let changes = plan.changes(&args);
        let outcome = engine::run(&world, plan.flows(&args), &changes, 600_000, 60).unwrap();
        let all = Happening::new(&args, &plan, &world, &changes, &outcome).unwrap();
        assert_eq!(all.flows.len() as u64, Summary::new(&outcome, false).flows);
        let (mut servers, mut tracked) = (Servers::new(&world), 0);
        let mut changes = changes.iter().peekable();
        for flow in &all.flows {
            while let Some((_, change)) = changes.next_if(|(at, _)| *at <= flow.start) {
                servers.apply(&world, *change);
            }
            let table = forecast::table(&world.config, &servers.fleet()).unwrap();
            let client = hash::client(
                hash::State::new(&world.config.key),
                &hash::Addr::V4(flow.client.octets()),
                None,
            );
            let server = table[hash::slot(client, world.config.size) as usize];
            assert_eq!(server, flow.server.map(World::server));
            tracked += u64::from(flow.tracked);
        }
        assert!(tracked > 0 && tracked < all.flows.len() as u64 / 2);
    }

    /// Without it, slots are stable again at once when a server is back in time.
    #[test]
    fn expire_nodest_conn_tracks_more_of_servers_that_come_back() {
        let line = "--servers 40 --table-size 4093 --rate 50 --duration 10 --updates 10";
        let line = format!("{line} --removal fail --downtime exp:60");
        let without = simulate(&line);
        let with = simulate(&format!("{line} --expire-nodest-conn"));
        assert_eq!((without.mhs.broken, with.mhs.broken), (0, 0));
        assert!(with.mhs.tracked > without.mhs.tracked);
        assert!(with.stateful.entries_peak < without.stateful.entries_peak);
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

    #[test]
    fn who_fails_takes_its_flows_along_and_a_table_that_is_too_small_breaks_others() {
        let line = "--servers 40 --table-size 4093 --rate 50 --duration 10 --linger 0 --limit 1000";
        let churn = "--removal fail --downtime exp:60 --updates 10 --packets exp:10";
        let summary = simulate(&format!("{line} {churn}"));
        assert_eq!((summary.mhs.broken, summary.stateful.broken), (0, 0));
        let limited = summary.limited.unwrap();
        assert!(limited.entries_peak <= 1000 && limited.broken > 0);
        assert!(summary.mhs.entries_peak > 0);
        assert!(summary.mhs.tracked < 0.5);
    }
}
