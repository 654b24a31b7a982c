// SPDX-License-Identifier: GPL-2.0

//! `express`: whether packets leave before they are routed.

use crate::{
    cli::{Express, Switch},
    error::Result,
    mhs::Mhs,
    output,
};
use serde::Serialize;

/// As JSON shows it.
#[derive(Serialize)]
struct Json {
    express: bool,
}

pub fn run(args: &Express, json: bool) -> Result<()> {
    let change = args.switch.map(|switch| matches!(switch, Switch::On));
    let express = Mhs::connect()?.express(change)?;
    match json {
        true => output::json(&Json { express }),
        false => output::text(match express {
            true => "express mode is on\n",
            false => "express mode is off\n",
        }),
    }
}
