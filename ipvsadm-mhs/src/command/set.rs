// SPDX-License-Identifier: GPL-2.0

//! `add` and `edit`: services and servers.

use crate::{
    cli::{OfServer, OfService, Set},
    error::{Error, Result},
    ipvs::{self, flags, Ipvs, Method, ServerOptions, ServiceOptions},
    module,
    server::Server,
    service::Family,
};

/// The names of the flags of a scheduler. Those of `mh` are those of `mhs`.
const SCHED_FLAGS: [(&str, u32); 7] = [
    ("flag-1", flags::SCHED_1),
    ("flag-2", flags::SCHED_2),
    ("flag-3", flags::SCHED_3),
    ("mh-fallback", flags::SCHED_1),
    ("mh-port", flags::SCHED_2),
    ("sh-fallback", flags::SCHED_1),
    ("sh-port", flags::SCHED_2),
];

pub fn add(set: &Set) -> Result<()> {
    let service = set.service.required()?;
    match &set.real_server {
        None => {
            let mut options = ServiceOptions::new(service.family(), module::scheduler());
            apply_service(&mut options, &set.of_service, service.family())?;
            if service.port() == 0
                && options.flags & flags::PERSISTENT == 0
                && matches!(service, crate::service::Service::Address { .. })
            {
                let text = format!("{service}: only a persistent service (-p) can have port 0");
                return Err(Error::Usage(text));
            }
            Ipvs::connect()?.add_service(&service, &options)
        }
        Some(text) => {
            let server = Server::parse(text, &service).map_err(Error::Usage)?;
            let mut options = ServerOptions::default();
            apply_server(&mut options, &set.of_server)?;
            Ipvs::connect()?.add_server(&service, &server, &options)
        }
    }
}

/// As `add`, but what is not said stays as it is.
pub fn edit(set: &Set) -> Result<()> {
    let service = set.service.required()?;
    match &set.real_server {
        None => {
            let mut ipvs = Ipvs::connect()?;
            let mut options = ipvs.service(&service)?.options;
            apply_service(&mut options, &set.of_service, service.family())?;
            ipvs.edit_service(&service, &options)
        }
        Some(text) => {
            let server = Server::parse(text, &service).map_err(Error::Usage)?;
            let mut ipvs = Ipvs::connect()?;
            let mut options = ipvs.server(&service, &server)?.options;
            apply_server(&mut options, &set.of_server)?;
            ipvs.edit_server(&service, &server, &options)
        }
    }
}

fn apply_service(options: &mut ServiceOptions, set: &OfService, family: Family) -> Result<()> {
    if let Some(scheduler) = &set.scheduler {
        options.scheduler = name(scheduler, "scheduler")?;
    }
    if let Some(names) = &set.sched_flags {
        options.flags &= !flags::SCHED;
        options.flags |= sched_flags(names).map_err(Error::Usage)?;
    }
    match set.persistent {
        Some(0) => {
            options.flags &= !flags::PERSISTENT;
            options.timeout = 0;
        }
        Some(seconds) => {
            options.flags |= flags::PERSISTENT;
            options.timeout = seconds;
        }
        None => (),
    }
    if let Some(mask) = &set.netmask {
        options.netmask = ipvs::netmask(mask, family).map_err(Error::Usage)?;
    }
    if let Some(pe) = &set.pe {
        options.pe = Some(name(pe, "persistence engine")?);
    }
    if set.ops {
        options.flags |= flags::ONE_PACKET;
    } else if set.no_ops {
        options.flags &= !flags::ONE_PACKET;
    }
    Ok(())
}

/// A name of a part of IPVS, which is a part of the name of a module.
fn name(text: &str, of: &str) -> Result<String> {
    let sound = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    match (1..=15).contains(&text.len()) && text.chars().all(sound) {
        true => Ok(text.to_owned()),
        false => Err(Error::Usage(format!(
            "'{text}' is not the name of a {of}: 1 to 15 letters, digits, - or _"
        ))),
    }
}

fn sched_flags(names: &[String]) -> std::result::Result<u32, String> {
    let mut all = 0;
    for name in names.iter().filter(|name| *name != "none") {
        let found = SCHED_FLAGS.iter().find(|(known, _)| known == name);
        let (_, bit) = found.ok_or_else(|| {
            let known = SCHED_FLAGS.map(|(name, _)| name).join(", ");
            format!("'{name}' is not a flag of a scheduler: {known}, or none")
        })?;
        all |= bit;
    }
    Ok(all)
}

pub fn apply_server(options: &mut ServerOptions, set: &OfServer) -> Result<()> {
    if set.gatewaying {
        options.method = Method::Route;
    } else if set.ipip {
        options.method = Method::Tunnel;
    } else if set.masquerading {
        options.method = Method::Masquerade;
    }
    options.weight = set.weight.unwrap_or(options.weight);
    options.upper = set.u_threshold.unwrap_or(options.upper);
    options.lower = set.l_threshold.unwrap_or(options.lower);
    let tunnel = &mut options.tunnel;
    let kinds = ["ipip", "gue", "gre"];
    if let Some(text) = &set.tun_type {
        let kind = kinds.iter().position(|kind| kind == text).unwrap_or(0);
        if kind as u8 != tunnel.kind {
            *tunnel = ipvs::Tunnel::default();
        }
        tunnel.kind = kind as u8;
    }
    tunnel.port = set.tun_port.unwrap_or(tunnel.port);
    if set.tun_nocsum {
        tunnel.flags = 0;
    } else if set.tun_csum {
        tunnel.flags = 1;
    } else if set.tun_remcsum {
        tunnel.flags = 2;
    }

    let asked = set.tun_type.is_some() || set.tun_port.is_some();
    let asked = asked || set.tun_nocsum || set.tun_csum || set.tun_remcsum;
    let wrong = if asked && options.method != Method::Tunnel {
        "options of a tunnel (--tun-...) need a tunnel: -i"
    } else if tunnel.kind == 1 && tunnel.port == 0 {
        "--tun-type gue needs --tun-port"
    } else if tunnel.kind != 1 && tunnel.port != 0 {
        "--tun-port needs --tun-type gue"
    } else if tunnel.kind == 0 && tunnel.flags != 0 {
        "--tun-csum and --tun-remcsum need --tun-type gue or gre"
    } else if tunnel.kind == 2 && tunnel.flags == 2 {
        "--tun-remcsum needs --tun-type gue"
    } else if options.upper != 0 && options.lower > options.upper {
        "the lower threshold (-y) is above the upper one (-x)"
    } else {
        return Ok(());
    };
    Err(Error::Usage(wrong.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_by_name() {
        let read = |text: &str| sched_flags(&text.split(',').map(String::from).collect::<Vec<_>>());
        assert_eq!(read("mh-port"), Ok(flags::SCHED_2));
        assert_eq!(read("mh-port,mh-fallback,flag-3"), Ok(flags::SCHED));
        assert_eq!(read("none"), Ok(0));
        let error = read("mh-prot").unwrap_err();
        assert!(
            error.contains("'mh-prot'") && error.contains("mh-port"),
            "{error}"
        );
    }

    #[test]
    fn what_is_not_said_stays() {
        let mut options = ServerOptions {
            weight: 7,
            upper: 9,
            method: Method::Tunnel,
            tunnel: ipvs::Tunnel {
                kind: 1,
                port: 6080,
                flags: 1,
            },
            ..ServerOptions::default()
        };
        let before = options;
        apply_server(&mut options, &OfServer::default()).unwrap();
        assert_eq!(options, before);
        let set = OfServer {
            weight: Some(0),
            ..OfServer::default()
        };
        apply_server(&mut options, &set).unwrap();
        assert_eq!(
            options,
            ServerOptions {
                weight: 0,
                ..before
            }
        );
    }

    #[test]
    fn tunnels_make_sense() {
        let apply = |set: OfServer| apply_server(&mut ServerOptions::default(), &set);
        let tunnel = || OfServer {
            ipip: true,
            ..OfServer::default()
        };
        let kind = |kind: &str| OfServer {
            tun_type: Some(kind.into()),
            ..tunnel()
        };
        assert!(apply(tunnel()).is_ok());
        assert!(apply(kind("gre")).is_ok());
        assert!(apply(kind("gue")).is_err());
        assert!(apply(OfServer {
            tun_port: Some(6080),
            ..kind("gue")
        })
        .is_ok());
        assert!(apply(OfServer {
            tun_port: Some(6080),
            ..kind("gre")
        })
        .is_err());
        assert!(apply(OfServer {
            tun_csum: true,
            ..tunnel()
        })
        .is_err());
        assert!(apply(OfServer {
            ipip: false,
            ..kind("gre")
        })
        .is_err());
    }
}
