//! With a third of the weight or more Byzantine the chain must fork, the judges must see it, and the evidence must convict a
//! third of the weight and nobody honest: without this a green run means nothing.

use sim::{Options, run};

#[test]
fn over_a_third_forks_and_is_convicted() {
    let options = Options { over_third: true, ..Options::default() };
    let mut forks = 0;
    for seed in 0..50 {
        let report = run(seed, &options);
        let broken = report.broken.unwrap_or_default();
        assert!(!report.honest_guilty, "seed {seed} convicts an honest key");
        let expected = broken.is_empty() || broken.starts_with("FORK") || broken.starts_with("FATAL");
        assert!(expected, "seed {seed}: {broken}");
        if report.forked {
            forks += 1;
            assert!(report.guilty_third, "seed {seed} forks and convicts only {:?}", report.guilty);
        }
    }
    assert!(forks >= 3, "{forks} forks in 50 seeds");
}
