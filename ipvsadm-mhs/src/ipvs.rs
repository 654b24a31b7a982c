// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family of IPVS: what `ipvsadm` speaks.
//!
//! C header: `include/uapi/linux/ip_vs.h`; the other side is `net/netfilter/ipvs/ip_vs_ctl.c`.

use crate::{
    error::{Error, Result},
    genl::{self, answer, attr, bytes, inside, nest, number, string, Attrs, Genl},
    module,
    server::Server,
    service::{Family, Protocol, Service},
};
use neli::{
    consts::{genl::Cmd as IsCmd, genl::NlAttrType, nl::NlmF},
    genl::{GenlAttrHandle, Nlattr},
    neli_enum,
    types::Buffer,
};
use std::net::{IpAddr, Ipv4Addr};

const FAMILY: &str = "IPVS";

#[neli_enum(serialized_type = "u8")]
pub enum Cmd {
    NewService = 1,
    SetService = 2,
    DelService = 3,
    GetService = 4,
    NewDest = 5,
    SetDest = 6,
    DelDest = 7,
    GetDest = 8,
    GetConfig = 13,
}
impl IsCmd for Cmd {}

#[neli_enum(serialized_type = "u16")]
pub enum CmdAttr {
    Service = 1,
    Dest = 2,
    TimeoutTcp = 4,
    TimeoutTcpFin = 5,
    TimeoutUdp = 6,
}
impl NlAttrType for CmdAttr {}

#[neli_enum(serialized_type = "u16")]
pub enum SvcAttr {
    Af = 1,
    Protocol = 2,
    Addr = 3,
    Port = 4,
    Fwmark = 5,
    SchedName = 6,
    Flags = 7,
    Timeout = 8,
    Netmask = 9,
    PeName = 11,
    Stats64 = 12,
}
impl NlAttrType for SvcAttr {}

#[neli_enum(serialized_type = "u16")]
pub enum DestAttr {
    Addr = 1,
    Port = 2,
    FwdMethod = 3,
    Weight = 4,
    UThresh = 5,
    LThresh = 6,
    ActiveConns = 7,
    InactConns = 8,
    PersistConns = 9,
    AddrFamily = 11,
    TunType = 13,
    TunPort = 14,
    TunFlags = 15,
}
impl NlAttrType for DestAttr {}

#[neli_enum(serialized_type = "u16")]
pub enum StatsAttr {
    Conns = 1,
    InPkts = 2,
    InBytes = 4,
}
impl NlAttrType for StatsAttr {}

/// Flags of a service that user space may set.
pub mod flags {
    pub const PERSISTENT: u32 = 0x01;
    pub const ONE_PACKET: u32 = 0x04;
    /// `-b flag-1`, for mh and mhs mh-fallback.
    pub const SCHED_1: u32 = 0x08;
    /// `-b flag-2`, for mh and mhs mh-port.
    pub const SCHED_2: u32 = 0x10;
    /// `-b flag-3`, for mhs: every flow gets an entry, so that another scheduler can take over.
    pub const SCHED_3: u32 = 0x20;
    pub const SCHED: u32 = SCHED_1 | SCHED_2 | SCHED_3;
    pub const ALL: u32 = PERSISTENT | ONE_PACKET | SCHED;
}

/// The options of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceOptions {
    pub scheduler: String,
    /// Of [`flags`].
    pub flags: u32,
    /// Of a persistent service, in seconds.
    pub timeout: u32,
    /// Of a persistent service: the bits of a client's address that count. An IPv6 service has the
    /// length of a prefix here.
    pub netmask: u32,
    /// The persistence engine.
    pub pe: Option<String>,
}

impl ServiceOptions {
    /// What a new service has unless told otherwise.
    pub fn new(family: Family, scheduler: String) -> Self {
        Self {
            scheduler,
            flags: 0,
            timeout: 0,
            netmask: match family {
                Family::Inet => u32::MAX,
                Family::Inet6 => 128,
            },
            pe: None,
        }
    }
}

/// How packets get to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Masquerade,
    Local,
    Tunnel,
    Route,
    Bypass,
}

impl Method {
    const NUMBERS: [(Self, u32); 5] = [
        (Self::Masquerade, 0),
        (Self::Local, 1),
        (Self::Tunnel, 2),
        (Self::Route, 3),
        (Self::Bypass, 4),
    ];

    fn number(self) -> u32 {
        let found = Self::NUMBERS.iter().find(|(method, _)| *method == self);
        found.map_or(0, |&(_, number)| number)
    }

    fn from_number(number: u32) -> Option<Self> {
        let found = Self::NUMBERS.iter().find(|&&(_, n)| n == number & 7);
        found.map(|&(method, _)| method)
    }
}

/// The header of a tunnel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// 0 for IPIP, 1 for GUE, 2 for GRE.
    pub kind: u8,
    /// The UDP port of GUE.
    pub port: u16,
    /// 0 for no checksum, 1 for one, 2 for a remote one.
    pub flags: u16,
}

/// The options of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    pub method: Method,
    pub weight: u32,
    pub upper: u32,
    pub lower: u32,
    pub tunnel: Tunnel,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            method: Method::Route,
            weight: 1,
            upper: 0,
            lower: 0,
            tunnel: Tunnel::default(),
        }
    }
}

/// What was counted for a service, with and without entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub connections: u64,
    pub packets: u64,
    pub bytes: u64,
}

/// A service that is configured.
#[derive(Clone, Debug)]
pub struct ServiceEntry {
    pub service: Service,
    pub options: ServiceOptions,
    pub counted: Counted,
}

/// A server that is configured.
#[derive(Clone, Debug)]
pub struct ServerEntry {
    pub server: Server,
    pub options: ServerOptions,
    /// Entries that are established, and others.
    pub active: u32,
    pub inactive: u32,
}

/// The timeouts of `ipvsadm --set`, in seconds.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    tcp: u32,
    tcp_fin: u32,
    udp: u32,
}

impl Timeouts {
    /// The session timeout T of a service, where IPVS says it.
    ///
    /// SCTP's is not told to user space; it is a constant of the kernel, 900 seconds
    /// (`ip_vs_proto_sctp.c`).
    pub fn session(&self, service: &Service) -> u32 {
        const SCTP: u32 = 900;
        let tcp = self.tcp.max(self.tcp_fin);
        match service {
            Service::Address { protocol, .. } => match protocol {
                Protocol::Tcp => tcp,
                Protocol::Udp => self.udp,
                Protocol::Sctp => SCTP,
            },
            Service::Mark { .. } => tcp.max(self.udp).max(SCTP),
        }
    }
}

/// IPVS in this network namespace.
pub struct Ipvs {
    genl: Genl,
    family: genl::Family,
}

impl Ipvs {
    pub fn connect() -> Result<Self> {
        let mut genl = Genl::connect()?;
        let family = genl.family(FAMILY)?.ok_or(Error::NoIpvs)?;
        Ok(Self { genl, family })
    }

    fn send(&mut self, cmd: Cmd, attrs: Attrs<CmdAttr>, what: &str) -> Result<()> {
        let none = self
            .genl
            .request::<Cmd, CmdAttr>(&self.family, cmd, NlmF::ACK, attrs, what)?;
        drop(none);
        Ok(())
    }

    /// All services.
    pub fn services(&mut self) -> Result<Vec<ServiceEntry>> {
        let what = "services";
        let found = self.genl.request::<Cmd, CmdAttr>(
            &self.family,
            Cmd::GetService,
            NlmF::DUMP,
            Attrs::new(),
            what,
        )?;
        let mut services = Vec::new();
        for message in &found {
            let attrs = message.attrs().get_attr_handle();
            if let Some(service) = attrs.get_attribute(CmdAttr::Service) {
                services.push(read_service(&inside(service)?)?);
            }
        }
        services.sort_by_key(|entry| entry.service);
        Ok(services)
    }

    /// One service.
    pub fn service(&mut self, service: &Service) -> Result<ServiceEntry> {
        let attrs = [nest(CmdAttr::Service, key(service)?)?];
        let what = service.to_string();
        let found = self.genl.request::<Cmd, CmdAttr>(
            &self.family,
            Cmd::GetService,
            NlmF::ACK,
            attrs.into_iter().collect(),
            &what,
        );
        let found = found.map_err(|error| match error.errno() {
            Some(libc::ESRCH) => Error::NoService(*service),
            _ => error,
        })?;
        let message = found.first().ok_or(Error::NoService(*service))?;
        let attrs = message.attrs().get_attr_handle();
        let found = attrs.get_attribute(CmdAttr::Service);
        read_service(&inside(found.ok_or(Error::NoService(*service))?)?)
    }

    /// The servers of a service, in the order of their names.
    pub fn servers(&mut self, service: &Service) -> Result<Vec<ServerEntry>> {
        let attrs = [nest(CmdAttr::Service, key(service)?)?];
        let what = format!("servers of {service}");
        let found = self.genl.request::<Cmd, CmdAttr>(
            &self.family,
            Cmd::GetDest,
            NlmF::DUMP,
            attrs.into_iter().collect(),
            &what,
        )?;
        let mut servers = Vec::new();
        for message in &found {
            let attrs = message.attrs().get_attr_handle();
            if let Some(server) = attrs.get_attribute(CmdAttr::Dest) {
                servers.push(read_server(&inside(server)?, service.family())?);
            }
        }
        servers.sort_by_key(|entry| entry.server);
        Ok(servers)
    }

    /// One server of a service.
    pub fn server(&mut self, service: &Service, server: &Server) -> Result<ServerEntry> {
        let all = self.servers(service)?;
        let found = all.into_iter().find(|entry| entry.server == *server);
        match found {
            Some(found) => Ok(found),
            // Perhaps there is no such service.
            None => self
                .service(service)
                .and(Err(Error::NoServer(*service, *server))),
        }
    }

    pub fn timeouts(&mut self) -> Result<Timeouts> {
        let found = self.genl.request::<Cmd, CmdAttr>(
            &self.family,
            Cmd::GetConfig,
            NlmF::ACK,
            Attrs::new(),
            "timeouts",
        )?;
        let message = found.first().ok_or_else(|| answer("no timeouts"))?;
        let attrs = message.attrs().get_attr_handle();
        let seconds = |kind| number(&attrs, kind).map(Option::unwrap_or_default);
        Ok(Timeouts {
            tcp: seconds(CmdAttr::TimeoutTcp)?,
            tcp_fin: seconds(CmdAttr::TimeoutTcpFin)?,
            udp: seconds(CmdAttr::TimeoutUdp)?,
        })
    }

    pub fn add_service(&mut self, service: &Service, options: &ServiceOptions) -> Result<()> {
        let what = format!("add {service}");
        let sent = self.send_service(Cmd::NewService, service, options, &what);
        sent.map_err(|error| match error.errno() {
            Some(libc::EEXIST) => Error::Exists(format!("service {service}")),
            _ => error,
        })
    }

    pub fn edit_service(&mut self, service: &Service, options: &ServiceOptions) -> Result<()> {
        let what = format!("edit {service}");
        self.send_service(Cmd::SetService, service, options, &what)
    }

    fn send_service(
        &mut self,
        cmd: Cmd,
        service: &Service,
        options: &ServiceOptions,
        what: &str,
    ) -> Result<()> {
        let mut attrs = key(service)?;
        attrs.push(attr(SvcAttr::SchedName, &*options.scheduler)?);
        if let Some(pe) = &options.pe {
            attrs.push(attr(SvcAttr::PeName, &**pe)?);
        }
        // struct ip_vs_flags: flags and mask.
        let words = [options.flags.to_ne_bytes(), flags::ALL.to_ne_bytes()];
        attrs.push(attr(SvcAttr::Flags, Buffer::from(words.concat()))?);
        attrs.push(attr(SvcAttr::Timeout, options.timeout)?);
        // An IPv4 mask is in network order; the length of a prefix is a number.
        let netmask = match service.family() {
            Family::Inet => options.netmask.to_be(),
            Family::Inet6 => options.netmask,
        };
        attrs.push(attr(SvcAttr::Netmask, netmask)?);
        let attrs = [nest(CmdAttr::Service, attrs)?];
        let sent = self.send(cmd, attrs.into_iter().collect(), what);
        sent.map_err(|error| match error.errno() {
            Some(libc::ESRCH) => Error::NoService(*service),
            Some(libc::ENOENT) => unknown(options, module::has_engine),
            _ => error,
        })
    }

    pub fn delete_service(&mut self, service: &Service) -> Result<()> {
        let attrs = [nest(CmdAttr::Service, key(service)?)?];
        let what = format!("delete {service}");
        let sent = self.send(Cmd::DelService, attrs.into_iter().collect(), &what);
        sent.map_err(|error| match error.errno() {
            Some(libc::ESRCH) => Error::NoService(*service),
            _ => error,
        })
    }

    pub fn add_server(
        &mut self,
        service: &Service,
        server: &Server,
        options: &ServerOptions,
    ) -> Result<()> {
        let what = format!("add {server} to {service}");
        let sent = self.send_server(Cmd::NewDest, service, server, Some(options), &what);
        sent.map_err(|error| match error.errno() {
            Some(libc::EEXIST) => Error::Exists(format!("server {server} of {service}")),
            _ => error,
        })
    }

    pub fn edit_server(
        &mut self,
        service: &Service,
        server: &Server,
        options: &ServerOptions,
    ) -> Result<()> {
        let what = format!("edit {server} of {service}");
        self.send_server(Cmd::SetDest, service, server, Some(options), &what)
    }

    pub fn delete_server(&mut self, service: &Service, server: &Server) -> Result<()> {
        let what = format!("delete {server} of {service}");
        self.send_server(Cmd::DelDest, service, server, None, &what)
    }

    fn send_server(
        &mut self,
        cmd: Cmd,
        service: &Service,
        server: &Server,
        options: Option<&ServerOptions>,
        what: &str,
    ) -> Result<()> {
        let mut dest = vec![
            attr(DestAttr::AddrFamily, Family::of(&server.address) as u16)?,
            attr(DestAttr::Addr, address(&server.address))?,
            attr(DestAttr::Port, server.port.to_be())?,
        ];
        if let Some(options) = options {
            dest.push(attr(DestAttr::FwdMethod, options.method.number())?);
            dest.push(attr(DestAttr::Weight, options.weight)?);
            dest.push(attr(DestAttr::UThresh, options.upper)?);
            dest.push(attr(DestAttr::LThresh, options.lower)?);
            dest.push(attr(DestAttr::TunType, options.tunnel.kind)?);
            dest.push(attr(DestAttr::TunPort, options.tunnel.port.to_be())?);
            dest.push(attr(DestAttr::TunFlags, options.tunnel.flags)?);
        }
        let attrs = [
            nest(CmdAttr::Service, key(service)?)?,
            nest(CmdAttr::Dest, dest)?,
        ];
        let sent = self.send(cmd, attrs.into_iter().collect(), what);
        sent.map_err(|error| match error {
            Error::Kernel { errno, .. } if errno == libc::ESRCH => Error::NoService(*service),
            Error::Kernel { errno, .. } if errno == libc::ENOENT => {
                Error::NoServer(*service, *server)
            }
            // IPVS does not say why.
            Error::Kernel { what, errno, why } if errno == libc::EINVAL => {
                let other = Family::of(&server.address) != service.family();
                let reason = match other {
                    true => "a server of another address family needs a tunnel, -i",
                    false => "is it an address of one host that there is a route to?",
                };
                let why = why.or(Some(reason.into()));
                Error::Kernel { what, errno, why }
            }
            error => error,
        })
    }
}

/// IPVS knows the scheduler or the persistence engine not, and has one answer for both.
fn unknown(options: &ServiceOptions, has_engine: impl FnOnce(&str) -> bool) -> Error {
    match &options.pe {
        Some(pe) if !has_engine(pe) => Error::NoEngine(pe.clone()),
        _ => Error::NoScheduler(options.scheduler.clone()),
    }
}

/// An address as IPVS wants it: `union nf_inet_addr`, 16 bytes.
fn address(address: &IpAddr) -> Buffer {
    let mut bytes = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes.resize(16, 0);
    Buffer::from(bytes)
}

/// The attributes that say which service.
fn key(service: &Service) -> Result<Vec<Nlattr<SvcAttr, Buffer>>> {
    let mut attrs = vec![attr(SvcAttr::Af, service.family() as u16)?];
    match service {
        Service::Address {
            protocol,
            address: addr,
            port,
        } => {
            attrs.push(attr(SvcAttr::Protocol, *protocol as u16)?);
            attrs.push(attr(SvcAttr::Addr, address(addr))?);
            attrs.push(attr(SvcAttr::Port, port.to_be())?);
        }
        Service::Mark { mark, .. } => attrs.push(attr(SvcAttr::Fwmark, *mark)?),
    }
    Ok(attrs)
}

fn read_service(attrs: &GenlAttrHandle<'_, SvcAttr>) -> Result<ServiceEntry> {
    let missing = || answer("a service without a name");
    let family = number(attrs, SvcAttr::Af)?.and_then(Family::from_number);
    let family = family.ok_or_else(missing)?;
    let service = match number(attrs, SvcAttr::Fwmark)? {
        Some(mark) => Service::Mark { mark, family },
        None => {
            let protocol = number(attrs, SvcAttr::Protocol)?.and_then(Protocol::from_number);
            let address = bytes(attrs, SvcAttr::Addr).and_then(|bytes| family.address(bytes));
            let port: Option<u16> = number(attrs, SvcAttr::Port)?;
            Service::Address {
                protocol: protocol.ok_or_else(missing)?,
                address: address.ok_or_else(missing)?,
                port: u16::from_be(port.ok_or_else(missing)?),
            }
        }
    };
    let word = |at: usize, all: &[u8]| Some(u32::from_ne_bytes(*all.get(at..)?.first_chunk()?));
    let flags = bytes(attrs, SvcAttr::Flags).and_then(|all| word(0, all));
    let netmask: u32 = number(attrs, SvcAttr::Netmask)?.unwrap_or_default();
    Ok(ServiceEntry {
        service,
        options: ServiceOptions {
            scheduler: string(attrs, SvcAttr::SchedName).unwrap_or_default(),
            flags: flags.unwrap_or_default() & flags::ALL,
            timeout: number(attrs, SvcAttr::Timeout)?.unwrap_or_default(),
            netmask: match family {
                Family::Inet => u32::from_be(netmask),
                Family::Inet6 => netmask,
            },
            pe: string(attrs, SvcAttr::PeName),
        },
        counted: read_stats(attrs.get_attribute(SvcAttr::Stats64))?,
    })
}

fn read_server(attrs: &GenlAttrHandle<'_, DestAttr>, family: Family) -> Result<ServerEntry> {
    let missing = || answer("a server without a name");
    let family = match number(attrs, DestAttr::AddrFamily)? {
        Some(number) => Family::from_number(number).ok_or_else(missing)?,
        None => family,
    };
    let address = bytes(attrs, DestAttr::Addr).and_then(|bytes| family.address(bytes));
    let port: Option<u16> = number(attrs, DestAttr::Port)?;
    let method = number(attrs, DestAttr::FwdMethod)?.and_then(Method::from_number);
    let word = |kind| number::<_, u32>(attrs, kind).map(Option::unwrap_or_default);
    let tun_port: u16 = number(attrs, DestAttr::TunPort)?.unwrap_or_default();
    Ok(ServerEntry {
        server: Server {
            address: address.ok_or_else(missing)?,
            port: u16::from_be(port.ok_or_else(missing)?),
        },
        options: ServerOptions {
            method: method.ok_or_else(|| answer("an unknown forwarding method"))?,
            weight: word(DestAttr::Weight)?,
            upper: word(DestAttr::UThresh)?,
            lower: word(DestAttr::LThresh)?,
            tunnel: Tunnel {
                kind: number(attrs, DestAttr::TunType)?.unwrap_or_default(),
                port: u16::from_be(tun_port),
                flags: number(attrs, DestAttr::TunFlags)?.unwrap_or_default(),
            },
        },
        active: word(DestAttr::ActiveConns)?,
        inactive: word(DestAttr::InactConns)?,
    })
}

fn read_stats<A: NlAttrType>(stats: Option<&Nlattr<A, Buffer>>) -> Result<Counted> {
    let Some(stats) = stats else {
        return Ok(Counted::default());
    };
    let stats: GenlAttrHandle<'_, StatsAttr> = inside(stats)?;
    let count = |kind| number::<_, u64>(&stats, kind).map(Option::unwrap_or_default);
    Ok(Counted {
        connections: count(StatsAttr::Conns)?,
        packets: count(StatsAttr::InPkts)?,
        bytes: count(StatsAttr::InBytes)?,
    })
}

/// Reads what `-M` takes: a mask for IPv4, the length of a prefix for IPv6.
pub fn netmask(text: &str, family: Family) -> std::result::Result<u32, String> {
    match family {
        Family::Inet => {
            let mask: Ipv4Addr = text
                .parse()
                .map_err(|_| format!("'{text}' is not a netmask such as 255.255.255.0"))?;
            let mask = u32::from(mask);
            match mask.leading_ones() + mask.trailing_zeros() >= u32::BITS && mask != 0 {
                true => Ok(mask),
                false => Err(format!("'{text}' is not a netmask such as 255.255.255.0")),
            }
        }
        Family::Inet6 => match text.parse() {
            Ok(length @ 1..=128) => Ok(length),
            _ => Err(format!("'{text}' is not the length of a prefix: 1 to 128")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_has_its_name() {
        let mut options = ServiceOptions::new(Family::Inet, "no-such".into());
        let has = |engine: &str| engine == "sip";
        assert!(matches!(unknown(&options, has), Error::NoScheduler(name) if name == "no-such"));
        options.pe = Some("sip".into());
        assert!(matches!(unknown(&options, has), Error::NoScheduler(_)));
        options.pe = Some("soap".into());
        let error = unknown(&options, has);
        assert_eq!(error.status(), 6);
        assert!(error.to_string().contains("persistence engine soap"));
    }

    #[test]
    fn netmasks() {
        assert_eq!(netmask("255.255.255.0", Family::Inet), Ok(0xffff_ff00));
        assert_eq!(netmask("255.255.255.255", Family::Inet), Ok(u32::MAX));
        assert!(netmask("255.0.255.0", Family::Inet).is_err());
        assert!(netmask("0.0.0.0", Family::Inet).is_err());
        assert!(netmask("64", Family::Inet).is_err());
        assert_eq!(netmask("64", Family::Inet6), Ok(64));
        assert!(netmask("0", Family::Inet6).is_err());
        assert!(netmask("129", Family::Inet6).is_err());
    }
}
