// SPDX-License-Identifier: GPL-2.0

//! `ADDRESS[:PORT]` in every form that `ipvsadm` takes.

use dns_lookup::{getaddrinfo, AddrInfoHints, SockType};
use std::net::{IpAddr, Ipv6Addr};

/// An address, and a port if one was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    pub address: IpAddr,
    pub port: Option<u16>,
}

/// Reads `ADDRESS`, `ADDRESS:PORT`, `[ADDRESS]:PORT` or `[ADDRESS]`.
///
/// The address is an IPv4 address, an IPv6 address or the name of a host; the port a number or the
/// name of a service as in `/etc/services`, of any protocol if `sock` is `None`. An IPv6 address without
/// brackets has no port.
pub fn parse(text: &str, sock: Option<SockType>) -> Result<Host, String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, after) = rest
            .split_once(']')
            .ok_or_else(|| format!("'{text}': the bracket is not closed"))?;
        let address = inner
            .parse::<Ipv6Addr>()
            .map_err(|_| format!("'{inner}' is not an IPv6 address"))?;
        let port = match after.strip_prefix(':') {
            Some(port) => Some(self::port(port, sock)?),
            None if after.is_empty() => None,
            None => {
                return Err(format!(
                    "'{text}': after the bracket comes a colon and a port"
                ))
            }
        };
        return Ok(Host {
            address: address.into(),
            port,
        });
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Ok(Host {
            address: address.into(),
            port: None,
        });
    }
    if let Some((before, after)) = text.rsplit_once(':') {
        if before.parse::<Ipv6Addr>().is_ok() {
            return Err(format!(
                "'{before}' is an IPv6 address: a port needs it in brackets, [{before}]:{after}"
            ));
        }
        return Ok(Host {
            address: address(before)?,
            port: Some(port(after, sock)?),
        });
    }
    Ok(Host {
        address: address(text)?,
        port: None,
    })
}

fn address(text: &str) -> Result<IpAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let sound = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    let numeric = text.chars().all(|c| c.is_ascii_digit() || c == '.');
    if text.is_empty() || numeric || !text.chars().all(sound) {
        return Err(format!(
            "'{text}' is neither an address nor the name of a host"
        ));
    }
    let hints = AddrInfoHints {
        socktype: SockType::Stream.into(),
        ..AddrInfoHints::default()
    };
    let found: Vec<IpAddr> = getaddrinfo(Some(text), None, Some(hints))
        .map(|all| all.flatten().map(|info| info.sockaddr.ip()).collect())
        .unwrap_or_default();
    // `ipvsadm` knows names for IPv4 addresses only, so those come first.
    let v4 = found.iter().find(|address| address.is_ipv4());
    v4.or(found.first())
        .copied()
        .ok_or_else(|| format!("no host has the name '{text}'"))
}

/// Reads a port: a number, or the name of a service.
pub fn port(text: &str, sock: Option<SockType>) -> Result<u16, String> {
    if !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit()) {
        return text
            .parse()
            .map_err(|_| format!("port {text} is out of range: 0 to 65535"));
    }
    let sound = |c: char| c.is_ascii_alphanumeric() || "-._+".contains(c);
    if text.is_empty() || !text.chars().all(sound) {
        return Err(format!(
            "'{text}' is neither a port nor the name of a service"
        ));
    }
    let hints = AddrInfoHints {
        socktype: sock.map_or(0, i32::from),
        ..AddrInfoHints::default()
    };
    getaddrinfo(None, Some(text), Some(hints))
        .ok()
        .and_then(|all| all.flatten().next())
        .map(|info| info.sockaddr.port())
        .ok_or_else(|| format!("'{text}' is neither a port nor the name of a service"))
}

/// Writes an address as it stands before a port: IPv6 in brackets.
pub fn bracketed(address: &IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{expect, Expect};
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        match parse(text, Some(SockType::Stream)) {
            Ok(Host { address, port }) => match port {
                Some(port) => format!("{address} port {port}"),
                None => format!("{address}"),
            },
            Err(error) => format!("error: {error}"),
        }
    }

    fn check(text: &str, expected: Expect) {
        expected.assert_eq(&read(text));
    }

    #[test]
    fn ipv4() {
        check("192.0.2.1:80", expect!["192.0.2.1 port 80"]);
        check("192.0.2.1", expect!["192.0.2.1"]);
        check("192.0.2.1:0", expect!["192.0.2.1 port 0"]);
        check("192.0.2.1:http", expect!["192.0.2.1 port 80"]);
    }

    #[test]
    fn ipv6() {
        check("[2001:db8::1]:443", expect!["2001:db8::1 port 443"]);
        check("[2001:db8::1]:https", expect!["2001:db8::1 port 443"]);
        check("[2001:db8::1]", expect!["2001:db8::1"]);
        check("2001:db8::1", expect!["2001:db8::1"]);
        check("2001:db8::1:80", expect!["2001:db8::1:80"]);
        check("1:2:3:4:5:6:7:8", expect!["1:2:3:4:5:6:7:8"]);
        check("[::ffff:192.0.2.1]:80", expect!["::ffff:192.0.2.1 port 80"]);
    }

    #[test]
    fn names() {
        check("localhost:80", expect!["127.0.0.1 port 80"]);
    }

    #[test]
    fn ports_of_one_protocol() {
        // In /etc/services tftp is of UDP, http of TCP.
        let found = |name, sock| port(name, sock).is_ok();
        for (name, sock, other) in [
            ("tftp", SockType::DGram, SockType::Stream),
            ("http", SockType::Stream, SockType::DGram),
        ] {
            assert!(found(name, Some(sock)) && found(name, None));
            assert!(!found(name, Some(other)));
        }
    }

    #[test]
    fn nonsense() {
        check(
            "",
            expect!["error: '' is neither an address nor the name of a host"],
        );
        check(
            "192.0.2.1:",
            expect!["error: '' is neither a port nor the name of a service"],
        );
        check(
            "192.0.2.1:65536",
            expect!["error: port 65536 is out of range: 0 to 65535"],
        );
        check(
            "192.0.2.1:-1",
            expect!["error: '-1' is neither a port nor the name of a service"],
        );
        check(
            "192.0.2.256:80",
            expect!["error: '192.0.2.256' is neither an address nor the name of a host"],
        );
        check(
            "192.0.2.1:no-such-service",
            expect!["error: 'no-such-service' is neither a port nor the name of a service"],
        );
        check(
            "[192.0.2.1]:80",
            expect!["error: '192.0.2.1' is not an IPv6 address"],
        );
        check(
            "[2001:db8::1:80",
            expect!["error: '[2001:db8::1:80': the bracket is not closed"],
        );
        check(
            "[2001:db8::1]80",
            expect!["error: '[2001:db8::1]80': after the bracket comes a colon and a port"],
        );
        check(
            "2001:db8::1:http",
            expect!["error: '2001:db8::1' is an IPv6 address: a port needs it in brackets, [2001:db8::1]:http"],
        );
        check(
            "a b:80",
            expect!["error: 'a b' is neither an address nor the name of a host"],
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(address: IpAddr, port: u16) {
            let text = format!("{}:{port}", bracketed(&address));
            let read = parse(&text, Some(SockType::Stream)).unwrap();
            prop_assert_eq!(read, Host { address, port: Some(port) });
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-f:.\\[\\]/]{0,40}") {
            let _ = parse(&text, Some(SockType::Stream));
        }
    }
}
