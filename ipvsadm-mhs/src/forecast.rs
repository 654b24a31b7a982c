// SPDX-License-Identifier: GPL-2.0

//! What a change of the servers does to the tables, computed by `src/core`.

use crate::{module::Config, output::ratio, server::Server};
use mhs_core::maglev::{self, Row, NONE};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The servers of a service and their weights.
pub type Fleet = BTreeMap<Server, u32>;

/// A table: the server of each slot, `None` throughout if no server has a weight.
pub type Table = Vec<Option<Server>>;

/// The table that the kernel makes of these servers.
pub fn table(config: &Config, fleet: &Fleet) -> Result<Table, String> {
    let servers: Vec<Server> = fleet.keys().copied().collect();
    let weighted = fleet
        .iter()
        .map(|(server, &weight)| server.weighted(weight));
    let weighted: Vec<maglev::Server> = weighted.collect();
    let mut rows = vec![Row::default(); weighted.len()];
    let mut owners = vec![NONE; config.size as usize];
    maglev::populate(
        &config.key,
        &weighted,
        config.balance,
        &mut rows,
        &mut owners,
    )
    .map_err(|error| format!("no table can be made: {error:?}"))?;
    let server = |owner: u16| servers.get(usize::from(owner)).copied();
    Ok(owners.into_iter().map(server).collect())
}

/// The old server of an unstable slot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Old {
    pub server: Server,
    /// It is reached in another way now: such a slot is unstable whatever its new server is.
    pub is_superseded: bool,
}

/// The old server of each slot that is unstable now, `None` if it had none.
pub type Unstable = BTreeMap<u32, Option<Old>>;

/// One server before and after a change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Share {
    #[serde(flatten)]
    pub server: Server,
    /// `None` if it was not there.
    pub weight_before: Option<u32>,
    /// `None` if it is deleted.
    pub weight_after: Option<u32>,
    pub slots_before: u32,
    pub slots_after: u32,
}

/// What a change does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forecast {
    pub slots: u32,
    /// Slots whose new server becomes another one.
    pub moved: u32,
    /// How many must move at least, for shares as the weights say.
    pub moved_ideal: f64,
    /// Slots that are unstable now, and will be.
    pub unstable_before: u32,
    pub unstable_after: u32,
    /// Slots that become unstable: the flows of these get an entry each, if they are alive.
    pub pinned: u32,
    /// The part of all live flows that get an entry.
    pub pinned_share: f64,
    /// The part of all live flows that end after a session timeout, for their server is deleted.
    pub ending_share: f64,
    /// The largest share of a server over what its weight asks for.
    pub largest_before: f64,
    pub largest_after: f64,
    pub servers: Vec<Share>,
}

/// Compares the tables of two fleets.
pub fn forecast(
    config: &Config,
    before: &Fleet,
    after: &Fleet,
    unstable: &Unstable,
) -> Result<Forecast, String> {
    let (new, then) = (table(config, before)?, table(config, after)?);
    let slots = config.size;

    let (mut moved, mut unstable_after, mut pinned, mut ending) = (0, 0, 0, 0);
    for (slot, (new, then)) in (0..).zip(new.iter().zip(&then)) {
        let was_unstable = unstable.get(&slot);
        let old = match was_unstable {
            Some(old) => old.map(|old| old.server),
            None => *new,
        };
        let is_superseded = was_unstable
            .and_then(Option::as_ref)
            .is_some_and(|old| old.is_superseded);
        moved += u32::from(new != then);
        // A slot without an old server has nothing to protect.
        let differs = old.is_some() && (is_superseded || old != *then);
        unstable_after += u32::from(differs);
        pinned += u32::from(differs && was_unstable.is_none());
        let is_deleted = |server| before.contains_key(&server) && !after.contains_key(&server);
        ending += u32::from(old.is_some_and(is_deleted));
    }

    let count = |table: &Table, server: &Server| {
        let own = table.iter().filter(|owner| owner.as_ref() == Some(server));
        own.count() as u32
    };
    let all: BTreeSet<&Server> = before.keys().chain(after.keys()).collect();
    let servers: Vec<Share> = all
        .into_iter()
        .map(|server| Share {
            server: *server,
            weight_before: before.get(server).copied(),
            weight_after: after.get(server).copied(),
            slots_before: count(&new, server),
            slots_after: count(&then, server),
        })
        .collect();

    let total = |fleet: &Fleet| fleet.values().map(|&weight| f64::from(weight)).sum::<f64>();
    let (total_before, total_after) = (total(before), total(after));
    let ideal = |weight: Option<u32>, total| ratio(weight.unwrap_or(0), total);
    let (mut gained, mut largest_before, mut largest_after) = (0.0, 0.0_f64, 0.0_f64);
    for share in &servers {
        let was = ideal(share.weight_before, total_before);
        let is = ideal(share.weight_after, total_after);
        gained += (is - was).max(0.0);
        let part = |count: u32| ratio(count, slots);
        largest_before = largest_before.max(ratio(part(share.slots_before), was));
        largest_after = largest_after.max(ratio(part(share.slots_after), is));
    }
    if total_after == 0.0 && total_before > 0.0 {
        gained = 1.0;
    }

    Ok(Forecast {
        slots,
        moved,
        moved_ideal: gained * f64::from(slots),
        unstable_before: unstable.len() as u32,
        unstable_after,
        pinned,
        pinned_share: ratio(pinned, slots),
        ending_share: ratio(ending, slots),
        largest_before,
        largest_after,
        servers,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config() -> Config {
        Config {
            size: 1021,
            ..Config::default()
        }
    }

    fn server(n: u8) -> Server {
        Server {
            address: [192, 0, 2, n].into(),
            port: 80,
        }
    }

    fn fleet(weights: &[u32]) -> Fleet {
        (1..).zip(weights).map(|(n, &w)| (server(n), w)).collect()
    }

    fn plain(before: &Fleet, after: &Fleet) -> Forecast {
        forecast(&config(), before, after, &BTreeMap::new()).unwrap()
    }

    #[test]
    fn nothing_changes() {
        let forecast = plain(&fleet(&[1, 1, 2]), &fleet(&[1, 1, 2]));
        assert_eq!(
            (forecast.moved, forecast.pinned, forecast.unstable_after),
            (0, 0, 0)
        );
        assert_eq!(forecast.moved_ideal, 0.0);
    }

    #[test]
    fn one_more() {
        let forecast = plain(&fleet(&[1, 1, 1, 1]), &fleet(&[1, 1, 1, 1, 1]));
        assert!((forecast.moved_ideal - 1021.0 / 5.0).abs() < 1e-6);
        let gained = forecast.servers[4].slots_after;
        assert!(forecast.moved >= gained && gained > 0);
        assert_eq!(forecast.servers[4].weight_before, None);
        assert_eq!(forecast.ending_share, 0.0);
    }

    #[test]
    fn deleted_and_drained() {
        let before = fleet(&[1, 1, 1, 1]);
        let deleted = plain(&before, &fleet(&[1, 1, 1]));
        let drained = plain(&before, &fleet(&[1, 1, 1, 0]));
        assert_eq!(deleted.moved, drained.moved);
        assert_eq!(drained.ending_share, 0.0);
        assert_eq!(
            deleted.ending_share,
            ratio(deleted.servers[3].slots_before, 1021)
        );
    }

    #[test]
    fn back_again_is_stable() {
        let (all, three) = (fleet(&[1, 1, 1, 1]), fleet(&[1, 1, 1]));
        let old = table(&config(), &all).unwrap();
        let new = table(&config(), &three).unwrap();
        let unstable = (0..).zip(old.iter().zip(&new));
        let unstable = unstable.filter(|(_, (old, new))| old != new);
        let slots = |is_superseded| {
            let old = |server| Old {
                server,
                is_superseded,
            };
            let slots = unstable.clone();
            let slots = slots.map(|(slot, (server, _))| (slot, server.map(old)));
            slots.collect::<Unstable>()
        };
        let same = slots(false);
        let forecast_of = |unstable| forecast(&config(), &three, &all, unstable).unwrap();
        let forecast = forecast_of(&same);
        assert_eq!(forecast.unstable_before, same.len() as u32);
        assert_eq!((forecast.unstable_after, forecast.pinned), (0, 0));
        // In another way it is not what it was.
        let forecast = forecast_of(&slots(true));
        assert_eq!(forecast.unstable_after, forecast.unstable_before);
        assert_eq!(forecast.pinned, 0);
    }

    #[test]
    fn the_last_one_goes() {
        let forecast = plain(&fleet(&[1]), &fleet(&[0]));
        assert_eq!((forecast.moved, forecast.moved_ideal), (1021, 1021.0));
        assert_eq!(forecast.largest_after, 0.0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn slots_add_up(
            before in prop::collection::vec(0u32..5, 1..8),
            after in prop::collection::vec(0u32..5, 1..8),
        ) {
            let forecast = plain(&fleet(&before), &fleet(&after));
            let sum = |f: fn(&Share) -> u32| forecast.servers.iter().map(f).sum::<u32>();
            let full = |weights: &[u32]| if weights.iter().any(|&w| w > 0) { 1021 } else { 0 };
            prop_assert_eq!(sum(|share| share.slots_before), full(&before));
            prop_assert_eq!(sum(|share| share.slots_after), full(&after));
            // What some gained, others lost.
            let gained = sum(|share| share.slots_after.saturating_sub(share.slots_before));
            prop_assert!(forecast.moved >= gained);
            prop_assert!(forecast.pinned <= forecast.moved);
        }
    }
}
