"""A notebook's cells as one file that a language server accepts.

The front end sends all cells as one text, two blank lines between them. Exactly **one line is put on top**, and no character
is put before another on its line: so a position maps by its line alone, one up or one down, and no table is kept.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "go"))
from cells import chunks, command_lines, imports  # noqa: E402
from program import Program  # noqa: E402

LINES_ON_TOP = 1
RUST_TOP = "#![allow(unused, redundant_semicolons)] fn main() -> Result<(), Box<dyn std::error::Error>> {"


def cells(text):
    """(lines, [(first, after the last)]) of a notebook's text."""
    lines, found, start, blank = text.split("\n"), [], 0, 0
    for number, line in enumerate(lines):
        if not line.strip():
            blank += 1
            continue
        if blank >= 2:
            found.append((start, number))
            start = number
        blank = 0
    return lines, [*found, (start, len(lines))]


def rust(text):
    """All cells in one `main`. Commands of evcxr are blanked; the last expression of a cell ends with a semicolon."""
    lines, found = cells(text)
    for first, end in found:
        for number in range(first, end):
            if lines[number].startswith((":", "%", "!")):
                lines[number] = ""
        code = [number for number in range(first, end) if lines[number].strip()]
        if code and not re.search(r"[;{}]\s*$|//", lines[code[-1]]):
            lines[code[-1]] += ";"
    return "\n".join([RUST_TOP, *lines, "; Ok(()) }", ""])


def go(text):
    """Declarations as they stand, `%%` as the head of a function; of names declared twice the last stays, as in the kernel."""
    lines, found = cells(text)
    known, declared = {}, {}
    for first, end in found:
        commands = [first + number for number in command_lines("\n".join(lines[first:end]))]
        body = next((number for number in commands if lines[number].startswith("%%")), None)
        blank(lines, (number for number in commands if number != body))
        head = "\n".join(lines[first : end if body is None else body])
        for chunk in chunks(head, first):
            span = range(chunk.line, chunk.line + chunk.text.count("\n") + 1)
            if chunk.kind in ("import", "package"):
                known |= {name: (alias, path) for name, alias, path in imports(chunk.text)}
                blank(lines, span)
            for name in chunk.names:
                if name in declared and name not in ("_", "init"):
                    blank(lines, declared[name])
                declared[name] = span
        if body is not None:
            lines[body] = "func _() {"
            close(lines, body, end)
    return "\n".join([go_top(lines, known), *lines, ""])


def blank(lines, span):
    for number in span:
        lines[number] = ""


def close(lines, body, end):
    """The brace that ends a body, behind its last line, or on the next if that may end in a comment."""
    last = max(number for number in range(body, end) if lines[number].strip())
    if "//" in lines[last] or "`" in lines[last]:
        if last + 1 == len(lines):
            lines.append("")
        last += 1
    lines[last] += " }"


def go_top(lines, known):
    program = Program(known)
    used = sorted(program.used_imports("\n".join(lines)), key=lambda each: each[1])
    return "package main; import (" + "; ".join(f'{alias or ""} "{path}"' for alias, path in used) + ")"


TRANSLATIONS = {"rust": (rust, "rs"), "go": (go, "go")}
