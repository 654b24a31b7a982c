// SPDX-License-Identifier: GPL-2.0

//! `drain`: weight 0, and then wait for the last flow.

use crate::{
    cli::{Drain, Wait},
    error::{Error, Result},
    ipvs::{Ipvs, ServerEntry, ServiceEntry},
    mhs::{self, Mhs},
    module,
    output::{self, Progress},
    server::{self, Server},
    service::Service,
};
use serde::Serialize;
use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// The servers of that name, of one service or of all.
pub fn find(
    ipvs: &mut Ipvs,
    name: &server::Name,
    service: Option<Service>,
) -> Result<Vec<(Service, ServerEntry)>> {
    let services = match service {
        Some(service) => vec![ipvs.service(&service)?.service],
        None => ipvs
            .services()?
            .into_iter()
            .map(|entry| entry.service)
            .collect(),
    };
    let mut found = Vec::new();
    for service in services {
        let servers = ipvs.servers(&service)?.into_iter();
        let ours = servers.filter(|entry| name.matches(&entry.server));
        found.extend(ours.map(|entry| (service, entry)));
    }
    match found.is_empty() {
        true => Err(Error::NoServerNamed(name.to_string())),
        false => Ok(found),
    }
}

/// What is left of a server.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Left {
    pub service: Service,
    pub server: Server,
    /// Slots where flows may live that were not seen since it was drained. They have no entry yet,
    /// and get one with their next packet.
    pub slots: u32,
    /// Time until these slots are merged.
    pub merge_ms: Option<u64>,
    /// Entries.
    pub entries: u32,
}

impl Left {
    pub fn is_nothing(&self) -> bool {
        self.slots == 0 && self.entries == 0
    }
}

/// Looks what is left of the servers. Where mhs does not tell of slots, a session timeout since
/// `since` stands for them.
pub fn look(
    ipvs: &mut Ipvs,
    mhs: &mut Option<Mhs>,
    drained: &[(Service, ServerEntry)],
    since: Instant,
) -> Result<Vec<Left>> {
    let timeouts = ipvs.timeouts()?;
    let mut known: HashMap<Service, Option<Vec<mhs::Server>>> = HashMap::new();
    let mut all = Vec::new();
    for (service, entry) in drained {
        if let (Some(mhs), false) = (mhs.as_mut(), known.contains_key(service)) {
            let told = match mhs.servers(service) {
                Ok(told) => Some(told),
                // Another scheduler has it.
                Err(error) if error.status() == 6 => None,
                Err(error) => return Err(error),
            };
            known.insert(*service, told);
        }
        let (slots, merge_ms) = match known.get(service).and_then(Option::as_ref) {
            Some(servers) => {
                let own = || {
                    servers
                        .iter()
                        .filter(|server| server.server == entry.server)
                };
                let slots = own().map(|server| server.slots_old).sum();
                (slots, own().filter_map(|server| server.time_left_ms).max())
            }
            None if is_stateless(ipvs.service(service))? => {
                let session = Duration::from_secs(timeouts.session(service).into());
                let left = session.saturating_sub(since.elapsed());
                let slots = u32::from(!left.is_zero());
                (slots, (slots > 0).then_some(left.as_millis() as u64))
            }
            // Another scheduler makes an entry of each flow at once, and there is none of a service
            // that was deleted meanwhile.
            None => (0, None),
        };
        // Deleted meanwhile: nothing is left.
        let servers = ipvs.servers(service)?;
        let now = servers.iter().find(|server| server.server == entry.server);
        all.push(Left {
            service: *service,
            server: entry.server,
            slots,
            merge_ms,
            entries: now.map_or(0, |now| now.active + now.inactive),
        });
    }
    Ok(all)
}

/// Whether flows of a service may have no entry; it may have been deleted.
fn is_stateless(found: Result<ServiceEntry>) -> Result<bool> {
    match found {
        Ok(entry) => Ok(entry.options.scheduler == module::scheduler()),
        Err(Error::NoService(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits until nothing is left of the servers, telling about it.
pub fn wait(
    ipvs: &mut Ipvs,
    drained: &[(Service, ServerEntry)],
    wait: &Wait,
    json: bool,
) -> Result<()> {
    let mut mhs = match Mhs::connect() {
        Ok(mhs) => Some(mhs),
        Err(Error::NoModule | Error::OldModule(_)) => None,
        Err(error) => return Err(error),
    };
    let start = Instant::now();
    let end = wait
        .timeout
        .map(|seconds| start + Duration::from_secs(seconds.into()));
    let mut told: Vec<Left> = Vec::new();
    let mut progress = Progress::new(json);
    loop {
        let left = look(ipvs, &mut mhs, drained, start)?;
        for now in &left {
            let before = told
                .iter()
                .find(|l| (l.service, l.server) == (now.service, now.server));
            if before.is_none_or(|b| (b.slots, b.entries) != (now.slots, now.entries)) {
                progress.tell(now, || sentence(now));
            }
        }
        if left.iter().all(Left::is_nothing) {
            return Ok(());
        }
        if end.is_some_and(|end| Instant::now() >= end) {
            let open = left.iter().filter(|left| !left.is_nothing());
            let open: Vec<String> = open.map(sentence).collect();
            return Err(Error::TimedOut(open.join("; ")));
        }
        told = left;
        thread::sleep(LOOK);
    }
}

fn sentence(left: &Left) -> String {
    let Left {
        service,
        server,
        slots,
        merge_ms,
        entries,
    } = left;
    let name = format!("{server} of {service}");
    match (slots, merge_ms) {
        (0, _) if *entries == 0 => format!("{name}: no flow left"),
        (0, _) => format!("{name}: {entries} entries left"),
        (_, Some(ms)) => {
            let time = output::time(*ms);
            format!("{name}: {entries} entries, and flows not seen yet for {time} at most")
        }
        (_, None) => format!("{name}: {entries} entries, and flows not seen yet"),
    }
}

/// A server that was deleted this moment, by itself or with its service, is out of service already.
pub fn unless_gone(changed: Result<()>) -> Result<()> {
    match changed {
        Err(Error::NoServer(..) | Error::NoService(_)) => Ok(()),
        changed => changed,
    }
}

/// Sets weight 0.
pub fn stop(ipvs: &mut Ipvs, found: &[(Service, ServerEntry)]) -> Result<()> {
    for (service, entry) in found {
        let mut options = entry.options;
        options.weight = 0;
        unless_gone(ipvs.edit_server(service, &entry.server, &options))?;
    }
    Ok(())
}

pub fn run(drain: &Drain, json: bool) -> Result<()> {
    let name = server::Name::parse(&drain.server).map_err(Error::Usage)?;
    let service = drain.service.get()?;
    let mut ipvs = Ipvs::connect()?;
    let found = find(&mut ipvs, &name, service)?;
    stop(&mut ipvs, &found)?;
    match drain.wait.wait {
        true => wait(&mut ipvs, &found, &drain.wait, json),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn what_is_gone_is_drained() {
        let service = Service::Mark {
            mark: 7,
            family: crate::service::Family::Inet,
        };
        let server = Server {
            address: [192, 0, 2, 11].into(),
            port: 80,
        };
        assert!(unless_gone(Ok(())).is_ok());
        assert!(unless_gone(Err(Error::NoServer(service, server))).is_ok());
        assert!(unless_gone(Err(Error::NoService(service))).is_ok());
        assert!(unless_gone(Err(Error::NotPermitted)).is_err());
        assert!(!is_stateless(Err(Error::NoService(service))).unwrap());
        assert!(is_stateless(Err(Error::NotPermitted)).is_err());
    }

    #[test]
    fn sentences() {
        let left = |slots, merge_ms, entries| Left {
            service: crate::service::Service::with_protocol(
                crate::service::Protocol::Tcp,
                "192.0.2.1:80",
            )
            .unwrap(),
            server: Server {
                address: "192.0.2.11".parse().unwrap(),
                port: 80,
            },
            slots,
            merge_ms,
            entries,
        };
        expect!["192.0.2.11:80 of TCP 192.0.2.1:80: 7 entries, and flows not seen yet for 14m59s at most"]
            .assert_eq(&sentence(&left(4096, Some(899_000), 7)));
        expect!["192.0.2.11:80 of TCP 192.0.2.1:80: 3 entries left"]
            .assert_eq(&sentence(&left(0, None, 3)));
        expect!["192.0.2.11:80 of TCP 192.0.2.1:80: no flow left"]
            .assert_eq(&sentence(&left(0, None, 0)));
        expect![[r#"{"service":{"protocol":"tcp","address":"192.0.2.1","port":80},"server":{"address":"192.0.2.11","port":80},"slots":0,"merge_ms":null,"entries":3}"#]]
            .assert_eq(&serde_json::to_string(&left(0, None, 3)).unwrap());
    }
}
