//! One frame of `top`: a pure function of its state.
//!
//! Small screens show one pane, large ones all four. Colours say one thing each: green passes, yellow would be dropped, red is dropped.

use super::state::{Action, PANES, State};
use crate::cli::peers::below;
use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Alignment, Constraint, Layout, Rect},
    style::{Color, Modifier, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, BorderType, Cell, Clear, Paragraph, Row, Table},
};

/// Fewest columns that hold a frame.
pub const WIDTH_MIN: u16 = 60;
/// Columns from which on peers show flows, p50 and retransmissions, too.
const PEERS_MIDDLE: u16 = 76;
/// Columns from which on they show bytes and all their drops as well.
const PEERS_WIDE: u16 = 100;
/// Columns from which on sources show to which port they send.
const SOURCES_WIDE: u16 = 50;
/// Fewest lines.
pub const HEIGHT_MIN: u16 = 12;
/// From this size on all panes are shown at once.
const WHOLE: (u16, u16) = (110, 34);
/// Columns of a rate's recent past.
const SPARK: usize = 20;
/// Eighths of a line's height.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

const QUIET: Style = Style::new().fg(Color::DarkGray);
const TITLE: Style = Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD);

/// Draws the state.
pub fn draw(frame: &mut Frame, state: &State) {
    let area = frame.area();
    if area.width < WIDTH_MIN || area.height < HEIGHT_MIN {
        let text = format!("{}×{} is too small: {WIDTH_MIN}×{HEIGHT_MIN} is the least", area.width, area.height);
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let [head, body, foot] = Layout::vertical([Constraint::Length(3), Constraint::Min(1), Constraint::Length(1)]).areas(area);
    frame.render_widget(header(state, head.width), head);
    if area.width >= WHOLE.0 && area.height >= WHOLE.1 {
        let [upper, lower] = Layout::vertical([Constraint::Percentage(55), Constraint::Percentage(45)]).areas(body);
        let halves =
            |area, left| Layout::horizontal([Constraint::Percentage(left), Constraint::Percentage(100 - left)]).areas::<2>(area);
        let ([verdicts, sources], [peers, bans]) = (halves(upper, 60), halves(lower, 50));
        [verdicts, sources, peers, bans].into_iter().enumerate().for_each(|(pane, area)| draw_pane(frame, state, pane, area));
    } else {
        draw_pane(frame, state, state.pane, body);
    }
    frame.render_widget(footer(state), foot);
    if state.help {
        help(frame, area);
    }
}

fn header(state: &State, width: u16) -> Paragraph<'static> {
    let Some(stats) = &state.stats else {
        return Paragraph::new(vec![Line::from("ebpf-guard".bold()), Line::from("waiting for the first sample")]);
    };
    let colour = match stats.mode.as_str() {
        "enforce" => Color::Red,
        "shadow" => Color::Yellow,
        _ => Color::DarkGray,
    };
    let xdp = match stats.xdp_mode.as_str() {
        "none" => Span::styled("not attached", Style::new().fg(Color::Red).add_modifier(Modifier::BOLD)),
        "tcx" => Span::from("TCX"),
        mode => Span::from(format!("XDP {mode}")),
    };
    let up = span(state.now_ms.saturating_sub(stats.started_unix_ms));
    let mut first = vec![
        Span::styled(" ebpf-guard ", TITLE),
        Span::from(format!("{}  ", stats.instance)),
        Span::styled(
            format!(" {} ", stats.mode.to_uppercase()),
            Style::new().fg(Color::Black).bg(colour).add_modifier(Modifier::BOLD),
        ),
        Span::from(format!("  {}  ", stats.interface)),
        xdp,
        Span::styled(format!("  up {up}"), QUIET),
    ];
    if state.paused {
        first.push(" PAUSED".bold().yellow());
    }
    if let Some(why) = &state.gone {
        first.push(Span::styled(format!("  {why}: asking again"), Style::new().fg(Color::Red)));
    }
    let sums = [
        (Action::Pass, "pass", Color::Green),
        (Action::WouldDrop, "would drop", Color::Yellow),
        (Action::Drop, "drop", Color::Red),
    ];
    let mut second = vec![Span::from(" ")];
    for (action, name, colour) in sums {
        let (rate, total) = state.sum(action);
        second.push(Span::styled(format!("{name} {}/s", number(rate)), Style::new().fg(colour)));
        second.push(Span::styled(format!(" of {}   ", number(total as f64)), QUIET));
    }
    second.push(Span::from(format!("{} bans  {} flows", stats.bans, stats.flows)));
    let protect = cut(&stats.protect.join(" "), width.saturating_sub(12) as usize);
    let third = vec![Span::styled(" protects ", QUIET), Span::from(protect)];
    Paragraph::new(vec![Line::from(first), Line::from(second), Line::from(third)])
}

fn footer(state: &State) -> Line<'static> {
    let mut spans = vec![Span::from(" ")];
    for (index, name) in PANES.into_iter().enumerate() {
        let style = if index == state.pane { TITLE.add_modifier(Modifier::REVERSED) } else { QUIET };
        spans.push(Span::styled(format!(" {} {name} ", index + 1), style));
    }
    spans.push(Span::styled("  q quit  tab next  p pause  ? keys", QUIET));
    Line::from(spans)
}

fn help(frame: &mut Frame, area: Rect) {
    let text = [
        "q          quit",
        "tab 1–4    next pane, this pane",
        "p          pause, go on",
        "?          these lines",
        "",
        "A rate is of the last second, a line its last two minutes.",
        "p50, p99: latency from the wire to the reader, at most.",
        "Sources come from sampled events: shares are true,",
        "small sources may be missing.",
    ];
    let (width, height) = (area.width.min(64), (text.len() as u16 + 2).min(area.height));
    let area = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, area);
    let lines: Vec<Line> = text.into_iter().map(|line| Line::from(format!(" {line}"))).collect();
    frame.render_widget(Paragraph::new(lines).block(block("Keys", "", true)), area);
}

fn draw_pane(frame: &mut Frame, state: &State, pane: usize, area: Rect) {
    let room = area.height.saturating_sub(3) as usize;
    let (table, count) = match pane {
        0 => verdicts(state, room, area.width),
        1 => sources(state, room, area.width),
        2 => peers(state, room, area.width),
        _ => bans(state, room),
    };
    let name = PANES.get(pane).copied().unwrap_or_default();
    let note = if count > room { format!(" {room} of {count} ") } else { format!(" {count} ") };
    frame.render_widget(table.block(block(name, &note, pane == state.pane)), area);
}

fn block(title: &str, note: &str, chosen: bool) -> Block<'static> {
    let style = if chosen { Style::new().fg(Color::Cyan) } else { QUIET };
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(style)
        .title(Span::styled(format!(" {title} "), TITLE))
        .title(Line::from(Span::styled(note.to_string(), QUIET)).alignment(Alignment::Right))
}

fn head<const N: usize>(names: [&'static str; N], right: &[usize]) -> Row<'static> {
    let cell = |(index, name)| if right.contains(&index) { right_cell(name) } else { Cell::from(name) };
    Row::new(names.into_iter().enumerate().map(cell).collect::<Vec<_>>()).style(QUIET)
}

fn right_cell(text: impl Into<String>) -> Cell<'static> {
    Cell::from(Line::from(text.into()).alignment(Alignment::Right))
}

fn verdicts(state: &State, room: usize, width: u16) -> (Table<'static>, usize) {
    let shown = state.verdicts.iter().filter(|((action, _), verdict)| *action == Action::Pass || verdict.total > 0);
    let mut shown: Vec<_> = shown.collect();
    shown.sort_by(|((a, reason_a), x), ((b, reason_b), y)| {
        a.cmp(b).then(y.rate.total_cmp(&x.rate)).then(y.total.cmp(&x.total)).then(reason_a.cmp(reason_b))
    });
    let columns = SPARK.min(width.saturating_sub(58) as usize).max(8);
    let row = |((action, reason), verdict): &(&(Action, String), &super::state::Verdict)| {
        let (name, colour) = match action {
            Action::Pass => ("pass", Color::Green),
            Action::WouldDrop => ("would drop", Color::Yellow),
            Action::Drop => ("drop", Color::Red),
        };
        let style = Style::new().fg(if verdict.rate > 0.0 { colour } else { Color::DarkGray });
        let line = spark(verdict.history.iter().copied(), columns);
        Row::new([
            Cell::from(reason.clone()),
            Cell::from(Span::styled(name, Style::new().fg(colour))),
            right_cell(number(verdict.rate)).style(style),
            Cell::from(Span::styled(line, style)),
            right_cell(number(verdict.total as f64)),
        ])
    };
    let rows: Vec<Row> = shown.iter().take(room).map(row).collect();
    let widths = [
        Constraint::Min(14),
        Constraint::Length(10),
        Constraint::Length(9),
        Constraint::Length(columns as u16),
        Constraint::Length(9),
    ];
    (Table::new(rows, widths).header(head(["reason", "action", "packets/s", "past", "all"], &[2, 4])), shown.len())
}

fn sources(state: &State, room: usize, width: u16) -> (Table<'static>, usize) {
    let columns = if width >= SOURCES_WIDE { 4 } else { 3 };
    let mut shown: Vec<_> = state.sources.iter().collect();
    shown.sort_by(|(a, x), (b, y)| y.weight.total_cmp(&x.weight).then(a.cmp(b)));
    let all: f64 = shown.iter().map(|(_, source)| source.weight).sum();
    let row = |(address, source): &(&std::net::IpAddr, &super::state::Source)| {
        let colour = if source.dropped { Color::Red } else { Color::Yellow };
        let cells = [
            Cell::from(address.to_string()),
            right_cell(format!("{:.0} %", source.weight / all * 100.0)),
            Cell::from(Span::styled(source.reason.clone(), Style::new().fg(colour))),
            Cell::from(source.port.clone()),
        ];
        Row::new(cells.into_iter().take(columns))
    };
    let rows: Vec<Row> = shown.iter().take(room).map(row).collect();
    let widths = [Constraint::Min(16), Constraint::Length(6), Constraint::Length(16), Constraint::Length(10)];
    let head = [Cell::from("source"), right_cell("share"), Cell::from("last reason"), Cell::from("to")];
    let head = Row::new(head.into_iter().take(columns)).style(QUIET);
    (Table::new(rows, widths.into_iter().take(columns)).header(head), shown.len())
}

fn peers(state: &State, room: usize, width: u16) -> (Table<'static>, usize) {
    // A narrow screen has no room for all.
    let (middle, wide) = (width >= PEERS_MIDDLE, width >= PEERS_WIDE);
    let row = |peer: &super::state::Peer| {
        let name = if peer.label.is_empty() { "(not announced again)" } else { &peer.label };
        let drops = if peer.drop_rate > 0.0 { Style::new().fg(Color::Red) } else { Style::new() };
        let rtt = peer.rtt_us.map_or("not visible".to_string(), |us| format!("{:.1} ms", us as f64 / 1e3));
        let columns = [
            (true, Cell::from(name.to_string())),
            (middle, right_cell(peer.flows.to_string())),
            (true, right_cell(number(peer.rate))),
            (wide, right_cell(number(peer.bytes_rate))),
            (true, right_cell(number(peer.drop_rate)).style(drops)),
            (wide, right_cell(number(peer.dropped as f64)).style(drops)),
            (middle, right_cell(below(peer.p50_ns))),
            (true, right_cell(below(peer.p99_ns))),
            (true, right_cell(rtt)),
            (middle, right_cell(peer.retransmits.clone().unwrap_or("-".to_string()))),
        ];
        Row::new(columns.into_iter().filter(|(shown, _)| *shown).map(|(_, cell)| cell).collect::<Vec<_>>())
    };
    let rows: Vec<Row> = state.peers.iter().take(room).map(row).collect();
    let columns = [
        (true, Constraint::Min(12), "peer"),
        (middle, Constraint::Length(5), "flows"),
        (true, Constraint::Length(7), "pkts/s"),
        (wide, Constraint::Length(8), "bytes/s"),
        (true, Constraint::Length(7), "drops/s"),
        (wide, Constraint::Length(7), "drops"),
        (middle, Constraint::Length(8), "p50"),
        (true, Constraint::Length(8), "p99"),
        (true, Constraint::Length(11), "rtt"),
        (middle, Constraint::Length(7), "retrans"),
    ];
    let shown = || columns.iter().filter(|(shown, _, _)| *shown);
    let cell = |(index, (_, _, name)): (usize, &(bool, Constraint, &'static str))| match index {
        0 => Cell::from(*name),
        _ => right_cell(*name),
    };
    let head = Row::new(shown().enumerate().map(cell).collect::<Vec<_>>()).style(QUIET);
    (Table::new(rows, shown().map(|(_, width, _)| *width)).header(head), state.peers.len())
}

fn bans(state: &State, room: usize) -> (Table<'static>, usize) {
    let row = |ban: &guard::protocol::BanInfo| {
        Row::new([
            Cell::from(ban.address.to_string()),
            Cell::from(ban.offence.as_str()),
            right_cell(span(ban.until_unix_ms.saturating_sub(state.now_ms))),
            right_cell(number(ban.hits as f64)).style(if ban.hits > 0 { Style::new().fg(Color::Red) } else { QUIET }),
            Cell::from(ban.note.clone()),
        ])
    };
    let rows: Vec<Row> = state.bans.iter().take(room).map(row).collect();
    let widths = [Constraint::Min(18), Constraint::Length(13), Constraint::Length(8), Constraint::Length(7), Constraint::Min(6)];
    (Table::new(rows, widths).header(head(["address", "offence", "ends in", "hits", "note"], &[2, 3])), state.bans.len())
}

/// The last values as a line, the highest of them a full block; nothing is a space.
fn spark(values: impl DoubleEndedIterator<Item = f64>, columns: usize) -> String {
    let mut last: Vec<f64> = values.rev().take(columns).collect();
    last.reverse();
    let top = last.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| match value {
        value if *value <= 0.0 => ' ',
        value => BARS[((value / top * 8.0).ceil() as usize).clamp(1, 8) - 1],
    };
    let line: String = last.iter().map(bar).collect();
    format!("{line:>columns$}")
}

/// Three or four figures and a unit: `0`, `7`, `0.5`, `12.3k`, `4.56M`.
fn number(value: f64) -> String {
    match value {
        value if value >= 9_995_000_000.0 => format!("{:.1}G", value / 1e9),
        value if value >= 999_500_000.0 => format!("{:.2}G", value / 1e9),
        value if value >= 9_995_000.0 => format!("{:.1}M", value / 1e6),
        value if value >= 999_500.0 => format!("{:.2}M", value / 1e6),
        value if value >= 9_999.5 => format!("{:.1}k", value / 1e3),
        value if value > 0.0 && value < 9.95 && value.fract() > 0.05 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// A span of time in two units: `45 s`, `3m 05s`, `2h 07m`, `9d 03h`.
fn span(ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    match (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0, s) => format!("{s} s"),
        (0, 0, m, s) => format!("{m}m {s:02}s"),
        (0, h, m, _) => format!("{h}h {m:02}m"),
        (d, h, _, _) => format!("{d}d {h:02}h"),
    }
}

fn cut(text: &str, columns: usize) -> String {
    match text.chars().count() <= columns {
        true => text.to_string(),
        false => text.chars().take(columns.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A drawn screen as lines of text, without what trails.
pub fn text(buffer: &Buffer) -> String {
    let width = buffer.area.width.max(1) as usize;
    let line = |cells: &[ratatui::buffer::Cell]| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        format!("{}\n", line.trim_end())
    };
    buffer.content.chunks(width).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        let check = |value: f64, expect: &str| assert_eq!(number(value), expect);
        check(0.0, "0");
        check(0.5, "0.5");
        check(7.0, "7");
        check(9_999.0, "9999");
        check(12_345.0, "12.3k");
        check(999_499.0, "999.5k");
        check(999_500.0, "1.00M");
        check(45_600_000.0, "45.6M");
        check(7.5e9, "7.50G");
        assert_eq!(
            (span(45_000), span(185_000), span(7_620_000), span(788_400_000)),
            ("45 s".into(), "3m 05s".into(), "2h 07m".into(), "9d 03h".into())
        );
    }

    #[test]
    fn lines_of_the_past() {
        assert_eq!(spark([0.0, 1.0, 4.0, 8.0].into_iter(), 4), " ▁▄█");
        assert_eq!(spark([8.0, 8.0].into_iter(), 4), "  ██");
        assert_eq!(spark((0..100).map(f64::from), 2), "██");
        assert_eq!(spark(std::iter::empty(), 3), "   ");
        assert_eq!(cut("tcp/1 tcp/2", 6), "tcp/1…");
    }
}
