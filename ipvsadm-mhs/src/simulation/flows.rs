// SPDX-License-Identifier: GPL-2.0

//! What happens: flows that come and go, and a fleet that changes.

use super::{Change, Flow, Index};
use crate::cli::Simulate;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Exp, LogNormal, Pareto};
use rand_xoshiro::Xoshiro256PlusPlus;

/// How long sessions last.
#[derive(Clone, Copy, Debug)]
pub enum Session {
    Fixed(f64),
    Exp(Exp<f64>),
    Pareto(Pareto<f64>),
    LogNormal(LogNormal<f64>),
}

impl Session {
    /// Reads `fixed:60`, `exp:60`, `pareto:1.5,10`, `lognormal:30,1.5`. Times are in seconds.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is not a distribution of sessions: fixed:60, exp:60 (mean), \
                 pareto:1.5,10 (shape, least) or lognormal:30,1.5 (median, sigma)"
            )
        };
        let (name, numbers) = text.split_once(':').ok_or_else(wrong)?;
        let numbers: Result<Vec<f64>, _> = numbers.split(',').map(str::parse).collect();
        let numbers = numbers.map_err(|_| wrong())?;
        if numbers
            .iter()
            .any(|&number| !(number > 0.0 && number < 1e9))
        {
            return Err(wrong());
        }
        match (name, &*numbers) {
            ("fixed", &[seconds]) => Ok(Self::Fixed(seconds)),
            ("exp", &[mean]) => Exp::new(1.0 / mean).map(Self::Exp).map_err(|_| wrong()),
            ("pareto", &[shape, least]) => Pareto::new(least, shape)
                .map(Self::Pareto)
                .map_err(|_| wrong()),
            ("lognormal", &[median, sigma]) => {
                let found = LogNormal::new(median.ln(), sigma);
                found.map(Self::LogNormal).map_err(|_| wrong())
            }
            _ => Err(wrong()),
        }
    }

    /// A length in milliseconds, at least 1.
    fn sample(&self, random: &mut impl Rng) -> u64 {
        let seconds = match self {
            Self::Fixed(seconds) => *seconds,
            Self::Exp(exp) => exp.sample(random),
            Self::Pareto(pareto) => pareto.sample(random),
            Self::LogNormal(lognormal) => lognormal.sample(random),
        };
        milliseconds(seconds).max(1)
    }
}

pub fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0).round().clamp(0.0, 1e15) as u64
}

/// The generator of a purpose: another seed for each, so that more of one does not change another.
fn random(args: &Simulate, purpose: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(args.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose)
}

/// The flows, in the order of their starts: a Poisson process.
pub fn flows(args: &Simulate, session: Session) -> impl Iterator<Item = Flow> {
    let mut random = random(args, 1);
    let end = args.duration * 60.0;
    // `rate` was checked to be a number above 0.
    let between = Exp::new(args.rate).ok();
    let mut now = 0.0;
    std::iter::from_fn(move || {
        now += between?.sample(&mut random);
        let start = milliseconds(now);
        (now < end).then(|| Flow {
            start,
            end: start + session.sample(&mut random),
            hash: random.random(),
        })
    })
}

/// The changes: by turns a server goes, and the one that went longest ago comes back.
pub fn changes(args: &Simulate) -> Vec<(u64, Change)> {
    let mut random = random(args, 2);
    let Ok(between) = Exp::new(args.updates / 60.0) else {
        return Vec::new();
    };
    if args.updates == 0.0 {
        return Vec::new();
    }
    let (end, mut now) = (args.duration * 60.0, 0.0);
    let mut out: Option<Index> = None;
    let mut changes = Vec::new();
    loop {
        now += between.sample(&mut random);
        if now >= end {
            return changes;
        }
        let change = match out.take() {
            Some(index) => Change::Return(index),
            None => {
                let index = random.random_range(0..args.servers) as Index;
                out = Some(index);
                match args.removal.as_str() {
                    "delete" => Change::Delete(index),
                    _ => Change::Drain(index),
                }
            }
        };
        changes.push((milliseconds(now), change));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut mean = |text| {
            let session = Session::parse(text).unwrap();
            let all: u64 = (0..100_000).map(|_| session.sample(&mut random)).sum();
            all as f64 / 1e8
        };
        assert_eq!(mean("fixed:60"), 60.0);
        assert!((mean("exp:60") - 60.0).abs() < 1.0);
        // Shape 3, least 10: mean 15.
        assert!((mean("pareto:3,10") - 15.0).abs() < 0.5);
        // exp(ln 30 + 0.5^2 / 2)
        assert!((mean("lognormal:30,0.5") - 34.0).abs() < 0.5);
        for wrong in [
            "", "exp", "exp:", "exp:0", "exp:-1", "exp:1,2", "gauss:1", "pareto:1", "exp:nan",
        ] {
            assert!(Session::parse(wrong).is_err(), "{wrong}");
        }
    }
}
