//! Engines among their like.

use consensus::Config;
use types::{Height, Kind};

use crate::hand::key;
use crate::world::{HOP_MS, World};

fn config() -> Config {
    Config::default()
}

#[test]
fn four_agree_up_to_the_end_of_the_epoch() {
    let mut world = World::new(4, config());
    world.run_ms(2_000);
    world.assert_agreement();
    world.assert_honest();
    for i in 0..4 {
        assert_eq!(world.height(i), Height(10), "the epoch's last height, re-proposed until final");
    }
}

#[test]
fn three_hops_to_finality() {
    let mut world = World::new(4, Config { block_interval_min_ms: 0, ..config() });
    world.run_ms(3 * HOP_MS);
    assert!((0..4).all(|i| world.height(i) == Height(1)));
}

#[test]
fn idle_is_silent_between_heartbeats() {
    let mut world = World::new(4, Config { idle_interval_ms: 60_000, ..config() });
    world.run_ms(100);
    world.work(false);
    // In flight: what was proposed before becomes final or is stuck; then nothing moves.
    world.run_ms(30_000);
    let before = world.messages;
    world.run_ms(20_000);
    assert_eq!(world.messages, before);
    world.work(true);
    let height = world.height(0);
    world.run_ms(100);
    assert!(world.height(0) > height);
}

#[test]
fn a_dead_leader_costs_a_timeout_only() {
    let mut world = World::new(4, config());
    world.crash(2);
    world.run_ms(20_000);
    world.assert_agreement();
    world.assert_honest();
    assert!([0, 1, 3].iter().all(|i| world.height(*i) == Height(10)));
    world.restart(2, 0);
    world.run_ms(3_000);
    assert_eq!(world.height(2), Height(10), "caught up");
    world.assert_agreement();
}

#[test]
fn halves_stop_and_heal() {
    let mut world = World::new(4, config());
    world.filter = Box::new(|from, to, _| (from.0[0] < 2) == (to.0[0] < 2));
    world.run_ms(30_000);
    assert!((0..4).all(|i| world.height(i) == Height(0)), "no quorum, no block");
    world.filter = Box::new(|_, _, _| true);
    world.run_ms(60_000);
    world.assert_agreement();
    world.assert_honest();
    assert!((0..4).all(|i| world.height(i) == Height(10)));
}

#[test]
fn lossy_links_agree() {
    for seed in 0..40u64 {
        let mut world = World::new(4, config());
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        world.filter = Box::new(move |_, _, _| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % 10 >= 4
        });
        world.run_ms(20_000);
        world.assert_agreement();
        world.filter = Box::new(|_, _, _| true);
        world.run_ms(30_000);
        world.assert_agreement();
        world.assert_honest();
        assert!(
            (0..4).all(|i| world.height(i) == Height(10)),
            "seed {seed}: {:?}",
            (0..4).map(|i| world.height(i)).collect::<Vec<_>>()
        );
    }
}

#[test]
fn power_loss_everywhere_loses_no_vote_and_no_progress() {
    for cut_ms in (5..400).step_by(5) {
        let mut world = World::new(4, config());
        world.run_ms(cut_ms);
        let before: Vec<usize> = world.nodes.iter().map(|node| node.journal.len()).collect();
        for i in 0..4 {
            world.crash(i);
        }
        world.run_ms(50);
        // One validator never comes back; storage lost up to two finalities.
        for i in 0..3 {
            let stored = world.nodes[i].finalized.len().saturating_sub(2);
            world.restart(i, stored);
        }
        world.run_ms(30_000);
        world.assert_agreement();
        world.assert_honest();
        assert!((0..3).all(|i| world.nodes[i].journal.len() >= before[i]));
        assert!((0..3).all(|i| world.height(i) == Height(10)), "cut at {cut_ms} ms");
    }
}

#[test]
fn lost_proposals_to_one_are_fetched_from_voters() {
    let mut world = World::new(4, config());
    world.filter = Box::new(|from, to, kind| kind != Some(Kind::Propose) || to != key(3) || from == key(0));
    world.run_ms(10_000);
    world.assert_agreement();
    assert_eq!(world.height(3), Height(10));
}
