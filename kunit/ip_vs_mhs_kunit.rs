// SPDX-License-Identifier: GPL-2.0

//! KUnit suites: the shared logic as the kernel compiled it, and the wrappers that need a kernel.

use kernel::prelude::*;

#[allow(dead_code)] // The suites use a part of it.
#[path = "../src/ipvs/mod.rs"]
mod ipvs;
#[allow(dead_code, unreachable_pub)] // As above.
#[path = "../src/core/mod.rs"]
mod pure;

module! {
    type: Suites,
    name: "ip_vs_mhs_kunit",
    authors: ["The ip_vs_mhs authors"],
    description: "KUnit suites of ip_vs_mhs",
    license: "GPL",
}

struct Suites;

impl kernel::Module for Suites {
    fn init(_module: &'static ThisModule) -> Result<Self> {
        Ok(Self)
    }
}

#[kunit_tests(ip_vs_mhs_core)]
mod core_suite {
    use super::*;
    use pure::{
        hash::{
            self,
            Addr,
            DEFAULT_KEY, //
        },
        maglev, //
    };

    /// The worked example in appendix A of the SipHash paper.
    #[test]
    fn siphash_of_the_paper() {
        let key = hash::Key {
            k0: 0x0706_0504_0302_0100,
            k1: 0x0f0e_0d0c_0b0a_0908,
        };
        let message: [u8; 15] = core::array::from_fn(|i| i as u8);
        assert_eq!(hash::siphash24(&key, &message), 0xa129_ca61_49be_45e5);
    }

    /// The kernel's build makes the table that host tests hold golden: full, whatever the order.
    #[test]
    fn table_is_full_and_canonical() -> Result {
        let server = |i: u8| maglev::Server {
            addr: Addr::V4([10, 0, 0, i]),
            port: 80,
            weight: 1 + u32::from(i % 3),
        };
        let (mut there, mut back) = (KVVec::new(), KVVec::new());
        for i in 0..20 {
            there.push(server(i), GFP_KERNEL)?;
            back.push(server(19 - i), GFP_KERNEL)?;
        }
        let mut rows = KVVec::from_elem(maglev::Row::default(), 20, GFP_KERNEL)?;
        let mut one = KVVec::from_elem(0u16, 4093, GFP_KERNEL)?;
        let mut two = KVVec::from_elem(0u16, 4093, GFP_KERNEL)?;
        let ok = maglev::populate(&DEFAULT_KEY, &there, 5, &mut rows, &mut one).is_ok()
            && maglev::populate(&DEFAULT_KEY, &back, 5, &mut rows, &mut two).is_ok();
        assert!(ok);
        assert!(one.iter().zip(two.iter()).all(|(a, b)| a + b == 19));
        Ok(())
    }
}

#[kunit_tests(ip_vs_mhs_ipvs)]
mod ipvs_suite {
    use super::*;
    use core::sync::atomic::{
        AtomicUsize,
        Ordering, //
    };
    use ipvs::{
        counters::{
            self,
            Counters, //
        },
        rcu::{
            self,
            GracePeriod,
            RcuArc,
            RcuCell,
            Reader, //
        },
        work::{
            DelayedWork,
            Worker, //
        },
    };
    use kernel::sync::rcu as kernel_rcu;

    static DROPPED: AtomicUsize = AtomicUsize::new(0);

    struct Counted(u32);

    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A reader keeps what it found although it was replaced; afterwards it is freed, once.
    #[test]
    fn replaced_objects_outlive_their_readers() -> Result {
        let cell = RcuCell::empty();
        cell.replace(Some(RcuArc::new(Counted(1), GFP_KERNEL)?));
        let second = RcuArc::new(Counted(2), GFP_KERNEL)?;
        {
            let guard = kernel_rcu::read_lock();
            let found = cell.read(Reader::new(&guard));
            drop(cell.replace(Some(second)));
            assert_eq!(found.map(|counted| counted.0), Some(1));
            assert_eq!(DROPPED.load(Ordering::Relaxed), 0);
        }
        drop(cell);
        assert_eq!(rcu::drain(), 0);
        assert_eq!(DROPPED.load(Ordering::Relaxed), 2);
        Ok(())
    }

    /// A grace period lasts as long as a reader of before, and ends without anybody waiting for it.
    #[test]
    fn grace_periods_end() {
        let start = {
            let _guard = kernel_rcu::read_lock();
            let start = GracePeriod::start();
            kernel::time::delay::udelay(kernel::time::Delta::from_millis(1));
            assert!(!start.is_over());
            start
        };
        kernel_rcu::synchronize_rcu();
        kernel_rcu::synchronize_rcu();
        assert!(start.is_over());
    }

    /// Counters of all CPUs add up, and one that is not there counts nothing.
    #[test]
    fn counters_add_up() -> Result {
        let counters = Counters::<3>::new()?;
        assert_eq!(counters.sum(), [0; 3]);
        counters.add(0, 5);
        counters.add(0, 2);
        counters.add(2, 1 << 40);
        counters.add(3, 1);
        assert_eq!(counters.sum(), [7, 0, 1 << 40]);
        let mut sum = [0; 3];
        for cpu in counters::cpus(0) {
            for (sum, count) in sum.iter_mut().zip(counters.on(cpu)) {
                *sum += count;
            }
        }
        assert_eq!(sum, [7, 0, 1 << 40]);
        Ok(())
    }

    /// CPUs come in order, and one can go on from any of them.
    #[test]
    fn cpus_have_an_order() {
        let mut last = None;
        for cpu in counters::cpus(0) {
            let number = cpu.number();
            assert!(last < Some(number));
            assert_eq!(
                counters::cpus(number).next().map(|cpu| cpu.number()),
                Some(number)
            );
            last = Some(number);
        }
        assert!(last.is_some());
        let end = last.map_or(0, |last| last + 1);
        assert!(counters::cpus(end).next().is_none());
        assert!(counters::cpus(u32::MAX).next().is_none());
    }

    #[pin_data]
    struct Ticker {
        runs: AtomicUsize,
        #[pin]
        work: DelayedWork<Ticker>,
    }

    impl Worker for Ticker {
        fn run(&self) {
            self.runs.fetch_add(1, Ordering::Relaxed);
            self.work.arm(1);
        }
    }

    /// Work that arms itself again stops when it is disabled, and lets its worker go.
    #[test]
    fn disabled_work_stays_off() -> Result {
        let ticker = RcuArc::pin_init(
            try_pin_init!(Ticker {
                runs: AtomicUsize::new(0),
                work <- DelayedWork::new(),
            }? Error),
            GFP_KERNEL,
        )?;
        ticker.work.start(ticker.clone());
        ticker.work.kick();
        kernel::time::delay::fsleep(kernel::time::Delta::from_millis(200));
        ticker.work.disable();
        let runs = ticker.runs.load(Ordering::Relaxed);
        assert!(runs > 0);
        ticker.work.kick();
        kernel::time::delay::fsleep(kernel::time::Delta::from_millis(100));
        assert_eq!(ticker.runs.load(Ordering::Relaxed), runs);
        drop(ticker);
        assert_eq!(rcu::drain(), 0);
        Ok(())
    }
}
