// SPDX-License-Identifier: GPL-2.0

//! `plan`: what a change would do.

use crate::{
    cli::{Change, Plan, Set},
    command::{drain, replace::no_twins, set::apply_server},
    error::{Error, Result},
    forecast::{self, Fleet, Forecast, Old, Unstable},
    ipvs::{Ipvs, ServerOptions},
    mhs::{Member, Mhs},
    module::{self, Options},
    output::{self, percent, ratio, Table},
    server::{self, Server},
    service::Service,
};
use serde::Serialize;
use std::collections::BTreeMap;

/// A service, its servers as they are, and as they would be.
struct Planned {
    service: Service,
    before: Fleet,
    after: Fleet,
}

#[derive(Serialize)]
struct PlanJson {
    service: Service,
    #[serde(flatten)]
    forecast: Forecast,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<Vec<Option<String>>>,
}

pub fn run(plan: &Plan, json: bool) -> Result<()> {
    let mut ipvs = Ipvs::connect()?;
    let mut mhs = match Mhs::connect() {
        Ok(mhs) => Some(mhs),
        // What the options of the module would do can be said without it.
        Err(Error::NoModule | Error::OldModule(_)) => None,
        Err(error) => return Err(error),
    };
    let mut plans = Vec::new();
    let mut text = String::new();
    for planned in planned(&mut ipvs, &plan.change)? {
        let service = planned.service;
        let told = match &mut mhs {
            Some(mhs) => if_scheduled(look(mhs, &service))?,
            None => None,
        };
        // Scheduled by another one: as if it were by mhs.
        let (options, unstable) = told.unwrap_or_else(|| (module::options(), BTreeMap::new()));
        let config = options.config()?;
        let forecast = forecast::forecast(&config, &planned.before, &planned.after, &unstable);
        let forecast = forecast.map_err(Error::Usage)?;
        text += &render(&service, &forecast);
        let table = match plan.table {
            true => Some(forecast::table(&config, &planned.after).map_err(Error::Usage)?),
            false => None,
        };
        let name = |server: Option<Server>| server.map(|server| server.to_string());
        plans.push(PlanJson {
            service,
            forecast,
            table: table.map(|table| table.into_iter().map(name).collect()),
        });
    }
    if json {
        #[derive(Serialize)]
        struct All {
            plans: Vec<PlanJson>,
        }
        return output::json(&All { plans });
    }
    for (slot, server) in plans
        .iter()
        .filter_map(|plan| plan.table.as_ref())
        .flat_map(|t| t.iter().enumerate())
    {
        text += &format!("{slot} {}\n", server.as_deref().unwrap_or("-"));
    }
    output::text(&text)
}

/// How the tables of a service are made, and the old server of its unstable slots.
fn look(mhs: &mut Mhs, service: &Service) -> Result<(Options, Unstable)> {
    let options = mhs.service(service)?.options;
    let slots = mhs.slots(service, true)?.into_iter();
    let old = |member: Member| Old {
        server: member.server,
        is_superseded: member.is_superseded,
    };
    let unstable = slots.map(|slot| (slot.slot, slot.old.map(old))).collect();
    Ok((options, unstable))
}

/// `None` if mhs does not schedule what was looked at. Any other error is one: a plan that does not
/// know what is unstable would be wrong.
fn if_scheduled<T>(told: Result<T>) -> Result<Option<T>> {
    match told {
        Err(Error::NotMhs(..) | Error::NoService(_)) => Ok(None),
        told => told.map(Some),
    }
}

/// The servers of a service, with their weights.
fn fleet(ipvs: &mut Ipvs, service: &Service) -> Result<Fleet> {
    ipvs.service(service)?;
    let servers = ipvs.servers(service)?.into_iter();
    Ok(servers
        .map(|entry| (entry.server, entry.options.weight))
        .collect())
}

fn planned(ipvs: &mut Ipvs, change: &Change) -> Result<Vec<Planned>> {
    match change {
        Change::Add(set) => one(ipvs, set, |service, server, fleet, _| {
            let mut options = ServerOptions::default();
            apply_server(&mut options, &set.of_server)?;
            match fleet.insert(server, options.weight) {
                None => Ok(()),
                Some(_) => Err(Error::Exists(format!("server {server} of {service}"))),
            }
        }),
        Change::Edit(set) => one(ipvs, set, |service, server, fleet, ipvs| {
            let mut options = ipvs.server(&service, &server)?.options;
            apply_server(&mut options, &set.of_server)?;
            fleet.insert(server, options.weight);
            Ok(())
        }),
        Change::Delete(delete) => {
            let service = delete.service.required()?;
            let text = delete.real_server.as_ref().ok_or_else(no_server)?;
            let server = Server::parse(text, &service).map_err(Error::Usage)?;
            let before = fleet(ipvs, &service)?;
            let mut after = before.clone();
            match after.remove(&server) {
                None => Err(Error::NoServer(service, server)),
                Some(_) => Ok(vec![Planned {
                    service,
                    before,
                    after,
                }]),
            }
        }
        Change::Drain(drain) => {
            let name = server::Name::parse(&drain.server).map_err(Error::Usage)?;
            all(ipvs, &name, drain.service.get()?, |_, server, fleet| {
                fleet.insert(server, 0);
                Ok(())
            })
        }
        Change::Replace(replace) => {
            let old = server::Name::parse(&replace.old).map_err(Error::Usage)?;
            let new = server::Name::parse(&replace.new).map_err(Error::Usage)?;
            let service = replace.service.get()?;
            no_twins(&drain::find(ipvs, &old, service)?, &new)?;
            all(ipvs, &old, service, |service, server, fleet| {
                let weight = fleet.insert(server, 0).unwrap_or(0);
                let new = new.like(&server);
                match fleet.insert(new, weight) {
                    None => Ok(()),
                    Some(_) => Err(Error::Exists(format!("server {new} of {service}"))),
                }
            })
        }
    }
}

fn no_server() -> Error {
    Error::Usage("only a change of a server (-r) moves slots".into())
}

/// A change of one server of one service.
fn one(
    ipvs: &mut Ipvs,
    set: &Set,
    change: impl FnOnce(Service, Server, &mut Fleet, &mut Ipvs) -> Result<()>,
) -> Result<Vec<Planned>> {
    let service = set.service.required()?;
    let text = set.real_server.as_ref().ok_or_else(no_server)?;
    let server = Server::parse(text, &service).map_err(Error::Usage)?;
    let before = fleet(ipvs, &service)?;
    let mut after = before.clone();
    change(service, server, &mut after, ipvs)?;
    Ok(vec![Planned {
        service,
        before,
        after,
    }])
}

/// A change of the servers of a name, in one service or in all.
fn all(
    ipvs: &mut Ipvs,
    name: &server::Name,
    service: Option<Service>,
    change: impl Fn(Service, Server, &mut Fleet) -> Result<()>,
) -> Result<Vec<Planned>> {
    let mut plans: BTreeMap<Service, Planned> = BTreeMap::new();
    for (service, entry) in drain::find(ipvs, name, service)? {
        if let std::collections::btree_map::Entry::Vacant(vacant) = plans.entry(service) {
            let before = fleet(ipvs, &service)?;
            vacant.insert(Planned {
                service,
                after: before.clone(),
                before,
            });
        }
        if let Some(planned) = plans.get_mut(&service) {
            change(service, entry.server, &mut planned.after)?;
        }
    }
    Ok(plans.into_values().collect())
}

fn render(service: &Service, forecast: &Forecast) -> String {
    let Forecast { slots, moved, .. } = *forecast;
    let mut text = format!("{service}  {slots} slots\n\n");
    let mut table = Table::new(&[
        "Server",
        ">Weight",
        ">Slots",
        ">Share",
        "",
        ">Weight then",
        ">Slots then",
        ">Share then",
    ]);
    for share in &forecast.servers {
        let weight = |weight: Option<u32>| weight.map_or("-".into(), |weight| weight.to_string());
        let is_changed = share.weight_before != share.weight_after;
        table.row([
            share.server.to_string(),
            weight(share.weight_before),
            share.slots_before.to_string(),
            percent(ratio(share.slots_before, slots)),
            if is_changed { "->" } else { "" }.into(),
            weight(share.weight_after),
            share.slots_after.to_string(),
            percent(ratio(share.slots_after, slots)),
        ]);
    }
    text += &table.render("  ");
    text += &format!(
        "\n{moved} slots move ({}; ideal {:.0}), at most {} are unstable then ({} now)\n",
        percent(ratio(moved, slots)),
        forecast.moved_ideal,
        forecast.unstable_after,
        forecast.unstable_before,
    );
    text += &format!(
        "{} of the live flows get an entry; slots that nobody uses are merged at once\n",
        percent(forecast.pinned_share)
    );
    if forecast.ending_share > 0.0 {
        text += &format!(
            "{} of the live flows are on a deleted server: what is left of them after a session \
             timeout ends\n",
            percent(forecast.ending_share)
        );
    }
    text += &format!(
        "largest share over its weight: {:.3} now, {:.3} then\n",
        forecast.largest_before, forecast.largest_after
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{module::Config, service::Protocol};
    use expect_test::expect;

    #[test]
    fn only_another_scheduler_is_no_error() {
        let service = Service::with_protocol(Protocol::Tcp, "192.0.2.1:80").unwrap();
        let other = || Err::<(), _>(Error::NotMhs(service, "rr".into()));
        assert!(matches!(if_scheduled(other()), Ok(None)));
        assert!(matches!(if_scheduled(Ok(7)), Ok(Some(7))));
        for error in [
            Error::NotPermitted,
            Error::Unsteady(20),
            Error::Answer(String::new()),
        ] {
            assert!(if_scheduled(Err::<(), _>(error)).is_err());
        }
    }

    #[test]
    fn text() {
        let server = |n: u8| Server {
            address: [192, 0, 2, n].into(),
            port: 80,
        };
        let before: Fleet = [(server(11), 1), (server(12), 1), (server(13), 2)].into();
        let mut after = before.clone();
        after.remove(&server(13));
        after.insert(server(14), 2);
        let config = Config::default();
        let forecast = forecast::forecast(&config, &before, &after, &BTreeMap::new()).unwrap();
        let service = Service::with_protocol(Protocol::Tcp, "192.0.2.1:80").unwrap();
        expect![[r#"
            TCP 192.0.2.1:80  16381 slots

              Server         Weight  Slots   Share      Weight then  Slots then  Share then
              192.0.2.11:80       1   3882  23.7 %                1        3820      23.3 %
              192.0.2.12:80       1   3898  23.8 %                1        3960      24.2 %
              192.0.2.13:80       2   8601  52.5 %  ->            -           0         0 %
              192.0.2.14:80       -      0     0 %  ->            2        8601      52.5 %

            11410 slots move (69.7 %; ideal 8190), at most 11410 are unstable then (0 now)
            69.7 % of the live flows get an entry; slots that nobody uses are merged at once
            52.5 % of the live flows are on a deleted server: what is left of them after a session timeout ends
            largest share over its weight: 1.050 now, 1.050 then
        "#]].assert_eq(&render(&service, &forecast));
    }
}
