// SPDX-License-Identifier: GPL-2.0

//! The name of a virtual service.

use crate::host::{self, bracketed};
use dns_lookup::SockType;
use serde::{Serialize, Serializer};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A transport protocol that IPVS balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp = 6,
    Udp = 17,
    Sctp = 132,
}

impl Protocol {
    pub fn from_number(number: u16) -> Option<Self> {
        [Self::Tcp, Self::Udp, Self::Sctp]
            .into_iter()
            .find(|&protocol| protocol as u16 == number)
    }

    /// What `getaddrinfo` wants to know before it looks up a port.
    pub fn sock(self) -> SockType {
        match self {
            Self::Udp => SockType::DGram,
            _ => SockType::Stream,
        }
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    Inet = 2,
    Inet6 = 10,
}

impl Family {
    pub fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Inet,
            IpAddr::V6(_) => Self::Inet6,
        }
    }

    pub fn from_number(number: u16) -> Option<Self> {
        [Self::Inet, Self::Inet6]
            .into_iter()
            .find(|&family| family as u16 == number)
    }

    /// An address from the bytes the kernel gave, of which IPv4 uses the first four.
    pub fn address(self, bytes: &[u8]) -> Option<IpAddr> {
        match self {
            Self::Inet => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
            Self::Inet6 => Some(Ipv6Addr::from(*bytes.first_chunk::<16>()?).into()),
        }
    }
}

/// Which virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Service {
    Address {
        protocol: Protocol,
        address: IpAddr,
        port: u16,
    },
    Mark {
        mark: u32,
        family: Family,
    },
}

impl Service {
    pub fn family(&self) -> Family {
        match self {
            Self::Address { address, .. } => Family::of(address),
            Self::Mark { family, .. } => *family,
        }
    }

    /// The port its servers have unless told otherwise.
    pub fn port(&self) -> u16 {
        match self {
            Self::Address { port, .. } => *port,
            Self::Mark { .. } => 0,
        }
    }

    /// What `getaddrinfo` wants to know before it looks up the port of a server; packets with a mark
    /// can be of any protocol.
    pub fn sock(&self) -> Option<SockType> {
        match self {
            Self::Address { protocol, .. } => Some(protocol.sock()),
            Self::Mark { .. } => None,
        }
    }

    /// Reads what `-t`, `-u` and `--sctp-service` take. Without a port it is 0: every port, which a
    /// persistent service may have.
    pub fn with_protocol(protocol: Protocol, text: &str) -> Result<Self, String> {
        let host = host::parse(text, Some(protocol.sock()))?;
        Ok(Self::Address {
            protocol,
            address: host.address,
            port: host.port.unwrap_or(0),
        })
    }

    /// Reads what `-f` takes.
    pub fn with_mark(text: &str, family: Family) -> Result<Self, String> {
        match text.parse() {
            Ok(mark) if mark > 0 => Ok(Self::Mark { mark, family }),
            _ => Err(format!(
                "'{text}' is not a firewall mark: 1 to {}",
                u32::MAX
            )),
        }
    }

    /// The fields of a JSON object or of a metric's labels, by name, in order.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Address {
                protocol,
                address,
                port,
            } => vec![
                ("protocol", protocol.to_string().to_lowercase()),
                ("address", address.to_string()),
                ("port", port.to_string()),
            ],
            Self::Mark { mark, family } => vec![
                ("fwmark", mark.to_string()),
                (
                    "family",
                    match family {
                        Family::Inet => "inet",
                        Family::Inet6 => "inet6",
                    }
                    .to_owned(),
                ),
            ],
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// As in the tables of `ipvsadm -Ln`.
impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address {
                protocol,
                address,
                port,
            } => write!(f, "{protocol} {}:{port}", bracketed(address)),
            Self::Mark {
                mark,
                family: Family::Inet,
            } => write!(f, "FWM {mark}"),
            Self::Mark {
                mark,
                family: Family::Inet6,
            } => write!(f, "FWM {mark} IPv6"),
        }
    }
}

/// As fields of the object they are flattened into: `protocol`, `address`, `port`, or `fwmark`,
/// `family`.
impl Serialize for Service {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Fields<'a> {
            Address {
                protocol: &'a Protocol,
                address: &'a IpAddr,
                port: u16,
            },
            Mark {
                fwmark: u32,
                family: &'a Family,
            },
        }
        match self {
            Self::Address {
                protocol,
                address,
                port,
            } => Fields::Address {
                protocol,
                address,
                port: *port,
            },
            Self::Mark { mark, family } => Fields::Mark {
                fwmark: *mark,
                family,
            },
        }
        .serialize(serializer)
    }
}

/// A service as it is named without a flag: `tcp:192.0.2.1:80`, `fwmark:7`, `fwmark6:7`, or just
/// `192.0.2.1:80` if only one protocol has a service there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    Exact(Service),
    AnyProtocol { address: IpAddr, port: u16 },
}

impl Name {
    pub fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let (kind, rest) = lower.split_once([':', ' ']).unwrap_or(("", &lower));
        let protocol = match kind {
            "tcp" => Some(Protocol::Tcp),
            "udp" => Some(Protocol::Udp),
            "sctp" => Some(Protocol::Sctp),
            "fwmark" | "fwm" => return Service::with_mark(rest, Family::Inet).map(Self::Exact),
            "fwmark6" | "fwm6" => return Service::with_mark(rest, Family::Inet6).map(Self::Exact),
            _ => None,
        };
        if let Some(protocol) = protocol {
            return Service::with_protocol(protocol, rest).map(Self::Exact);
        }
        let host = host::parse(text, None)?;
        Ok(Self::AnyProtocol {
            address: host.address,
            port: host.port.unwrap_or(0),
        })
    }

    pub fn matches(&self, service: &Service) -> bool {
        match self {
            Self::Exact(exact) => exact == service,
            Self::AnyProtocol { address, port } => matches!(
                service,
                Service::Address { address: a, port: p, .. } if a == address && p == port
            ),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(service) => service.fmt(f),
            Self::AnyProtocol { address, port } => write!(f, "{}:{port}", bracketed(address)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn names() {
        let read = |text| match Name::parse(text) {
            Ok(Name::Exact(service)) => format!("{service}"),
            Ok(name) => format!("any {name}"),
            Err(error) => format!("error: {error}"),
        };
        expect!["TCP 192.0.2.1:80"].assert_eq(&read("tcp:192.0.2.1:80"));
        expect!["UDP 192.0.2.1:53"].assert_eq(&read("UDP 192.0.2.1:53"));
        expect!["SCTP [2001:db8::1]:80"].assert_eq(&read("sctp:[2001:db8::1]:http"));
        expect!["any 192.0.2.1:443"].assert_eq(&read("192.0.2.1:https"));
        expect!["any 192.0.2.1:69"].assert_eq(&read("192.0.2.1:tftp"));
        expect!["any [2001:db8::1]:80"].assert_eq(&read("[2001:db8::1]:80"));
        expect!["FWM 7"].assert_eq(&read("fwmark:7"));
        expect!["FWM 7 IPv6"].assert_eq(&read("FWMARK6:7"));
        expect!["error: '0' is not a firewall mark: 1 to 4294967295"].assert_eq(&read("fwmark:0"));
        expect!["error: '' is neither an address nor the name of a host"].assert_eq(&read(""));
    }

    #[test]
    fn json() {
        let json = |text| match Name::parse(text).unwrap() {
            Name::Exact(service) => serde_json::to_string(&service).unwrap(),
            _ => unreachable!(),
        };
        expect![[r#"{"protocol":"tcp","address":"2001:db8::1","port":80}"#]]
            .assert_eq(&json("tcp:[2001:db8::1]:80"));
        expect![[r#"{"fwmark":7,"family":"inet6"}"#]].assert_eq(&json("fwmark6:7"));
    }
}
