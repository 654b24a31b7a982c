// SPDX-License-Identifier: GPL-2.0

//! `events`: what happens from now on.

use crate::{
    cli::Events,
    error::Result,
    mhs::{Event, Mhs},
    output::{self, time},
};
use std::time::{Duration, Instant};

pub fn run(args: &Events, json: bool) -> Result<()> {
    let listener = Mhs::connect()?.listen()?;
    if !json {
        output::complain("waiting for events (end with Ctrl-C)");
    }
    let end = args
        .timeout
        .map(|seconds| Instant::now() + Duration::from_secs(seconds.into()));
    let mut seen = 0;
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(());
        }
        for event in listener.next(left)? {
            if args.count.is_some_and(|count| seen >= count) {
                return Ok(());
            }
            match json {
                true => output::json(&event)?,
                false => output::line(sentence(&event))?,
            }
            seen += 1;
        }
        if args.count.is_some_and(|count| seen >= count) {
            return Ok(());
        }
    }
}

/// One line of text.
pub fn sentence(event: &Event) -> String {
    let next = |next: &Option<u64>| match next {
        Some(ms) => format!(", next merge in {}", time(*ms)),
        None => String::new(),
    };
    match event {
        Event::Remap {
            service,
            cause,
            became_unstable,
            became_stable,
            unstable,
            next_merge_ms,
            ..
        } => {
            let cause = format!("{cause:?}").to_lowercase();
            let next = next(next_merge_ms);
            format!(
                "{service}: remap ({cause}): {became_unstable} slots became unstable, \
                 {became_stable} stable again; {unstable} are unstable{next}"
            )
        }
        Event::Merge {
            service,
            merged,
            unstable,
            next_merge_ms,
            ..
        } => {
            let next = next(next_merge_ms);
            format!("{service}: merge: {merged} slots; {unstable} are unstable{next}")
        }
        Event::Server {
            service,
            server,
            weight,
            method,
            state,
            time_left_ms,
            ..
        } => {
            let left = match time_left_ms {
                Some(ms) => format!(", {} left", time(*ms)),
                None => String::new(),
            };
            let state = state.word();
            format!("{service}: server {server} is {state} (weight {weight}, {method}){left}")
        }
        Event::Failure {
            service,
            cause,
            unstable,
            ..
        } => {
            let cause = format!("{cause:?}").to_lowercase();
            format!(
                "{service}: failure ({cause}): no memory, and it is tried again, or no room for \
                 a server until its next edit; {unstable} slots are unstable"
            )
        }
        Event::Lost => "some events were lost: they came faster than they were read".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        mhs::{Cause, State},
        server::Server,
        service::{Protocol, Service},
    };
    use expect_test::expect;

    #[test]
    fn events() {
        let service = Service::with_protocol(Protocol::Tcp, "192.0.2.1:80").unwrap();
        let generation = 7;
        let events = [
            Event::Remap {
                service,
                generation,
                cause: Cause::Delete,
                became_unstable: 4096,
                became_stable: 0,
                unstable: 4096,
                next_merge_ms: Some(900_100),
            },
            Event::Merge {
                service,
                generation,
                merged: 4096,
                unstable: 0,
                next_merge_ms: None,
            },
            Event::Server {
                service,
                generation,
                server: Server {
                    address: [192, 0, 2, 11].into(),
                    port: 80,
                },
                weight: 1,
                method: "Route",
                state: State::Grace,
                time_left_ms: Some(900_000),
            },
            Event::Failure {
                service,
                generation,
                cause: Cause::Add,
                unstable: 0,
            },
            Event::Lost,
        ];
        let lines: String = events.iter().map(|event| sentence(event) + "\n").collect();
        expect![[r#"
            TCP 192.0.2.1:80: remap (delete): 4096 slots became unstable, 0 stable again; 4096 are unstable, next merge in 15m00s
            TCP 192.0.2.1:80: merge: 4096 slots; 0 are unstable
            TCP 192.0.2.1:80: server 192.0.2.11:80 is grace (weight 1, Route), 15m00s left
            TCP 192.0.2.1:80: failure (add): no memory, and it is tried again, or no room for a server until its next edit; 0 slots are unstable
            some events were lost: they came faster than they were read
        "#]].assert_eq(&lines);
        let json = events.map(|event| serde_json::to_string(&event).unwrap() + "\n");
        expect![[r#"
            {"event":"remap","service":{"protocol":"tcp","address":"192.0.2.1","port":80},"generation":7,"cause":"delete","became_unstable":4096,"became_stable":0,"unstable":4096,"next_merge_ms":900100}
            {"event":"merge","service":{"protocol":"tcp","address":"192.0.2.1","port":80},"generation":7,"merged":4096,"unstable":0,"next_merge_ms":null}
            {"event":"server","service":{"protocol":"tcp","address":"192.0.2.1","port":80},"generation":7,"server":{"address":"192.0.2.11","port":80},"weight":1,"method":"Route","state":"grace","time_left_ms":900000}
            {"event":"failure","service":{"protocol":"tcp","address":"192.0.2.1","port":80},"generation":7,"cause":"add","unstable":0}
            {"event":"lost"}
        "#]].assert_eq(&json.concat());
    }
}
