//! `ebpf-guard top`: what the guard sees, live.
//!
//! [`state`] is a value that samples and events go into; [`view`] draws it, and nothing else. Only this file knows a clock, a socket and a
//! terminal.

mod state;
mod view;

use super::{Reach, run};
use anyhow::{Context, bail};
use clap::Args;
use guard::{
    Client,
    kernel::{clock::unix_ms, incoming::hung_up},
    protocol::{EventInfo, Stats},
};
use ratatui::{
    Terminal,
    backend::TestBackend,
    crossterm::{
        cursor,
        event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
        execute,
    },
};
use state::{Key, State};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

/// Time between two samples.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How long a key may wait for its effect.
const KEY_EVERY: Duration = Duration::from_millis(100);
/// Events that wait for the next frame; further ones are left out, as they are samples anyway.
const EVENTS_WAITING_MAX: usize = 4096;

/// Options of `top`.
#[derive(Args)]
pub struct Top {
    /// Print one frame as text, with the rates of one second, and end.
    #[arg(long)]
    once: bool,
    /// Columns of that frame.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(view::WIDTH_MIN as i64..=400))]
    width: u16,
    /// Its lines.
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u16).range(view::HEIGHT_MIN as i64..=200))]
    height: u16,
    #[command(flatten)]
    reach: Reach,
}

impl Top {
    /// Runs until `q`, or for one frame.
    pub fn run(self) -> anyhow::Result<()> {
        if self.reach.json {
            bail!("top is for people; for programs there are `status --json`, `bans --json` and `events --json`");
        }
        if self.once {
            return self.frame();
        }
        let terminal = std::env::var("TERM").unwrap_or_default();
        if !std::io::stdout().is_terminal() || terminal.is_empty() || terminal == "dumb" {
            bail!("this is no terminal that can be drawn on (TERM={terminal:?}): `ebpf-guard top --once` prints one frame as text");
        }
        // Before the screen is taken: what can't be reached is said in plain text.
        let mut client = Client::connect(&self.reach.socket)?;
        let mut state = State::default();
        sample(&mut client, &mut state)?;
        // A killed program would leave the terminal as no shell can use it.
        let signals = run::block_signals()?;
        let events = follow(&self.reach.socket);
        let mut screen = ratatui::try_init().context("taking the terminal over")?;
        let watching = std::thread::Builder::new().name("top-end".into()).spawn(move || end_with(&signals));
        let result = match watching {
            Ok(_) => live(&mut screen, &mut state, Some(client), &events, &self.reach.socket),
            Err(error) => Err(error).context("watching for signals"),
        };
        ratatui::restore();
        result
    }

    fn frame(&self) -> anyhow::Result<()> {
        let mut client = Client::connect(&self.reach.socket)?;
        let events = follow(&self.reach.socket);
        let mut state = State::default();
        sample(&mut client, &mut state)?;
        let end = Instant::now() + SAMPLE_EVERY;
        // A rate is a difference over time: this is the time.
        while let Ok(event) = events.recv_timeout(end.saturating_duration_since(Instant::now())) {
            state.event(&event);
        }
        std::thread::sleep(end.saturating_duration_since(Instant::now()));
        sample(&mut client, &mut state)?;
        let mut terminal = Terminal::new(TestBackend::new(self.width, self.height))?;
        terminal.draw(|frame| view::draw(frame, &state))?;
        print!("{}", view::text(terminal.backend().buffer()));
        Ok(())
    }
}

/// Held while a frame is written. Who ends the program takes it and keeps it: nothing is drawn on the shell's screen.
static DRAWING: Mutex<()> = Mutex::new(());

fn draw(screen: &mut ratatui::DefaultTerminal, state: &State) -> std::io::Result<()> {
    let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    screen.draw(|frame| view::draw(frame, state)).map(drop)
}

/// Ends the program once a signal has come or the terminal is gone. A thread of its own: waiting for the keys of a terminal that hung up
/// never ends.
fn end_with(signals: &run::Signals) {
    while signals.arrived(KEY_EVERY).is_none() && !hung_up(std::io::stdout()) {}
    let _drawing = DRAWING.lock().unwrap_or_else(PoisonError::into_inner);
    // Of a terminal that is gone there is nothing to give back.
    let _ = ratatui::try_restore().and_then(|()| execute!(std::io::stdout(), cursor::Show));
    std::process::exit(0);
}

fn live(
    screen: &mut ratatui::DefaultTerminal,
    state: &mut State,
    mut client: Option<Client>,
    events: &Receiver<EventInfo>,
    socket: &Path,
) -> anyhow::Result<()> {
    let mut sampled = Instant::now();
    loop {
        draw(screen, state)?;
        let deadline = Instant::now() + KEY_EVERY;
        while event::poll(deadline.saturating_duration_since(Instant::now()))? {
            if let Event::Key(pressed) = event::read()?
                && pressed.kind == KeyEventKind::Press
            {
                let control_c = pressed.code == KeyCode::Char('c') && pressed.modifiers.contains(KeyModifiers::CONTROL);
                match key(pressed.code) {
                    Some(Key::Quit) => return Ok(()),
                    _ if control_c => return Ok(()),
                    Some(key) => state.press(key),
                    None => {}
                }
            }
            draw(screen, state)?;
        }
        events.try_iter().for_each(|event| state.event(&event));
        if sampled.elapsed() >= SAMPLE_EVERY {
            sampled = Instant::now();
            let mut present = client.take().or_else(|| Client::connect(socket).ok());
            match present.as_mut().map(|client| sample(client, state)) {
                Some(Ok(())) => client = present,
                Some(Err(error)) => state.gone(&error.to_string()),
                None => state.gone("no guard answers"),
            }
        }
    }
}

const fn key(code: KeyCode) -> Option<Key> {
    match code {
        KeyCode::Char('q') => Some(Key::Quit),
        KeyCode::Char('p') => Some(Key::Pause),
        KeyCode::Char('?') | KeyCode::Char('h') => Some(Key::Help),
        KeyCode::Tab | KeyCode::Right => Some(Key::Next),
        KeyCode::BackTab | KeyCode::Left => Some(Key::Previous),
        KeyCode::Char(digit @ '1'..='4') => Some(Key::Pane(digit as usize - '1' as usize)),
        KeyCode::Esc => Some(Key::Escape),
        _ => None,
    }
}

fn sample(client: &mut Client, state: &mut State) -> Result<(), guard::ClientError> {
    let stats: Stats = client.stats(true)?;
    let bans = client.bans()?;
    state.sample(unix_ms(), stats, bans);
    Ok(())
}

/// Events, read by a thread that connects again when the guard comes back.
fn follow(socket: &Path) -> Receiver<EventInfo> {
    let (sender, receiver) = sync_channel(EVENTS_WAITING_MAX);
    let socket: PathBuf = socket.to_path_buf();
    // It ends with the process, or when nobody listens any more.
    let reading = move || {
        while relay(&socket, &sender).is_ok() {
            std::thread::sleep(SAMPLE_EVERY);
        }
    };
    if let Err(error) = std::thread::Builder::new().name("top-events".into()).spawn(reading) {
        tracing::warn!(%error, "no events: sources stay empty");
    }
    receiver
}

/// Relays until the guard hangs up (`Ok`) or nobody listens (`Err`).
fn relay(socket: &Path, sender: &SyncSender<EventInfo>) -> Result<(), ()> {
    let Ok(mut client) = Client::connect(socket) else { return Ok(()) };
    if client.subscribe().and_then(|()| client.set_timeout(None)).is_err() {
        return Ok(());
    }
    while let Ok(event) = client.event() {
        if let Err(std::sync::mpsc::TrySendError::Disconnected(_)) = sender.try_send(event) {
            return Err(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
