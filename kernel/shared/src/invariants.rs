//! What must hold for every frame, whatever its bytes: the body of the fuzz target `packet`, and of a bounded test.

extern crate std;

use crate::{
    Reason,
    account::{filter, settle},
    control::{Config, Mode, SynProxy, WORD_CONFIG},
    inspect,
    model::Model,
    proxy,
};

/// Longest frame whose every prefix is judged, too.
const PREFIXES_MAX: usize = 160;

/// Checks a frame against the golden scene ([`crate::golden::model`], in any state that frames may have brought it to).
///
/// # Panics
/// If something doesn't hold.
pub fn packet(frame: &[u8], model: &Model) {
    let verdict = inspect(frame, model);
    let reason = verdict.reason();
    assert_eq!(verdict.reason_slot(), reason as u32, "a slot without a reason");
    assert_eq!(verdict.class_slot(), verdict.class() as u32, "a slot without a class");
    assert_eq!(verdict.drop(), reason.is_drop(), "{reason:?}: a drop needs a reason, and a reason its drop");
    assert!(!verdict.class().is_drop(), "{reason:?} passes as a drop");
    if verdict.version() == 0 {
        assert!(matches!(reason, Reason::OutOfScope | Reason::Unreadable | Reason::Hidden), "{reason:?} without a port");
        assert_eq!(verdict.protocol(), 0);
    } else {
        assert!(matches!(verdict.version(), 4 | 6) && matches!(verdict.protocol(), 6 | 17));
        let (ip, transport, end) = (verdict.ip as usize, verdict.transport as usize, verdict.end as usize);
        assert!(ip >= 14 && ip < transport && transport + 4 <= end && transport + 4 <= frame.len(), "{verdict:?}");
    }
    for mode in Mode::ALL {
        let config = Config::new(mode).with_syn_proxy(SynProxy::All);
        let drop = settle(frame, &verdict, config, model).drop;
        assert_eq!(drop, mode == Mode::Enforce && verdict.drop(), "{}", mode.as_str());
        if proxy::takes(&verdict, config) {
            assert!(verdict.drop() && verdict.protocol() == 6);
        }
    }
    model.set_control(WORD_CONFIG, Config::new(Mode::Off).word());
    assert!(!filter(frame, model).drop, "off, and it drops");
    model.set_control(WORD_CONFIG, 0);
    for length in 0..frame.len().min(PREFIXES_MAX) {
        prefix(&frame[..length], reason, model);
    }
}

/// A frame that was cut: what was nobody's business is not dropped for it, and what passed may only be malformed now.
fn prefix(cut: &[u8], whole: Reason, model: &Model) {
    let verdict = inspect(cut, model);
    if whole == Reason::OutOfScope {
        assert!(!verdict.drop(), "{:?} once it is cut to {}", verdict.reason(), cut.len());
    } else if verdict.drop() && !whole.is_drop() {
        // A budget may have run dry in between.
        let grown = matches!(verdict.reason(), Reason::Malformed | Reason::RatePeer);
        assert!(grown, "{whole:?}, and {:?} once it is cut to {}", verdict.reason(), cut.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;
    use proptest::{prelude::*, test_runner::TestRunner};

    #[test]
    fn hold_for_golden_packets_and_bent_ones() {
        let model = golden::model();
        let cases = golden::cases();
        cases.iter().for_each(|case| packet(&case.frame, &model));
        let index = any::<prop::sample::Index>;
        let bends = prop::collection::vec((index(), any::<u8>()), 0..6);
        let mut runner = TestRunner::new(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() });
        let result = runner.run(&(index(), bends), |(case, bends)| {
            let mut frame = case.get(&cases).frame.clone();
            for (at, value) in bends {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            packet(&frame, &model);
            Ok(())
        });
        result.unwrap();
    }
}
