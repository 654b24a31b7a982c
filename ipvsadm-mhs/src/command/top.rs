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
use std::{
    io::{self, IsTerminal},
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
    // Errors are told when the screen is as it was.
    let mut terminal = ratatui::try_init().map_err(Error::io("terminal"))?;
    let end = watch_and_draw(&mut terminal, &mut watch, &mut view);
    ratatui::restore();
    end
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
