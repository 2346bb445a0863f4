"""Checks the files of docs/spec/vectors against what docs/spec/wire.md says."""

import json
import os

import ed25519
import wire
from borsh import Malformed, decode, encode, from_hex
from wire import Refused, require


def load(folder, name):
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return json.load(file)


def same_bytes(what, kind, value, text):
    """JSON and canonical bytes say the same, both ways."""
    require(encode(kind, value).hex() == text, what + ": other bytes")
    require(decode(kind, from_hex(text)) == value, what + ": bytes of another value")


def check(folder, flipper):
    """Yields a line for each thing that holds."""
    yield hashes(load(folder, "hashes.json"))
    yield merkle(load(folder, "merkle.json"))
    yield signatures(load(folder, "signatures.json"))
    chain = load(folder, "chain.json")
    trust = Trust(chain)
    yield leaders(load(folder, "leaders.json"), trust)
    yield from chain_file(chain, trust, flipper)
    yield from proofs(load(folder, "proofs.json"), trust, flipper)
    yield refused(load(folder, "refused.json"), trust)
    yield from messages(load(folder, "messages.json"), flipper)


def hashes(file):
    for each in file["tagged"]:
        require(wire.tagged(each["tag"], from_hex(each["bytes"])).hex() == each["hash"], "hashes: %s" % each)
    for each in file["development_accounts"]:
        require(wire.address(each["key"]) == each["address"], "hashes: address")
    return "%d tagged hashes, %d addresses" % (len(file["tagged"]), len(file["development_accounts"]))


def merkle(file):
    count = 0
    for tree in file["trees"]:
        leaves = [wire.leaf_hash(from_hex(each)) for each in tree["leaves"]]
        require(wire.merkle_root(leaves).hex() == tree["root"], "merkle: root over %d leaves" % len(leaves))
        require(len(tree["paths"]) == len(leaves), "merkle: a path for each leaf")
        for leaf, path in zip(leaves, tree["paths"]):
            require(wire.path_root(path, leaf).hex() == tree["root"], "merkle: path")
            count += 1
    return "%d Merkle trees, %d paths" % (len(file["trees"]), count)


def signatures(file):
    for each in file["signatures"]:
        key, message, signature = (from_hex(each[name]) for name in ("key", "message", "signature"))
        require(ed25519.strict(key, message, signature) == each["strict"], "strict rule: " + each["name"])
        require(ed25519.zip215(key, message, signature) == each["zip215"], "ZIP-215: " + each["name"])
        require(ed25519.zip215_slow(key, message, signature) == each["zip215"], "ZIP-215 without OpenSSL: " + each["name"])
    return "%d signatures under both rules" % len(file["signatures"])


class Trust:
    """The chain id and the epochs' records, by the way of section 11."""

    def __init__(self, chain):
        self.chain = wire.chain_id(chain["genesis"]["record"])
        self.records = list(chain["genesis"]["record"]["epochs"])
        # Each later record is recognised by a final header of the epoch before.
        for entry in chain["epochs"][2:]:
            last = self.records[-1]
            block = next(each for each in chain["blocks"] if each["header"]["epoch"] == last["epoch"])
            header = wire.check_finality(self.chain, last, block["finality"])
            require(wire.epoch_hash(entry["record"]) == header["next_epoch_hash"], "epoch: another record")
            self.records.append(entry["record"])

    def record(self, finality):
        headers = finality["headers"]
        return self.records[headers[0]["epoch"] if headers else 0]


def leaders(file, trust):
    require(file["chain"] == trust.chain, "leaders: another chain")
    for each in file["schedule"]:
        seats = [wire.leader(trust.chain, trust.records[each["epoch"]], view) for view in range(1, 1 + len(each["seats"]))]
        require(seats == each["seats"], "leaders of epoch %d" % each["epoch"])
    return "leaders of %d epochs" % len(file["schedule"])


def chain_file(file, trust, flipper):
    genesis = file["genesis"]
    same_bytes("genesis", wire.GENESIS, genesis["record"], genesis["bytes"])
    require(trust.chain == genesis["chain_id"], "genesis: another chain id")
    for each in file["epochs"]:
        same_bytes("epoch", wire.EPOCH, each["record"], each["bytes"])
        require(wire.epoch_hash(each["record"]) == each["hash"], "epoch: hash")
        wire.check_epoch(each["record"])
    yield "genesis and %d epoch records" % len(file["epochs"])
    batches = {}
    for each in file["batches"]:
        batches[each["id"]] = check_batch(trust.chain, each)
    yield "%d batches" % len(batches)
    for each in file["blocks"]:
        same_bytes("header", wire.HEADER, each["header"], each["header_bytes"])
        same_bytes("body", wire.BODY, each["body"], each["body_bytes"])
        require(wire.body_items(each["body"]) == each["body_items"], "block: items")
        record = trust.records[each["header"]["epoch"]]
        require(each["epoch"] == record, "block: epoch record")
        require(wire.check_block(trust.chain, record, each) == each["hash"], "block: hash")
        require(all(batch in batches for batch in each["body"]["batches"]), "block: cites an unknown batch")
        proposer = record["validators"][wire.leader(trust.chain, record, view_of(file, each))]["key"]
        require(proposer == each["header"]["proposer"], "block: proposer")
    yield "%d blocks" % len(file["blocks"])
    yield states_and_receipts(file)
    if flipper:
        flip_chain(file, trust, batches, flipper)


def view_of(file, block):
    """The view that notarized a block: its child says so, or its own finality certificate."""
    certificates = [each["finality"]["certificate"] for each in file["blocks"]]
    certificates += [each["body"]["parent_notarization"] for each in file["blocks"] if each["body"]["parent_notarization"]]
    return next(each["statement"]["view"] for each in certificates if each["statement"]["digest"] == block["hash"])


def check_batch(chain, each):
    transactions = []
    for listed in each["transactions"]:
        signed = {"transaction": listed["transaction"], "signature": listed["signature"]}
        same_bytes("transaction", wire.SIGNED_TRANSACTION, signed, listed["bytes"])
        require(wire.transaction_signing_bytes(signed["transaction"]).hex() == listed["signing_bytes"], "transaction: signing bytes")
        require(wire.transaction_id(signed) == listed["id"], "transaction: id")
        transactions.append(signed)
    batch = {"header": each["header"], "signature": each["signature"], "transactions": transactions}
    same_bytes("batch", wire.BATCH, batch, each["bytes"])
    same_bytes("batch header", wire.BATCH_HEADER, each["header"], each["header_bytes"])
    require(wire.batch_signing_bytes(each["header"]).hex() == each["signing_bytes"], "batch: signing bytes")
    wire.check_batch(chain, batch, each["id"])
    return batch


def states_and_receipts(file):
    for each in file["states"]:
        leaves = []
        for entry in each["leaves"]:
            leaf, data = entry["leaf"], from_hex(entry["value_bytes"])
            require(wire.state_value_hash(data) == leaf["value"], "state: value")
            decode(wire.STATE_VALUES[leaf["key"]["kind"]], data)
            leaves.append(wire.leaf_hash(encode(wire.STATE_LEAF, leaf)))
        require(wire.state_root(len(leaves), wire.merkle_root(leaves)) == each["root"], "state: root at %d" % each["height"])
        check_ring(each["leaves"])
    receipts = {}
    for each in file["receipts"]:
        same_bytes("receipt", wire.RECEIPT, each["receipt"], each["bytes"])
        receipts.setdefault(each["receipt"]["height"], []).append(each["receipt"])
    check_roots(file, receipts)
    return "%d states, %d receipts" % (len(file["states"]), len(file["receipts"]))


def check_ring(entries):
    keys = sorted(encode(wire.STATE_KEY, each["leaf"]["key"]) for each in entries)
    following = dict(zip(keys, keys[1:] + keys[:1]))
    for each in entries:
        own, claimed = (encode(wire.STATE_KEY, each["leaf"][name]) for name in ("key", "next"))
        require(following[own] == claimed, "state: next key")


def check_roots(file, receipts):
    """Each header's state root and receipts root are of the heights that it says."""
    states = {each["height"]: each["root"] for each in file["states"]}
    before = 0
    for header in (each["header"] for each in file["blocks"]):
        require(states[header["executed"]] == header["state_root"], "header: state root")
        covered = [each for height in range(before + 1, header["executed"] + 1) for each in receipts.get(height, [])]
        root = wire.merkle_root([wire.leaf_hash(encode(wire.RECEIPT, each)) for each in covered])
        require(root.hex() == header["receipts_root"], "header: receipts root")
        before = header["executed"]


def flip_chain(file, trust, batches, flipper):
    def genesis(record):
        require(wire.chain_id(record) == trust.chain, "another chain")

    flipper.try_all("genesis", wire.GENESIS, file["genesis"]["record"], genesis)
    for name, batch in batches.items():
        flipper.try_all("batch", wire.BATCH, batch, lambda flipped, name=name: wire.check_batch(trust.chain, flipped, name))
    for block in file["blocks"]:
        flip_block(block, trust.chain, trust.records[block["header"]["epoch"]], flipper)


def flip_block(block, chain, record, flipper):
    """Every part of a block that the API gives."""
    for name, kind in (("header", wire.HEADER), ("body", wire.BODY), ("finality", wire.FINALITY_PROOF)):
        flipper.try_all(name, kind, block[name], lambda flipped, name=name: wire.check_block(chain, record, {**block, name: flipped}))
    flipper.try_all("epoch record", wire.EPOCH, record, lambda flipped: wire.check_block(chain, flipped, block))


def proofs(file, trust, flipper):
    def check_state(record, each):
        return lambda proof: wire.check_state_proof(trust.chain, record, proof, each["proof"]["key"])

    for each in file["finality"]:
        same_bytes("finality proof", wire.FINALITY_PROOF, each["proof"], each["bytes"])
        wire.check_finality(trust.chain, trust.record(each["proof"]), each["proof"])
    yield "%d finality proofs" % len(file["finality"])
    for each in file["transaction"]:
        same_bytes("transaction proof", wire.TRANSACTION_PROOF, each["proof"], each["bytes"])
        record = trust.record(each["proof"]["finality"])
        wire.check_transaction_proof(trust.chain, record, each["proof"])
        if flipper:
            flip_transaction(each["proof"], trust.chain, record, flipper)
    yield "%d transaction proofs" % len(file["transaction"])
    absent = 0
    for each in file["state"]:
        same_bytes("state proof", wire.STATE_PROOF, each["proof"], each["bytes"])
        record = trust.record(each["proof"]["finality"])
        require(check_state(record, each)(each["proof"]) == each["value"], "state proof: value")
        absent += each["value"] is None
        if flipper:
            flipper.try_all("state proof", wire.STATE_PROOF, each["proof"], check_state(record, each))
    require(0 < absent < len(file["state"]), "state proofs: presence and absence")
    yield "%d state proofs, %d of them of absence" % (len(file["state"]), absent)


def flip_transaction(proof, chain, record, flipper):
    """All but the path's index and count, which no root of receipts binds."""

    def check_with(name):
        return lambda part: wire.check_transaction_proof(chain, record, {**proof, name: part}, proof["receipt"]["id"])

    def siblings(part):
        path = {**proof["path"], "siblings": part}
        wire.check_transaction_proof(chain, record, {**proof, "path": path}, proof["receipt"]["id"])

    flipper.try_all("receipt", wire.RECEIPT, proof["receipt"], check_with("receipt"))
    flipper.try_all("finality of a receipt", wire.FINALITY_PROOF, proof["finality"], check_with("finality"))
    flipper.try_all("path of a receipt", wire.MERKLE_PATH.fields["siblings"], proof["path"]["siblings"], siblings)


def refused(file, trust):
    checks = {
        "finality": lambda proof: wire.check_finality(trust.chain, trust.record(proof), proof),
        "transaction": lambda proof: wire.check_transaction_proof(trust.chain, trust.record(proof["finality"]), proof),
        "state": lambda proof: wire.check_state_proof(trust.chain, trust.record(proof["finality"]), proof),
    }
    count = 0
    for kind, check_one in checks.items():
        for each in file[kind]:
            count += 1
            try:
                check_one(each["proof"])
            except (Refused, Malformed):
                continue
            raise Refused("%s proof that must be refused convinces: %s" % (kind, each["name"]))
    require(count > 0, "refused: nothing to refuse")
    return "%d wrong proofs refused" % count


def messages(file, flipper):
    handshake = file["handshake"]
    message = wire.signing_bytes("proof-of-validator", from_hex(handshake["chain"]) + from_hex(handshake["peer_id"]))
    require(message.hex() == handshake["signing_bytes"], "handshake: signing bytes")
    require(wire.strict(handshake["key"], message, handshake["signature"]), "handshake: signature")
    proof = {"key": handshake["key"], "signature": handshake["signature"]}
    for name, validator in (("hello_of_a_validator", proof), ("hello_of_another_node", None)):
        hello = {"version": 1, "chain": handshake["chain"], "validator": validator}
        same_bytes("hello", wire.HELLO, hello, handshake[name])
    for each in file["statements"]:
        signed = each["signed"]
        wire.check_well_formed(signed["statement"])
        message = wire.statement_signing_bytes(signed["statement"])
        require(message.hex() == each["signing_bytes"], "statement: signing bytes")
        require(wire.strict(signed["key"], message, signed["signature"]), "statement: signature")
    yield "handshake and %d statements" % len(file["statements"])
    evidence = file["evidence"]
    same_bytes("evidence", wire.EVIDENCE, evidence["evidence"], evidence["bytes"])
    require(wire.convicts(evidence["evidence"]) == evidence["convicts"], "evidence: verdict")
    if flipper:
        flipper.try_all("evidence", wire.EVIDENCE, evidence["evidence"], lambda flipped: require(wire.convicts(flipped), "acquitted"))
    for each in file["messages"]:
        data = from_hex(each["bytes"])
        message = decode(wire.MESSAGE, data)
        require(list(message) == [each["kind"]], "message: kind")
        require(encode(wire.MESSAGE, message) == data, "message: other bytes")
    require(len(file["messages"]) == len(wire.MESSAGE.variants), "messages: one of each kind")
    yield "evidence and %d messages" % len(file["messages"])
