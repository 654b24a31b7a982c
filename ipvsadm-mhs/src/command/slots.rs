// SPDX-License-Identifier: GPL-2.0

//! `slots`: the double table of a service.

use crate::{
    cli::Slots,
    error::Result,
    mhs::{Member, Mhs, Slot},
    output::{self, time, Table},
    server::Server,
    service,
};
use serde::Serialize;

pub fn run(args: &Slots, json: bool) -> Result<()> {
    let name = args.service.get()?;
    let mut mhs = Mhs::connect()?;
    let service = mhs.named(&name)?.service;
    let slots = mhs.slots(&service, args.unstable)?;
    match json {
        true => output::json(&Json::new(&service, &slots)),
        false => output::text(&table(&slots)),
    }
}

/// Servers once, and of each slot the places of its two there: a large table stays small.
#[derive(Serialize)]
struct Json<'a> {
    service: &'a service::Service,
    servers: Vec<Server>,
    /// Slot, old, new, milliseconds left.
    slots: Vec<(u32, Option<usize>, Option<usize>, u32)>,
}

impl<'a> Json<'a> {
    fn new(service: &'a service::Service, slots: &[Slot]) -> Self {
        let mut members: Vec<Member> = slots
            .iter()
            .flat_map(|s| [s.old, s.new])
            .flatten()
            .collect();
        members.sort();
        members.dedup();
        let place = |member: Option<Member>| members.binary_search(&member?).ok();
        let row = |s: &Slot| (s.slot, place(s.old), place(s.new), s.time_left_ms);
        let slots = slots.iter().map(row).collect();
        let servers = members.iter().map(|member| member.server).collect();
        Self {
            service,
            servers,
            slots,
        }
    }
}

fn table(slots: &[Slot]) -> String {
    let mut table = Table::new(&[">Slot", "Old", "New", ">Left"]);
    let name = |member: Option<Member>| member.map_or("-".into(), |m| m.server.to_string());
    for slot in slots {
        table.row([
            slot.slot.to_string(),
            name(slot.old),
            match slot.old == slot.new {
                true => "same".into(),
                false => name(slot.new),
            },
            match slot.old == slot.new {
                true => "-".into(),
                false => time(slot.time_left_ms.into()),
            },
        ]);
    }
    table.render("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Protocol;
    use expect_test::expect;

    fn slots() -> [Slot; 4] {
        let member = |n: u8, index| {
            let server = Server {
                address: [192, 0, 2, n].into(),
                port: 80,
            };
            Some(Member {
                server,
                index,
                is_superseded: index == 0,
            })
        };
        // 192.0.2.12 is reached in another way now.
        let [eleven, twelve, before] = [member(11, 1), member(12, 2), member(12, 0)];
        let slot = |slot, old, new, time_left_ms| Slot {
            slot,
            old,
            new,
            time_left_ms,
        };
        [
            slot(0, twelve, twelve, 0),
            slot(1, eleven, twelve, 59_200),
            slot(2, None, None, 0),
            slot(3, before, twelve, 3_000),
        ]
    }

    #[test]
    fn text() {
        expect![[r#"
            Slot  Old            New             Left
               0  192.0.2.12:80  same               -
               1  192.0.2.11:80  192.0.2.12:80  59.2s
               2  -              same               -
               3  192.0.2.12:80  192.0.2.12:80   3.0s
        "#]]
        .assert_eq(&table(&slots()));
    }

    #[test]
    fn json() {
        let service = service::Service::with_protocol(Protocol::Tcp, "192.0.2.1:80").unwrap();
        let slots = slots();
        expect![[r#"{"service":{"protocol":"tcp","address":"192.0.2.1","port":80},"servers":[{"address":"192.0.2.11","port":80},{"address":"192.0.2.12","port":80},{"address":"192.0.2.12","port":80}],"slots":[[0,2,2,0],[1,0,2,59200],[2,null,null,0],[3,1,2,3000]]}"#]]
            .assert_eq(&serde_json::to_string(&Json::new(&service, &slots)).unwrap());
    }
}
