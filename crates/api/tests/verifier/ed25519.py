"""The two rules of docs/spec/wire.md section 4.

The strict rule's checks of points are our own; its equation is asked of the package `cryptography` (OpenSSL), which checks
S < L, compares encodings of R, and takes no cofactor. ZIP-215 is our own throughout, since no common library offers it.
"""

import functools
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_MINUS_ONE = pow(2, (P - 1) // 4, P)
IDENTITY = (0, 1, 1, 0)


def decode_point(data, canonical):
    """The point in extended coordinates (X, Y, Z, T), or None."""
    number = int.from_bytes(data, "little")
    sign, y = number >> 255, number & ((1 << 255) - 1)
    if y >= P:
        if canonical:
            return None
        y %= P
    # x² = (y² − 1) / (d y² + 1)
    u, v = (y * y - 1) % P, (D * y * y + 1) % P
    x = u * pow(v, 3, P) * pow(u * pow(v, 7, P), (P - 5) // 8, P) % P
    if v * x * x % P != u:
        x = x * SQRT_MINUS_ONE % P
        if v * x * x % P != u:
            return None
    if x == 0 and sign and canonical:
        return None
    if x & 1 != sign:
        x = -x % P
    return (x, y, 1, x * y % P)


def add(p, q):
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def multiply(scalar, point):
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def negate(point):
    return (-point[0] % P, point[1], point[2], -point[3] % P)


def is_identity(point):
    return point[0] % P == 0 and (point[1] - point[2]) % P == 0


BASE = decode_point((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"), True)


@functools.lru_cache(maxsize=4096)
def good_point(data):
    """Canonical and not of small order."""
    point = decode_point(data, True)
    return point is not None and not is_identity(multiply(8, point))


def equation_holds(key, message, signature):
    """OpenSSL's verdict."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def strict(key, message, signature):
    if int.from_bytes(signature[32:], "little") >= L:
        return False
    if not good_point(key) or not good_point(signature[:32]):
        return False
    return equation_holds(key, message, signature)


def zip215(key, message, signature):
    # What OpenSSL takes, ZIP-215 takes; it decides only what is left.
    return equation_holds(key, message, signature) or zip215_slow(key, message, signature)


def zip215_slow(key, message, signature):
    s = int.from_bytes(signature[32:], "little")
    a, r = decode_point(key, False), decode_point(signature[:32], False)
    if s >= L or a is None or r is None:
        return False
    digest = hashlib.sha512(signature[:32] + key + message).digest()
    k = int.from_bytes(digest, "little") % L
    difference = add(multiply(s, BASE), negate(add(r, multiply(k, a))))
    return is_identity(multiply(8, difference))
