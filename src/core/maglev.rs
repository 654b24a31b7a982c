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
///
/// More of it makes fewer slots move at a change, and shares less even.
pub const DEFAULT_BALANCE: u32 = 5;

/// In a table: no server. Also the largest number that 15 bits of a slot's word hold.
pub const NONE: u16 = 0x7fff;

/// How many servers a table can tell apart.
pub const MAX_SERVERS: usize = 0x7ffe;

/// Turns of the heaviest server in a round have at most so many bits, as in `ip_vs_mh.c`.
const TURN_BITS: u32 = 6;

/// At most so many free slots are given out by rank instead of by waiting for somebody's turn. The
/// list of them is on the stack, 16 bytes each.
const LAST: usize = 64;

/// How many free slots it is cheaper to give out by rank than to wait for: for one of the last r of M
/// slots M/r looks are waited, and N ranks reckoned, which cost about two looks each.
fn last(size: u32, servers: usize) -> usize {
    (size as usize / 2)
        .checked_div(servers)
        .unwrap_or(0)
        .min(LAST)
}

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
    ScratchTooSmall,
    /// The table's length is none of [`SIZES`].
    BadSize,
}

/// What the hashes of a server make of it: the order in which it looks at slots, and its place in a
/// round. It depends on the key, the server's address and port, and the size of the table, so a
/// caller who makes many tables can keep it.
#[derive(Clone, Copy, Default, Debug)]
pub struct Permutation {
    /// Its place in a round: the lower, the earlier.
    order: u64,
    /// It looks at offset, offset + skip, offset + 2 skip, ... modulo the size.
    offset: u32,
    skip: u32,
    /// The inverse of `skip` modulo the size, which turns a slot into its rank.
    inverse: u32,
}

/// What the population remembers of a server; the caller provides the memory.
#[derive(Clone, Copy, Default, Debug)]
pub struct Row {
    permutation: Permutation,
    /// The slot to look at in the next turn.
    next: u32,
    /// Turns in a round.
    turns: u32,
    /// Slots it may still take.
    left: u32,
    /// Its index among the caller's servers.
    index: u16,
}

/// `a` modulo `m`, which is never 0; the compiler need not know.
fn modulo(a: u64, m: u64) -> u64 {
    a.checked_rem(m).unwrap_or(0)
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
    let (mut base, mut exponent, mut result) = (modulo(u64::from(a), m), m.saturating_sub(2), 1);
    while exponent != 0 {
        if exponent & 1 != 0 {
            result = modulo(result * base, m);
        }
        base = modulo(base * base, m);
        exponent >>= 1;
    }
    result as u32
}

impl Permutation {
    /// That of a server in a table of `size` slots, one of [`SIZES`].
    pub fn new(key: &Key, addr: &Addr, port: u16, size: u32) -> Self {
        let hash = |purpose| hash::server(key, addr, port, purpose);
        let skip = modulo(hash(Purpose::Skip), u64::from(size.saturating_sub(1))) as u32 + 1;
        Self {
            order: hash(Purpose::Order),
            offset: modulo(hash(Purpose::Offset), u64::from(size)) as u32,
            skip,
            inverse: invert(skip, size),
        }
    }

    /// Where it stands among others: [`populate_with`] is faster if servers come in this order.
    pub fn order(&self) -> u64 {
        self.order
    }

    /// How many slots the server looks at before it looks at `slot`.
    fn rank(&self, slot: u32, size: u32) -> u32 {
        let (slot, size) = (u64::from(slot), u64::from(size));
        let distance = slot + size - u64::from(self.offset);
        modulo(modulo(distance, size) * u64::from(self.inverse), size) as u32
    }
}

/// Fills `table` with indices into `servers`, [`NONE`] throughout if no server has a weight.
///
/// The result depends on the set of (address, port, weight), on `key`, on `balance` (percent, at
/// most 100 counts) and on the length of the table, not on the order of `servers`. Weights count
/// by their ratio only; a server of weight 0 might as well not be there.
///
/// `rows` is scratch memory, one for each server. Costs about M ln M looks for M slots, however
/// many servers there are. After an error the content of `table` means nothing.
pub fn populate(
    key: &Key,
    servers: &[Server],
    balance: u32,
    rows: &mut [Row],
    table: &mut [u16],
) -> Result<(), Error> {
    let size = u32::try_from(table.len()).map_err(|_| Error::BadSize)?;
    let permutation = |_, server: &Server| Permutation::new(key, &server.addr, server.port, size);
    populate_with(servers, permutation, balance, rows, table)
}

/// The same with permutations that the caller has kept: `permutation` gets the index of a server.
pub fn populate_with(
    servers: &[Server],
    permutation: impl Fn(usize, &Server) -> Permutation,
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
    let rows = rows
        .get_mut(..servers.len())
        .ok_or(Error::ScratchTooSmall)?;

    table.fill(NONE);
    let unit = servers.iter().fold(0, |g, s| gcd(s.weight, g));
    if unit == 0 {
        return Ok(());
    }
    let heaviest = servers.iter().map(|s| s.weight / unit).max().unwrap_or(0);
    let shift = (u32::BITS - heaviest.leading_zeros()).saturating_sub(TURN_BITS);
    let turns = |s: &Server| ((s.weight / unit) >> shift).max(u32::from(s.weight != 0));
    let total: u64 = servers.iter().map(|s| u64::from(turns(s))).sum();
    let percent = u64::from(100 + balance.min(100));

    // Rows of the servers that take part come first, in the order of their turns.
    let mut active = 0;
    for (index, server) in servers.iter().enumerate() {
        if server.weight == 0 {
            continue;
        }
        if let Some(row) = rows.get_mut(active) {
            let (permutation, turns) = (permutation(index, server), turns(server));
            let share = u64::from(size) * u64::from(turns) * percent;
            // Rounded up, so that the caps of all are enough for the table.
            let all = 100 * total;
            let cap = (share + all.saturating_sub(1)).checked_div(all);
            *row = Row {
                permutation,
                next: permutation.offset,
                turns,
                left: cap.unwrap_or(0) as u32,
                index: index as u16,
            };
            active += 1;
        }
    }
    let rows = rows.get_mut(..active).ok_or(Error::ScratchTooSmall)?;
    let name = |row: &Row| {
        let server = servers.get(usize::from(row.index));
        server.map(|s| (s.addr, s.port))
    };
    sort(rows, |a, b| {
        let order = |row: &Row| row.permutation.order;
        order(a) < order(b) || (order(a) == order(b) && name(a) < name(b))
    });

    let last = last(size, active);
    let rows = take_turns(rows, table, size, last);
    give_out_rest(rows, table, size);
    Ok(())
}

/// Sorts in place by Shell's method. The standard library's sort would be faster, but keeps 48 rows
/// on the stack, and a kernel stack is small. Costs little if they are sorted already.
fn sort(rows: &mut [Row], before: impl Fn(&Row, &Row) -> bool) {
    if rows.is_sorted_by(|a, b| !before(b, a)) {
        return;
    }
    let mut gap = rows.len();
    while gap > 1 {
        gap = (gap * 4 / 9).max(1);
        for i in gap..rows.len() {
            let Some(&row) = rows.get(i) else {
                return;
            };
            let mut to = i;
            while let Some(from) = to.checked_sub(gap) {
                match rows.get(from) {
                    Some(&other) if before(&row, &other) => put(rows, to, other),
                    _ => break,
                }
                to = from;
            }
            put(rows, to, row);
        }
    }
}

fn put(rows: &mut [Row], at: usize, row: Row) {
    if let Some(place) = rows.get_mut(at) {
        *place = row;
    }
}

/// Moves the rows below their cap to the front, in order, and returns those. The rest is garbage.
fn pack(rows: &mut [Row]) -> &mut [Row] {
    let mut kept = 0;
    for i in 0..rows.len() {
        match rows.get(i) {
            Some(&row) if row.left > 0 => {
                if kept < i {
                    put(rows, kept, row);
                }
                kept += 1;
            }
            _ => {}
        }
    }
    rows.get_mut(..kept).unwrap_or_default()
}

/// Plays rounds until at most `last` slots are free. Who is at its cap takes no more turns, and leaves
/// the game with others, when they are a quarter. Returns the rows that have not left.
fn take_turns<'a>(
    mut rows: &'a mut [Row],
    table: &mut [u16],
    size: u32,
    last: usize,
) -> &'a mut [Row] {
    let mut free = table.len();
    let mut full = 0;
    // The caps of all are enough for the table, so somebody is below its cap to the end.
    while free > last && !rows.is_empty() {
        for row in rows.iter_mut() {
            if row.left == 0 {
                continue;
            }
            let (mut at, mut turns) = (row.next, row.turns);
            loop {
                let owner = table.get_mut(at as usize);
                // Without checks for what cannot be: both are less than the size.
                at = at.wrapping_add(row.permutation.skip);
                at = at.checked_sub(size).unwrap_or(at);
                if let Some(owner @ &mut NONE) = owner {
                    *owner = row.index;
                    row.left -= 1;
                    free -= 1;
                    if free <= last {
                        return pack(rows);
                    }
                    if row.left == 0 {
                        full += 1;
                        break;
                    }
                }
                turns = turns.wrapping_sub(1);
                if turns == 0 {
                    break;
                }
            }
            row.next = at;
        }
        if full > rows.len() / 4 {
            rows = pack(rows);
            full = 0;
        }
    }
    pack(rows)
}

/// A free slot, and when the server that will get it looks at it.
///
/// The time is (round, place in the order, turn in the round) as one number: the round in the high
/// half, the place in 16 bits, the turn in 16.
#[derive(Clone, Copy)]
struct Look {
    time: u64,
    slot: u32,
}

impl Look {
    /// Later than any: nobody will look.
    const NEVER: u64 = u64::MAX;

    /// The first look at a slot by a server below its cap.
    fn first(rows: &[Row], slot: u32, size: u32) -> Self {
        let time = |(place, row): (u64, &Row)| {
            let rank = row.permutation.rank(slot, size);
            // A server of the game has at least one turn in a round, and most have one.
            let (round, turn) = match row.turns {
                0 | 1 => (rank, 0),
                turns => (rank / turns, rank % turns),
            };
            (u64::from(round) << 32) | (place << 16) | u64::from(turn)
        };
        let time = (0..)
            .zip(rows)
            .filter(|(_, row)| row.left > 0)
            .map(time)
            .min()
            .unwrap_or(Self::NEVER);
        Self { time, slot }
    }

    fn place(self) -> usize {
        ((self.time >> 16) & 0xffff) as usize
    }
}

/// Gives each free slot to the server below its cap that would look at it first.
///
/// The same result as playing on: whoever is below its cap has not looked at a free slot yet, or
/// it would have taken it. So all those looks are still to come, and in the order of their times
/// each gets its slot, unless the server has reached its cap before; then the next best look at
/// that slot counts, which is later.
fn give_out_rest(rows: &mut [Row], table: &mut [u16], size: u32) {
    let mut looks = [Look {
        time: Look::NEVER,
        slot: 0,
    }; LAST];
    let free = (0..).zip(table.iter()).filter(|(_, &owner)| owner == NONE);
    for (look, (slot, _)) in looks.iter_mut().zip(free) {
        *look = Look::first(rows, slot, size);
    }
    loop {
        let next = looks.iter_mut().min_by_key(|look| look.time);
        let Some(next) = next.filter(|look| look.time != Look::NEVER) else {
            return;
        };
        let Look { slot, .. } = *next;
        let winner = next.place();
        next.time = Look::NEVER;
        let Some(row) = rows.get_mut(winner) else {
            return;
        };
        if let Some(owner) = table.get_mut(slot as usize) {
            *owner = row.index;
        }
        row.left -= 1;
        if row.left == 0 {
            for look in looks.iter_mut() {
                if look.time != Look::NEVER && look.place() == winner {
                    *look = Look::first(rows, look.slot, size);
                }
            }
        }
    }
}

/// The server that looks at `slot` first if there are no caps, among `servers`, each with a number
/// of the caller's. For when there is no memory to make a table.
///
/// A server of weight w is w times as fast as one of weight 1: its time is rank / w, which is what
/// [`populate`] counts in whole turns. `None` if no server has a weight or `size` is none of
/// [`SIZES`].
pub fn choose(
    key: &Key,
    size: u32,
    slot: u32,
    servers: impl Iterator<Item = (u16, Server)>,
) -> Option<u16> {
    if !SIZES.contains(&size) {
        return None;
    }
    let look = |(index, server): (u16, Server)| {
        let permutation = Permutation::new(key, &server.addr, server.port, size);
        let rank = permutation.rank(slot, size);
        (rank, permutation.order, server, index)
    };
    let first = |a: (u32, u64, Server, u16), b: (u32, u64, Server, u16)| {
        // rank a / weight a before rank b / weight b, without the fractions.
        let time_a = u64::from(a.0) * u64::from(b.2.weight);
        let time_b = u64::from(b.0) * u64::from(a.2.weight);
        let name = |s: &Server| (s.addr, s.port);
        if (time_b, b.1, name(&b.2)) < (time_a, a.1, name(&a.2)) {
            b
        } else {
            a
        }
    };
    let able = servers.filter(|(_, server)| server.weight != 0);
    able.map(look).reduce(first).map(|(.., index)| index)
}
