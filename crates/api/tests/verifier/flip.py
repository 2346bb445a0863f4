"""Flips bits of what was checked, and asks that every check then refuses."""

import random

from borsh import Malformed, decode, encode
from wire import Refused

FLIPS = 24


class Flipper:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.objects = 0
        self.flips = 0

    def try_all(self, what, kind, value, check):
        """Flips one bit of the value's canonical bytes, in FLIPS places, and checks each result."""
        data = encode(kind, value)
        bits = range(8 * len(data))
        self.objects += 1
        for bit in self.random.sample(bits, min(FLIPS, len(bits))):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << (bit % 8)
            self.flips += 1
            try:
                check(decode(kind, bytes(flipped)))
            except (Malformed, Refused):
                continue
            raise Refused("%s: bit %d flipped, and still it convinces" % (what, bit))

    def summary(self):
        if not self.flips:
            raise Refused("nothing was flipped")
        return "%d flipped bits in %d objects: all refused" % (self.flips, self.objects)
