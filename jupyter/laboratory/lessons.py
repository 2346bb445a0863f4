"""One lesson, four languages: `lesson.myst` is the single source, a MyST notebook whose cells name their language.

    ```{code-cell} go
    :tags: [same:digest]
    …
    ```

Prose is for all; a block between `+++ go elixir` and `+++` is for these languages only. A `{hint}` block is one step of the
ladder of an exercise, a `{solution} go NAME` block its solution: readers see both folded, `lab test` runs the solution.
Tags of cells:

    same:KEY      prints a value that all languages must agree on
    seeded:KEY    the same, and it must be another one under another LAB_SEED
    fails         must fail: the error is the lesson
    exercise:NAME the reader's to complete; the check below it must fail until then
    check:NAME    the verdict on exercise NAME; a cell that is both ends with its check, below a line `# check` or `// check`
    topic:ID      shows a topic of `curriculum.toml` and asserts what it says (`curriculum.py`)
    varies        executed, not compared; has an assertion in it
    stderr-ok     a Rust cell that may print to standard error

A cell that can't do on this machine what it is for prints a line `skipped: why`: it is counted as skipped, which in CI is a failure.
"""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

import jupytext

from .places import KERNEL_NAMES, LANGUAGES, NOTE

FENCE = re.compile(r"^```\{(?P<kind>code-cell|solution|hint)\}(?P<words>[^\n]*)\n(?P<body>.*?)^```[ \t]*\n?", re.M | re.S)
CHECK_LINE = re.compile(r"^(?:#|//) check$", re.M)
ONLY = re.compile(r"^\+\+\+[ \t]+(?P<languages>[a-z ]+)\n(?P<body>.*?)^\+\+\+[ \t]*\n?", re.M | re.S)
DISPLAY = {"python": "Python", "rust": "Rust", "go": "Go", "elixir": "Elixir"}


class BadLesson(Exception):
    """A lesson's source that breaks the rules above."""


@dataclass
class Lesson:
    folder: Path
    text: str
    languages: tuple
    solutions: dict = field(default_factory=dict)  # (language, name) -> code

    @property
    def name(self):
        return self.folder.relative_to(NOTE).as_posix()

    @property
    def title(self):
        return next(line[2:].strip() for line in self.text.splitlines() if line.startswith("# "))

    def notebook_path(self, language):
        return self.folder / f"{language}.ipynb"

    def notebook(self, language):
        return notebook(self, language)


def load(folder):
    text = (folder / "lesson.myst").read_text()
    used = {match["words"].split()[0] for match in FENCE.finditer(text) if match["kind"] == "code-cell" and match["words"].split()}
    unknown = used - set(LANGUAGES)
    if unknown:
        raise BadLesson(f"{folder}: cells in unknown languages {sorted(unknown)}")
    lesson = Lesson(folder, text, tuple(each for each in LANGUAGES if each in used))
    for match in FENCE.finditer(text):
        if match["kind"] == "solution":
            language, name = match["words"].split()
            lesson.solutions[language, name] = match["body"].rstrip("\n")
    return lesson


def all_lessons(pattern=""):
    folders = sorted(path.parent for path in NOTE.rglob("lesson.myst") if ".ipynb_checkpoints" not in path.parts)
    return [load(folder) for folder in folders if pattern in folder.relative_to(NOTE).as_posix()]


def myst(lesson, language):
    """The lesson's text for one language."""
    text = ONLY.sub(lambda match: match["body"] if language in match["languages"].split() else "", lesson.text)
    return re.sub(r"\n{3,}", "\n\n", FENCE.sub(lambda match: block(match, language), text))


def block(match, language):
    words = match["words"].split()
    if match["kind"] == "hint":
        return f"<details><summary>{' '.join(words)}</summary>\n\n{match['body'].strip()}\n\n</details>\n"
    if words[:1] != [language]:
        return ""
    if match["kind"] == "solution":
        return f"<details><summary>Solution of “{words[1]}”</summary>\n\n```{language}\n{match['body'].rstrip()}\n```\n\n</details>\n"
    # A blank line ends the options: Rust's `:dep` lines look like some.
    option, body = re.fullmatch(r"(:tags:[^\n]*\n)?(.*)", match["body"], re.S).groups()
    return f"```{{code-cell}}\n{option or ''}\n{body}```\n"


def notebook(lesson, language):
    kernel = KERNEL_NAMES[language]
    header = f"---\njupytext:\n  text_representation:\n    format_name: myst\nkernelspec:\n  name: {kernel}\n  display_name: {DISPLAY[language]}\n  language: {language}\n---\n\n"
    text = myst(lesson, language)
    book = jupytext.reads(header + text, fmt="md:myst")
    # A fence without a blank line above it belongs to the paragraph or the block there: nobody would see the cell, and nothing run it.
    written, made = text.count("```{code-cell}\n"), sum(cell.cell_type == "code" for cell in book.cells)
    if written != made:
        raise BadLesson(f"{lesson.name} ({language}): {written} cells are written, {made} are cells: one has no blank line above it")
    for number, cell in enumerate(book.cells):
        # Ids that do not change when the notebook is made again.
        cell.id = hashlib.sha256(f"{lesson.name}/{language}/{number}".encode()).hexdigest()[:12]
    book.metadata = {"kernelspec": {"name": kernel, "display_name": DISPLAY[language], "language": language}, "lesson": {"source": "lesson.myst"}}
    book.nbformat, book.nbformat_minor = 4, 5
    return book


def tags(cell):
    return cell["metadata"].get("tags", [])


def tagged(cell, prefix):
    """What follows `prefix:` in a cell's tags, or None."""
    return next((tag.split(":", 1)[1] for tag in tags(cell) if tag.startswith(prefix + ":")), None)


def solved(cell, solution):
    """What to run to see a check pass: the solution and the check, one cell where the exercise and its check are one."""
    if tagged(cell, "exercise") is None:
        return [solution, cell["source"]]
    parts = CHECK_LINE.split(cell["source"])
    if len(parts) != 2:
        raise BadLesson(f"exercise {tagged(cell, 'exercise')} needs one line `check` between what is the reader's and the check")
    return [solution + "\n" + parts[1].lstrip("\n")]
