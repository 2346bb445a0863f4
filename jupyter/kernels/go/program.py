"""The program that a notebook's Go cells make up, and its source with `//line` directives.

The directives make the compiler, vet, panics and stack traces speak of cells and their lines; nothing has to be mapped.
"""

import re

from cells import chunks, imports, significant, split

STANDARD = {
    path.rsplit("/", 1)[-1]: path
    for path in """bufio bytes cmp container/heap container/list context crypto/aes crypto/cipher crypto/ecdh crypto/ecdsa
    crypto/ed25519 crypto/elliptic crypto/hkdf crypto/hmac crypto/hpke crypto/mlkem crypto/pbkdf2 crypto/rand crypto/rsa
    crypto/sha256 crypto/sha3 crypto/sha512 crypto/subtle crypto/x509 encoding/base64 encoding/binary encoding/hex
    encoding/json errors fmt hash/crc32 io iter log maps math math/big math/bits net net/http net/netip os os/signal
    path/filepath reflect regexp runtime slices sort strconv strings sync sync/atomic testing text/tabwriter text/template
    time unicode unicode/utf8 unsafe""".split()
}
STANDARD["gonbui"] = "github.com/janpfeifer/gonb/gonbui"


class CellError(Exception):
    """A cell that cannot become part of a program."""


class Program:
    """What is declared so far. A value: `with_cell` returns a new one, so a cell that does not compile changes nothing."""

    def __init__(self, known_imports=None, declarations=None):
        self.imports = known_imports or {}  # name -> (alias, path)
        self.declarations = declarations or {}  # names -> (chunk, cell name)

    def with_cell(self, code, name):
        """(the program with the cell merged, the split cell, its own `func main` or None). `%reset` forgets what was before the cell."""
        cell = split(code)
        before = Program() if any(command.split()[0] == "%reset" for command in cell.commands) else self
        new_imports, new, main = {}, {}, None
        for chunk in cell.chunks:
            if chunk.kind == "import":
                new_imports |= {known: (alias, path) for known, alias, path in imports(chunk.text)}
            elif chunk.kind == "statement":
                raise CellError(f"{name}:{chunk.line + 1}: a statement outside a function. Put it below a line with %%, then it runs as the body of main.")
            elif chunk.names == ["main"]:
                main = chunk
            elif chunk.kind != "package":
                # `_` and `init` may be declared many times; each is known by its text.
                names = tuple(each for each in chunk.names if each not in ("_", "init"))
                new[names or (chunk.text,)] = (chunk, name)
        if cell.body is not None:
            hoisted, cell.body = hoist_imports(cell.body)
            new_imports |= hoisted
        replaced = {each for names in new for each in names}
        kept = {names: entry for names, entry in before.declarations.items() if not replaced & set(names)}
        return Program({**before.imports, **new_imports}, {**kept, **new}), cell, main

    def source(self, cell, main, name, test=False):
        parts = [f"//line {of}:{chunk.line + 1}\n{chunk.text}\n" for chunk, of in self.declarations.values()]
        if cell.body is not None:
            parts.append(f"func main() {{\n//line {name}:{cell.body_line + 1}\n{cell.body}\n}}\n")
        elif main is not None:
            parts.append(f"//line {name}:{main.line + 1}\n{main.text}\n")
        elif not test:
            parts.append("func main() {}\n")
        body = "\n".join(parts)
        lines = [f'\t{alias or ""} "{path}"' for alias, path in sorted(self.used_imports(body), key=lambda each: each[1])]
        return "package main\n\nimport (\n" + "\n".join(lines) + "\n)\n\n" + body

    def used_imports(self, body):
        """Only what is used, since Go refuses the rest; the standard library needs no import line."""
        marks = significant(body)
        pairs = zip([None, *marks], marks, marks[1:])
        used = {at.text for before, at, after in pairs if at.kind == "word" and after.text == "." and (before is None or before.text != ".")}
        declared = {each for names in self.declarations for each in names}
        found = {entry for name, entry in self.imports.items() if name in used or name in ("_", ".")}
        return found | {(None, STANDARD[name]) for name in used - set(self.imports) - declared if name in STANDARD}


def hoist_imports(body):
    found, lines = {}, body.split("\n")
    for chunk in chunks(body):
        if chunk.kind == "import":
            found |= {known: (alias, path) for known, alias, path in imports(chunk.text)}
            for number in range(chunk.line, chunk.line + chunk.text.count("\n") + 1):
                lines[number] = ""
    return found, "\n".join(lines)


def readable(compiler_output):
    """The compiler's messages without the line that names the package."""
    return "\n".join(re.sub(r"^\./", "", line) for line in compiler_output.splitlines() if not line.startswith("# "))
