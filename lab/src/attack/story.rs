//! What an attack tells: numbered steps, each with what was seen.

use std::time::Instant;

/// The steps so far.
#[derive(Debug)]
pub struct Story {
    start: Instant,
    step: u32,
    good: bool,
}

impl Story {
    /// Begins with a headline.
    pub fn begin(headline: &str) -> Story {
        println!("{headline}");
        Story { start: Instant::now(), step: 0, good: true }
    }

    /// Something that was done.
    pub fn did(&mut self, text: &str) {
        self.line("    ", text);
    }

    /// A promise of the defence: kept or not.
    pub fn saw(&mut self, kept: bool, text: &str) {
        self.good &= kept;
        self.line(if kept { "ok  " } else { "FAIL" }, text);
    }

    fn line(&mut self, mark: &str, text: &str) {
        self.step += 1;
        println!("  {mark} {:>2}. [{:>7.3} s] {text}", self.step, self.start.elapsed().as_secs_f64());
    }

    /// Whether every promise was kept; says so.
    pub fn end(&self) -> bool {
        println!("{}", if self.good { "the defence held" } else { "THE DEFENCE DID NOT HOLD" });
        self.good
    }
}
