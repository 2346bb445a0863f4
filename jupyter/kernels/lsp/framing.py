"""Messages of the language server protocol: a header with the length, then JSON."""

import json

MESSAGE_BYTES_MAX = 64 << 20


def read(stream):
    """The next message, or None at the end."""
    length = None
    while True:
        line = stream.readline()
        if not line:
            return None
        name, _, value = line.strip().partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
        elif not name and length is not None:
            break
    if not 0 <= length <= MESSAGE_BYTES_MAX:
        raise ValueError(f"a message of {length} bytes")
    return json.loads(stream.read(length))


def write(stream, message):
    data = json.dumps({"jsonrpc": "2.0", **message}).encode()
    stream.write(b"Content-Length: %d\r\n\r\n" % len(data) + data)
    stream.flush()
