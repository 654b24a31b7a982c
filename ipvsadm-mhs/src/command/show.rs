// SPDX-License-Identifier: GPL-2.0

//! `show`: a service, its servers, what was counted.

use crate::{
    cli::Show,
    command::list::ServiceJson,
    error::{Error, Result},
    ipvs::{Ipvs, ServerEntry},
    mhs::{Mhs, Server, Service, State, COUNTERS},
    output::{self, percent, ratio, short, time, Table},
    server,
};
use serde::Serialize;

/// A server as JSON shows it.
#[derive(Serialize)]
struct ServerJson<'a> {
    #[serde(flatten)]
    server: &'a server::Server,
    weight: u32,
    method: &'a str,
    state: State,
    time_left_ms: Option<u64>,
    slots_old: u32,
    slots_new: u32,
    packets: u64,
    bytes: u64,
    entries_active: Option<u32>,
    entries_inactive: Option<u32>,
}

/// A server, and what IPVS says of it; nothing if it is deleted.
type Row = (Server, Option<ServerEntry>);

pub fn run(show: &Show, json: bool) -> Result<()> {
    let name = show.service.get()?;
    let mut mhs = Mhs::connect()?;
    let service = mhs.named(&name)?;
    let servers = mhs.servers(&service.service)?;
    let entries = match Ipvs::connect()?.servers(&service.service) {
        Ok(entries) => entries,
        // Deleted this moment.
        Err(Error::NoService(_)) => Vec::new(),
        Err(error) => return Err(error),
    };
    let row = |server: Server| {
        let known = server.state == State::Live || server.state == State::Draining;
        let entry = entries
            .iter()
            .find(|entry| known && entry.server == server.server);
        (server, entry.cloned())
    };
    let rows: Vec<Row> = servers.into_iter().map(row).collect();
    if json {
        #[derive(Serialize)]
        struct One<'a> {
            #[serde(flatten)]
            service: ServiceJson<'a>,
            servers: Vec<ServerJson<'a>>,
        }
        let servers = rows.iter().map(|(server, entry)| ServerJson {
            server: &server.server,
            weight: server.weight,
            method: server.method,
            state: server.state,
            time_left_ms: server.time_left_ms,
            slots_old: server.slots_old,
            slots_new: server.slots_new,
            packets: server.packets,
            bytes: server.bytes,
            entries_active: entry.as_ref().map(|entry| entry.active),
            entries_inactive: entry.as_ref().map(|entry| entry.inactive),
        });
        let servers = servers.collect();
        let service = ServiceJson::from(&service);
        return output::json(&One { service, servers });
    }
    output::text(&text(&service, &rows))
}

fn text(told: &Service, rows: &[Row]) -> String {
    let options = &told.options;
    let mut text = format!("{}  scheduler {}", told.service, told.scheduler);
    if !told.stateless {
        text += ", stateful: each flow has an entry";
    }
    text += &format!(
        "\n{} slots, {} unstable ({})",
        options.size,
        told.unstable,
        percent(ratio(told.unstable, options.size)),
    );
    if let Some(ms) = told.next_merge_ms {
        text += &format!(", next merge in {}", time(ms));
    }
    text += &format!(
        "\nsession timeout {}, balance {} %, generation {}\n\n",
        time(told.session_timeout_ms),
        options.balance,
        told.generation
    );

    let mut table = Table::new(&[
        "Server",
        "Forward",
        ">Weight",
        "State",
        ">Left",
        ">Old slots",
        ">New slots",
        ">Share",
        ">Entries",
        ">Packets",
        ">Bytes",
    ]);
    for (server, entry) in rows {
        table.row([
            server.server.to_string(),
            server.method.to_owned(),
            server.weight.to_string(),
            server.state.word().to_owned(),
            server.time_left_ms.map_or("-".into(), time),
            server.slots_old.to_string(),
            server.slots_new.to_string(),
            percent(ratio(server.slots_new, options.size)),
            match entry {
                Some(entry) => (entry.active + entry.inactive).to_string(),
                None => "-".into(),
            },
            short(server.packets as f64),
            short(server.bytes as f64),
        ]);
    }
    text += &table.render("  ");

    let mut table = Table::new(&["", ">"]);
    for counter in &COUNTERS {
        table.row([
            counter.help.to_owned(),
            (counter.get)(&told.counters).to_string(),
        ]);
    }
    text + "\n" + table.render("").trim_start_matches('\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{command::list::tests::example, ipvs};
    use expect_test::expect;

    #[test]
    fn text() {
        let server = |n: u8, weight, state, time_left_ms, slots_old, slots_new| Server {
            server: server::Server {
                address: [192, 0, 2, n].into(),
                port: 80,
            },
            index: n.into(),
            weight,
            method: "Route",
            state,
            time_left_ms,
            slots_old,
            slots_new,
            packets: 308_641,
            bytes: 24_691_358,
        };
        let entry = |server: &Server| ServerEntry {
            server: server.server,
            options: ipvs::ServerOptions::default(),
            active: 80,
            inactive: 2,
        };
        let live = server(11, 1, State::Live, None, 6554, 8191);
        let draining = server(12, 0, State::Draining, Some(899_000), 3277, 0);
        let deleted = server(13, 1, State::Grace, Some(1_500), 0, 0);
        let rows = [
            (live.clone(), Some(entry(&live))),
            (draining.clone(), Some(entry(&draining))),
            (deleted, None),
        ];
        expect![[r#"
            TCP 192.0.2.1:80  scheduler mhs
            16381 slots, 3277 unstable (20.0 %), next merge in 14m59s
            session timeout 15m00s, balance 5 %, generation 17

              Server         Forward  Weight  State       Left  Old slots  New slots   Share  Entries  Packets  Bytes
              192.0.2.11:80  Route         1  live           -       6554       8191  50.0 %       82     309k    25M
              192.0.2.12:80  Route         0  draining  14m59s       3277          0     0 %       82     309k    25M
              192.0.2.13:80  Route         1  grace       1.5s          0          0     0 %        -     309k    25M

            Packets forwarded without an entry                                        1234567
            Bytes of packets forwarded without an entry, from the IP header on       98765432
            New flows, forwarded in any way                                             34567
            Entries asked for by new flows, for the server of the new table               120
            Entries for flows that lived in a slot before it became unstable              345
            ICMP errors forwarded by the flow that they quote                               0
            Packets forwarded without an entry because there was no room for one            0
            Packets that no server could be found for                                       0
            UDP packets that went to the new server because the old one is not live         0
            New tables made                                                                 9
            Times that slots were merged                                                    0
            Slots that were merged                                                          0
            Changes that failed for want of memory or of room for a server                  0
        "#]].assert_eq(&super::text(&example("192.0.2.1:80", 3277), &rows));
    }
}
