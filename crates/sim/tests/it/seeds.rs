//! A thousand seeds, with four and with seven validators.
//!
//! What a campaign must have met, or its silence means nothing, stands with it.

use sim::Options;

use crate::clean;

fn four() -> Options {
    Options { nodes: Some(4), ..Options::default() }
}

fn seven() -> Options {
    Options { nodes: Some(7), ..Options::default() }
}

/// Every kind of trouble happened, and was got over.
fn is_not_vacuous(marks: &std::collections::BTreeMap<&'static str, u64>, seeds: u64) {
    let count = |mark: &str| marks.get(mark).copied().unwrap_or(0);
    let least = [
        ("crash", seeds),
        ("crash inside a sync", seeds / 50),
        ("power loss everywhere", seeds / 10),
        ("halves", seeds / 4),
        ("island", seeds / 4),
        ("one-way cut", seeds / 4),
        ("evidence", seeds / 10),
        ("offence", seeds / 4),
        ("nullified", seeds),
        ("finalized", 20 * seeds),
        ("sync", seeds),
        ("transaction taken", 3 * seeds),
        ("quiet window without a message", seeds / 4),
    ];
    for (mark, least) in least {
        assert!(count(mark) >= least, "{mark}: {} in {seeds} seeds, at least {least} wanted", count(mark));
    }
}

#[test]
fn four_validators_first_half() {
    is_not_vacuous(&clean(0..350, &four()), 350);
}

#[test]
fn four_validators_second_half() {
    is_not_vacuous(&clean(350..700, &four()), 350);
}

#[test]
fn seven_validators_first_half() {
    is_not_vacuous(&clean(0..150, &seven()), 150);
}

#[test]
fn seven_validators_second_half() {
    is_not_vacuous(&clean(150..300, &seven()), 150);
}
