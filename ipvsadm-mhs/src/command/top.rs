// SPDX-License-Identifier: GPL-2.0

//! `top`: the live view.

use crate::{
    cli::Top,
    error::{Error, Result},
    live::{
        screen,
        watch::{View, Watch},
    },
};
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::DefaultTerminal;
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
    low_level::emulate_default_handler,
};
use std::{
    io::{self, IsTerminal},
    thread,
    time::{Duration, Instant},
};

/// A screen of servers.
const PAGE: isize = 8;

pub fn run(top: &Top, json: bool) -> Result<()> {
    if json || !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let text = "top needs a terminal; list, show and metrics are for programs";
        return Err(Error::Usage(text.into()));
    }
    let mut watch = Watch::start()?;
    let mut view = View {
        delay: top.delay,
        ..View::default()
    };
    restore_on_signals().map_err(Error::io("signals"))?;
    // Errors are told when the screen is as it was; also that it could be set up in part only.
    let terminal = ratatui::try_init().map_err(Error::io("terminal"));
    let end =
        terminal.and_then(|mut terminal| watch_and_draw(&mut terminal, &mut watch, &mut view));
    let restored = ratatui::try_restore().map_err(Error::io("terminal"));
    end.and(restored)
}

/// Has the signals that end a program leave the screen as it was, and then do what they do.
fn restore_on_signals() -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGQUIT, SIGTERM])?;
    let watch = move || {
        if let Some(signal) = signals.forever().next() {
            // After a hangup there is no terminal to tell that this failed.
            let _ = ratatui::try_restore();
            let _ = emulate_default_handler(signal);
        }
    };
    thread::Builder::new().spawn(watch).map(drop)
}

fn watch_and_draw(
    terminal: &mut DefaultTerminal,
    watch: &mut Watch,
    view: &mut View,
) -> Result<()> {
    let delay = Duration::from_secs_f64(view.delay);
    watch.look(view)?;
    let mut next = Instant::now() + delay;
    loop {
        watch.hear(view)?;
        let drawn = terminal.draw(|frame| screen::draw(frame, view));
        drawn.map_err(Error::io("terminal"))?;
        let left = next.saturating_duration_since(Instant::now());
        if event::poll(left).map_err(Error::io("terminal"))? {
            let selected = view.selected;
            let event = event::read().map_err(Error::io("terminal"))?;
            if !handle(&event, view) {
                return Ok(());
            }
            if selected != view.selected {
                watch.look_closer(view)?;
            }
        }
        if Instant::now() >= next {
            if !view.paused {
                watch.look(view)?;
            }
            next = Instant::now() + delay;
        }
    }
}

/// Whether to go on.
fn handle(event: &Event, view: &mut View) -> bool {
    let Event::Key(key) = event else {
        return true;
    };
    if key.kind == KeyEventKind::Release {
        return true;
    }
    match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
        (KeyCode::Char('c'), true) | (KeyCode::Char('q') | KeyCode::Esc, _) => return false,
        (KeyCode::Down | KeyCode::Char('j'), _) => view.select(1),
        (KeyCode::Up | KeyCode::Char('k'), _) => view.select(-1),
        (KeyCode::PageDown, _) => view.scroll(PAGE),
        (KeyCode::PageUp, _) => view.scroll(-PAGE),
        (KeyCode::Char(' ' | 'p'), _) => view.paused = !view.paused,
        _ => (),
    }
    true
}
