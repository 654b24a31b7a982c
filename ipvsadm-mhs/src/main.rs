// SPDX-License-Identifier: GPL-2.0

//! `ipvsadm-mhs`: see inside the stateless IPVS scheduler mhs, and steer it.
//!
//! A request's way is straight: `cli` says what was asked for, a file of `command` does it, by
//! `ipvs` and `mhs`, the two netlink families, and `output` prints what came of it. What needs no
//! kernel, `forecast` and `simulation`, runs on the module's own `src/core`.

#![forbid(unsafe_code)]

mod cli;
mod command;
mod error;
mod forecast;
mod genl;
mod host;
mod ipvs;
mod live;
mod mhs;
mod module;
mod output;
mod server;
mod service;
mod simulation;

use clap::Parser;
use cli::{Change, Cli, Command};
use error::Result;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(format_args!("ipvsadm-mhs: {error}"));
            ExitCode::from(error.status())
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let json = cli.json;
    match &cli.command {
        Command::List => command::list::run(json),
        Command::Show(show) => command::show::run(show, json),
        Command::Slots(slots) => command::slots::run(slots, json),
        Command::Events(events) => command::events::run(events, json),
        Command::Top(top) => command::top::run(top, json),
        Command::Metrics => command::metrics::run(),
        Command::Change(change) => match change {
            Change::Add(set) => command::set::add(set),
            Change::Edit(set) => command::set::edit(set),
            Change::Delete(delete) => command::delete::run(delete),
            Change::Drain(drain) => command::drain::run(drain, json),
            Change::Replace(replace) => command::replace::run(replace, json),
        },
        Command::Express(express) => command::express::run(express, json),
        Command::Handover(handover) => command::handover::run(handover, json),
        Command::Plan(plan) => command::plan::run(plan, json),
        Command::Simulate(simulate) => command::simulate::run(simulate, json),
        Command::Generate(generate) => command::generate::run(generate),
    }
}
