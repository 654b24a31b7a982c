// SPDX-License-Identifier: GPL-2.0

//! `handover`: a service goes to another scheduler, and no connection breaks.
//!
//! Flows without an entry are lost to a scheduler that knows of entries only. With `flag-3` every
//! packet that has no entry makes one; after a session timeout every live flow has sent a packet.

use crate::{
    cli::Handover,
    error::{Error, Result},
    ipvs::{flags, Ipvs},
    mhs::Mhs,
    module,
    output::{time, Progress},
    service::{self, Service},
};
use serde::Serialize;
use std::{
    thread,
    time::{Duration, Instant},
};

/// Later than the timeout by so much, for timers are not exact.
const MARGIN: Duration = Duration::from_secs(1);

/// Between two lines about the time that is left.
const TELL: Duration = Duration::from_secs(10);

#[derive(Serialize)]
#[serde(tag = "handover", rename_all = "lowercase")]
enum Step<'a> {
    Pinning {
        service: &'a Service,
        left_ms: u64,
    },
    Done {
        service: &'a Service,
        scheduler: &'a str,
    },
}

impl Step<'_> {
    fn sentence(&self) -> String {
        match self {
            Self::Pinning { service, left_ms } => {
                let left = time(*left_ms);
                format!("{service}: every flow gets an entry; {left} until all that live were seen")
            }
            Self::Done { service, scheduler } => format!("{service}: scheduled by {scheduler}"),
        }
    }
}

pub fn run(handover: &Handover, json: bool) -> Result<()> {
    let (name, scheduler) = handover.get()?;
    let mut ipvs = Ipvs::connect()?;
    let service = find(&mut ipvs, &name)?;
    let entry = ipvs.service(&service)?;
    let own = module::scheduler();
    if entry.options.scheduler != own {
        return Err(Error::NotMhs(service, entry.options.scheduler));
    }
    if scheduler == own {
        let text = format!("{service} is scheduled by {scheduler} already");
        return Err(Error::Usage(text));
    }
    if !module::has_scheduler(&scheduler) {
        return Err(Error::NoScheduler(scheduler));
    }
    let session = match Mhs::connect().and_then(|mut mhs| mhs.service(&service)) {
        Ok(told) => Duration::from_millis(told.session_timeout_ms),
        // It can be done without knowing more, by an older module, too.
        Err(Error::OldModule(_)) => Duration::from_secs(ipvs.timeouts()?.session(&service).into()),
        Err(error) => return Err(error),
    };

    let mut options = entry.options.clone();
    options.flags |= flags::SCHED_3;
    ipvs.edit_service(&service, &options)?;
    let end = Instant::now() + session + MARGIN;
    let mut progress = Progress::new(json);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let left_ms = left.as_millis() as u64;
        let service = &service;
        let step = Step::Pinning { service, left_ms };
        progress.tell(&step, || step.sentence());
        thread::sleep(left.min(TELL));
        // Somebody else may have changed it meanwhile: then it is not ours to go on.
        let now = ipvs.service(service)?.options;
        if now.scheduler != own || now.flags & flags::SCHED_3 == 0 {
            let text = format!("{service} was changed meanwhile: the handover is given up");
            return Err(Error::TimedOut(text));
        }
    }
    // As it is now, for the sake of what was edited meanwhile.
    let mut options = ipvs.service(&service)?.options;
    options.flags &= !flags::SCHED_3;
    options.scheduler.clone_from(&scheduler);
    ipvs.edit_service(&service, &options)?;
    let scheduler = &scheduler;
    let service = &service;
    let step = Step::Done { service, scheduler };
    progress.tell(&step, || step.sentence());
    Ok(())
}

/// The service of that name, whatever scheduler it has.
fn find(ipvs: &mut Ipvs, name: &service::Name) -> Result<Service> {
    if let service::Name::Exact(service) = name {
        return Ok(*service);
    }
    let services = ipvs.services()?;
    let mut found = services.iter().filter(|entry| name.matches(&entry.service));
    match (found.next(), found.next()) {
        (Some(entry), None) => Ok(entry.service),
        (Some(one), Some(other)) => Err(Error::Usage(format!(
            "{name} can mean {} and {}: name one with -t, -u or --sctp-service",
            one.service, other.service
        ))),
        (None, _) => Err(Error::NoServiceNamed(name.to_string())),
    }
}
