"""Checks a live node through its HTTP API, trusting nothing but the chain id."""

import json
import urllib.error
import urllib.request

import vectors
import wire
from borsh import Malformed, encode
from wire import Refused, require

TIMEOUT_S = 10
# Without a height we look this far back for a block with transactions.
LOOK_BACK = 256
ANSWER_BYTES_MAX = 64 << 20


class Unanswered(Exception):
    """The node has no answer, or there is nothing to check yet."""


class Node:
    def __init__(self, url):
        self.url = url

    def get(self, path):
        try:
            with urllib.request.urlopen(self.url + path, timeout=TIMEOUT_S) as answer:
                return json.loads(answer.read(ANSWER_BYTES_MAX))
        except urllib.error.HTTPError as error:
            raise Unanswered("%s: HTTP %d" % (path, error.code)) from None
        except (OSError, ValueError) as error:
            raise Unanswered("%s: %s" % (path, error)) from None


class Trust:
    """Epoch records, recognised one after the other from the genesis record on (section 11)."""

    def __init__(self, node, chain):
        self.node = node
        genesis = node.get("/api/v1/genesis")["record"]
        self.genesis = genesis
        self.chain = chain or wire.chain_id(genesis)
        require(wire.chain_id(genesis) == self.chain, "genesis: another chain id")
        self.records = list(genesis["epochs"])
        for record in self.records:
            wire.check_epoch(record)

    def record(self, epoch):
        while epoch >= len(self.records):
            known = self.records[-1]
            block = self.node.get("/api/v1/blocks/%d" % known["first_height"])
            wire.check_block(self.chain, known, block)
            following = self.node.get("/api/v1/epochs/%d" % (known["epoch"] + 1))["record"]
            named = block["header"]["next_epoch_hash"]
            require(wire.epoch_hash(following) == named, "epoch %d: another record" % (known["epoch"] + 1))
            require(following["epoch"] == known["epoch"] + 1, "epoch: number")
            wire.check_epoch(following)
            self.records.append(following)
        return self.records[epoch]

    def record_of(self, finality):
        require(finality["headers"], "finality: no headers")
        return self.record(finality["headers"][0]["epoch"])


def check(url, chain, height, flipper):
    """Yields a line for each thing that holds."""
    try:
        yield from check_node(Node(url), chain, height, flipper)
    except (Malformed, KeyError, TypeError) as error:
        raise Refused("an answer has another shape: %r" % error) from None


def check_node(node, chain, height, flipper):
    trust = Trust(node, chain)
    yield "chain %s" % trust.chain
    block, proof = find(node, trust, height)
    record = trust.record(block["header"]["epoch"])
    digest = wire.check_block(trust.chain, record, block)
    require(block["hash"] == digest and block["height"] == block["header"]["height"], "block: the answer's hash or height")
    require(height in (None, block["height"]), "block: of another height")
    signers = len(block["finality"]["certificate"]["signatures"])
    yield "block %d %s: hash, body root, finality certificate of %d" % (block["height"], digest, signers)
    if flipper:
        vectors.flip_block(block, trust.chain, record, flipper)
    yield from check_batches(node, trust, block, flipper)
    if proof is None:
        raise Unanswered("no transaction with a proof in block %d" % block["height"])
    yield check_transaction(trust, proof, flipper)
    yield from check_accounts(node, trust, sender_of(node, block), flipper)


def batch_of(node, name):
    answer = node.get("/api/v1/batches/" + name)
    signed = [{"transaction": each["transaction"], "signature": each["signature"]} for each in answer["transactions"]]
    for listed, each in zip(answer["transactions"], signed):
        require(listed["id"] == wire.transaction_id(each), "batch: the answer's id of a transaction")
    return {"header": answer["header"], "signature": answer["signature"], "transactions": signed}


def find(node, trust, height):
    """A block, and a proof of one of its transactions if it has one: the one asked for, or a recent one that has."""
    if height is not None:
        block = node.get("/api/v1/blocks/%d" % height)
        return block, proof_in(node, block)
    latest = node.get("/api/v1/blocks/latest")
    for at in range(latest["height"], max(0, latest["height"] - LOOK_BACK), -1):
        block = latest if at == latest["height"] else node.get("/api/v1/blocks/%d" % at)
        proof = proof_in(node, block)
        if proof is not None:
            return block, proof
    raise Unanswered("no proved transaction in the last %d blocks" % LOOK_BACK)


def proof_in(node, block):
    for name in block["body"]["batches"]:
        for signed in batch_of(node, name)["transactions"]:
            answer = node.get("/api/v1/transactions/" + wire.transaction_id(signed))
            # A transaction may stand in several blocks; its one receipt is of the first that did not skip it.
            if answer["proof"] is not None and answer["proof"]["receipt"]["height"] == block["height"]:
                return answer
            if answer["proof"] is None and answer["status"] != "unknown":
                return None  # no final header covers this block yet
    return None


def check_batches(node, trust, block, flipper):
    count = 0
    for name in block["body"]["batches"]:
        batch = batch_of(node, name)
        wire.check_batch(trust.chain, batch, name)
        count += len(batch["transactions"])
        if flipper:
            flipper.try_all("batch", wire.BATCH, batch, lambda flipped, name=name: wire.check_batch(trust.chain, flipped, name))
    yield "%d batches with %d transactions: ids, Merkle roots, signatures" % (len(block["body"]["batches"]), count)


def check_transaction(trust, answer, flipper):
    proof, record = answer["proof"], trust.record_of(answer["proof"]["finality"])
    receipt = wire.check_transaction_proof(trust.chain, record, proof, answer["id"])
    require(answer["receipt"] == receipt and answer["status"] == "final", "transaction: the answer's receipt or status")
    if flipper:
        vectors.flip_transaction(proof, trust.chain, record, flipper)
    return "transaction %s: %s, under the receipts root of block %d" % (
        answer["id"], receipt["result"], proof["finality"]["headers"][0]["height"],
    )


def sender_of(node, block):
    return batch_of(node, block["body"]["batches"][0])["transactions"][0]["transaction"]["sender"]


def check_accounts(node, trust, sender, flipper):
    # An address that is nobody's: the hash of a text has no known key.
    nobody = wire.tagged("ebpf-blockchain/verifier", b"nobody").hex()
    for name, present in ((wire.address(sender), True), (nobody, False)):
        answer = node.get("/api/v1/accounts/" + name)
        if answer["proof"] is None:
            raise Unanswered("account %s has no proof yet" % name)
        proof, record = answer["proof"], trust.record_of(answer["proof"]["finality"])
        key = {"kind": "account", "key": name}
        value = wire.check_state_proof(trust.chain, record, proof, key)
        require((value is not None) == present, "account %s: presence" % name)
        require(present or answer["account"] is None, "account %s: the answer's account" % name)
        if flipper:
            flipper.try_all(
                "state proof", wire.STATE_PROOF, proof,
                lambda flipped, key=key, record=record: wire.check_state_proof(trust.chain, record, flipped, key),
            )
        height = proof["finality"]["headers"][0]["executed"]
        yield "account %s: %s after height %d" % (name, "balance %d" % value["balance"] if value else "absent", height)
