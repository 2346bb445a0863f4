"""Borsh as docs/spec/wire.md section 2 has it: JSON values to canonical bytes and back."""

import struct


class Malformed(Exception):
    """Bytes or JSON that are no value of the type."""


class Reader:
    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, count):
        if count > len(self.data) - self.at:
            raise Malformed("bytes end too early")
        self.at += count
        return self.data[self.at - count:self.at]


class Int:
    def __init__(self, width):
        self.width = width

    def encode(self, value):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << (8 * self.width):
            raise Malformed("no unsigned integer of %d bytes: %r" % (self.width, value))
        return value.to_bytes(self.width, "little")

    def read(self, reader):
        return int.from_bytes(reader.take(self.width), "little")


class Fixed:
    """Bytes of a fixed length; in JSON lower-case hex."""

    def __init__(self, width):
        self.width = width

    def encode(self, value):
        data = from_hex(value)
        if len(data) != self.width:
            raise Malformed("%d bytes expected, got %d" % (self.width, len(data)))
        return data

    def read(self, reader):
        return reader.take(self.width).hex()


class Bytes:
    """Bytes of any length; in JSON lower-case hex."""

    def encode(self, value):
        data = from_hex(value)
        return struct.pack("<I", len(data)) + data

    def read(self, reader):
        return reader.take(U32.read(reader)).hex()


class Vec:
    def __init__(self, item):
        self.item = item

    def encode(self, value):
        if not isinstance(value, list):
            raise Malformed("list expected")
        return struct.pack("<I", len(value)) + b"".join(self.item.encode(each) for each in value)

    def read(self, reader):
        count = U32.read(reader)
        # Each item has at least one byte, so a count above the bytes left is refused before anything is built.
        if count > len(reader.data) - reader.at:
            raise Malformed("list longer than the bytes")
        return [self.item.read(reader) for _ in range(count)]


class Option:
    def __init__(self, item):
        self.item = item

    def encode(self, value):
        return b"\0" if value is None else b"\1" + self.item.encode(value)

    def read(self, reader):
        tag = reader.take(1)[0]
        if tag > 1:
            raise Malformed("option tag %d" % tag)
        return self.item.read(reader) if tag else None


class Tuple:
    """A tuple or array; in JSON an array."""

    def __init__(self, *items):
        self.items = items

    def encode(self, value):
        if not isinstance(value, list) or len(value) != len(self.items):
            raise Malformed("array of %d expected" % len(self.items))
        return b"".join(item.encode(each) for item, each in zip(self.items, value))

    def read(self, reader):
        return [item.read(reader) for item in self.items]


class Record:
    def __init__(self, **fields):
        self.fields = fields

    def encode(self, value):
        if not isinstance(value, dict) or value.keys() != self.fields.keys():
            raise Malformed("object with %s expected" % ", ".join(self.fields))
        return b"".join(item.encode(value[name]) for name, item in self.fields.items())

    def read(self, reader):
        return {name: item.read(reader) for name, item in self.fields.items()}


class Enum:
    """An enum without fields; in JSON the name."""

    def __init__(self, **tags):
        self.tags = tags
        self.names = {tag: name for name, tag in tags.items()}

    def encode(self, value):
        if not isinstance(value, str) or value not in self.tags:
            raise Malformed("one of %s expected" % ", ".join(self.tags))
        return bytes([self.tags[value]])

    def read(self, reader):
        tag = reader.take(1)[0]
        if tag not in self.names:
            raise Malformed("unknown tag %d" % tag)
        return self.names[tag]


class Union:
    """An enum whose variants, tagged in order, hold something; in JSON an object with the variant's name as its only key."""

    def __init__(self, **variants):
        self.variants = list(variants.items())

    def encode(self, value):
        for tag, (name, item) in enumerate(self.variants):
            if isinstance(value, dict) and list(value) == [name]:
                return bytes([tag]) + item.encode(value[name])
        raise Malformed("no variant of the enum")

    def read(self, reader):
        tag = reader.take(1)[0]
        if tag >= len(self.variants):
            raise Malformed("unknown tag %d" % tag)
        name, item = self.variants[tag]
        return {name: item.read(reader)}


U8, U16, U32, U64 = Int(1), Int(2), Int(4), Int(8)


def from_hex(text):
    if not isinstance(text, str) or text != text.lower() or not text.isascii() or any(c.isspace() for c in text):
        raise Malformed("lower-case hex expected")
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Malformed("lower-case hex expected") from None


def encode(kind, value):
    return kind.encode(value)


def decode(kind, data):
    reader = Reader(data)
    value = kind.read(reader)
    if reader.at != len(data):
        raise Malformed("bytes left over")
    return value
