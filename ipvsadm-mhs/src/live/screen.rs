// SPDX-License-Identifier: GPL-2.0

//! The picture, from 80 by 24 characters up.

use super::watch::{Row, ServerRow, View};
use crate::{
    mhs::State,
    output::{percent, ratio, short, time},
};
use ratatui::{
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Borders, Cell, Paragraph, Row as TableRow, Table, TableState},
    Frame,
};

const STABLE: Color = Color::Green;
const UNSTABLE: Color = Color::Yellow;

pub fn draw(frame: &mut Frame, view: &View) {
    let area = frame.area();
    // Services get a third at most, events a fifth, servers what is left.
    let services = (view.rows.len() as u16 + 2).clamp(3, (area.height / 3).max(3));
    let events = match area.height {
        0..=15 => 0,
        height => (height / 5).max(4),
    };
    let [head, top, middle, bottom] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(services),
        Constraint::Fill(1),
        Constraint::Length(events),
    ])
    .areas(area);
    draw_head(frame, head, view);
    draw_services(frame, top, view);
    draw_servers(frame, middle, view);
    if events > 0 {
        draw_events(frame, bottom, view);
    }
}

fn draw_head(frame: &mut Frame, area: Rect, view: &View) {
    let sum = |rate: fn(&Row) -> f64| view.rows.iter().map(rate).fold(0.0, |sum, rate| sum + rate);
    let (total, pinned) = (sum(|row| row.stateless), sum(|row| row.pinned));
    let mut left = vec![
        "mhs".bold(),
        format!("  {} services", view.rows.len()).into(),
        format!("  {}/s stateless", short(total)).fg(STABLE),
        format!("  {}/s pinned", short(pinned)).fg(UNSTABLE),
    ];
    left.push(match view.paused {
        true => "  paused".reversed(),
        false => format!("  every {} s", view.delay).dim(),
    });
    frame.render_widget(Line::from(left), area);
    let keys = Line::from("q ↑↓ space".dim()).alignment(Alignment::Right);
    frame.render_widget(Paragraph::new(keys), area);
}

fn heading(names: &[&str]) -> TableRow<'static> {
    let cells = names.iter().map(|name| match name.strip_prefix('>') {
        Some(name) => right(name.to_owned()),
        None => Cell::from((*name).to_owned()),
    });
    TableRow::new(cells.collect::<Vec<_>>()).style(Style::new().add_modifier(Modifier::DIM))
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).alignment(Alignment::Right))
}

/// A bar of `width`, the first part of it in another glyph than the rest, so that it can be read
/// without colours too. What is there at all gets a glyph.
fn bar(width: usize, part: f64, first: (&str, Color), rest: (&str, Color)) -> Line<'static> {
    let exact = part.clamp(0.0, 1.0) * width as f64;
    let cells = match exact {
        0.0 => 0,
        e if e >= width as f64 => width,
        e => (e.round() as usize).clamp(1, width.saturating_sub(1)),
    };
    Line::from(vec![
        Span::styled(first.0.repeat(cells), first.1),
        Span::styled(rest.0.repeat(width - cells), rest.1),
    ])
}

fn draw_services(frame: &mut Frame, area: Rect, view: &View) {
    // Numbers have what they need and names what they can get; bars have the rest.
    const NUMBERS: [u16; 4] = [8, 8, 11, 8];
    let names = view
        .rows
        .iter()
        .map(|row| row.service.service.to_string().len() as u16);
    let name = names.max().unwrap_or(0).clamp(16, 40);
    let taken = 2 + name + NUMBERS.iter().sum::<u16>() + 5;
    let width = area.width.saturating_sub(taken).clamp(4, 40);
    let row = |row: &Row| {
        let told = &row.service;
        let unstable = ratio(told.unstable, told.options.size);
        TableRow::new(vec![
            Cell::from(told.service.to_string()),
            Cell::from(bar(
                width.into(),
                1.0 - unstable,
                ("█", STABLE),
                ("▒", UNSTABLE),
            )),
            right(percent(unstable)),
            right(told.next_merge_ms.map_or("-".into(), time)),
            right(short(row.stateless)),
            right(short(row.pinned)),
        ])
    };
    let numbers = NUMBERS.map(Constraint::Length);
    let widths = [Constraint::Fill(1), Constraint::Length(width)].into_iter();
    let widths = widths.chain(numbers);
    let table = Table::new(view.rows.iter().map(row), widths)
        .header(heading(&[
            "Service",
            "Slots",
            ">Unstable",
            ">Merge in",
            ">Stateless/s",
            ">Pinned/s",
        ]))
        .block(Block::new().borders(Borders::BOTTOM))
        .row_highlight_style(Style::new().add_modifier(Modifier::BOLD))
        .highlight_symbol("▶ ");
    let mut state = TableState::new().with_selected(Some(view.selected));
    frame.render_stateful_widget(table, area, &mut state);
    if view.rows.is_empty() {
        let [_, line] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
        let text = "no service is scheduled by mhs: ipvsadm-mhs add -t ADDRESS:PORT";
        frame.render_widget(Paragraph::new(text.dim()), line);
    }
}

fn draw_servers(frame: &mut Frame, area: Rect, view: &View) {
    const NUMBERS: [u16; 6] = [6, 15, 0, 7, 11, 7];
    let Some(selected) = view.selected() else {
        return;
    };
    let told = &selected.service;
    let names = view
        .servers
        .iter()
        .map(|row| row.server.server.to_string().len() as u16);
    let name = names.max().unwrap_or(0).clamp(16, 40);
    let taken = name + NUMBERS.iter().sum::<u16>() + 6;
    let bar = area.width.saturating_sub(taken).clamp(4, 40);
    // The largest share fills the bar.
    let slots = view
        .servers
        .iter()
        .map(|row| row.server.slots_new.max(row.server.slots_old));
    let most = slots.max().unwrap_or(0).max(1);
    let row = |row: &ServerRow| {
        let server = &row.server;
        let (color, left) = match server.state {
            State::Live => (STABLE, None),
            State::Draining => (UNSTABLE, server.time_left_ms),
            State::Grace | State::Gone => (Color::Red, server.time_left_ms),
        };
        let state = match left {
            Some(ms) => format!("{} {}", server.state.word(), time(ms)),
            None => server.state.word().to_owned(),
        };
        // New slots, and behind them what the old table has more.
        let (new, old) = (
            server.slots_new,
            server.slots_old.saturating_sub(server.slots_new),
        );
        let width = usize::from(bar);
        let cells = |slots: u32| (ratio(slots, most) * width as f64).ceil() as usize;
        let new_cells = cells(new).min(width);
        let old_cells = (cells(new + old) - new_cells).min(width - new_cells);
        TableRow::new(vec![
            Cell::from(server.server.to_string()),
            right(server.weight.to_string()),
            Cell::from(Span::styled(state, color)),
            Cell::from(Line::from(vec![
                Span::styled("█".repeat(new_cells), STABLE),
                Span::styled("▒".repeat(old_cells), UNSTABLE),
            ])),
            right(percent(ratio(new, told.options.size))),
            right(short(row.packets)),
            right(
                row.entries
                    .map_or("-".into(), |entries| entries.to_string()),
            ),
        ])
    };
    let numbers = NUMBERS.map(|width| Constraint::Length(if width == 0 { bar } else { width }));
    let widths = [Constraint::Fill(1)].into_iter().chain(numbers);
    let rows = view.servers.iter().skip(view.scroll).map(row);
    let table = Table::new(rows, widths).header(heading(&[
        "Server",
        ">Weight",
        "State",
        "Slots",
        ">Share",
        ">Stateless/s",
        ">Entries",
    ]));
    let [line, rest] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(area);
    frame.render_widget(table, rest);
    let shown = usize::from(rest.height.saturating_sub(1));
    let hidden = view.servers.len().saturating_sub(view.scroll + shown);
    let more = match view.scroll > 0 || hidden > 0 {
        true => format!("{} above, {hidden} below: PgUp PgDn", view.scroll),
        false => format!("session timeout {}", time(told.session_timeout_ms)),
    };
    let kind = if told.stateless { "" } else { ", stateful" };
    let title = format!("{}  {} slots{kind}", told.service, told.options.size);
    frame.render_widget(Line::from(title.bold()), line);
    let more = Line::from(more.dim()).alignment(Alignment::Right);
    frame.render_widget(Paragraph::new(more), line);
}

fn draw_events(frame: &mut Frame, area: Rect, view: &View) {
    let block = Block::new().borders(Borders::TOP).title("Events".dim());
    let height = usize::from(block.inner(area).height);
    let first = view.events.len().saturating_sub(height);
    let lines = view.events.iter().skip(first).map(|(age, text)| {
        let age = match age.as_secs() {
            seconds @ 0..=59 => format!("{seconds}s"),
            seconds => time(seconds * 1000),
        };
        Line::from(vec![format!("{age:>7} ago  ").dim(), text.clone().into()])
    });
    let lines: Vec<Line> = lines.collect();
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{command::list::tests::example, mhs::Server, server};
    use expect_test::expect;
    use ratatui::{backend::TestBackend, Terminal};
    use std::time::Duration;

    fn picture(view: &View, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let lines = buffer.content.chunks(usize::from(width)).map(|cells| {
            let line: String = cells.iter().map(|cell| cell.symbol()).collect();
            format!("|{}\n", line.trim_end())
        });
        lines.collect()
    }

    fn view() -> View {
        let server = |n: u8, weight, state, time_left_ms, slots_old, slots_new| ServerRow {
            server: Server {
                server: server::Server {
                    address: [192, 0, 2, n].into(),
                    port: 80,
                },
                index: n.into(),
                weight,
                method: "Route",
                state,
                time_left_ms,
                slots_old,
                slots_new,
                packets: 0,
                bytes: 0,
            },
            packets: 31_234.0,
            entries: (state != State::Grace).then_some(17),
        };
        let row = |name, unstable| Row {
            service: example(name, unstable),
            stateless: 123_456.0,
            pinned: 789.0,
        };
        View {
            rows: vec![
                row("192.0.2.1:80", 3277),
                row("[2001:db8:1234:5678::1]:443", 1),
                row("192.0.2.1:443", 0),
            ],
            selected: 0,
            servers: vec![
                server(11, 1, State::Live, None, 4096, 5461),
                server(12, 1, State::Live, None, 4096, 5460),
                server(13, 0, State::Draining, Some(899_000), 3277, 0),
                server(14, 1, State::Grace, Some(59_000), 1200, 0),
            ],
            scroll: 0,
            events: vec![
                (
                    Duration::from_secs(75),
                    "TCP 192.0.2.1:80: merge: 4096 slots".into(),
                ),
                (
                    Duration::from_secs(3),
                    "TCP 192.0.2.1:80: server 192.0.2.13:80 is draining".into(),
                ),
            ],
            delay: 1.0,
            paused: false,
        }
    }

    #[test]
    fn at_80_by_24() {
        expect![[r#"
            |mhs  3 services  370k/s stateless  2367/s pinned  every 1 s           q ↑↓ space
            |  Service                         Slots   Unstable Merge in Stateless/s Pinned/s
            |▶ TCP 192.0.2.1:80                ██████▒   20.0 %   14m59s        123k      789
            |  TCP [2001:db8:1234:5678::1]:443 ██████▒   0.01 %   14m59s        123k      789
            |  TCP 192.0.2.1:443               ███████      0 %        -        123k      789
            |────────────────────────────────────────────────────────────────────────────────
            |TCP 192.0.2.1:80  16381 slots                             session timeout 15m00s
            |Server           Weight State           Slots          Share Stateless/s Entries
            |192.0.2.11:80         1 live            ████████████  33.3 %       31234      17
            |192.0.2.12:80         1 live            ████████████  33.3 %       31234      17
            |192.0.2.13:80         0 draining 14m59s ▒▒▒▒▒▒▒▒         0 %       31234      17
            |192.0.2.14:80         1 grace 59.0s     ▒▒▒              0 %       31234       -
            |
            |
            |
            |
            |
            |
            |
            |
            |Events──────────────────────────────────────────────────────────────────────────
            |  1m15s ago  TCP 192.0.2.1:80: merge: 4096 slots
            |     3s ago  TCP 192.0.2.1:80: server 192.0.2.13:80 is draining
            |
        "#]]
        .assert_eq(&picture(&view(), 80, 24));
    }

    #[test]
    fn many_servers_and_a_small_terminal() {
        let mut view = view();
        for _ in 0..4 {
            view.servers.extend(view.servers.clone());
        }
        view.select(1);
        view.scroll(3);
        expect![[r#"
            |mhs  3 services  370k/s stateless  2367/s pinned  every 1 s           q ↑↓ space
            |  Service                         Slots   Unstable Merge in Stateless/s Pinned/s
            |  TCP 192.0.2.1:80                ██████▒   20.0 %   14m59s        123k      789
            |▶ TCP [2001:db8:1234:5678::1]:443 ██████▒   0.01 %   14m59s        123k      789
            |  TCP 192.0.2.1:443               ███████      0 %        -        123k      789
            |────────────────────────────────────────────────────────────────────────────────
            |TCP [2001:db8:1234:5678::1]:443  16381 slots        3 above, 54 below: PgUp PgDn
            |Server           Weight State           Slots          Share Stateless/s Entries
            |192.0.2.14:80         1 grace 59.0s     ▒▒▒              0 %       31234       -
            |192.0.2.11:80         1 live            ████████████  33.3 %       31234      17
            |192.0.2.12:80         1 live            ████████████  33.3 %       31234      17
            |192.0.2.13:80         0 draining 14m59s ▒▒▒▒▒▒▒▒         0 %       31234      17
            |192.0.2.14:80         1 grace 59.0s     ▒▒▒              0 %       31234       -
            |192.0.2.11:80         1 live            ████████████  33.3 %       31234      17
            |192.0.2.12:80         1 live            ████████████  33.3 %       31234      17
        "#]]
        .assert_eq(&picture(&view, 80, 15));
    }

    #[test]
    fn nothing_to_see() {
        let view = View {
            delay: 0.5,
            paused: true,
            ..View::default()
        };
        expect![[r#"
            |mhs  0 services  0/s stateless  0/s pinned  paused                    q ↑↓ space
            |Service            Slots                  Unstable Merge in Stateless/s Pinned/s
            |no service is scheduled by mhs: ipvsadm-mhs add -t ADDRESS:PORT
            |────────────────────────────────────────────────────────────────────────────────
            |
            |
            |
            |
            |
            |
            |
            |
            |Events──────────────────────────────────────────────────────────────────────────
            |
            |
            |
        "#]]
        .assert_eq(&picture(&view, 80, 16));
        // However small, it does not fail.
        for (width, height) in [(1, 1), (20, 3), (80, 5), (300, 80)] {
            picture(&view, width, height);
            picture(&super::tests::view(), width, height);
        }
    }

    #[test]
    fn bars() {
        let text = |part| {
            let bar = bar(10, part, ("#", STABLE), (".", UNSTABLE));
            bar.spans
                .iter()
                .map(|span| span.content.clone())
                .collect::<String>()
        };
        assert_eq!(text(1.0), "##########");
        assert_eq!(text(0.9999), "#########.");
        assert_eq!(text(0.5), "#####.....");
        assert_eq!(text(0.0001), "#.........");
        assert_eq!(text(0.0), "..........");
    }
}
