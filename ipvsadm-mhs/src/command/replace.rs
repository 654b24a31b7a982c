// SPDX-License-Identifier: GPL-2.0

//! `replace`: a new server in the place of an old one.

use crate::{
    cli::Replace,
    command::drain,
    error::{Error, Result},
    ipvs::Ipvs,
    server,
};

pub fn run(replace: &Replace, json: bool) -> Result<()> {
    let old = server::Name::parse(&replace.old).map_err(Error::Usage)?;
    let new = server::Name::parse(&replace.new).map_err(Error::Usage)?;
    let service = replace.service.get()?;
    let mut ipvs = Ipvs::connect()?;
    let found = drain::find(&mut ipvs, &old, service)?;
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
            ipvs.delete_server(service, &entry.server)?;
        }
    }
    Ok(())
}
