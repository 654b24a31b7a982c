// SPDX-License-Identifier: GPL-2.0

//! Looks at all services again and again, and makes rates of what was counted.

use crate::{
    command::events::sentence,
    error::{Error, Result},
    ipvs::Ipvs,
    mhs::{Listener, Mhs, Server, Service},
    server, service,
};
use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

/// Events that are kept.
const EVENTS: usize = 100;

/// A service as it is shown.
#[derive(Clone, Debug)]
pub struct Row {
    pub service: Service,
    /// Packets a second without an entry.
    pub stateless: f64,
    /// Packets a second by an entry.
    pub pinned: f64,
}

/// A server as it is shown.
#[derive(Clone, Debug)]
pub struct ServerRow {
    pub server: Server,
    /// Packets a second, with and without an entry.
    pub packets: f64,
    /// `None` if it is deleted.
    pub entries: Option<u32>,
}

/// Everything that is shown.
#[derive(Clone, Debug, Default)]
pub struct View {
    pub rows: Vec<Row>,
    pub selected: usize,
    /// Of the selected service.
    pub servers: Vec<ServerRow>,
    /// The first server in the picture.
    pub scroll: usize,
    /// What happened and how long ago, the newest last.
    pub events: Vec<(Duration, String)>,
    pub delay: f64,
    pub paused: bool,
}

impl View {
    pub fn selected(&self) -> Option<&Row> {
        self.rows.get(self.selected)
    }

    /// Goes to the next service, or to one before.
    pub fn select(&mut self, by: isize) {
        let last = self.rows.len().saturating_sub(1);
        self.selected = self.selected.saturating_add_signed(by).min(last);
        self.scroll = 0;
    }

    /// Shows later servers, or earlier ones.
    pub fn scroll(&mut self, by: isize) {
        let last = self.servers.len().saturating_sub(1);
        self.scroll = self.scroll.saturating_add_signed(by).min(last);
    }
}

/// Numbers that only grow, and when they were read.
#[derive(Clone, Copy)]
struct Count {
    at: Instant,
    stateless: u64,
    all: u64,
}

impl Count {
    /// What came a second since `before`, without an entry and in all.
    fn since(&self, before: Option<&Count>) -> (f64, f64) {
        let Some(before) = before else {
            return (0.0, 0.0);
        };
        let seconds = (self.at - before.at).as_secs_f64().max(1e-3);
        // Less than before: it was deleted and made again, or set to zero.
        let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
        (
            rate(self.stateless, before.stateless),
            rate(self.all, before.all),
        )
    }
}

pub struct Watch {
    mhs: Mhs,
    ipvs: Ipvs,
    listener: Listener,
    services: HashMap<service::Service, Count>,
    servers: HashMap<(service::Service, server::Server), Count>,
    events: VecDeque<(Instant, String)>,
}

impl Watch {
    pub fn start() -> Result<Self> {
        Ok(Self {
            mhs: Mhs::connect()?,
            ipvs: Ipvs::connect()?,
            listener: Mhs::connect()?.listen()?,
            services: HashMap::new(),
            servers: HashMap::new(),
            events: VecDeque::new(),
        })
    }

    /// Takes another look, for the service that is selected in `view` a closer one.
    pub fn look(&mut self, view: &mut View) -> Result<()> {
        let selected = view.selected().map(|row| row.service.service);
        let counted: HashMap<_, _> = self
            .ipvs
            .services()?
            .into_iter()
            .map(|e| (e.service, e.counted))
            .collect();
        let services = self.mhs.services()?;
        let mut counts = HashMap::new();
        view.rows.clear();
        for service in services {
            let name = service.service;
            let now = Count {
                at: Instant::now(),
                stateless: service.counters.packets,
                all: counted.get(&name).map_or(0, |counted| counted.packets),
            };
            let (stateless, all) = now.since(self.services.get(&name));
            counts.insert(name, now);
            view.rows.push(Row {
                service,
                stateless,
                // The two are read one after the other.
                pinned: (all - stateless).max(0.0),
            });
        }
        self.services = counts;
        // The same service, wherever it is now.
        let place = view
            .rows
            .iter()
            .position(|row| Some(row.service.service) == selected);
        view.selected = place.unwrap_or(view.selected.min(view.rows.len().saturating_sub(1)));
        self.look_closer(view)
    }

    /// Looks at the servers of the selected service.
    pub fn look_closer(&mut self, view: &mut View) -> Result<()> {
        view.servers.clear();
        let Some(name) = view.selected().map(|row| row.service.service) else {
            return Ok(());
        };
        let servers = match self.mhs.servers(&name) {
            // Deleted this moment.
            Err(Error::NoService(_) | Error::NotMhs(..)) => return Ok(()),
            servers => servers?,
        };
        let entries = self.ipvs.servers(&name)?;
        let mut counts = HashMap::new();
        for server in servers {
            let entry = entries.iter().find(|entry| entry.server == server.server);
            let now = Count {
                at: Instant::now(),
                stateless: server.packets,
                all: entry.map_or(server.packets, |entry| entry.counted.packets),
            };
            let key = (name, server.server);
            let (_, packets) = now.since(self.servers.get(&key));
            counts.insert(key, now);
            view.servers.push(ServerRow {
                entries: entry.map(|entry| entry.active + entry.inactive),
                server,
                packets,
            });
        }
        self.servers = counts;
        view.scroll = view.scroll.min(view.servers.len().saturating_sub(1));
        Ok(())
    }

    /// Takes note of what happened meanwhile.
    pub fn hear(&mut self, view: &mut View) -> Result<()> {
        loop {
            let events = self.listener.next(Some(Duration::ZERO))?;
            if events.is_empty() {
                break;
            }
            let now = Instant::now();
            self.events
                .extend(events.iter().map(|event| (now, sentence(event))));
        }
        while self.events.len() > EVENTS {
            self.events.pop_front();
        }
        let events = self.events.iter();
        view.events = events
            .map(|(at, text)| (at.elapsed(), text.clone()))
            .collect();
        Ok(())
    }
}
