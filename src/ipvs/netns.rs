// SPDX-License-Identifier: GPL-2.0

//! IPVS in one network namespace.
//!
//! C header: [`include/net/ip_vs.h`](srctree/include/net/ip_vs.h)

use super::{
    bindings,
    rcu::Reader,
    skb, //
};
use crate::pure::hash::Addr;
use core::ffi::c_int;
use kernel::{
    error::to_result,
    prelude::*,
    types::Opaque, //
};

/// The timeouts of a protocol, in ticks.
#[derive(Clone, Copy)]
pub(crate) struct Timeouts {
    /// How long a session may be silent and still be alive.
    pub(crate) session: u64,
    /// How long an entry lives without a packet, at most.
    pub(crate) entry: u64,
}

impl Timeouts {
    /// What IPVS uses where it knows no protocol: 15 minutes, its TCP default.
    const DEFAULT: Self = Self {
        session: 900 * super::time::HZ,
        entry: 900 * super::time::HZ,
    };

    fn longer(self, other: Self) -> Self {
        Self {
            session: self.session.max(other.session),
            entry: self.entry.max(other.entry),
        }
    }
}

/// The settings that decide whether packets may be forwarded without an entry.
#[derive(Clone, Copy)]
pub(crate) struct Settings(pub(super) u8);

impl Settings {
    fn has(self, bit: u32) -> bool {
        u32::from(self.0) & bit != 0
    }

    /// Every packet has to go through IPVS: it is off (`backup_only`), or each connection must have
    /// an entry (`conntrack`).
    pub(crate) fn stateful(self) -> bool {
        self.has(bindings::MHS_IPVS_BACKUP_ONLY | bindings::MHS_IPVS_CONNTRACK)
    }

    /// Entries arrive from another balancer at any time.
    pub(crate) fn receives_entries(self) -> bool {
        self.has(bindings::MHS_IPVS_SYNC_BACKUP)
    }

    /// Another balancer is told of entries.
    pub(crate) fn sends_entries(self) -> bool {
        self.has(bindings::MHS_IPVS_SYNC_MASTER)
    }

    /// Some new flows are dropped as memory is short (`drop_packet`).
    pub(crate) fn drops(self) -> bool {
        self.has(bindings::MHS_IPVS_DROPS)
    }
}

/// A `struct netns_ipvs`.
#[repr(transparent)]
pub(crate) struct Netns(Opaque<bindings::netns_ipvs>);

// SAFETY: What is read here are words that the kernel changes with single stores, or atomically.
unsafe impl Sync for Netns {}

impl Netns {
    /// # Safety
    ///
    /// `ptr` must be valid for all of `'a`.
    pub(super) unsafe fn from_raw<'a>(ptr: *mut bindings::netns_ipvs) -> &'a Self {
        // SAFETY: The type is transparent, and the pointer valid by the safety requirements.
        unsafe { &*ptr.cast() }
    }

    pub(super) fn as_ptr(&self) -> *mut bindings::netns_ipvs {
        self.0.get()
    }

    /// The namespace itself.
    pub(super) fn net(&self) -> *mut bindings::net {
        // SAFETY: The pointer is set before the namespace is used and never changes.
        unsafe { (*self.as_ptr()).net }
    }

    /// Reads the settings, which `sysctl` changes at any time.
    #[inline]
    pub(crate) fn settings(&self) -> Settings {
        // SAFETY: `self` is a valid namespace.
        Settings(unsafe { bindings::mhs_ipvs_settings(self.as_ptr()) })
    }

    /// Whether connections to a deleted server are to end at once (`expire_nodest_conn`).
    pub(crate) fn expires_nodest(&self) -> bool {
        // SAFETY: `self` is a valid namespace.
        unsafe { bindings::mhs_ipvs_expire_nodest(self.as_ptr()) }
    }

    /// A number that changes whenever a route of a family does.
    #[inline]
    pub(crate) fn routes(&self, v6: bool) -> u32 {
        // SAFETY: `self` is a valid namespace, and so is the one it belongs to.
        unsafe { bindings::mhs_net_routes(self.net(), v6) }
    }

    /// Whether packets to an address are for this host.
    pub(crate) fn is_local(&self, addr: &Addr) -> bool {
        let v6 = matches!(addr, Addr::V6(_));
        // SAFETY: As above.
        unsafe { bindings::mhs_net_is_local(self.net(), v6, &skb::to_raw(addr)) }
    }

    /// Whether there is any connection entry.
    #[inline]
    pub(crate) fn has_entries(&self) -> bool {
        // SAFETY: `self` is a valid namespace.
        unsafe { bindings::mhs_ipvs_conn_count(self.as_ptr()) != 0 }
    }

    /// Whether the table of entries is full (`net.ipv4.vs.conn_max`).
    pub(crate) fn is_full(&self) -> bool {
        // SAFETY: `self` is a valid namespace.
        unsafe { bindings::mhs_ipvs_conn_full(self.as_ptr()) }
    }

    /// How many services it has for clients of a family, by firewall mark or by address, whatever
    /// their scheduler.
    #[inline]
    pub(crate) fn services(&self, v6: bool, by_mark: bool) -> u32 {
        let af = if v6 {
            bindings::AF_INET6
        } else {
            bindings::AF_INET
        };
        // SAFETY: `self` is a valid namespace.
        unsafe { bindings::mhs_ipvs_services(self.as_ptr(), af as c_int, by_mark) as u32 }
    }

    /// Whether IPVS has another service for packets to an address and port that it prefers: one by
    /// `mark`; or, to one that takes `any_port`, one for this port. Looks at all services there are.
    pub(crate) fn prefers(
        &self,
        addr: &Addr,
        proto: u16,
        port: u16,
        mark: u32,
        any_port: bool,
        _rcu: Reader<'_>,
    ) -> bool {
        let af = match addr {
            Addr::V4(_) => bindings::AF_INET,
            Addr::V6(_) => bindings::AF_INET6,
        };
        // SAFETY: `self` is a valid namespace, and we are in a critical section.
        unsafe {
            bindings::mhs_ipvs_prefers(
                self.as_ptr(),
                af as c_int,
                mark,
                proto,
                &skb::to_raw(addr),
                port.to_be(),
                any_port,
            )
        }
    }

    fn table(&self, protocol: u32, states: &[u32]) -> Option<(u64, u64)> {
        // SAFETY: `self` is a valid namespace.
        let pd = unsafe { bindings::ip_vs_proto_data_get(self.as_ptr(), protocol as u16) };
        // SAFETY: Protocol data lives as long as its namespace.
        let pd = unsafe { pd.as_ref() }?;
        if pd.timeout_table.is_null() {
            return None;
        }
        let last = match protocol {
            bindings::IPPROTO_TCP => bindings::IP_VS_TCP_S_LAST,
            bindings::IPPROTO_UDP => bindings::IP_VS_UDP_S_LAST,
            bindings::IPPROTO_SCTP => bindings::ip_vs_sctp_states_IP_VS_SCTP_S_LAST,
            _ => return None,
        };
        let read = |state: u32| {
            // SAFETY: The table has an entry for each state below `last`, and one more.
            let ticks: c_int = unsafe {
                pd.timeout_table
                    .add(state.min(last) as usize)
                    .read_volatile()
            };
            u64::try_from(ticks).unwrap_or(0)
        };
        let session = states.iter().map(|&state| read(state)).max()?;
        let entry = (0..last).map(read).max()?;
        Some((session.max(1), entry.max(1)))
    }

    /// The timeouts that hold for a service now (`ipvsadm --set`). `protocol` is an `IPPROTO_*`
    /// number; anything but TCP, UDP and SCTP (a service by firewall mark) gets the longest of all.
    pub(crate) fn timeouts(&self, protocol: u16) -> Timeouts {
        let of = |protocol: u32| {
            let states: &[u32] = match protocol {
                bindings::IPPROTO_TCP => &[
                    bindings::IP_VS_TCP_S_ESTABLISHED,
                    bindings::IP_VS_TCP_S_FIN_WAIT,
                ],
                bindings::IPPROTO_UDP => &[bindings::IP_VS_UDP_S_NORMAL],
                _ => &[bindings::ip_vs_sctp_states_IP_VS_SCTP_S_ESTABLISHED],
            };
            self.table(protocol, states)
                .map(|(session, entry)| Timeouts { session, entry })
        };
        const PROTOCOLS: [u32; 3] = [
            bindings::IPPROTO_TCP,
            bindings::IPPROTO_UDP,
            bindings::IPPROTO_SCTP,
        ];
        if PROTOCOLS.contains(&u32::from(protocol)) {
            of(u32::from(protocol)).unwrap_or(Timeouts::DEFAULT)
        } else {
            PROTOCOLS
                .iter()
                .filter_map(|&protocol| of(protocol))
                .reduce(Timeouts::longer)
                .unwrap_or(Timeouts::DEFAULT)
        }
    }
}

/// Room in every namespace for what is noted of it.
///
/// # Invariants
///
/// There is room as long as this exists.
pub(crate) struct Notes(());

impl Notes {
    /// Makes room. May sleep, as may dropping it.
    ///
    /// # Errors
    ///
    /// `EBUSY` if there is room already, for another one.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: May be called at any time in process context.
        to_result(unsafe { bindings::mhs_net_register() })?;
        // INVARIANT: Registered.
        Ok(Self(()))
    }

    /// What was noted of express mode.
    pub(crate) fn express(&self, netns: &Netns) -> Option<bool> {
        // SAFETY: The namespace is valid, and by the type invariants it has room for notes.
        match unsafe { bindings::mhs_net_express(netns.net()) } {
            bindings::mhs_express_MHS_EXPRESS_ON => Some(true),
            bindings::mhs_express_MHS_EXPRESS_OFF => Some(false),
            _ => None,
        }
    }

    /// Notes whether there is to be express mode.
    pub(crate) fn set_express(&self, netns: &Netns, on: bool) {
        let note = match on {
            true => bindings::mhs_express_MHS_EXPRESS_ON,
            false => bindings::mhs_express_MHS_EXPRESS_OFF,
        };
        // SAFETY: As above.
        unsafe { bindings::mhs_net_note_express(netns.net(), note) };
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        // SAFETY: By the type invariants it is registered.
        unsafe { bindings::mhs_net_unregister() };
    }
}
