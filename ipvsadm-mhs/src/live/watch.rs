// SPDX-License-Identifier: GPL-2.0

//! Looks at all services again and again, and makes rates of what was counted.

use crate::{
    error::{Error, Result},
    ipvs::Ipvs,
    mhs::{Event, Listener, Mhs, Server, Service, State},
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
    /// Packets a second without an entry.
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
#[derive(Clone, Copy, Debug)]
struct Count {
    at: Instant,
    /// Packets without an entry, to the moment.
    stateless: u64,
    /// All packets. IPVS adds them up every 2 seconds.
    all: u64,
}

impl Count {
    fn seconds_since(&self, before: &Count) -> f64 {
        (self.at - before.at).as_secs_f64().max(1e-3)
    }

    fn stateless_since(&self, before: &Count) -> u64 {
        // Less than before: the service was deleted and made again.
        self.stateless.saturating_sub(before.stateless)
    }
}

/// What was counted of a service lately.
#[derive(Debug)]
struct History {
    last: Count,
    /// Those that had another `all` than the one before, the oldest first.
    steps: VecDeque<Count>,
}

impl History {
    /// So long a time is looked at for the rate of packets with an entry. That they are added up
    /// now and then only, and not when we look, must not matter much.
    const WINDOW: Duration = Duration::from_secs(8);

    fn new(first: Count) -> Self {
        Self {
            last: first,
            steps: [first].into(),
        }
    }

    /// Takes note of a count, and says how many packets came a second without an entry, and with
    /// one.
    fn add(&mut self, now: Count) -> (f64, f64) {
        let stateless = now.stateless_since(&self.last) as f64 / now.seconds_since(&self.last);
        self.last = now;
        if self.steps.back().is_none_or(|step| step.all != now.all) {
            self.steps.push_back(now);
        }
        while self.steps.len() > 2 && now.at - self.steps[1].at > Self::WINDOW {
            self.steps.pop_front();
        }
        let pinned = match (self.steps.front(), self.steps.back()) {
            (Some(first), Some(step)) if now.at - step.at < Self::WINDOW => {
                let all = step.all.saturating_sub(first.all);
                let pinned = all.saturating_sub(step.stateless_since(first));
                pinned as f64 / step.seconds_since(first)
            }
            _ => 0.0,
        };
        (stateless, pinned)
    }
}

/// Packets of a member of a service, when they were read. A server whose forwarding method was changed
/// is two members, so that its name alone is none.
type Packets = HashMap<(service::Service, server::Server, u16), (Instant, u64)>;

/// Takes note of the packets of a server in `now`, and says how many came a second since `before`.
fn packet_rate(
    before: &Packets,
    now: &mut Packets,
    service: service::Service,
    server: &Server,
    at: Instant,
) -> f64 {
    let key = (service, server.server, server.index);
    now.insert(key, (at, server.packets));
    before.get(&key).map_or(0.0, |(then, packets)| {
        let seconds = (at - *then).as_secs_f64().max(1e-3);
        server.packets.saturating_sub(*packets) as f64 / seconds
    })
}

pub struct Watch {
    mhs: Mhs,
    ipvs: Ipvs,
    listener: Listener,
    services: HashMap<service::Service, History>,
    servers: Packets,
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
        let mut histories = HashMap::new();
        view.rows.clear();
        for service in services {
            let name = service.service;
            let now = Count {
                at: Instant::now(),
                stateless: service.counters.packets,
                all: counted.get(&name).map_or(0, |counted| counted.packets),
            };
            let (mut history, (stateless, mut pinned)) = match self.services.remove(&name) {
                Some(mut history) => {
                    let rates = history.add(now);
                    (history, rates)
                }
                None => (History::new(now), (0.0, 0.0)),
            };
            let entries = self.ipvs.servers(&name)?;
            if entries
                .iter()
                .all(|entry| entry.active + entry.inactive == 0)
            {
                // Then nothing was forwarded by one, whatever rounding says.
                pinned = 0.0;
                history.steps = [now].into();
            }
            histories.insert(name, history);
            view.rows.push(Row {
                service,
                stateless,
                pinned,
            });
        }
        self.services = histories;
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
        let mut counts = Packets::new();
        for server in servers {
            let known = matches!(server.state, State::Live | State::Draining);
            let entry = entries
                .iter()
                .find(|entry| known && entry.server == server.server);
            let packets = packet_rate(&self.servers, &mut counts, name, &server, Instant::now());
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
                .extend(events.iter().map(|event| (now, brief(event))));
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

/// An event in fewer words than the command `events` has.
fn brief(event: &Event) -> String {
    match event {
        Event::Remap {
            service,
            cause,
            became_unstable,
            unstable,
            ..
        } => {
            let cause = format!("{cause:?}").to_lowercase();
            format!("{service} {cause}: {became_unstable} slots moved, {unstable} unstable")
        }
        Event::Merge {
            service,
            merged,
            unstable,
            ..
        } => format!("{service} merge: {merged} slots, {unstable} unstable"),
        Event::Server {
            service,
            server,
            weight,
            state,
            ..
        } => {
            let state = state.word();
            format!("{service} server {server}: {state}, weight {weight}")
        }
        Event::Failure { service, .. } => {
            format!("{service} failure: no memory, or no room for a server")
        }
        Event::Lost => "some events were lost".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// IPVS adds up every 2 seconds; we look every half.
    #[test]
    fn rates() {
        let start = Instant::now();
        let count = |halves: u64, pinned: u64| Count {
            at: start + Duration::from_millis(500 * halves),
            stateless: 500 * halves,
            all: (1000 + pinned) * (halves / 4 * 2),
        };
        let rates = |pinned| {
            let mut history = History::new(count(0, pinned));
            let rates = (1..60).map(|halves| history.add(count(halves, pinned)));
            rates.last().unwrap()
        };
        assert_eq!(rates(0), (1000.0, 0.0));
        assert_eq!(rates(250), (1000.0, 250.0));
    }

    #[test]
    fn two_members_of_one_name_have_a_rate_each() {
        let service = service::Service::Mark {
            mark: 7,
            family: service::Family::Inet,
        };
        let member = |index, packets| Server {
            server: server::Server {
                address: [192, 0, 2, 11].into(),
                port: 80,
            },
            index,
            weight: 1,
            method: "Route",
            state: State::Live,
            time_left_ms: None,
            slots_old: 0,
            slots_new: 0,
            packets,
            bytes: 0,
        };
        let start = Instant::now();
        let look = |before: &Packets, seconds, packets: [u64; 2]| {
            let mut now = Packets::new();
            let at = start + Duration::from_secs(seconds);
            let rates = [0, 1].map(|index| {
                let member = member(index, packets[usize::from(index)]);
                packet_rate(before, &mut now, service, &member, at)
            });
            (now, rates)
        };
        let (first, rates) = look(&Packets::new(), 0, [1_000_000, 10]);
        assert_eq!(rates, [0.0, 0.0]);
        let (_, rates) = look(&first, 2, [1_000_000, 30]);
        assert_eq!(rates, [0.0, 10.0]);
    }

    #[test]
    fn no_packet_any_more() {
        let start = Instant::now();
        let mut history = History::new(Count {
            at: start,
            stateless: 0,
            all: 0,
        });
        let count = |seconds| Count {
            at: start + Duration::from_secs(seconds),
            stateless: 0,
            all: 100,
        };
        assert!(history.add(count(2)).1 > 0.0);
        assert_eq!(history.add(count(30)), (0.0, 0.0));
    }
}
