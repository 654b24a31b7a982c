// SPDX-License-Identifier: GPL-2.0

//! The generic netlink family of `ip_vs_mhs`.
//!
//! What it says is written down in `Documentation/netlink/specs/ip_vs_mhs.yaml`; names and numbers
//! here are those of that page.

use crate::{
    error::{Error, Result},
    genl::{self, answer, attr, bytes, inside, nest, number, string, Attrs, Genl},
    ipvs::Ipvs,
    module::{self, Options},
    server,
    service::{self, Family, Protocol},
};
use mhs_core::hash::Key;
use neli::{
    consts::{genl::Cmd as IsCmd, genl::NlAttrType, nl::NlmF},
    genl::{GenlAttrHandle, Genlmsghdr, Nlattr},
    neli_enum,
    types::Buffer,
};
use serde::Serialize;
use std::{
    net::IpAddr,
    sync::mpsc::{Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

const FAMILY: &str = "IPVS_MHS";
const EVENTS: &str = "events";

/// In place of the index of a server: no server.
const NONE: u16 = 32767;

/// How often tables are read that change while they are read.
const ATTEMPTS: u32 = 20;

#[neli_enum(serialized_type = "u8")]
pub enum Cmd {
    GetService = 1,
    GetDest = 2,
    GetSlots = 3,
    GetCounters = 4,
    RemapNtf = 5,
    MergeNtf = 6,
    DestNtf = 7,
    FailureNtf = 8,
    GetNetns = 9,
    SetNetns = 10,
}
impl IsCmd for Cmd {}

#[neli_enum(serialized_type = "u16")]
pub enum KeyAttr {
    Family = 1,
    Protocol = 2,
    Address = 3,
    Port = 4,
    Fwmark = 5,
}
impl NlAttrType for KeyAttr {}

#[neli_enum(serialized_type = "u16")]
pub enum CounterAttr {
    Packets = 1,
    Bytes = 2,
    Conns = 3,
    PinsNew = 4,
    PinsOld = 5,
    IcmpErrors = 6,
    Full = 7,
    NoServer = 8,
    UdpMoved = 9,
    Remaps = 10,
    Merges = 11,
    SlotsMerged = 12,
    RebuildFailures = 13,
}
impl NlAttrType for CounterAttr {}

#[neli_enum(serialized_type = "u16")]
pub enum ServiceAttr {
    Service = 1,
    Scheduler = 2,
    Stateless = 3,
    Generation = 4,
    TableSize = 5,
    Balance = 6,
    HashKey = 7,
    Servers = 8,
    Stable = 9,
    Unstable = 10,
    NextMerge = 11,
    SessionTimeout = 12,
    Counters = 13,
}
impl NlAttrType for ServiceAttr {}

#[neli_enum(serialized_type = "u16")]
pub enum DestAttr {
    Service = 1,
    Generation = 2,
    Index = 3,
    Family = 4,
    Address = 5,
    Port = 6,
    Weight = 7,
    Method = 8,
    State = 9,
    TimeLeft = 10,
    OldSlots = 11,
    NewSlots = 12,
    Packets = 13,
    Bytes = 14,
}
impl NlAttrType for DestAttr {}

#[neli_enum(serialized_type = "u16")]
pub enum SlotsAttr {
    Service = 1,
    UnstableOnly = 2,
    Generation = 3,
    Slot = 4,
    Old = 5,
    New = 6,
    TimeLeft = 7,
}
impl NlAttrType for SlotsAttr {}

#[neli_enum(serialized_type = "u16")]
pub enum CpuAttr {
    Service = 1,
    Cpu = 2,
    Counters = 3,
}
impl NlAttrType for CpuAttr {}

#[neli_enum(serialized_type = "u16")]
pub enum EventAttr {
    Service = 1,
    Generation = 2,
    Cause = 3,
    BecameUnstable = 4,
    BecameStable = 5,
    Merged = 6,
    Unstable = 7,
    NextMerge = 8,
}
impl NlAttrType for EventAttr {}

#[neli_enum(serialized_type = "u16")]
pub enum NetnsAttr {
    Express = 1,
}
impl NlAttrType for NetnsAttr {}

/// What was counted for a service since it has this scheduler.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    pub packets: u64,
    pub bytes: u64,
    pub conns: u64,
    pub pins_new: u64,
    pub pins_old: u64,
    pub icmp_errors: u64,
    pub full: u64,
    pub no_server: u64,
    pub udp_moved: u64,
    pub remaps: u64,
    pub merges: u64,
    pub slots_merged: u64,
    pub rebuild_failures: u64,
}

/// A counter: its name as a metric, what it counts, in words, and where it is.
pub struct Counter {
    pub metric: &'static str,
    pub help: &'static str,
    pub get: fn(&Counters) -> u64,
}

/// All counters, in the order of the specification.
pub const COUNTERS: [Counter; 13] = [
    Counter {
        metric: "stateless_packets",
        help: "Packets forwarded without an entry",
        get: |c| c.packets,
    },
    Counter {
        metric: "stateless_bytes",
        help: "Bytes of packets forwarded without an entry, from the IP header on",
        get: |c| c.bytes,
    },
    Counter {
        metric: "connections",
        help: "New flows, forwarded in any way",
        get: |c| c.conns,
    },
    Counter {
        metric: "pins_new",
        help: "Entries asked for by new flows, for the server of the new table",
        get: |c| c.pins_new,
    },
    Counter {
        metric: "pins_old",
        help: "Entries for flows that lived in a slot before it became unstable",
        get: |c| c.pins_old,
    },
    Counter {
        metric: "icmp_errors",
        help: "ICMP errors forwarded by the flow that they quote",
        get: |c| c.icmp_errors,
    },
    Counter {
        metric: "table_full_packets",
        help: "Packets forwarded without an entry because there was no room for one",
        get: |c| c.full,
    },
    Counter {
        metric: "no_server_packets",
        help: "Packets that no server could be found for",
        get: |c| c.no_server,
    },
    Counter {
        metric: "udp_moved_packets",
        help: "UDP packets that went to the new server because the old one is not live",
        get: |c| c.udp_moved,
    },
    Counter {
        metric: "remaps",
        help: "New tables made",
        get: |c| c.remaps,
    },
    Counter {
        metric: "merges",
        help: "Times that slots were merged",
        get: |c| c.merges,
    },
    Counter {
        metric: "slots_merged",
        help: "Slots that were merged",
        get: |c| c.slots_merged,
    },
    Counter {
        metric: "rebuild_failures",
        help: "Changes that failed for want of memory or of room for a server",
        get: |c| c.rebuild_failures,
    },
];

/// A service that mhs schedules.
#[derive(Clone, Debug)]
pub struct Service {
    pub service: service::Service,
    pub scheduler: String,
    /// Whether packets may be forwarded without an entry.
    pub stateless: bool,
    pub generation: u32,
    /// Table size, key and balance.
    pub options: Options,
    /// Live or draining.
    pub servers: u32,
    /// Slots.
    pub stable: u32,
    pub unstable: u32,
    pub next_merge_ms: Option<u64>,
    pub session_timeout_ms: u64,
    pub counters: Counters,
}

/// What becomes of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Live,
    Draining,
    Grace,
    Gone,
}

impl State {
    fn from_number(number: u32) -> Option<Self> {
        let all = [Self::Live, Self::Draining, Self::Grace, Self::Gone];
        all.get(number as usize).copied()
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Draining => "draining",
            Self::Grace => "grace",
            Self::Gone => "gone",
        }
    }
}

/// How packets get to a server, in the words of `ipvsadm -Ln`.
fn method(number: u32) -> &'static str {
    const WORDS: [&str; 5] = ["Masq", "Local", "Tunnel", "Route", "Bypass"];
    WORDS.get(number as usize).copied().unwrap_or("?")
}

/// A server of a service, deleted ones in their grace too.
#[derive(Clone, Debug)]
pub struct Server {
    pub server: server::Server,
    pub index: u16,
    pub weight: u32,
    pub method: &'static str,
    pub state: State,
    /// Of a server in grace, until it gets no packet any more; of another, until it has no unstable
    /// slot any more whose flows live there.
    pub time_left_ms: Option<u64>,
    /// In the old table, where flows live that are not new.
    pub slots_old: u32,
    /// In the new table, where new flows go.
    pub slots_new: u32,
    /// Forwarded without an entry.
    pub packets: u64,
    pub bytes: u64,
}

/// A server that slots name. One whose forwarding method was changed is there twice, as long as flows
/// go on in the way they came: a slot of both is unstable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    pub server: server::Server,
    pub index: u16,
    /// Another member is this server from now on.
    pub is_superseded: bool,
}

impl Member {
    /// The member of that index.
    fn find(servers: &[Server], index: u16) -> Option<Self> {
        let found = servers.iter().find(|server| server.index == index)?;
        let successor = |other: &Server| {
            let is_configured = matches!(other.state, State::Live | State::Draining);
            other.server == found.server && other.index != index && is_configured
        };
        Some(Self {
            server: found.server,
            index,
            is_superseded: found.state == State::Grace && servers.iter().any(successor),
        })
    }
}

/// A slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    pub slot: u32,
    pub old: Option<Member>,
    pub new: Option<Member>,
    /// Until it is merged; 0 for a stable slot.
    pub time_left_ms: u32,
}

/// Why a table was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    Adopt,
    Add,
    Update,
    Delete,
    Retry,
    /// One that this program does not know of.
    Other,
}

impl Cause {
    fn from_number(number: u32) -> Self {
        let all = [
            Self::Adopt,
            Self::Add,
            Self::Update,
            Self::Delete,
            Self::Retry,
        ];
        all.get(number as usize).copied().unwrap_or(Self::Other)
    }
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Event {
    /// A service has a new table.
    Remap {
        service: service::Service,
        generation: u32,
        cause: Cause,
        became_unstable: u32,
        became_stable: u32,
        unstable: u32,
        next_merge_ms: Option<u64>,
    },
    /// Slots of a service were merged.
    Merge {
        service: service::Service,
        generation: u32,
        merged: u32,
        unstable: u32,
        next_merge_ms: Option<u64>,
    },
    /// A server was added, or something about it changed.
    Server {
        service: service::Service,
        generation: u32,
        server: server::Server,
        weight: u32,
        method: &'static str,
        state: State,
        time_left_ms: Option<u64>,
    },
    /// A change failed, and is tried again.
    Failure {
        service: service::Service,
        generation: u32,
        cause: Cause,
        unstable: u32,
    },
    /// Events came faster than they were read, and some are lost.
    Lost,
}

/// `ip_vs_mhs` in this network namespace.
pub struct Mhs {
    genl: Genl,
    family: genl::Family,
}

impl Mhs {
    pub fn connect() -> Result<Self> {
        let mut genl = Genl::connect()?;
        // A module that was loaded this moment registers its family a little later.
        for _ in 0..10 {
            match genl.family(FAMILY)? {
                Some(family) => return Ok(Self { genl, family }),
                None if module::is_loaded() => thread::sleep(Duration::from_millis(50)),
                None => return Err(Error::NoModule),
            }
        }
        Err(Error::OldModule("it has no netlink family"))
    }

    fn dump<A>(&mut self, cmd: Cmd, attrs: Attrs<A>, what: &str) -> Result<Vec<Genlmsghdr<Cmd, A>>>
    where
        A: NlAttrType + Copy + std::fmt::Debug + neli::Size + neli::TypeSize + neli::FromBytes,
    {
        let found = self
            .genl
            .request(&self.family, cmd, NlmF::DUMP, attrs, what);
        found.map_err(too_old)
    }

    /// The services that this scheduler has, in the order of their names.
    pub fn services(&mut self) -> Result<Vec<Service>> {
        let found = self.dump::<ServiceAttr>(Cmd::GetService, Attrs::new(), "services")?;
        let services = found
            .iter()
            .map(|m| read_service(&m.attrs().get_attr_handle()));
        let mut services = services.collect::<Result<Vec<_>>>()?;
        services.sort_by_key(|service| service.service);
        Ok(services)
    }

    /// One service.
    pub fn service(&mut self, service: &service::Service) -> Result<Service> {
        let attrs = [nest(ServiceAttr::Service, key(service)?)?];
        let attrs = attrs.into_iter().collect();
        let what = service.to_string();
        let found = self
            .genl
            .request(&self.family, Cmd::GetService, NlmF::ACK, attrs, &what);
        let found: Vec<Genlmsghdr<Cmd, ServiceAttr>> = match found {
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::ESRCH)) => {
                return Err(missing(service));
            }
            found => found.map_err(too_old)?,
        };
        let message = found.first().ok_or_else(|| missing(service))?;
        read_service(&message.attrs().get_attr_handle())
    }

    /// The one service that a name means.
    pub fn named(&mut self, name: &service::Name) -> Result<Service> {
        if let service::Name::Exact(service) = name {
            return self.service(service);
        }
        let mut found = self.services()?;
        found.retain(|service| name.matches(&service.service));
        match (found.pop(), found.pop()) {
            (Some(service), None) => Ok(service),
            (Some(one), Some(other)) => Err(Error::Usage(format!(
                "{name} can mean {} and {}: name one with -t, -u or --sctp-service",
                other.service, one.service
            ))),
            (None, _) => Err(Error::NoServiceNamed(name.to_string())),
        }
    }

    /// The servers of a service, in the order of their names.
    pub fn servers(&mut self, service: &service::Service) -> Result<Vec<Server>> {
        Ok(self.servers_at(service)?.1)
    }

    fn servers_at(&mut self, service: &service::Service) -> Result<(Option<u32>, Vec<Server>)> {
        let attrs = [nest(DestAttr::Service, key(service)?)?];
        let what = format!("servers of {service}");
        let found = self.dump::<DestAttr>(Cmd::GetDest, attrs.into_iter().collect(), &what);
        let found = found.map_err(|error| gone(error, service))?;
        let (mut generation, mut servers) = (None, Vec::new());
        for message in &found {
            let attrs = message.attrs().get_attr_handle();
            generation = number(&attrs, DestAttr::Generation)?;
            servers.push(read_server(&attrs)?);
        }
        servers.sort_by_key(|server| (server.server, server.index));
        Ok((generation, servers))
    }

    /// The slots of a service, all or the unstable ones.
    pub fn slots(&mut self, service: &service::Service, unstable: bool) -> Result<Vec<Slot>> {
        let what = format!("slots of {service}");
        'again: for _ in 0..ATTEMPTS {
            let (generation, servers) = self.servers_at(service)?;
            let mut attrs = vec![nest(SlotsAttr::Service, key(service)?)?];
            if unstable {
                attrs.push(attr(SlotsAttr::UnstableOnly, Buffer::new())?);
            }
            let attrs = attrs.into_iter().collect();
            let found = self.dump::<SlotsAttr>(Cmd::GetSlots, attrs, &what);
            let found = found.map_err(|error| gone(error, service))?;
            let mut slots = Vec::new();
            for message in &found {
                let attrs = message.attrs().get_attr_handle();
                // Indices mean these servers in this generation only.
                let at: Option<u32> = number(&attrs, SlotsAttr::Generation)?;
                if generation.is_some() && at != generation {
                    continue 'again;
                }
                let numbers = words(bytes(&attrs, SlotsAttr::Slot)).map(u32::from_ne_bytes);
                let old = words(bytes(&attrs, SlotsAttr::Old)).map(u16::from_ne_bytes);
                let new = words(bytes(&attrs, SlotsAttr::New)).map(u16::from_ne_bytes);
                let left = words(bytes(&attrs, SlotsAttr::TimeLeft)).map(u32::from_ne_bytes);
                for (((slot, old), new), time_left_ms) in numbers.zip(old).zip(new).zip(left) {
                    let named = |index| match index {
                        NONE => Ok(None),
                        index => Member::find(&servers, index).map(Some).ok_or(index),
                    };
                    let (Ok(old), Ok(new)) = (named(old), named(new)) else {
                        // A server that came between the two dumps.
                        continue 'again;
                    };
                    slots.push(Slot {
                        slot,
                        old,
                        new,
                        time_left_ms,
                    });
                }
            }
            return Ok(slots);
        }
        Err(Error::Unsteady(ATTEMPTS))
    }

    /// The counters by CPU, of all services.
    pub fn counters(&mut self) -> Result<Vec<(service::Service, u32, Counters)>> {
        let found = self.dump::<CpuAttr>(Cmd::GetCounters, Attrs::new(), "counters")?;
        let mut all = Vec::new();
        for message in &found {
            let attrs = message.attrs().get_attr_handle();
            let service = attrs.get_attribute(CpuAttr::Service);
            let service = read_key(&inside(service.ok_or_else(nameless)?)?)?;
            let cpu = number(&attrs, CpuAttr::Cpu)?.unwrap_or_default();
            all.push((
                service,
                cpu,
                read_counters(attrs.get_attribute(CpuAttr::Counters))?,
            ));
        }
        all.sort_by_key(|(service, cpu, _)| (*service, *cpu));
        Ok(all)
    }

    /// Whether the network namespace has express mode; before that, `change` says whether it is to.
    pub fn express(&mut self, change: Option<bool>) -> Result<bool> {
        let (cmd, attrs) = match change {
            None => (Cmd::GetNetns, Attrs::new()),
            Some(on) => {
                let attr = attr(NetnsAttr::Express, u8::from(on))?;
                (Cmd::SetNetns, [attr].into_iter().collect())
            }
        };
        let found = self
            .genl
            .request(&self.family, cmd, NlmF::ACK, attrs, "express mode");
        let found: Vec<Genlmsghdr<Cmd, NetnsAttr>> = found.map_err(too_old)?;
        let message = found.first().ok_or_else(|| answer("no express mode"))?;
        let express = number::<_, u8>(&message.attrs().get_attr_handle(), NetnsAttr::Express)?;
        Ok(express.is_some_and(|express| express != 0))
    }

    /// The events from now on.
    pub fn listen(self) -> Result<Listener> {
        let receiver = self.genl.listen(&self.family, EVENTS)?;
        let receiver = receiver.ok_or(Error::OldModule("it has no events"))?;
        Ok(Listener(receiver))
    }
}

/// Where events come from.
pub struct Listener(Receiver<genl::Events<Cmd, EventOrDestAttr>>);

/// Events have attributes of two sets; which one, the command says.
type EventOrDestAttr = u16;

impl Listener {
    /// The next events; none if there was none in `timeout`.
    pub fn next(&self, timeout: Option<Duration>) -> Result<Vec<Event>> {
        let closed = || answer("the end of events");
        let events = match timeout {
            Some(timeout) => match self.0.recv_timeout(timeout) {
                Ok(events) => events?,
                Err(RecvTimeoutError::Timeout) => return Ok(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => return Err(closed()),
            },
            None => self.0.recv().map_err(|_| closed())??,
        };
        match events {
            None => Ok(vec![Event::Lost]),
            Some(events) => events
                .iter()
                .filter_map(|m| read_event(m).transpose())
                .collect(),
        }
    }
}

fn too_old(error: Error) -> Error {
    match error.errno() {
        Some(libc::EOPNOTSUPP) => Error::OldModule("it does not know the request"),
        _ => error,
    }
}

/// A service that mhs does not have: perhaps another scheduler has it.
fn missing(service: &service::Service) -> Error {
    match Ipvs::connect().and_then(|mut ipvs| ipvs.service(service)) {
        Ok(entry) => Error::NotMhs(*service, entry.options.scheduler),
        Err(_) => Error::NoService(*service),
    }
}

fn gone(error: Error, service: &service::Service) -> Error {
    match error.errno() {
        Some(libc::ENOENT | libc::ESRCH) => missing(service),
        _ => error,
    }
}

fn nameless() -> Error {
    answer("something without a name")
}

/// The elements of an array in an attribute.
fn words<const N: usize>(bytes: Option<&[u8]>) -> impl Iterator<Item = [u8; N]> + '_ {
    let chunks = bytes.unwrap_or_default().chunks_exact(N);
    chunks.filter_map(|chunk| chunk.first_chunk().copied())
}

/// A number of the type `uint`, which is sent in 4 or 8 bytes.
fn uint<A>(attrs: &GenlAttrHandle<'_, A>, kind: A) -> Result<Option<u64>>
where
    A: NlAttrType + Copy,
{
    let Some(bytes) = bytes(attrs, kind) else {
        return Ok(None);
    };
    match (<[u8; 4]>::try_from(bytes), <[u8; 8]>::try_from(bytes)) {
        (Ok(word), _) => Ok(Some(u32::from_ne_bytes(word).into())),
        (_, Ok(word)) => Ok(Some(u64::from_ne_bytes(word))),
        _ => Err(answer(format!("a number of {} bytes", bytes.len()))),
    }
}

/// The attributes that say which service.
fn key(service: &service::Service) -> Result<Vec<Nlattr<KeyAttr, Buffer>>> {
    let mut attrs = vec![attr(KeyAttr::Family, service.family() as u16)?];
    match service {
        service::Service::Address {
            protocol,
            address,
            port,
        } => {
            let address = match address {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            attrs.push(attr(KeyAttr::Protocol, *protocol as u16)?);
            attrs.push(attr(KeyAttr::Address, Buffer::from(address))?);
            attrs.push(attr(KeyAttr::Port, port.to_be())?);
        }
        service::Service::Mark { mark, .. } => attrs.push(attr(KeyAttr::Fwmark, *mark)?),
    }
    Ok(attrs)
}

fn read_key(attrs: &GenlAttrHandle<'_, KeyAttr>) -> Result<service::Service> {
    let family = number(attrs, KeyAttr::Family)?.and_then(Family::from_number);
    let family = family.ok_or_else(nameless)?;
    if let Some(mark) = number(attrs, KeyAttr::Fwmark)? {
        return Ok(service::Service::Mark { mark, family });
    }
    let protocol = number(attrs, KeyAttr::Protocol)?.and_then(Protocol::from_number);
    let address = bytes(attrs, KeyAttr::Address).and_then(|bytes| family.address(bytes));
    let port: Option<u16> = number(attrs, KeyAttr::Port)?;
    Ok(service::Service::Address {
        protocol: protocol.ok_or_else(nameless)?,
        address: address.ok_or_else(nameless)?,
        port: u16::from_be(port.ok_or_else(nameless)?),
    })
}

fn read_service(attrs: &GenlAttrHandle<'_, ServiceAttr>) -> Result<Service> {
    let service = attrs.get_attribute(ServiceAttr::Service);
    let word = |kind| number::<_, u32>(attrs, kind).map(Option::unwrap_or_default);
    Ok(Service {
        service: read_key(&inside(service.ok_or_else(nameless)?)?)?,
        scheduler: string(attrs, ServiceAttr::Scheduler).unwrap_or_default(),
        stateless: attrs.get_attribute(ServiceAttr::Stateless).is_some(),
        generation: word(ServiceAttr::Generation)?,
        options: Options {
            size: word(ServiceAttr::TableSize)?,
            key: bytes(attrs, ServiceAttr::HashKey)
                .map(read_hash_key)
                .transpose()?,
            balance: word(ServiceAttr::Balance)?,
        },
        servers: word(ServiceAttr::Servers)?,
        stable: word(ServiceAttr::Stable)?,
        unstable: word(ServiceAttr::Unstable)?,
        next_merge_ms: uint(attrs, ServiceAttr::NextMerge)?,
        session_timeout_ms: uint(attrs, ServiceAttr::SessionTimeout)?.unwrap_or_default(),
        counters: read_counters(attrs.get_attribute(ServiceAttr::Counters))?,
    })
}

fn read_hash_key(bytes: &[u8]) -> Result<Key> {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Key::from_hex(digits.as_bytes()).ok_or_else(|| answer("a hash key that is not 16 bytes"))
}

fn read_counters<A: NlAttrType>(counters: Option<&Nlattr<A, Buffer>>) -> Result<Counters> {
    let Some(counters) = counters else {
        return Ok(Counters::default());
    };
    let attrs: GenlAttrHandle<'_, CounterAttr> = inside(counters)?;
    let count = |kind| uint(&attrs, kind).map(Option::unwrap_or_default);
    Ok(Counters {
        packets: count(CounterAttr::Packets)?,
        bytes: count(CounterAttr::Bytes)?,
        conns: count(CounterAttr::Conns)?,
        pins_new: count(CounterAttr::PinsNew)?,
        pins_old: count(CounterAttr::PinsOld)?,
        icmp_errors: count(CounterAttr::IcmpErrors)?,
        full: count(CounterAttr::Full)?,
        no_server: count(CounterAttr::NoServer)?,
        udp_moved: count(CounterAttr::UdpMoved)?,
        remaps: count(CounterAttr::Remaps)?,
        merges: count(CounterAttr::Merges)?,
        slots_merged: count(CounterAttr::SlotsMerged)?,
        rebuild_failures: count(CounterAttr::RebuildFailures)?,
    })
}

fn read_server(attrs: &GenlAttrHandle<'_, DestAttr>) -> Result<Server> {
    let family = number(attrs, DestAttr::Family)?.and_then(Family::from_number);
    let family = family.ok_or_else(nameless)?;
    let address = bytes(attrs, DestAttr::Address).and_then(|bytes| family.address(bytes));
    let port: Option<u16> = number(attrs, DestAttr::Port)?;
    let word = |kind| number::<_, u32>(attrs, kind).map(Option::unwrap_or_default);
    let state = word(DestAttr::State)?;
    Ok(Server {
        server: server::Server {
            address: address.ok_or_else(nameless)?,
            port: u16::from_be(port.ok_or_else(nameless)?),
        },
        index: number(attrs, DestAttr::Index)?.unwrap_or(NONE),
        weight: word(DestAttr::Weight)?,
        method: method(word(DestAttr::Method)?),
        state: State::from_number(state).ok_or_else(|| answer("an unknown state"))?,
        time_left_ms: uint(attrs, DestAttr::TimeLeft)?,
        slots_old: word(DestAttr::OldSlots)?,
        slots_new: word(DestAttr::NewSlots)?,
        packets: uint(attrs, DestAttr::Packets)?.unwrap_or_default(),
        bytes: uint(attrs, DestAttr::Bytes)?.unwrap_or_default(),
    })
}

/// `None` for an event that this program does not know of.
fn read_event(message: &Genlmsghdr<Cmd, EventOrDestAttr>) -> Result<Option<Event>> {
    let cmd = *message.cmd();
    if let Cmd::DestNtf = cmd {
        let attrs = message.attrs().get_typed_attr_handle().map_err(answer)?;
        let service = attrs.get_attribute(DestAttr::Service);
        let server = read_server(&attrs)?;
        return Ok(Some(Event::Server {
            service: read_key(&inside(service.ok_or_else(nameless)?)?)?,
            generation: number(&attrs, DestAttr::Generation)?.unwrap_or_default(),
            server: server.server,
            weight: server.weight,
            method: server.method,
            state: server.state,
            time_left_ms: server.time_left_ms,
        }));
    }
    let attrs = message.attrs().get_typed_attr_handle().map_err(answer)?;
    let service = attrs.get_attribute(EventAttr::Service);
    let service = read_key(&inside(service.ok_or_else(nameless)?)?)?;
    let word = |kind| number::<_, u32>(&attrs, kind).map(Option::unwrap_or_default);
    let generation = word(EventAttr::Generation)?;
    let cause = Cause::from_number(word(EventAttr::Cause)?);
    let unstable = word(EventAttr::Unstable)?;
    let next_merge_ms = uint(&attrs, EventAttr::NextMerge)?;
    Ok(match cmd {
        Cmd::RemapNtf => Some(Event::Remap {
            service,
            generation,
            cause,
            became_unstable: word(EventAttr::BecameUnstable)?,
            became_stable: word(EventAttr::BecameStable)?,
            unstable,
            next_merge_ms,
        }),
        Cmd::MergeNtf => Some(Event::Merge {
            service,
            generation,
            merged: word(EventAttr::Merged)?,
            unstable,
            next_merge_ms,
        }),
        Cmd::FailureNtf => Some(Event::Failure {
            service,
            generation,
            cause,
            unstable,
        }),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of a service, with these bytes of a key or without one.
    fn told(key_bytes: Option<&[u8]>) -> Result<Service> {
        let service = service::Service::with_protocol(Protocol::Tcp, "192.0.2.1:80").unwrap();
        let mut attrs = vec![
            nest(ServiceAttr::Service, key(&service)?)?,
            attr(ServiceAttr::Scheduler, "mhs")?,
            attr(ServiceAttr::TableSize, 16381_u32)?,
        ];
        if let Some(bytes) = key_bytes {
            attrs.push(attr(ServiceAttr::HashKey, Buffer::from(bytes.to_vec()))?);
        }
        let attrs: Attrs<ServiceAttr> = attrs.into_iter().collect();
        read_service(&attrs.get_attr_handle())
    }

    #[test]
    fn a_server_whose_method_changed_is_two_members() {
        let server = |n: u8, index, state| Server {
            server: server::Server {
                address: [192, 0, 2, n].into(),
                port: 80,
            },
            index,
            weight: 1,
            method: "Route",
            state,
            time_left_ms: None,
            slots_old: 0,
            slots_new: 0,
            packets: 0,
            bytes: 0,
        };
        let servers = [
            server(11, 0, State::Grace),
            server(11, 1, State::Live),
            server(12, 2, State::Grace),
        ];
        let find = |index| Member::find(&servers, index).unwrap();
        assert_ne!(find(0), find(1));
        assert_eq!(
            [0, 1, 2].map(|index| find(index).is_superseded),
            [true, false, false]
        );
        assert_eq!(Member::find(&servers, 3), None);
    }

    #[test]
    fn the_hash_key_may_not_be_shown() {
        let hidden = told(None).unwrap();
        assert_eq!(hidden.options.size, 16381);
        assert!(hidden.options.key.is_none());
        assert_eq!(
            told(Some(&[1; 16])).unwrap().options.key.unwrap().k0,
            u64::from_le_bytes([1; 8])
        );
        assert!(told(Some(&[1; 15])).is_err());
    }
}
