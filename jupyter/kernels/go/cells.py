"""Go cells: split a cell into top-level chunks, by the rules of GoNB.

Declarations stay from cell to cell; a line that starts with `%%` begins the body of `main`; other lines that start with
`%` or `!` are commands to the kernel. Only tokens are read, no types: the compiler judges the program.
"""

import re
from dataclasses import dataclass, field

TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+)|(?P<newline>\n)|(?P<line_comment>//[^\n]*)|(?P<block_comment>/\*.*?\*/)
    |(?P<raw>`[^`]*`)|(?P<string>"(?:\\.|[^"\\\n])*")|(?P<rune>'(?:\\.|[^'\\\n])+')
    |(?P<word>[^\W\d]\w*)|(?P<number>\d[\w.]*)|(?P<operator>\+\+|--|:=|[^\w\s])""",
    re.S | re.X,
)
BLANK = {"space", "newline", "line_comment", "block_comment"}
# After these a line break ends a statement (the Go specification, "Semicolons").
ENDING_KINDS = {"number", "string", "raw", "rune"}
ENDING_TEXT = {")", "]", "}", "++", "--", "break", "continue", "fallthrough", "return"}
KEYWORDS = set(
    "break case chan const continue default defer else fallthrough for func go goto if import interface map package range "
    "return select struct switch type var".split()
)
IMPORT = re.compile(r'(?:(?P<alias>[\w.]+)[ \t]+)?"(?P<path>[^"]+)"')


@dataclass
class Token:
    kind: str
    text: str
    start: int
    end: int
    line: int


@dataclass
class Chunk:
    """One top-level piece of a cell. `line` counts from 0 in the cell; `names` are what it declares."""

    kind: str  # import, package, type, const, var, func, statement
    names: list
    text: str
    line: int


@dataclass
class Cell:
    """A cell, split: what it declares, the body of `main` (None: it has none), and the commands."""

    chunks: list
    body: str | None = None
    body_line: int = 0
    arguments: list = field(default_factory=list)
    commands: list = field(default_factory=list)


def tokens(source):
    line = 0
    for match in TOKEN.finditer(source):
        yield Token(match.lastgroup, match.group(), match.start(), match.end(), line)
        line += match.group().count("\n")


def significant(source):
    return [token for token in tokens(source) if token.kind not in BLANK]


def ends_statement(token):
    if token.kind == "word":
        return token.text not in KEYWORDS or token.text in ENDING_TEXT
    return token.kind in ENDING_KINDS or token.text in ENDING_TEXT


def chunks(source, first_line=0):
    """The chunks of a text without commands."""
    found, current, depth, last = [], [], 0, None
    for token in tokens(source):
        breaks = token.kind == "newline" and last is not None and ends_statement(last)
        if depth == 0 and (breaks or token.text == ";"):
            found += chunk_of(source, current, first_line)
            current, last = [], None
            continue
        current.append(token)
        if token.kind in BLANK:
            continue
        if token.kind == "operator":
            depth = max(0, depth + (token.text in "([{") - (token.text in ")]}"))
        last = token
    return found + chunk_of(source, current, first_line)


def chunk_of(source, current, first_line):
    marks = [token for token in current if token.kind not in BLANK]
    if not marks:
        return []
    # Comments in front of a declaration belong to it.
    first = next(token for token in current if token.kind not in ("space", "newline"))
    text = source[first.start : current[-1].end].rstrip()
    kind, names = classify(marks)
    return [Chunk(kind, names, text, first_line + first.line)]


def classify(marks):
    words = [token.text for token in marks]
    if words[0] in ("import", "package"):
        return words[0], []
    if words[0] == "func":
        return classify_function(words)
    if words[0] in ("type", "var", "const"):
        return words[0], declared_names(marks)
    return "statement", []


def classify_function(words):
    if len(words) > 2 and words[1] == "(" and ")" in words:
        close = words.index(")")
        receiver = [word for word in words[2:close] if re.match(r"[^\W\d]", word)]
        if receiver and close + 1 < len(words):
            # `(v *Vec[T])`: the base type is the second word, or the only one.
            return "func", [f"{receiver[min(1, len(receiver) - 1)]}.{words[close + 1]}"]
    if len(words) > 2 and words[2] in ("(", "["):
        return "func", [words[1]]
    return "statement", []


def declared_names(marks):
    words = [token.text for token in marks]
    if len(words) > 1 and words[1] == "(":
        names, depth, line = [], 0, None
        for token in marks[2:]:
            if token.kind == "operator":
                depth += (token.text in "([{") - (token.text in ")]}")
            elif depth == 0 and token.kind == "word" and token.line != line and token.text not in KEYWORDS:
                names.append(token.text)
            line = token.line
        return names
    names = words[1:2]
    at = 2
    while words[0] != "type" and at + 1 < len(words) and words[at] == ",":
        names.append(words[at + 1])
        at += 2
    return names


def imports(text):
    """(name, alias or None, path) of each import in a chunk."""
    for match in IMPORT.finditer(text):
        alias = match["alias"] if match["alias"] != "import" else None
        parts = match["path"].split("/")
        base = parts[-2] if len(parts) > 1 and re.fullmatch(r"v\d+", parts[-1]) else parts[-1]
        yield alias or base, alias, match["path"]


def command_lines(code):
    """The numbers of the lines that are commands: they begin with `%` or `!`, and not within a raw string or a comment."""
    found, at, line, begins = [], 0, 0, True
    while at < len(code):
        if begins and code[at] in "%!":
            found.append(line)
            # To its end: what stands there is no Go.
            at += len(code[at:].partition("\n")[0])
            begins = False
            continue
        match = TOKEN.match(code, at)
        text = match.group() if match else code[at]
        begins, line, at = text == "\n", line + text.count("\n"), at + len(text)
    return found


def split(code):
    """The parts of a cell. Command lines become empty ones, so that line numbers hold."""
    lines, commands, main, arguments = code.split("\n"), [], None, []
    for number in command_lines(code):
        line, lines[number] = lines[number], ""
        if main is None and line.startswith("%%"):
            main, arguments = number, line[2:].split()
        else:
            commands.append(line)
    if main is None:
        return Cell(chunks("\n".join(lines)), commands=commands)
    head, body = "\n".join(lines[:main]), "\n".join(lines[main + 1 :])
    return Cell(chunks(head), body, main + 1, arguments, commands)
