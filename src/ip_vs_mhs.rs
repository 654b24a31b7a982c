// SPDX-License-Identifier: GPL-2.0

//! IPVS: stateless Maglev hashing scheduling module.
//!
//! A packet's way: `doors` -> `pure::flow` -> `registry` -> `pure::slots` -> `ipvs::express`.
//! A change's way: `scheduler` -> `service` -> `pure::maglev` -> `pure::slots`.

use kernel::prelude::*;

mod config;
mod doors;
mod ipvs;
// Shared with host tests and tools, which use more of it than the module does.
#[allow(dead_code, unreachable_pub)]
#[path = "core/mod.rs"]
mod pure;
mod registry;
mod scheduler;
mod service;

module! {
    type: MhsModule,
    name: "ip_vs_mhs",
    authors: ["The ip_vs_mhs authors"],
    description: "Stateless Maglev hashing ipvs scheduler",
    license: "GPL",
}

struct MhsModule {
    _registration: ipvs::scheduler::Registration<scheduler::Mhs>,
}

impl kernel::Module for MhsModule {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let params = ipvs::params::Params::read();
        let (config, name) = (config::Config::new(&params)?, config::name(&params)?);
        let registry = KBox::pin_init(registry::Registry::new(config), GFP_KERNEL)?;
        Ok(Self {
            _registration: ipvs::scheduler::Registration::new(module, name, registry)?,
        })
    }
}
