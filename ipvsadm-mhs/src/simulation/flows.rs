// SPDX-License-Identifier: GPL-2.0

//! What happens: flows that come and go, and a fleet that changes.

use super::{Change, Flow, Index};
use crate::cli::Simulate;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, Exp, LogNormal, Pareto};
use rand_xoshiro::Xoshiro256PlusPlus;

/// How much there is of something, by chance: seconds of a session, say.
#[derive(Clone, Debug)]
pub enum Amount {
    Fixed(f64),
    Exp(Exp<f64>),
    Pareto(Pareto<f64>),
    LogNormal(LogNormal<f64>),
    /// What was measured: up to which share of all each value is for.
    Steps(Vec<(f64, f64)>),
}

impl Amount {
    /// Reads `fixed:60`, `exp:60`, `pareto:1.5,10`, `lognormal:30,1.5`, `steps:0.9=10,1=60`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is not a distribution: fixed:60, exp:60 (mean), pareto:1.5,10 (shape, \
                 least), lognormal:30,1.5 (median, sigma) or steps:0.9=10,1=60 (share of all up to \
                 here = value)"
            )
        };
        let (name, numbers) = text.split_once(':').ok_or_else(wrong)?;
        if name == "steps" {
            return Self::steps(numbers).ok_or_else(wrong);
        }
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

    /// Shares rise to 1, values are above 0.
    fn steps(text: &str) -> Option<Self> {
        let steps = text.split(',').map(|step| {
            let (share, value) = step.split_once('=')?;
            Some((share.parse().ok()?, value.parse().ok()?))
        });
        let steps: Vec<(f64, f64)> = steps.collect::<Option<_>>()?;
        let mut below = 0.0;
        for &(share, value) in &steps {
            if !(share > below && value > 0.0 && value < 1e9) {
                return None;
            }
            below = share;
        }
        (below == 1.0).then_some(Self::Steps(steps))
    }

    fn sample(&self, random: &mut impl Rng) -> f64 {
        match self {
            Self::Fixed(value) => *value,
            Self::Exp(exp) => exp.sample(random),
            Self::Pareto(pareto) => pareto.sample(random),
            Self::LogNormal(lognormal) => lognormal.sample(random),
            Self::Steps(steps) => {
                let share: f64 = random.random();
                let step = steps.iter().find(|(below, _)| share < *below);
                step.or(steps.last()).map_or(0.0, |(_, value)| *value)
            }
        }
    }
}

pub fn milliseconds(seconds: f64) -> u64 {
    (seconds * 1000.0).round().clamp(0.0, 1e15) as u64
}

/// The generator of a purpose: another seed for each, so that more of one does not change another.
fn random(args: &Simulate, purpose: u64) -> Xoshiro256PlusPlus {
    Xoshiro256PlusPlus::seed_from_u64(args.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose)
}

/// What is known of the flows and changes before they happen.
#[derive(Clone, Debug)]
pub struct Plan {
    session: Amount,
    /// Of a session; more than the gap allows else.
    packets: Option<Amount>,
    downtime: Option<Amount>,
}

impl Plan {
    pub fn new(args: &Simulate) -> Result<Self, String> {
        let amount = |text: &Option<String>| text.as_deref().map(Amount::parse).transpose();
        Ok(Self {
            session: Amount::parse(&args.session)?,
            packets: amount(&args.packets)?,
            downtime: amount(&args.downtime)?,
        })
    }

    /// The flows, in the order of their starts: a Poisson process.
    pub fn flows(&self, args: &Simulate) -> impl Iterator<Item = Flow> {
        let mut random = random(args, 1);
        let end = args.duration * 60.0;
        let gap = milliseconds(args.gap).max(1);
        // `rate` was checked to be a number above 0.
        let between = Exp::new(args.rate).ok();
        let Self {
            session, packets, ..
        } = self.clone();
        let mut now = 0.0;
        std::iter::from_fn(move || {
            now += between?.sample(&mut random);
            let start = milliseconds(now);
            (now < end).then(|| {
                let length = milliseconds(session.sample(&mut random)).max(1);
                let hash = random.random();
                let spread = packets.as_ref().map_or(0.0, |packets| {
                    length as f64 / packets.sample(&mut random).max(1.0)
                });
                Flow {
                    start,
                    end: start + length,
                    gap: gap.max(spread as u64),
                    hash,
                }
            })
        })
    }

    /// The changes: by turns a server goes, and the one that went longest ago comes back. Or, if it
    /// is said how long they stay away, each comes back by itself.
    pub fn changes(&self, args: &Simulate) -> Vec<(u64, Change)> {
        let mut random = random(args, 2);
        let Ok(between) = Exp::new(args.updates / 60.0) else {
            return Vec::new();
        };
        if args.updates == 0.0 {
            return Vec::new();
        }
        let (end, mut now) = (args.duration * 60.0, 0.0);
        // Who is out, and until when.
        let mut out: Vec<(f64, Index)> = Vec::new();
        let mut changes = Vec::new();
        loop {
            now += between.sample(&mut random);
            if now >= end {
                break;
            }
            if self.downtime.is_some() {
                out.retain(|(until, _)| *until > now);
            } else if let Some((_, index)) = out.pop() {
                changes.push((milliseconds(now), Change::Return(index)));
                continue;
            }
            let index = random.random_range(0..args.servers) as Index;
            if out.iter().any(|(_, other)| *other == index) {
                continue;
            }
            let change = match args.removal.as_str() {
                "delete" => Change::Delete(index),
                "fail" => Change::Fail(index),
                _ => Change::Drain(index),
            };
            changes.push((milliseconds(now), change));
            let mut until = f64::INFINITY;
            if let Some(downtime) = &self.downtime {
                until = now + downtime.sample(&mut random);
                if until < end {
                    changes.push((milliseconds(until), Change::Return(index)));
                }
            }
            out.push((until, index));
        }
        changes.sort_by_key(|(at, _)| *at);
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
        let mut mean = |text| {
            let session = Amount::parse(text).unwrap();
            let all: f64 = (0..100_000).map(|_| session.sample(&mut random)).sum();
            all / 1e5
        };
        assert_eq!(mean("fixed:60"), 60.0);
        assert!((mean("exp:60") - 60.0).abs() < 1.0);
        // Shape 3, least 10: mean 15.
        assert!((mean("pareto:3,10") - 15.0).abs() < 0.5);
        // exp(ln 30 + 0.5^2 / 2)
        assert!((mean("lognormal:30,0.5") - 34.0).abs() < 0.5);
        // 0.25 * 4 + 0.65 * 10 + 0.1 * 50
        assert!((mean("steps:0.25=4,0.9=10,1=50") - 12.5).abs() < 0.5);
        for wrong in [
            "",
            "exp",
            "exp:",
            "exp:0",
            "exp:-1",
            "exp:1,2",
            "gauss:1",
            "pareto:1",
            "exp:nan",
            "steps:",
            "steps:1",
            "steps:0.5=1",
            "steps:0.5=1,0.4=2,1=3",
            "steps:0.5=0,1=1",
            "steps:nan=1,1=1",
            "steps:0.5=1,1.5=2",
        ] {
            assert!(Amount::parse(wrong).is_err(), "{wrong}");
        }
    }
}
