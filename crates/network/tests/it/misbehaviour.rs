//! What a peer does wrong is told with its flow and its cause, and ends its connections; what is an honest mismatch is not.

use network::{Connected, Event, PeerId, Refusal, Transport};
use types::{ChainId, Hash, Hello, Lane, Offence};

use crate::world::{Node, Recipe, batch, proof, validator_key, vote};

/// The offence that is told next, and who committed it.
async fn offence(node: &mut Node) -> (PeerId, Offence, &'static str) {
    node.wait(|event| match event {
        Event::Offence { peer_id, offence, detail, link, .. } => {
            assert!(link.address.ip().is_loopback() && link.local_port.is_some());
            Some((peer_id, offence, detail))
        }
        _ => None,
    })
    .await
}

/// The offence of a standing peer and its fall, in the order in which its two connections happened to end.
async fn offence_and_fall(node: &mut Node, culprit: &Connected) -> (Offence, &'static str) {
    let (mut told, mut fell) = (None, false);
    while told.is_none() || !fell {
        match node.recv().await {
            Event::Offence { peer, peer_id, offence, detail, .. } => {
                assert_eq!(peer_id, culprit.peer_id);
                assert_eq!(peer, (!fell).then_some(culprit.peer), "a handle only while it stands");
                told = Some((offence, detail));
            }
            Event::Disconnected { peer } => fell |= peer == culprit.peer,
            _ => {}
        }
    }
    told.unwrap()
}

/// A victim, an attacker that stands with it, and an honest peer.
struct Scene {
    victim: Node,
    attacker: Node,
    /// The attacker, as the victim sees it.
    culprit: Connected,
    /// The victim, as the attacker sees it.
    target: u64,
}

async fn scene(transport: Transport, victim: Recipe) -> Scene {
    let mut victim = victim.start().await;
    let mut attacker = Recipe::new(transport).peer(&victim.address).start().await;
    let target = attacker.connected().await.peer;
    let culprit = victim.connected().await;
    Scene { victim, attacker, culprit, target }
}

/// Sends bytes as they are and expects an offence, the culprit's fall, and a victim that goes on.
async fn check(transport: Transport, lane: Lane, bytes: Vec<u8>, expect: Offence, detail: &'static str) {
    let Scene { mut victim, attacker, culprit, target } = scene(transport, Recipe::new(transport)).await;
    attacker.handle.send_raw(target, lane, bytes).unwrap();
    assert_eq!(offence_and_fall(&mut victim, &culprit).await, (expect, detail));
    attacker.stop().await;
    let mut honest = Recipe::new(transport).peer(&victim.address).start().await;
    let peer = honest.connected().await.peer;
    honest.handle.send(peer, &vote(5)).unwrap();
    assert_eq!(victim.message().await.1, vote(5));
    honest.stop().await;
    victim.stop().await;
}

fn framed(payload: &[u8]) -> Vec<u8> {
    [&(payload.len() as u32).to_le_bytes(), payload].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_is_malformed() {
    check(Transport::Tcp, Lane::Votes, framed(&[0xff; 40]), Offence::Malformed, "message does not decode").await;
    check(Transport::Quic, Lane::Bulk, framed(&[0xff; 40]), Offence::Malformed, "message does not decode").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_frame_is_malformed() {
    check(Transport::Tcp, Lane::Votes, vec![0; 4], Offence::Malformed, "empty frame").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_on_the_wrong_lane_is_malformed() {
    let bytes = framed(&batch(1, 10).to_bytes());
    check(Transport::Tcp, Lane::Votes, bytes, Offence::Malformed, "message does not decode").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_length_is_oversize_before_a_byte_follows() {
    for lane in Lane::ALL {
        let bytes = (lane.bytes_max() as u32 + 1).to_le_bytes().to_vec();
        check(Transport::Tcp, lane, bytes, Offence::Oversize, "frame above its lane's bound").await;
    }
    check(Transport::Quic, Lane::Votes, vec![0xff; 4], Offence::Oversize, "frame above its lane's bound").await;
}

/// Whatever comes after a good message, the good one is delivered and the rest is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_counts() {
    let transport = Transport::Tcp;
    let Scene { mut victim, attacker, target, .. } = scene(transport, Recipe::new(transport)).await;
    attacker.handle.send(target, &vote(3)).unwrap();
    assert_eq!(victim.message().await.1, vote(3));
    attacker.handle.send_raw(target, Lane::Votes, framed(&[200])).unwrap();
    assert_eq!(offence(&mut victim).await.1, Offence::Malformed);
    attacker.stop().await;
    victim.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_the_protocol_needs_is_an_offence() {
    let transport = Transport::Tcp;
    let mut victim = Recipe::new(transport);
    victim.config.limits.votes.messages_per_s = 8;
    let Scene { mut victim, attacker, culprit, target } = scene(transport, victim).await;
    let burst = 8 * network::Limits::default().votes.burst_s;
    for n in 0..3 * burst {
        // Once the victim has closed, sends fail.
        if attacker.handle.send(target, &vote(n)).is_err() {
            break;
        }
    }
    assert_eq!(offence_and_fall(&mut victim, &culprit).await, (Offence::Rate, "messages a second"));
    attacker.stop().await;
    victim.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proof_of_another_identity_is_a_bad_signature() {
    let mut victim = Recipe::new(Transport::Tcp).start().await;
    let mut liar = Recipe::new(Transport::Tcp).peer(&victim.address);
    // A true proof, of a node that is not this one.
    liar.hello.validator = Some(proof(1, &network::Keypair::generate_ed25519()));
    let liar_id = liar.keypair.public().to_peer_id();
    let liar = liar.start().await;
    let told = offence(&mut victim).await;
    assert_eq!(told, (liar_id, Offence::BadSignature, "proof of validator does not verify"));
    assert_eq!(victim.handle.peers(), [], "it never stood");
    liar.stop().await;
    victim.stop().await;
}

/// Dials with a hello and expects a polite end: the victim refuses, nobody stands, nobody is told of an offence.
async fn check_mismatch(change: impl FnOnce(&mut Hello), expect: Refusal) -> (Node, Node) {
    let mut victim = Recipe::new(Transport::Tcp).validator(1).start().await;
    let mut other = Recipe::new(Transport::Tcp).validator(2).peer(&victim.address);
    change(&mut other.hello);
    let mut other = other.start().await;
    victim.refused_quietly(expect, 2).await;
    assert_eq!(victim.handle.peers(), []);
    // Refused: it dials again, later.
    for _ in 0..2 {
        other.wait(|event| matches!(event, Event::Dialing { .. }).then_some(())).await;
    }
    (victim, other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_chain_is_refused_politely_by_both() {
    let (victim, mut other) = check_mismatch(|hello| hello.chain = ChainId(Hash([8; 32])), Refusal::Chain).await;
    // The dialer has read the victim's hello as well, and so can tell its operator what is wrong.
    other.refused_quietly(Refusal::Chain, 2).await;
    assert_eq!(other.handle.peers(), []);
    other.stop().await;
    victim.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_is_refused_politely() {
    let (victim, other) = check_mismatch(|hello| hello.version += 1, Refusal::Version).await;
    other.stop().await;
    victim.stop().await;
}

/// The key that a hello proves is told with the offence: a validator's node can misbehave.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_validators_offence_names_its_key() {
    let mut victim = Recipe::new(Transport::Tcp).start().await;
    let mut attacker = Recipe::new(Transport::Tcp).validator(4).peer(&victim.address).start().await;
    let target = attacker.connected().await.peer;
    attacker.handle.send_raw(target, Lane::Bulk, vec![0xff; 8]).unwrap();
    let key = victim.wait(|event| if let Event::Offence { validator, .. } = event { Some(validator) } else { None }).await;
    assert_eq!(key, Some(validator_key(4)));
    attacker.stop().await;
    victim.stop().await;
}
