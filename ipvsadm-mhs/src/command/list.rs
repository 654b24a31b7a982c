// SPDX-License-Identifier: GPL-2.0

//! `list`: the services that mhs schedules.

use crate::{
    error::Result,
    mhs::{Counters, Mhs, Service},
    output::{self, percent, ratio, short, time, Table},
    service,
};
use mhs_core::hash::Key;
use serde::Serialize;

/// A service as JSON shows it. `Documentation/ipvsadm-mhs.rst` describes the fields.
#[derive(Serialize)]
pub struct ServiceJson<'a> {
    service: &'a service::Service,
    scheduler: &'a str,
    stateless: bool,
    generation: u32,
    slots: u32,
    stable: u32,
    unstable: u32,
    server_count: u32,
    balance: u32,
    hash_key: Option<String>,
    next_merge_ms: Option<u64>,
    session_timeout_ms: u64,
    counters: &'a Counters,
}

impl<'a> From<&'a Service> for ServiceJson<'a> {
    fn from(told: &'a Service) -> Self {
        Self {
            service: &told.service,
            scheduler: &told.scheduler,
            stateless: told.stateless,
            generation: told.generation,
            slots: told.options.size,
            stable: told.stable,
            unstable: told.unstable,
            server_count: told.servers,
            balance: told.options.balance,
            hash_key: told.options.key.as_ref().map(digits),
            next_merge_ms: told.next_merge_ms,
            session_timeout_ms: told.session_timeout_ms,
            counters: &told.counters,
        }
    }
}

/// A hash key as the module option has it.
fn digits(key: &Key) -> String {
    let bytes = [key.k0, key.k1].map(u64::to_le_bytes).concat();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn run(json: bool) -> Result<()> {
    let services = Mhs::connect()?.services()?;
    if json {
        #[derive(Serialize)]
        struct All<'a> {
            services: Vec<ServiceJson<'a>>,
        }
        let services = services.iter().map(ServiceJson::from).collect();
        return output::json(&All { services });
    }
    output::text(&table(&services))
}

fn table(services: &[Service]) -> String {
    let mut table = Table::new(&[
        "Service",
        "Sched",
        ">Servers",
        ">Slots",
        ">Unstable",
        ">Merge in",
        ">Packets",
        ">Pins",
    ]);
    for told in services {
        let Service {
            options, counters, ..
        } = told;
        let share = ratio(told.unstable, options.size);
        table.row([
            told.service.to_string(),
            match told.stateless {
                true => told.scheduler.clone(),
                false => format!("{} (stateful)", told.scheduler),
            },
            told.servers.to_string(),
            options.size.to_string(),
            match told.unstable {
                0 => "0".into(),
                unstable => format!("{unstable} ({})", percent(share)),
            },
            told.next_merge_ms.map_or("-".into(), time),
            short(counters.packets as f64),
            short((counters.pins_new + counters.pins_old) as f64),
        ]);
    }
    table.render("")
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::{module::Config, service::Protocol};
    use expect_test::expect;

    pub fn example(name: &str, unstable: u32) -> Service {
        let config = Config::default();
        Service {
            service: service::Service::with_protocol(Protocol::Tcp, name).unwrap(),
            scheduler: "mhs".into(),
            stateless: true,
            generation: 17,
            options: config.into(),
            servers: 4,
            stable: config.size - unstable,
            unstable,
            next_merge_ms: (unstable > 0).then_some(899_000),
            session_timeout_ms: 900_000,
            counters: Counters {
                packets: 1_234_567,
                bytes: 98_765_432,
                conns: 34_567,
                pins_new: 120,
                pins_old: 345,
                remaps: 9,
                ..Counters::default()
            },
        }
    }

    #[test]
    fn text() {
        let services = [
            example("192.0.2.1:80", 0),
            example("[2001:db8::1]:443", 3277),
        ];
        expect![[r#"
            Service                Sched  Servers  Slots       Unstable  Merge in  Packets  Pins
            TCP 192.0.2.1:80       mhs          4  16381              0         -     1.2M   465
            TCP [2001:db8::1]:443  mhs          4  16381  3277 (20.0 %)    14m59s     1.2M   465
        "#]]
        .assert_eq(&table(&services));
    }

    #[test]
    fn json() {
        let service = example("192.0.2.1:80", 3277);
        let text = serde_json::to_string_pretty(&ServiceJson::from(&service)).unwrap();
        expect![[r#"
            {
              "service": {
                "protocol": "tcp",
                "address": "192.0.2.1",
                "port": 80
              },
              "scheduler": "mhs",
              "stateless": true,
              "generation": 17,
              "slots": 16381,
              "stable": 13104,
              "unstable": 3277,
              "server_count": 4,
              "balance": 5,
              "hash_key": "d308a385886a3f24447370032e8a1913",
              "next_merge_ms": 899000,
              "session_timeout_ms": 900000,
              "counters": {
                "packets": 1234567,
                "bytes": 98765432,
                "conns": 34567,
                "pins_new": 120,
                "pins_old": 345,
                "icmp_errors": 0,
                "full": 0,
                "no_server": 0,
                "udp_moved": 0,
                "remaps": 9,
                "merges": 0,
                "slots_merged": 0,
                "rebuild_failures": 0
              }
            }"#]]
        .assert_eq(&text);
    }

    #[test]
    fn a_key_that_is_not_shown() {
        let mut service = example("192.0.2.1:80", 0);
        service.options.key = None;
        let json = serde_json::to_value(ServiceJson::from(&service)).unwrap();
        assert_eq!(json["hash_key"], serde_json::Value::Null);
        assert_eq!(json["slots"], 16381);
    }
}
