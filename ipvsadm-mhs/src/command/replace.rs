// SPDX-License-Identifier: GPL-2.0

//! `replace`: a new server in the place of an old one.

use crate::{
    cli::Replace,
    command::drain,
    error::{Error, Result},
    ipvs::{Ipvs, ServerEntry},
    server,
    service::Service,
};

pub fn run(replace: &Replace, json: bool) -> Result<()> {
    let old = server::Name::parse(&replace.old).map_err(Error::Usage)?;
    let new = server::Name::parse(&replace.new).map_err(Error::Usage)?;
    let service = replace.service.get()?;
    let mut ipvs = Ipvs::connect()?;
    let found = drain::find(&mut ipvs, &old, service)?;
    no_twins(&found, &new)?;
    for (service, entry) in &found {
        let server = new.like(&entry.server);
        if server == entry.server {
            let text = format!("{server} cannot be put in its own place");
            return Err(Error::Usage(text));
        }
        if entry.options.weight == 0 {
            let text = format!(
                "{} of {service} has weight 0: there is nothing to replace",
                entry.server
            );
            return Err(Error::Usage(text));
        }
        // Nothing is changed anywhere if it is there already.
        let servers = ipvs.servers(service)?;
        if servers.iter().any(|other| other.server == server) {
            return Err(Error::Exists(format!("server {server} of {service}")));
        }
    }
    // The new ones first: there is never a server less.
    for (service, entry) in &found {
        ipvs.add_server(service, &new.like(&entry.server), &entry.options)?;
    }
    drain::stop(&mut ipvs, &found)?;
    if replace.wait.wait {
        drain::wait(&mut ipvs, &found, &replace.wait, json)?;
    }
    if replace.delete {
        for (service, entry) in &found {
            drain::unless_gone(ipvs.delete_server(service, &entry.server))?;
        }
    }
    Ok(())
}

/// Two servers of a service cannot be replaced by the same one: without a port, the old name may mean
/// both.
pub fn no_twins(found: &[(Service, ServerEntry)], new: &server::Name) -> Result<()> {
    for (at, (service, entry)) in found.iter().enumerate() {
        let server = new.like(&entry.server);
        let twin = found
            .iter()
            .take(at)
            .find(|(of, other)| of == service && new.like(&other.server) == server);
        if let Some((_, twin)) = twin {
            return Err(Error::Usage(format!(
                "{} and {} of {service} cannot both become {server}: name one with its port, or the \
                 new one without",
                twin.server, entry.server
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ipvs::ServerOptions, service::Family};
    use expect_test::expect;

    #[test]
    fn no_two_by_the_same_one() {
        let of = |mark, port| {
            let service = Service::Mark {
                mark,
                family: Family::Inet,
            };
            let entry = ServerEntry {
                server: server::Server {
                    address: [192, 0, 2, 11].into(),
                    port,
                },
                options: ServerOptions::default(),
                active: 0,
                inactive: 0,
            };
            (service, entry)
        };
        let name = |text| server::Name::parse(text).unwrap();
        let two = [of(7, 80), of(7, 443)];
        assert!(no_twins(&two, &name("192.0.2.12")).is_ok());
        assert!(no_twins(&two[..1], &name("192.0.2.12:80")).is_ok());
        assert!(no_twins(&[of(7, 80), of(8, 443)], &name("192.0.2.12:80")).is_ok());
        let error = no_twins(&two, &name("192.0.2.12:80")).unwrap_err();
        assert_eq!(error.status(), 2);
        expect!["192.0.2.11:80 and 192.0.2.11:443 of FWM 7 cannot both become 192.0.2.12:80: name one with its port, or the new one without"]
            .assert_eq(&error.to_string());
    }
}
