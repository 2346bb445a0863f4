"""Records, hashes and proofs of docs/spec/wire.md. Every check raises `Refused` or returns."""

import hashlib

import ed25519
from borsh import Bytes, Enum, Fixed, Malformed, Option, Record, Tuple, U8, U16, U32, U64, Union, Vec, decode, encode, from_hex

HASH, SIGNATURE = Fixed(32), Fixed(64)

# Section 6
ACTION = Union(transfer=Record(to=HASH, amount=U64, memo=Bytes()))
TRANSACTION = Record(chain=HASH, sender=HASH, nonce=U64, expiry=U64, action=ACTION)
SIGNED_TRANSACTION = Record(transaction=TRANSACTION, signature=SIGNATURE)
BATCH_HEADER = Record(chain=HASH, epoch=U64, author=HASH, sequence=U64, expiry=U64, count=U32, bytes=U32, root=HASH)
BATCH = Record(header=BATCH_HEADER, signature=SIGNATURE, transactions=Vec(SIGNED_TRANSACTION))

# Section 9
KIND = Enum(propose=0, notarize=1, nullify=2, finalize=3)
STATEMENT = Record(chain=HASH, epoch=U64, view=U64, kind=KIND, parent_view=U64, digest=HASH)
SIGNED_STATEMENT = Record(statement=STATEMENT, key=HASH, signature=SIGNATURE)
CERTIFICATE = Record(scheme=U8, statement=STATEMENT, bitmap=Bytes(), signatures=Vec(SIGNATURE))
EVIDENCE = Record(key=HASH, first=Tuple(STATEMENT, SIGNATURE), second=Tuple(STATEMENT, SIGNATURE))

# Section 7
HEADER = Record(
    version=U32, chain=HASH, epoch=U64, height=U64, parent=HASH, time=U64, proposer=HASH, body_root=HASH, executed=U64,
    state_root=HASH, receipts_root=HASH, epoch_hash=HASH, next_epoch_hash=HASH,
)
BODY = Record(batches=Vec(HASH), parent_notarization=Option(CERTIFICATE))
BODY_ITEM = Record(kind=U8, hash=HASH)
BLOCK = Record(header=HEADER, body=BODY)

# Section 8
PARAMS = Record(
    lag_max=U64, batch_life=U64, batch_bytes_max=U32, batch_transactions_max=U32, block_batches_max=U32,
    transaction_bytes_max=U32, transaction_life_max=U64, memo_bytes_max=U32, clock_drift_ms=U64, fee_base=U64,
    fee_per_byte=U64, account_creation_fee=U64,
)
EPOCH = Record(
    epoch=U64, first_height=U64, length=U64, version=U32, params=PARAMS, validators=Vec(Record(key=HASH, weight=U64)),
)
GENESIS = Record(time=U64, accounts=Vec(Tuple(HASH, U64)), epochs=Tuple(EPOCH, EPOCH))

# Section 10
RESULT = Enum(success=0, insufficient_balance=1, balance_overflow=2)
RECEIPT = Record(height=U64, index=U32, id=HASH, result=RESULT, fee=U64)
STATE_KEY = Record(kind=Enum(account=0, validator=1, epoch=3, supply=4), key=HASH)
STATE_LEAF = Record(key=STATE_KEY, next=STATE_KEY, value=HASH)
STATE_VALUES = {
    "account": Record(balance=U64, nonce_next=U64, nonces_seen=U64),
    "validator": Record(stake=U64),
    "epoch": HASH,
    "supply": Record(genesis=U64, minted=U64, burned=U64),
}

# Sections 5 and 11
MERKLE_PATH = Record(index=U64, count=U64, siblings=Vec(HASH))
FINALITY_PROOF = Record(headers=Vec(HEADER), certificate=CERTIFICATE)
TRANSACTION_PROOF = Record(receipt=RECEIPT, path=MERKLE_PATH, finality=FINALITY_PROOF)
STATE_PROOF = Record(key=STATE_KEY, leaf=STATE_LEAF, value=Option(Bytes()), path=MERKLE_PATH, finality=FINALITY_PROOF)
HEADERS_MAX = 1024

# Section 13
PROOF_OF_VALIDATOR = Record(key=HASH, signature=SIGNATURE)
HELLO = Record(version=U32, chain=HASH, validator=Option(PROOF_OF_VALIDATOR))
MESSAGE = Union(
    proposal=Record(head=SIGNED_STATEMENT, block=BLOCK, admitting=Option(CERTIFICATE)),
    vote=Record(signed=SIGNED_STATEMENT, certificate=Option(CERTIFICATE)),
    certificate=CERTIFICATE,
    certificates=Vec(CERTIFICATE),
    fetch_certificate=Record(epoch=U64, view=U64, kind=KIND),
    fetch_proposal=Record(epoch=U64, view=U64),
    status=Record(epoch=U64, final_view=U64, height=U64),
    announce=Vec(HASH),
    batch=BATCH,
    fetch_batches=Vec(HASH),
    fetch_block=HASH,
    block=BLOCK,
    sync=U64,
    sync_blocks=Record(blocks=Vec(BLOCK), certificate=Option(CERTIFICATE), next_record=Option(EPOCH)),
    transactions=Vec(SIGNED_TRANSACTION),
)


class Refused(Exception):
    """What was checked convinces nobody; the text says why."""


def require(holds, why):
    if not holds:
        raise Refused(why)


# Section 3


def tagged(tag, data):
    return hashlib.sha256(tag.encode() + b"\0" + data).digest()


def hash_of(name, kind, value):
    return tagged("ebpf-blockchain/%s/1" % name, encode(kind, value)).hex()


def address(key):
    return tagged("ebpf-blockchain/address/1", b"\0" + from_hex(key)).hex()


def transaction_id(signed):
    return hash_of("transaction-id", SIGNED_TRANSACTION, signed)


def batch_id(header):
    return hash_of("batch", BATCH_HEADER, header)


def block_hash(header):
    return hash_of("block", HEADER, header)


def epoch_hash(record):
    return hash_of("epoch", EPOCH, record)


def chain_id(genesis):
    return hash_of("genesis", GENESIS, genesis)


# Section 4


def signing_bytes(name, data):
    return b"ebpf-blockchain/" + name.encode() + b"/1\0" + data


def transaction_signing_bytes(transaction):
    return signing_bytes("transaction", encode(TRANSACTION, transaction))


def batch_signing_bytes(header):
    return signing_bytes("batch-signature", from_hex(batch_id(header)))


def statement_signing_bytes(statement):
    return signing_bytes("statement", encode(STATEMENT, statement))


def strict(key, message, signature):
    return ed25519.strict(HASH.encode(key), message, SIGNATURE.encode(signature))


# Section 5


def leaf_hash(data):
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def merkle_root(leaves):
    """RFC 6962's own, recursive definition, over leaf hashes."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node_hash(merkle_root(leaves[:split]), merkle_root(leaves[split:]))


def path_root(path, leaf):
    require(path["index"] < path["count"], "path: no such leaf")
    at, width, result, siblings = path["index"], path["count"], leaf, iter(path["siblings"])
    while width > 1:
        if at ^ 1 < width:
            sibling = next(siblings, None)
            require(sibling is not None, "path: a sibling too few")
            pair = (result, from_hex(sibling)) if at % 2 == 0 else (from_hex(sibling), result)
            result = node_hash(*pair)
        at, width = at // 2, (width + 1) // 2
    require(next(siblings, None) is None, "path: a sibling too many")
    return result


# Section 6


def check_transaction(chain, signed):
    require(signed["transaction"]["chain"] == chain, "transaction: for another chain")
    message = transaction_signing_bytes(signed["transaction"])
    key, signature = from_hex(signed["transaction"]["sender"]), from_hex(signed["signature"])
    require(ed25519.zip215(key, message, signature), "transaction: signature")


def check_batch(chain, batch, expected_id):
    header, transactions = batch["header"], batch["transactions"]
    require(batch_id(header) == expected_id, "batch: another id")
    require(header["chain"] == chain, "batch: for another chain")
    require(header["count"] == len(transactions) and transactions, "batch: count")
    require(header["bytes"] == sum(len(encode(SIGNED_TRANSACTION, each)) for each in transactions), "batch: bytes")
    leaves = [leaf_hash(from_hex(transaction_id(each))) for each in transactions]
    require(merkle_root(leaves).hex() == header["root"], "batch: Merkle root")
    require(strict(header["author"], batch_signing_bytes(header), batch["signature"]), "batch: author's signature")
    for each in transactions:
        check_transaction(chain, each)


# Section 7


def body_items(body):
    items = [{"kind": 0, "hash": each} for each in body["batches"]]
    if body["parent_notarization"] is not None:
        items.append({"kind": 1, "hash": hash_of("certificate", CERTIFICATE, body["parent_notarization"])})
    return items


def body_root(body):
    return merkle_root([leaf_hash(encode(BODY_ITEM, item)) for item in body_items(body)]).hex()


# Section 8


def leader(chain, record, view):
    draw = tagged("ebpf-blockchain/leader/1", from_hex(chain) + U64.encode(record["epoch"]) + U64.encode(view))
    point = int.from_bytes(draw[:16], "big") % sum(each["weight"] for each in record["validators"])
    for seat, validator in enumerate(record["validators"]):
        if point < validator["weight"]:
            return seat
        point -= validator["weight"]
    raise AssertionError("the point is below the total")


# Section 9


def check_well_formed(statement):
    require(statement["view"] >= 1 and statement["parent_view"] < statement["view"], "statement: views")
    if statement["kind"] == "nullify":
        require(statement["parent_view"] == 0 and set(statement["digest"]) == {"0"}, "statement: nullify about something")


def check_certificate(chain, record, certificate):
    statement, validators = certificate["statement"], record["validators"]
    require(certificate["scheme"] == 0, "certificate: scheme")
    require(statement["chain"] == chain, "certificate: another chain")
    require(statement["epoch"] == record["epoch"], "certificate: another epoch")
    require(statement["kind"] != "propose", "certificate: of a proposal")
    check_well_formed(statement)
    bitmap = from_hex(certificate["bitmap"])
    require(len(bitmap) == (len(validators) + 7) // 8, "certificate: bitmap's length")
    seats = [i for i in range(8 * len(bitmap)) if bitmap[i // 8] >> (i % 8) & 1]
    require(all(seat < len(validators) for seat in seats), "certificate: a bit beyond the set")
    require(len(seats) == len(certificate["signatures"]), "certificate: number of signatures")
    weight, total = sum(validators[i]["weight"] for i in seats), sum(each["weight"] for each in validators)
    require(3 * weight > 2 * total, "certificate: no quorum")
    message = statement_signing_bytes(statement)
    for seat, signature in zip(seats, certificate["signatures"]):
        require(strict(validators[seat]["key"], message, signature), "certificate: signature of seat %d" % seat)


def convicts(evidence):
    (first, first_signature), (second, second_signature) = evidence["first"], evidence["second"]
    kinds = {first["kind"], second["kind"]}
    same_view = all(first[name] == second[name] for name in ("chain", "epoch", "view"))
    if not same_view or first == second or not (len(kinds) == 1 or kinds == {"nullify", "finalize"}):
        return False
    pairs = ((first, first_signature), (second, second_signature))
    return all(strict(evidence["key"], statement_signing_bytes(what), signature) for what, signature in pairs)


# Section 10


def state_value_hash(data):
    return tagged("ebpf-blockchain/state-value/1", data).hex()


def state_root(count, root):
    return tagged("ebpf-blockchain/state-root/1", U64.encode(count) + root).hex()


def excludes(leaf, key):
    own, following, wanted = (encode(STATE_KEY, each) for each in (leaf["key"], leaf["next"], key))
    if own < following:
        return own < wanted < following
    return wanted > own or wanted < following


# Section 11


def check_finality(chain, record, proof):
    """Returns the header whose block is final."""
    headers, statement = proof["headers"], proof["certificate"]["statement"]
    require(1 <= len(headers) <= HEADERS_MAX, "finality: number of headers")
    for header in headers:
        require(header["chain"] == chain and header["epoch"] == record["epoch"], "finality: header of another chain or epoch")
    for parent, header in zip(headers, headers[1:]):
        follows = header["parent"] == block_hash(parent) and header["height"] == parent["height"] + 1
        require(follows, "finality: a header does not follow its parent")
    about_last = statement["kind"] == "finalize" and statement["digest"] == block_hash(headers[-1])
    require(about_last, "finality: certificate about something else")
    check_certificate(chain, record, proof["certificate"])
    return headers[0]


def check_transaction_proof(chain, record, proof, expected_id=None):
    header = check_finality(chain, record, proof["finality"])
    receipt = proof["receipt"]
    require(expected_id in (None, receipt["id"]), "transaction proof: of another transaction")
    require(receipt["height"] <= header["executed"], "transaction proof: not executed")
    root = path_root(proof["path"], leaf_hash(encode(RECEIPT, receipt)))
    require(root.hex() == header["receipts_root"], "transaction proof: another root")
    return receipt


def check_state_proof(chain, record, proof, expected_key=None):
    """Returns the value, None if the key is absent."""
    header = check_finality(chain, record, proof["finality"])
    key, leaf = proof["key"], proof["leaf"]
    require(expected_key in (None, key), "state proof: of another key")
    root = path_root(proof["path"], leaf_hash(encode(STATE_LEAF, leaf)))
    require(state_root(proof["path"]["count"], root) == header["state_root"], "state proof: another root")
    if proof["value"] is None:
        require(excludes(leaf, key), "state proof: the leaf does not exclude the key")
        return None
    data = from_hex(proof["value"])
    require(leaf["key"] == key, "state proof: leaf of another key")
    require(state_value_hash(data) == leaf["value"], "state proof: another value")
    try:
        return decode(STATE_VALUES[key["kind"]], data)
    except Malformed as error:
        raise Refused("state proof: %s" % error) from None


def check_epoch(record):
    validators = record["validators"]
    keys = [each["key"] for each in validators]
    require(1 <= len(keys) <= 256 and keys == sorted(set(keys)), "epoch: validators")
    require(all(each["weight"] > 0 for each in validators), "epoch: a weight of zero")


def check_block(chain, record, block):
    """A block as the API gives it, with a trusted record of its epoch."""
    header = block["header"]
    require(header["epoch_hash"] == epoch_hash(record), "block: another epoch record")
    first = record["first_height"]
    require(first <= header["height"] < first + record["length"], "block: height outside its epoch")
    final = check_finality(chain, record, block["finality"])
    require(final == header, "block: the finality proof is of another header")
    require(body_root(block["body"]) == header["body_root"], "block: body root")
    return block_hash(header)
