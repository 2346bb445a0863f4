"""A verifier of the chain after `docs/spec/wire.md`, independent of the node's code.

    client.py votes  votes.json    a line `kind TAB name TAB verdict` for each entry
    client.py proofs refused.json  the same for proofs of finality, by the records of chain.json beside it
    client.py follow chain.json    follows all blocks from the genesis record: chain id, records, blocks, tip

Exit 1 and `refused: why` if the chain does not hold.
"""

import hashlib
import json
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

HEADERS_MAX = 1024
KINDS = ("propose", "notarize", "nullify", "finalize")
PARAMS = {
    "lag_max": 8, "batch_life": 8, "batch_bytes_max": 4, "batch_transactions_max": 4, "block_batches_max": 4, "transaction_bytes_max": 4,
    "transaction_life_max": 8, "memo_bytes_max": 4, "clock_drift_ms": 8, "fee_base": 8, "fee_per_byte": 8, "account_creation_fee": 8,
}  # fmt: skip
P = 2**255 - 19
# The y of all points of small order.
SMALL = {0, 1, P - 1} | {
    int.from_bytes(bytes.fromhex(text), "little")
    for text in ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a")
}
raw = bytes.fromhex


class Refused(Exception):
    """Why something convinces nobody."""


def require(holds, why):
    if not holds:
        raise Refused(why)


def u(value, width=8):
    return value.to_bytes(width, "little")


def digest(tag, data):
    return hashlib.sha256(f"ebpf-blockchain/{tag}/1".encode() + b"\0" + data).hexdigest()


def strict(key, message, signature):
    """The strict rule: OpenSSL checks the equation, S < L and the form of R; canonical and not small comes first."""
    for point in (key, signature[:32]):
        y = int.from_bytes(point, "little") & ((1 << 255) - 1)
        if y >= P or y in SMALL:
            return False
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


def statement_bytes(s):
    return raw(s["chain"]) + u(s["epoch"]) + u(s["view"]) + u(KINDS.index(s["kind"]), 1) + u(s["parent_view"]) + raw(s["digest"])


def signing_bytes(s):
    return b"ebpf-blockchain/statement/1\0" + statement_bytes(s)


def well_formed(s):
    about_nothing = s["parent_view"] == 0 and s["digest"] == "00" * 32
    return s["view"] >= 1 and s["parent_view"] < s["view"] and (s["kind"] != "nullify" or about_nothing)


def check_subject(chain, record, s):
    require(s["chain"] == chain and s["epoch"] == record["epoch"], "another chain or epoch")
    require(s["kind"] != "propose" and well_formed(s), "no statement that can be voted for")


def check_vote(chain, record, vote):
    check_subject(chain, record, vote["statement"])
    require(any(v["key"] == vote["key"] for v in record["validators"]), "no validator")
    require(strict(raw(vote["key"]), signing_bytes(vote["statement"]), raw(vote["signature"])), "the signature")


def check_certificate(chain, record, c):
    validators, bitmap = record["validators"], raw(c["bitmap"])
    require(c["scheme"] == 0, "an unknown scheme")
    check_subject(chain, record, c["statement"])
    require(len(bitmap) == (len(validators) + 7) // 8, "the bitmap's length")
    seats = [i for i in range(8 * len(bitmap)) if bitmap[i // 8] >> i % 8 & 1]
    require(all(i < len(validators) for i in seats), "a bit beyond the set")
    require(len(seats) == len(c["signatures"]), "the number of signatures")
    require(3 * sum(validators[i]["weight"] for i in seats) > 2 * sum(v["weight"] for v in validators), "no quorum")
    message = signing_bytes(c["statement"])
    require(all(strict(raw(validators[i]["key"]), message, raw(signature)) for i, signature in zip(seats, c["signatures"])), "a signature")


def contradicts(a, b):
    """What no honest key signs both of: two of a kind, or nullify and finalize, in one view."""
    same_view = all(a[name] == b[name] for name in ("chain", "epoch", "view"))
    return same_view and a != b and (a["kind"] == b["kind"] or {a["kind"], b["kind"]} == {"nullify", "finalize"})


def check_evidence(evidence):
    pairs = (evidence["first"], evidence["second"])
    require(contradicts(pairs[0][0], pairs[1][0]), "no contradiction")
    require(all(strict(raw(evidence["key"]), signing_bytes(s), raw(signature)) for s, signature in pairs), "a signature")


def header_bytes(h):
    first = u(h["version"], 4) + raw(h["chain"]) + u(h["epoch"]) + u(h["height"]) + raw(h["parent"]) + u(h["time"]) + raw(h["proposer"])
    roots = b"".join(raw(h[name]) for name in ("state_root", "receipts_root", "epoch_hash", "next_epoch_hash"))
    return first + raw(h["body_root"]) + u(h["executed"]) + roots


def block_hash(h):
    return digest("block", header_bytes(h))


def check_finality(chain, record, proof):
    headers, certificate = proof["headers"], proof["certificate"]
    require(1 <= len(headers) <= HEADERS_MAX, "the number of headers")
    require(all(h["chain"] == chain and h["epoch"] == record["epoch"] for h in headers), "a header of another chain or epoch")
    require(all(b["parent"] == block_hash(a) and b["height"] == a["height"] + 1 for a, b in zip(headers, headers[1:])), "a broken run")
    s = certificate["statement"]
    require(s["kind"] == "finalize" and s["digest"] == block_hash(headers[-1]), "a certificate of something else")
    check_certificate(chain, record, certificate)


def record_bytes(r):
    params = b"".join(u(r["params"][name], width) for name, width in PARAMS.items())
    validators = b"".join(raw(v["key"]) + u(v["weight"]) for v in r["validators"])
    return u(r["epoch"]) + u(r["first_height"]) + u(r["length"]) + u(r["version"], 4) + params + u(len(r["validators"]), 4) + validators


def certificate_bytes(c):
    bitmap, signatures = raw(c["bitmap"]), b"".join(map(raw, c["signatures"]))
    return u(c["scheme"], 1) + statement_bytes(c["statement"]) + u(len(bitmap), 4) + bitmap + u(len(c["signatures"]), 4) + signatures


def merkle(leaves):
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + merkle(leaves[:split]) + merkle(leaves[split:])).digest()


def body_root(body):
    items = [b"\0" + raw(batch) for batch in body["batches"]]
    if body["parent_notarization"]:
        items.append(b"\1" + raw(digest("certificate", certificate_bytes(body["parent_notarization"]))))
    return merkle([hashlib.sha256(b"\0" + item).digest() for item in items]).hex()


def check_block(chain, record, block):
    """The block's hash."""
    header = block["header"]
    require(digest("epoch", record_bytes(record)) == header["epoch_hash"], "another record")
    require(record["first_height"] <= header["height"] < record["first_height"] + record["length"], "another epoch's height")
    check_finality(chain, record, block["finality"])
    require(block_hash(block["finality"]["headers"][0]) == block_hash(header), "a proof of another block")
    require(body_root(block["body"]) == header["body_root"], "another body")
    return block_hash(header)


def chain_id(genesis):
    accounts = b"".join(raw(address) + u(amount) for address, amount in genesis["accounts"])
    return digest("genesis", u(genesis["time"]) + u(len(genesis["accounts"]), 4) + accounts + b"".join(map(record_bytes, genesis["epochs"])))


def follow(genesis, blocks):
    """(chain id, known records, tip): what a light client knows in the end."""
    chain, records = chain_id(genesis), list(genesis["epochs"])
    tip, named = chain, None
    for block in blocks:
        header = block["header"]
        require(header["parent"] == tip, "not the next block")
        if header["epoch"] == len(records):
            require(header["epoch_hash"] == named, "a record that no final header named")
            records.append(block["epoch"])
        require(header["epoch"] < len(records), "an unknown epoch")
        tip, named = check_block(chain, records[header["epoch"]], block), header["next_epoch_hash"]
    return chain, records, tip


def holds(check, *arguments):
    try:
        check(*arguments)
        return "true"
    except Refused:
        return "false"


def verdicts(file):
    """(kind, name, verdict) of each entry of votes.json."""
    chain, records = file["chain"], file["records"]
    for each in file["votes"]:
        yield "vote", each["name"], holds(check_vote, chain, records[each["record"]], each["vote"])
    for each in file["certificates"]:
        yield "certificate", each["name"], holds(check_certificate, chain, records[each["record"]], each["certificate"])
    for each in file["evidence"]:
        yield "evidence", each["name"], holds(check_evidence, each["evidence"])


def proofs(golden, file):
    """(kind, name, verdict) of each proof of finality in refused.json."""
    genesis = golden["genesis"]["record"]
    for each in file["finality"]:
        headers = each["proof"]["headers"]
        record = golden["epochs"][headers[0]["epoch"] if headers else 0]["record"]
        yield "finality", each["name"], holds(check_finality, chain_id(genesis), record, each["proof"])


def main(command, path):
    def load(name):
        return json.loads(Path(name).read_text())

    if command == "follow":
        golden = load(path)
        try:
            chain, records, tip = follow(golden["genesis"]["record"], golden["blocks"])
        except Refused as error:
            print(f"refused: {error}")
            return 1
        print(chain, len(records), len(golden["blocks"]), tip)
        return 0
    found = verdicts(load(path)) if command == "votes" else proofs(load(Path(path).with_name("chain.json")), load(path))
    for each in found:
        print("\t".join(each))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
