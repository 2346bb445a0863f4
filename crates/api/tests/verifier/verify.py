#!/usr/bin/env python3
"""Verifies a chain from outside: Python's standard library and the package `cryptography`, written from docs/spec/wire.md.

    verify.py --vectors docs/spec/vectors [--flip]
    verify.py --api http://127.0.0.1:8545 [--chain-id HEX] [--height N] [--flip]

Exit code 0: all that was checked holds. 1: something does not. 2: it could not be checked (no such block, no answer).
With --flip, after each check one bit of what was checked is flipped, in many places, and every flip must be refused.
"""

import argparse
import sys

sys.dont_write_bytecode = True

import api  # noqa: E402  (after the line above, so that no cache folder appears beside the tests)
import vectors  # noqa: E402
from flip import Flipper  # noqa: E402
from wire import Refused  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--vectors", metavar="DIR", help="check the test vectors in this folder")
    source.add_argument("--api", metavar="URL", help="check a live node")
    parser.add_argument("--chain-id", metavar="HEX", help="the chain to trust; without it, the one that the node names")
    parser.add_argument("--height", type=int, metavar="N", help="the block to check; without it, a recent one with transactions")
    parser.add_argument("--flip", action="store_true", help="flip bits of everything that is checked; all must be refused")
    parser.add_argument("--seed", type=int, default=1, help="which bits are flipped")
    options = parser.parse_args()
    flipper = Flipper(options.seed) if options.flip else None
    try:
        if options.vectors:
            lines = vectors.check(options.vectors, flipper)
        else:
            lines = api.check(options.api.rstrip("/"), options.chain_id, options.height, flipper)
        for line in lines:
            print("ok       " + line, flush=True)
        if flipper:
            print("ok       " + flipper.summary())
    except Refused as refused:
        print("REFUSED  %s" % refused)
        return 1
    except api.Unanswered as unanswered:
        print("UNKNOWN  %s" % unanswered)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
