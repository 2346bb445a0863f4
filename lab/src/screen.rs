//! The one table of the devnet: redrawn in place on a terminal, one line a second elsewhere.

use std::io::{IsTerminal, Write};

use crate::load::View;

/// One row beside what the load knows.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// The node.
    pub name: String,
    /// `native`, `generic`, `tcx`, `none`, or `-` without a guard.
    pub xdp_mode: String,
    /// Packets passed, on protected ports and others.
    pub passed: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// `up`, or what is dead.
    pub status: String,
}

/// Where the table goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Terminal,
    Lines,
    Silent,
}

/// The screen. Standard output belongs to it while a devnet runs.
#[derive(Debug)]
pub struct Screen {
    kind: Kind,
    drawn: usize,
    committed_before: Option<u64>,
}

impl Screen {
    /// `silent`: nothing but problems, on standard error.
    pub fn new(silent: bool) -> Screen {
        let kind = match (silent, std::io::stdout().is_terminal()) {
            (true, _) => Kind::Silent,
            (false, true) => Kind::Terminal,
            (false, false) => Kind::Lines,
        };
        Screen { kind, drawn: 0, committed_before: None }
    }

    /// Says something above the table.
    pub fn say(&mut self, text: &str) {
        match self.kind {
            Kind::Silent => eprintln!("{text}"),
            Kind::Lines => emit(&format!("{text}\n")),
            Kind::Terminal => {
                let up = self.up();
                emit(&format!("{up}\x1b[J{text}\n"));
                self.drawn = 0;
            }
        }
    }

    /// Draws the table; call it once a second, the rate of transactions is counted from call to call.
    pub fn draw(&mut self, view: &View, rows: &[Row]) {
        let tps = view.committed.saturating_sub(self.committed_before.unwrap_or(view.committed));
        self.committed_before = Some(view.committed);
        match self.kind {
            Kind::Silent => {}
            Kind::Lines => emit(&format!("{}\n", line(view, rows, tps))),
            Kind::Terminal => {
                let lines = table(view, rows, tps);
                let up = self.up();
                let body: String = lines.iter().map(|line| format!("{line}\x1b[K\n")).collect();
                emit(&format!("{up}{body}"));
                self.drawn = lines.len();
            }
        }
    }

    /// Moves to the table's first line.
    fn up(&self) -> String {
        if self.drawn == 0 { String::new() } else { format!("\x1b[{}A", self.drawn) }
    }
}

/// A closed pipe is no reason to stop a devnet.
fn emit(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn finality(view: &View) -> String {
    view.recent_ms.map_or_else(|| "-".to_owned(), |(p50, p99)| format!("{p50} ms (p99 {p99} ms)"))
}

fn table(view: &View, rows: &[Row], tps: u64) -> Vec<String> {
    let settling = if view.settling { "   waiting for what is open" } else { "" };
    let mut lines = vec![
        String::new(),
        format!(
            "  finality {}   {tps} tx/s   {} of {} transactions final{settling}",
            finality(view),
            view.committed,
            view.submitted
        ),
        String::new(),
        format!("  {:<8} {:>9} {:>6}  {:<8} {:>12} {:>12}  {}", "node", "height", "peers", "XDP", "passed", "dropped", "status"),
    ];
    for (index, row) in rows.iter().enumerate() {
        let node = view.nodes.get(index).cloned().unwrap_or_default();
        lines.push(format!(
            "  {:<8} {:>9} {:>6}  {:<8} {:>12} {:>12}  {}",
            row.name, node.height, node.peers, row.xdp_mode, row.passed, row.dropped, row.status
        ));
    }
    lines
}

fn line(view: &View, rows: &[Row], tps: u64) -> String {
    let heights: Vec<String> = view.nodes.iter().map(|node| node.height.to_string()).collect();
    let peers: Vec<String> = view.nodes.iter().map(|node| node.peers.to_string()).collect();
    let (passed, dropped) = rows.iter().fold((0, 0), |(p, d), row| (p + row.passed, d + row.dropped));
    let modes: std::collections::BTreeSet<&str> = rows.iter().map(|row| row.xdp_mode.as_str()).collect();
    let ill: Vec<String> = rows.iter().filter(|r| r.status != "up").map(|r| format!("  {} {}", r.name, r.status)).collect();
    format!(
        "height {}  finality {}  {tps} tx/s  peers {}  XDP {}  packets {passed} passed {dropped} dropped{}",
        heights.join("/"),
        finality(view),
        peers.join("/"),
        modes.into_iter().collect::<Vec<_>>().join("/"),
        ill.concat()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::NodeView;

    #[test]
    fn table_has_a_row_a_node_and_aligned_columns() {
        let view = View { nodes: vec![NodeView { height: 42, peers: 3, answers: true }; 2], ..View::default() };
        let row = |name: &str| Row {
            name: name.to_owned(),
            xdp_mode: "native".to_owned(),
            passed: 7,
            dropped: 1,
            status: "up".to_owned(),
        };
        let lines = table(&view, &[row("node1"), row("node2")], 5);
        assert_eq!(lines.len(), 6);
        assert_eq!(lines[4].len(), lines[5].len());
        assert!(lines[4].contains("node1") && lines[4].contains("42") && lines[4].contains("native"));
        assert!(line(&view, &[row("node1"), row("node2")], 5).contains("height 42/42"));
    }
}
