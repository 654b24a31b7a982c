// SPDX-License-Identifier: GPL-2.0

//! IPVS: stateless Maglev hashing scheduling module.
//!
//! A packet's way: `doors` -> `pure::flow` -> `registry` -> `pure::slots` -> `ipvs::express`.
//! A change's way: `scheduler` -> `service` -> `pure::maglev` -> `pure::slots`.
//! A question's way: `netlink` -> `registry` -> `catalog` -> `service::view`.

use kernel::prelude::*;

mod catalog;
mod config;
mod doors;
mod ipvs;
mod netlink;
// Shared with host tests and tools, which use more of it than the module does.
#[allow(dead_code, unreachable_pub)]
#[path = "core/mod.rs"]
mod pure;
mod registry;
mod scheduler;
mod service;
mod stats;

module! {
    type: MhsModule,
    name: "ip_vs_mhs",
    authors: ["The ip_vs_mhs authors"],
    description: "Stateless Maglev hashing ipvs scheduler",
    license: "GPL",
}

struct MhsModule {
    // Goes first: nobody asks for what is going away.
    _netlink: Option<netlink::Registration>,
    _registration: ipvs::scheduler::Registration<scheduler::Mhs>,
}

impl kernel::Module for MhsModule {
    fn init(module: &'static ThisModule) -> Result<Self> {
        let params = ipvs::params::Params::read();
        let (config, name) = (config::Config::new(&params)?, config::name(&params)?);
        let family = netlink::family(module, registry::Registry::new(config, name)?)?;
        // Comes first: its name may be taken, and then nobody must be talking to the module. Services
        // may use it as soon as it is there, so the module has to stay from then on.
        let registration = ipvs::scheduler::Registration::new(module, name, family.clone())?;
        let netlink = netlink::Registration::new(family)
            .inspect_err(|error| pr_err!("no netlink family: error {}\n", error.to_errno()));
        Ok(Self {
            _netlink: netlink.ok(),
            _registration: registration,
        })
    }
}
