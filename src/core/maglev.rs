// SPDX-License-Identifier: GPL-2.0

//! Bounded-turn Maglev: the table as a pure function of the servers.
//!
//! Source of the permutations: D. Eisenbud et al., "Maglev: A Fast and Reliable Software Network
//! Load Balancer" (NSDI 2016), section 3.4; turns by weight as in `net/netfilter/ipvs/ip_vs_mh.c`.
//!
//! Plain Maglev lets a server whose next slot is taken seek on until it finds a free one, so that
//! one removal ripples through the table. Here a server looks at exactly one slot a turn: a taken
//! slot costs it that turn. A slot thus belongs to the server that looks at it first, whoever else
//! there is, and a removal moves only the slots of the removed. A cap keeps the shares even.

use super::hash::{
    self,
    Addr,
    Key,
    Purpose, //
};

/// The sizes a table may have, all prime.
pub const SIZES: [u32; 10] = [
    251, 509, 1021, 2039, 4093, 8191, 16381, 32749, 65521, 131_071,
];

/// The size of a table unless another is asked for.
pub const DEFAULT_SIZE: u32 = 16381;

/// By how many percent a server may exceed its share, unless told otherwise.
pub const DEFAULT_BALANCE: u32 = 5;

/// In a table: no server.
pub const NONE: u16 = 0x7fff;

/// How many servers a table can tell apart.
pub const MAX_SERVERS: usize = 0x7ffe;

/// Turns of the heaviest server in a round have at most so many bits, as in `ip_vs_mh.c`.
const TURN_BITS: u32 = 6;

/// So many free slots are given out by rank instead of by waiting for somebody's turn.
const LAST: usize = 64;

/// A server as the table sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Server {
    /// Its address.
    pub addr: Addr,
    /// Its port, 0 for that of the service.
    pub port: u16,
    /// Its weight; a server of weight 0 gets no slot.
    pub weight: u32,
}

/// Why a table could not be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// More than [`MAX_SERVERS`].
    TooManyServers,
    /// Fewer rows than servers.
    TooFewRows,
    /// The table's length is none of [`SIZES`].
    BadSize,
}

/// What the population remembers of a server; the caller provides the memory.
#[derive(Clone, Copy, Default)]
pub struct Row {
    order: u64,
    index: u16,
    turns: u32,
    offset: u32,
    skip: u32,
    next: u32,
    left: u32,
    inverse: u32,
}

fn gcd(mut a: u32, mut b: u32) -> u32 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

/// The inverse of `a` modulo the prime `m`, for 0 < a < m, by Fermat's little theorem.
fn invert(a: u32, m: u32) -> u32 {
    let m = u64::from(m);
    let (mut base, mut exponent, mut result) = (u64::from(a) % m, m - 2, 1);
    while exponent != 0 {
        if exponent & 1 != 0 {
            result = result * base % m;
        }
        base = base * base % m;
        exponent >>= 1;
    }
    result as u32
}

impl Row {
    fn new(key: &Key, index: u16, server: &Server, turns: u32, size: u32) -> Self {
        let hash = |purpose| hash::server(key, &server.addr, server.port, purpose);
        let offset = hash::slot(hash(Purpose::Offset), size);
        Self {
            order: hash(Purpose::Order),
            index,
            turns,
            offset,
            skip: hash::slot(hash(Purpose::Skip), size - 1) + 1,
            next: offset,
            left: 0,
            inverse: 0,
        }
    }

    /// When this server looks at a slot: round, and turn in the round.
    fn time(&self, slot: u32, size: u32) -> (u32, u32) {
        let (slot, m) = (u64::from(slot), u64::from(size));
        let rank = ((slot + m - u64::from(self.offset)) % m * u64::from(self.inverse) % m) as u32;
        (rank / self.turns.max(1), rank % self.turns.max(1))
    }
}

/// Fills `table` with indices into `servers`, [`NONE`] throughout if no server has a weight.
///
/// The result depends on the set of (address, port, weight > 0), on `key`, `balance` (percent) and
/// the length of the table, not on the order of `servers`. Costs about M ln M looks for M slots.
/// After an error the content of `table` means nothing.
pub fn populate(
    key: &Key,
    servers: &[Server],
    balance: u32,
    rows: &mut [Row],
    table: &mut [u16],
) -> Result<(), Error> {
    let size = u32::try_from(table.len()).map_err(|_| Error::BadSize)?;
    if !SIZES.contains(&size) {
        return Err(Error::BadSize);
    }
    if servers.len() > MAX_SERVERS {
        return Err(Error::TooManyServers);
    }
    let rows = rows.get_mut(..servers.len()).ok_or(Error::TooFewRows)?;

    table.fill(NONE);
    let unit = servers.iter().fold(0, |g, s| gcd(s.weight, g));
    if unit == 0 {
        return Ok(());
    }
    let heaviest = servers.iter().map(|s| s.weight / unit).max().unwrap_or(0);
    let shift = (u32::BITS - heaviest.leading_zeros()).saturating_sub(TURN_BITS);
    let turns = |s: &Server| ((s.weight / unit) >> shift).max(u32::from(s.weight != 0));
    let total: u64 = servers.iter().map(|s| u64::from(turns(s))).sum();

    // Rows of the servers that take part come first, in the order of their turns.
    let mut active = 0;
    for (index, server) in servers.iter().enumerate() {
        if server.weight == 0 {
            continue;
        }
        if let Some(row) = rows.get_mut(active) {
            *row = Row::new(key, index as u16, server, turns(server), size);
            let share = u64::from(size) * u64::from(row.turns) * u64::from(100 + balance);
            row.left = share.div_ceil(100 * total) as u32;
            active += 1;
        }
    }
    let rows = rows.get_mut(..active).ok_or(Error::TooFewRows)?;
    let name = |row: &Row| {
        servers
            .get(usize::from(row.index))
            .map(|s| (s.addr, s.port))
    };
    rows.sort_unstable_by(|a, b| (a.order, name(a)).cmp(&(b.order, name(b))));

    take_turns(rows, table, size);
    give_out_rest(rows, table, size);
    Ok(())
}

/// Plays rounds until at most [`LAST`] slots are free. Who is at its cap has left the game.
fn take_turns(mut rows: &mut [Row], table: &mut [u16], size: u32) {
    let mut free = table.len();
    while free > LAST {
        let mut full = 0;
        for row in rows.iter_mut() {
            for _ in 0..row.turns {
                let at = row.next;
                row.next += row.skip;
                if row.next >= size {
                    row.next -= size;
                }
                if let Some(owner @ &mut NONE) = table.get_mut(at as usize) {
                    *owner = row.index;
                    row.left -= 1;
                    free -= 1;
                    if row.left == 0 {
                        full += 1;
                        break;
                    }
                    if free <= LAST {
                        return;
                    }
                }
            }
            if free <= LAST {
                return;
            }
        }
        if full > 0 {
            rows = pack(rows);
        }
    }
}

/// Moves the rows below their cap to the front, in order, and returns those.
fn pack(rows: &mut [Row]) -> &mut [Row] {
    let mut kept = 0;
    for i in 0..rows.len() {
        if rows.get(i).is_some_and(|row| row.left > 0) {
            rows.swap(kept, i);
            kept += 1;
        }
    }
    rows.get_mut(..kept).unwrap_or_default()
}

/// Gives each free slot to the server below its cap that would look at it first.
///
/// The same result as playing on: whoever is below its cap has not looked at a free slot yet, or
/// it would have taken it.
fn give_out_rest(rows: &mut [Row], table: &mut [u16], size: u32) {
    let rows = pack(rows);
    for row in rows.iter_mut() {
        row.inverse = invert(row.skip, size);
    }
    let best = |rows: &[Row], slot: u32| {
        rows.iter()
            .enumerate()
            .filter(|(_, row)| row.left > 0)
            .map(|(i, row)| {
                let (round, turn) = row.time(slot, size);
                (round, i as u32, turn)
            })
            .min()
    };

    // (slot, the look that will get it); slots without a taker stay NONE.
    let mut rest = [(0u32, None::<(u32, u32, u32)>); LAST];
    let mut count = 0;
    for (slot, _) in table.iter().enumerate().filter(|(_, &owner)| owner == NONE) {
        if let Some(entry) = rest.get_mut(count) {
            *entry = (slot as u32, best(rows, slot as u32));
            count += 1;
        }
    }
    for _ in 0..count {
        let Some((slot, look)) = rest
            .iter_mut()
            .filter(|(_, look)| look.is_some())
            .min_by_key(|(_, look)| *look)
        else {
            return;
        };
        let Some((_, winner, _)) = look.take() else {
            return;
        };
        let Some(row) = rows.get_mut(winner as usize) else {
            return;
        };
        if let Some(owner) = table.get_mut(*slot as usize) {
            *owner = row.index;
        }
        row.left -= 1;
        if row.left == 0 {
            for (slot, look) in rest.iter_mut() {
                if look.is_some_and(|(_, i, _)| i == winner) {
                    *look = best(rows, *slot);
                }
            }
        }
    }
}

/// The server that would look at `slot` first if there were no caps, among `servers` with an
/// arbitrary number each. For when there is no memory to make a table.
pub fn choose(
    key: &Key,
    size: u32,
    slot: u32,
    servers: impl Iterator<Item = (u16, Server)>,
) -> Option<u16> {
    servers
        .filter(|(_, server)| server.weight != 0)
        .map(|(index, server)| {
            let mut row = Row::new(key, index, &server, 1, size);
            row.inverse = invert(row.skip, size);
            (
                row.time(slot, size),
                row.order,
                server.addr,
                server.port,
                index,
            )
        })
        .min()
        .map(|(.., index)| index)
}
