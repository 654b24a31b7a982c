// SPDX-License-Identifier: GPL-2.0

//! The name of a server of a service.

use crate::{
    host::{self, bracketed, Host},
    service::Service,
};
use serde::Serialize;
use std::{fmt, net::IpAddr};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Server {
    pub address: IpAddr,
    pub port: u16,
}

impl Server {
    /// Reads what `-r` takes; without a port it has that of its service.
    pub fn parse(text: &str, service: &Service) -> Result<Self, String> {
        let host = host::parse(text, service.sock())?;
        Ok(Self {
            address: host.address,
            port: host.port.unwrap_or(service.port()),
        })
    }

    /// As the table of `src/core` knows it.
    pub fn weighted(&self, weight: u32) -> mhs_core::maglev::Server {
        mhs_core::maglev::Server {
            addr: match self.address {
                IpAddr::V4(address) => mhs_core::hash::Addr::V4(address.octets()),
                IpAddr::V6(address) => mhs_core::hash::Addr::V6(address.octets()),
            },
            port: self.port,
            weight,
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", bracketed(&self.address), self.port)
    }
}

/// A server as it is named for all services at once: without a port, whatever port it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name(Host);

impl Name {
    pub fn parse(text: &str) -> Result<Self, String> {
        host::parse(text, None).map(Self)
    }

    pub fn matches(&self, server: &Server) -> bool {
        self.0.address == server.address && self.0.port.is_none_or(|port| port == server.port)
    }

    /// The server of this name beside `other`, whose port it has if none was given.
    pub fn like(&self, other: &Server) -> Server {
        Server {
            address: self.0.address,
            port: self.0.port.unwrap_or(other.port),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.port {
            Some(port) => write!(f, "{}:{port}", bracketed(&self.0.address)),
            None => self.0.address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::Protocol;

    #[test]
    fn the_port_is_that_of_the_service() {
        let service = Service::with_protocol(Protocol::Tcp, "192.0.2.1:http").unwrap();
        let read = |text| Server::parse(text, &service).unwrap().to_string();
        assert_eq!(read("192.0.2.11"), "192.0.2.11:80");
        assert_eq!(read("192.0.2.11:8080"), "192.0.2.11:8080");
        assert_eq!(read("[2001:db8::11]"), "[2001:db8::11]:80");
    }

    #[test]
    fn a_port_may_be_of_any_protocol() {
        let read = |text| Name::parse(text).unwrap().to_string();
        assert_eq!(read("192.0.2.11:tftp"), "192.0.2.11:69");
        assert_eq!(read("192.0.2.11:http"), "192.0.2.11:80");
        let mark = Service::with_mark("7", crate::service::Family::Inet).unwrap();
        let read = |text| Server::parse(text, &mark).unwrap().to_string();
        assert_eq!(read("192.0.2.11:tftp"), "192.0.2.11:69");
    }

    #[test]
    fn a_name_without_a_port_means_them_all() {
        let name = Name::parse("192.0.2.11").unwrap();
        let at = |port| Server {
            address: "192.0.2.11".parse().unwrap(),
            port,
        };
        assert!(name.matches(&at(80)) && name.matches(&at(443)));
        let name = Name::parse("192.0.2.11:443").unwrap();
        assert!(!name.matches(&at(80)) && name.matches(&at(443)));
    }
}
