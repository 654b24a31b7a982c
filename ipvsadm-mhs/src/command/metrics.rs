// SPDX-License-Identifier: GPL-2.0

//! `metrics`: everything that is counted, as OpenMetrics text.
//!
//! Source: the OpenMetrics specification 1.0, <https://prometheus.io/docs/specs/om/open_metrics_spec/>.

use crate::{
    error::Result,
    ipvs::{Ipvs, ServerEntry},
    mhs::{Counters, Mhs, Server, Service, State, COUNTERS},
    output, service,
};
use std::fmt::Write;

/// What is known of a service at one moment.
struct Sample {
    service: Service,
    servers: Vec<Server>,
    entries: Vec<ServerEntry>,
    /// By CPU.
    counters: Vec<(u32, Counters)>,
}

pub fn run() -> Result<()> {
    let mut mhs = Mhs::connect()?;
    let mut ipvs = Ipvs::connect()?;
    let counters = mhs.counters()?;
    let mut samples = Vec::new();
    for service in mhs.services()? {
        let name = service.service;
        // A service that is deleted meanwhile is left out.
        let servers = match mhs.servers(&name) {
            Err(error) if error.status() == 6 => continue,
            servers => servers?,
        };
        let own = counters.iter().filter(|(of, ..)| *of == name);
        samples.push(Sample {
            servers: by_labels(servers),
            entries: ipvs.servers(&name)?,
            counters: own.map(|&(_, cpu, counters)| (cpu, counters)).collect(),
            service,
        });
    }
    output::text(&render(&samples))
}

/// The labels of a service.
fn labels(service: &service::Service) -> Vec<(&'static str, String)> {
    service.fields()
}

fn server_labels(service: &service::Service, server: &Server) -> Vec<(&'static str, String)> {
    let mut all = labels(service);
    all.push(("server", server.server.address.to_string()));
    all.push(("server_port", server.server.port.to_string()));
    // The same server may be there in another way, in its grace.
    all.push(("forward", server.method.to_lowercase()));
    all
}

/// Servers that differ by their labels. Masquerading and back makes two of one, one of them in its
/// grace, and the same labels twice are none for Prometheus.
fn by_labels(servers: Vec<Server>) -> Vec<Server> {
    let mut all: Vec<Server> = Vec::new();
    for server in servers {
        let is_same = |s: &&mut Server| (s.server, s.method) == (server.server, server.method);
        match all.iter_mut().find(is_same) {
            Some(same) => *same = merged(same, &server),
            None => all.push(server),
        }
    }
    all
}

/// Two members as one server: what can be counted is added up, the rest is that of the one which is
/// configured.
fn merged(one: &Server, other: &Server) -> Server {
    let main = match one.state {
        State::Live | State::Draining => one,
        State::Grace | State::Gone => other,
    };
    Server {
        time_left_ms: one.time_left_ms.max(other.time_left_ms),
        slots_old: one.slots_old.saturating_add(other.slots_old),
        slots_new: one.slots_new.saturating_add(other.slots_new),
        packets: one.packets.saturating_add(other.packets),
        bytes: one.bytes.saturating_add(other.bytes),
        ..main.clone()
    }
}

/// The text of all families, to be.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, unit: &str, help: &str) {
        let _ = writeln!(self.0, "# TYPE {name} {kind}");
        if !unit.is_empty() {
            let _ = writeln!(self.0, "# UNIT {name} {unit}");
        }
        let _ = writeln!(self.0, "# HELP {name} {help}.");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, String)], value: impl std::fmt::Display) {
        let label = |(name, value): &(&str, String)| {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"");
            format!("{name}=\"{}\"", value.replace('\n', "\\n"))
        };
        let labels: Vec<String> = labels.iter().map(label).collect();
        let _ = writeln!(self.0, "{name}{{{}}} {value}", labels.join(","));
    }
}

fn render(samples: &[Sample]) -> String {
    let mut page = Page(String::new());

    page.family(
        "ipvs_mhs_service",
        "info",
        "",
        "How the tables of a service are made",
    );
    for Sample { service, .. } in samples {
        let mut labels = labels(&service.service);
        labels.push(("scheduler", service.scheduler.clone()));
        labels.push(("stateless", service.stateless.to_string()));
        labels.push(("balance", service.options.balance.to_string()));
        page.sample("ipvs_mhs_service_info", &labels, 1);
    }

    page.family(
        "ipvs_mhs_slots",
        "gauge",
        "",
        "Slots of a service, by state",
    );
    for Sample { service, .. } in samples {
        for (state, count) in [("stable", service.stable), ("unstable", service.unstable)] {
            let mut labels = labels(&service.service);
            labels.push(("state", state.to_owned()));
            page.sample("ipvs_mhs_slots", &labels, count);
        }
    }

    type Gauge = (
        &'static str,
        &'static str,
        &'static str,
        fn(&Service) -> Option<f64>,
    );
    let seconds = |ms: u64| ms as f64 / 1000.0;
    let gauges: [Gauge; 4] = [
        (
            "ipvs_mhs_servers",
            "",
            "Servers that are live or draining",
            |s| Some(s.servers.into()),
        ),
        (
            "ipvs_mhs_generation",
            "",
            "Differs whenever the servers or the tables do",
            |s| Some(s.generation.into()),
        ),
        (
            "ipvs_mhs_next_merge_seconds",
            "seconds",
            "Time until slots are merged; absent if none is unstable",
            |s| s.next_merge_ms.map(|ms| ms as f64 / 1000.0),
        ),
        (
            "ipvs_mhs_session_timeout_seconds",
            "seconds",
            "How long a slot that becomes unstable now stays so at most",
            |s| Some(s.session_timeout_ms as f64 / 1000.0),
        ),
    ];
    for (name, unit, help, get) in gauges {
        page.family(name, "gauge", unit, help);
        for Sample { service, .. } in samples {
            if let Some(value) = get(service) {
                page.sample(name, &labels(&service.service), value);
            }
        }
    }

    for counter in &COUNTERS {
        let name = format!("ipvs_mhs_{}", counter.metric);
        let unit = match name.ends_with("_bytes") {
            true => "bytes",
            false => "",
        };
        page.family(&name, "counter", unit, counter.help);
        for Sample {
            service, counters, ..
        } in samples
        {
            for (cpu, counters) in counters {
                let mut labels = labels(&service.service);
                labels.push(("cpu", cpu.to_string()));
                page.sample(&format!("{name}_total"), &labels, (counter.get)(counters));
            }
        }
    }

    page.family(
        "ipvs_mhs_server_slots",
        "gauge",
        "",
        "Slots of a server, by table",
    );
    for Sample {
        service, servers, ..
    } in samples
    {
        for server in servers {
            for (table, count) in [("old", server.slots_old), ("new", server.slots_new)] {
                let mut labels = server_labels(&service.service, server);
                labels.push(("table", table.to_owned()));
                page.sample("ipvs_mhs_server_slots", &labels, count);
            }
        }
    }

    page.family("ipvs_mhs_server_weight", "gauge", "", "Weight of a server");
    for Sample {
        service, servers, ..
    } in samples
    {
        for server in servers {
            let labels = server_labels(&service.service, server);
            page.sample("ipvs_mhs_server_weight", &labels, server.weight);
        }
    }

    page.family(
        "ipvs_mhs_server_state",
        "stateset",
        "",
        "What becomes of a server",
    );
    for Sample {
        service, servers, ..
    } in samples
    {
        for server in servers {
            for state in [State::Live, State::Draining, State::Grace] {
                let mut labels = server_labels(&service.service, server);
                labels.push(("ipvs_mhs_server_state", state.word().to_owned()));
                let is = u8::from(server.state == state);
                page.sample("ipvs_mhs_server_state", &labels, is);
            }
        }
    }

    page.family(
        "ipvs_mhs_server_left_seconds",
        "gauge",
        "seconds",
        "Until a server in grace gets no packet any more, or another has no unstable slot any more \
         whose flows live there; absent if there is nothing to wait for",
    );
    for Sample {
        service, servers, ..
    } in samples
    {
        for server in servers {
            if let Some(ms) = server.time_left_ms {
                let labels = server_labels(&service.service, server);
                page.sample("ipvs_mhs_server_left_seconds", &labels, seconds(ms));
            }
        }
    }

    page.family(
        "ipvs_mhs_server_entries",
        "gauge",
        "",
        "Connection entries of a server",
    );
    for Sample {
        service,
        servers,
        entries,
        ..
    } in samples
    {
        for server in servers.iter().filter(|server| server.state != State::Grace) {
            let entry = entries.iter().find(|entry| entry.server == server.server);
            if let Some(entry) = entry {
                for (kind, count) in [("active", entry.active), ("inactive", entry.inactive)] {
                    let mut labels = server_labels(&service.service, server);
                    labels.push(("kind", kind.to_owned()));
                    page.sample("ipvs_mhs_server_entries", &labels, count);
                }
            }
        }
    }

    type Count = (&'static str, &'static str, &'static str, fn(&Server) -> u64);
    let counts: [Count; 2] = [
        (
            "ipvs_mhs_server_packets",
            "",
            "Packets forwarded to a server without an entry",
            |s| s.packets,
        ),
        (
            "ipvs_mhs_server_bytes",
            "bytes",
            "Bytes of packets forwarded to a server without an entry",
            |s| s.bytes,
        ),
    ];
    for (name, unit, help, get) in counts {
        page.family(name, "counter", unit, help);
        for Sample {
            service, servers, ..
        } in samples
        {
            for server in servers {
                let labels = server_labels(&service.service, server);
                page.sample(&format!("{name}_total"), &labels, get(server));
            }
        }
    }

    page.0 + "# EOF\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{command::list::tests::example, ipvs, server};
    use expect_test::expect;

    #[test]
    fn the_same_labels_only_once() {
        let server = |index, method, state, weight| Server {
            server: server::Server {
                address: [192, 0, 2, 11].into(),
                port: 80,
            },
            index,
            weight,
            method,
            state,
            time_left_ms: (state == State::Grace).then_some(1000 * u64::from(index)),
            slots_old: 100,
            slots_new: 10,
            packets: 1000,
            bytes: 64_000,
        };
        // Routed, masqueraded, routed, masqueraded, routed again.
        let servers = by_labels(vec![
            server(1, "Route", State::Grace, 1),
            server(2, "Masq", State::Grace, 2),
            server(3, "Route", State::Grace, 3),
            server(4, "Masq", State::Grace, 4),
            server(5, "Route", State::Live, 5),
        ]);
        let told = |s: &Server| (s.method, s.state, s.weight, s.time_left_ms);
        assert_eq!(
            servers.iter().map(told).collect::<Vec<_>>(),
            [
                ("Route", State::Live, 5, Some(3000)),
                ("Masq", State::Grace, 4, Some(4000))
            ]
        );
        let count = |s: &Server| (s.slots_old, s.slots_new, s.packets, s.bytes);
        assert_eq!(
            servers.iter().map(count).collect::<Vec<_>>(),
            [(300, 30, 3000, 192_000), (200, 20, 2000, 128_000)]
        );
    }

    /// The text that the selftest `tool-read` has a parser of Prometheus read, too.
    #[test]
    fn text() {
        let server = Server {
            server: server::Server {
                address: "2001:db8::11".parse().unwrap(),
                port: 80,
            },
            index: 0,
            weight: 0,
            method: "Route",
            state: State::Draining,
            time_left_ms: Some(59_900),
            slots_old: 16381,
            slots_new: 13104,
            packets: 1_234_567,
            bytes: u64::MAX,
        };
        let service = example("192.0.2.1:80", 3277);
        let sample = Sample {
            entries: vec![ServerEntry {
                server: server.server,
                options: ipvs::ServerOptions::default(),
                active: 3,
                inactive: 1,
            }],
            servers: vec![server],
            counters: vec![(0, service.counters), (1, Counters::default())],
            service,
        };
        expect![[r##"
            # TYPE ipvs_mhs_service info
            # HELP ipvs_mhs_service How the tables of a service are made.
            ipvs_mhs_service_info{protocol="tcp",address="192.0.2.1",port="80",scheduler="mhs",stateless="true",balance="5"} 1
            # TYPE ipvs_mhs_slots gauge
            # HELP ipvs_mhs_slots Slots of a service, by state.
            ipvs_mhs_slots{protocol="tcp",address="192.0.2.1",port="80",state="stable"} 13104
            ipvs_mhs_slots{protocol="tcp",address="192.0.2.1",port="80",state="unstable"} 3277
            # TYPE ipvs_mhs_servers gauge
            # HELP ipvs_mhs_servers Servers that are live or draining.
            ipvs_mhs_servers{protocol="tcp",address="192.0.2.1",port="80"} 4
            # TYPE ipvs_mhs_generation gauge
            # HELP ipvs_mhs_generation Differs whenever the servers or the tables do.
            ipvs_mhs_generation{protocol="tcp",address="192.0.2.1",port="80"} 17
            # TYPE ipvs_mhs_next_merge_seconds gauge
            # UNIT ipvs_mhs_next_merge_seconds seconds
            # HELP ipvs_mhs_next_merge_seconds Time until slots are merged; absent if none is unstable.
            ipvs_mhs_next_merge_seconds{protocol="tcp",address="192.0.2.1",port="80"} 899
            # TYPE ipvs_mhs_session_timeout_seconds gauge
            # UNIT ipvs_mhs_session_timeout_seconds seconds
            # HELP ipvs_mhs_session_timeout_seconds How long a slot that becomes unstable now stays so at most.
            ipvs_mhs_session_timeout_seconds{protocol="tcp",address="192.0.2.1",port="80"} 900
            # TYPE ipvs_mhs_stateless_packets counter
            # HELP ipvs_mhs_stateless_packets Packets forwarded without an entry.
            ipvs_mhs_stateless_packets_total{protocol="tcp",address="192.0.2.1",port="80",cpu="0"} 1234567
            ipvs_mhs_stateless_packets_total{protocol="tcp",address="192.0.2.1",port="80",cpu="1"} 0
            # TYPE ipvs_mhs_stateless_bytes counter
            # UNIT ipvs_mhs_stateless_bytes bytes
            # HELP ipvs_mhs_stateless_bytes Bytes of packets forwarded without an entry, from the IP header on.
            ipvs_mhs_stateless_bytes_total{protocol="tcp",address="192.0.2.1",port="80",cpu="0"} 98765432
            ipvs_mhs_stateless_bytes_total{protocol="tcp",address="192.0.2.1",port="80",cpu="1"} 0
            # TYPE ipvs_mhs_connections counter
            # HELP ipvs_mhs_connections New flows, forwarded in any way.
            ipvs_mhs_connections_total{protocol="tcp",address="192.0.2.1",port="80",cpu="0"} 34567
            ipvs_mhs_connections_total{protocol="tcp",address="192.0.2.1",port="80",cpu="1"} 0
            # TYPE ipvs_mhs_pins_new counter
            # HELP ipvs_mhs_pins_new Entries asked for by new flows, for the server of the new table.
            ipvs_mhs_pins_new_total{protocol="tcp",address="192.0.2.1",port="80",cpu="0"} 120
            ipvs_mhs_pins_new_total{protocol="tcp",address="192.0.2.1",port="80",cpu="1"} 0
            # TYPE ipvs_mhs_pins_old counter
            # HELP ipvs_mhs_pins_old Entries for flows that lived in a slot before it became unstable.
            ipvs_mhs_pins_old_total{protocol="tcp",address="192.0.2.1",port="80",cpu="0"} 345
            ipvs_mhs_pins_old_total{protocol="tcp",address="192.0.2.1",port="80",cpu="1"} 0
            # TYPE ipvs_mhs_icmp_errors counter
            # HELP ipvs_mhs_icmp_errors ICMP errors forwarded by the flow that they quote.
            ipvs_mhs_icmp_errors_total{protocol="tcp",address="192.0.2.1",port="80",cpu="0"} 0
            ipvs_mhs_icmp_errors_total{protocol="tcp",address="192.0.2.1",port="80",cpu="1"} 0
            # TYPE ipvs_mhs_table_full_packets counter
            # HELP ipvs_mhs_table_full_packets Packets forwarded without an entry because there was no room for one.
            ipvs_mhs_table_full_packets_total{protocol="tcp",address="192.0.2.1",port="80",cpu="0"} 0
            ipvs_mhs_table_full_packets_total{protocol="tcp",address="192.0.2.1",port="80",cpu="1"} 0
            # TYPE ipvs_mhs_no_server_packets counter
            # HELP ipvs_mhs_no_server_packets Packets that no server could be found for.
            ipvs_mhs_no_server_packets_total{protocol="tcp",address="192.0.2.1",port="80",cpu="0"} 0
            ipvs_mhs_no_server_packets_total{protocol="tcp",address="192.0.2.1",port="80",cpu="1"} 0
            # TYPE ipvs_mhs_udp_moved_packets counter
            # HELP ipvs_mhs_udp_moved_packets UDP packets that went to the new server because the old one is not live.
            ipvs_mhs_udp_moved_packets_total{protocol="tcp",address="192.0.2.1",port="80",cpu="0"} 0
            ipvs_mhs_udp_moved_packets_total{protocol="tcp",address="192.0.2.1",port="80",cpu="1"} 0
            # TYPE ipvs_mhs_remaps counter
            # HELP ipvs_mhs_remaps New tables made.
            ipvs_mhs_remaps_total{protocol="tcp",address="192.0.2.1",port="80",cpu="0"} 9
            ipvs_mhs_remaps_total{protocol="tcp",address="192.0.2.1",port="80",cpu="1"} 0
            # TYPE ipvs_mhs_merges counter
            # HELP ipvs_mhs_merges Times that slots were merged.
            ipvs_mhs_merges_total{protocol="tcp",address="192.0.2.1",port="80",cpu="0"} 0
            ipvs_mhs_merges_total{protocol="tcp",address="192.0.2.1",port="80",cpu="1"} 0
            # TYPE ipvs_mhs_slots_merged counter
            # HELP ipvs_mhs_slots_merged Slots that were merged.
            ipvs_mhs_slots_merged_total{protocol="tcp",address="192.0.2.1",port="80",cpu="0"} 0
            ipvs_mhs_slots_merged_total{protocol="tcp",address="192.0.2.1",port="80",cpu="1"} 0
            # TYPE ipvs_mhs_rebuild_failures counter
            # HELP ipvs_mhs_rebuild_failures Changes that failed for want of memory or of room for a server.
            ipvs_mhs_rebuild_failures_total{protocol="tcp",address="192.0.2.1",port="80",cpu="0"} 0
            ipvs_mhs_rebuild_failures_total{protocol="tcp",address="192.0.2.1",port="80",cpu="1"} 0
            # TYPE ipvs_mhs_server_slots gauge
            # HELP ipvs_mhs_server_slots Slots of a server, by table.
            ipvs_mhs_server_slots{protocol="tcp",address="192.0.2.1",port="80",server="2001:db8::11",server_port="80",forward="route",table="old"} 16381
            ipvs_mhs_server_slots{protocol="tcp",address="192.0.2.1",port="80",server="2001:db8::11",server_port="80",forward="route",table="new"} 13104
            # TYPE ipvs_mhs_server_weight gauge
            # HELP ipvs_mhs_server_weight Weight of a server.
            ipvs_mhs_server_weight{protocol="tcp",address="192.0.2.1",port="80",server="2001:db8::11",server_port="80",forward="route"} 0
            # TYPE ipvs_mhs_server_state stateset
            # HELP ipvs_mhs_server_state What becomes of a server.
            ipvs_mhs_server_state{protocol="tcp",address="192.0.2.1",port="80",server="2001:db8::11",server_port="80",forward="route",ipvs_mhs_server_state="live"} 0
            ipvs_mhs_server_state{protocol="tcp",address="192.0.2.1",port="80",server="2001:db8::11",server_port="80",forward="route",ipvs_mhs_server_state="draining"} 1
            ipvs_mhs_server_state{protocol="tcp",address="192.0.2.1",port="80",server="2001:db8::11",server_port="80",forward="route",ipvs_mhs_server_state="grace"} 0
            # TYPE ipvs_mhs_server_left_seconds gauge
            # UNIT ipvs_mhs_server_left_seconds seconds
            # HELP ipvs_mhs_server_left_seconds Until a server in grace gets no packet any more, or another has no unstable slot any more whose flows live there; absent if there is nothing to wait for.
            ipvs_mhs_server_left_seconds{protocol="tcp",address="192.0.2.1",port="80",server="2001:db8::11",server_port="80",forward="route"} 59.9
            # TYPE ipvs_mhs_server_entries gauge
            # HELP ipvs_mhs_server_entries Connection entries of a server.
            ipvs_mhs_server_entries{protocol="tcp",address="192.0.2.1",port="80",server="2001:db8::11",server_port="80",forward="route",kind="active"} 3
            ipvs_mhs_server_entries{protocol="tcp",address="192.0.2.1",port="80",server="2001:db8::11",server_port="80",forward="route",kind="inactive"} 1
            # TYPE ipvs_mhs_server_packets counter
            # HELP ipvs_mhs_server_packets Packets forwarded to a server without an entry.
            ipvs_mhs_server_packets_total{protocol="tcp",address="192.0.2.1",port="80",server="2001:db8::11",server_port="80",forward="route"} 1234567
            # TYPE ipvs_mhs_server_bytes counter
            # UNIT ipvs_mhs_server_bytes bytes
            # HELP ipvs_mhs_server_bytes Bytes of packets forwarded to a server without an entry.
            ipvs_mhs_server_bytes_total{protocol="tcp",address="192.0.2.1",port="80",server="2001:db8::11",server_port="80",forward="route"} 18446744073709551615
            # EOF
        "##]].assert_eq(&render(&[sample]));
        assert!(render(&[]).ends_with("# EOF\n"));
    }
}
