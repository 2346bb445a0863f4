"""Is the syntax curriculum all there? `curriculum.toml` lists the topics; each has a section in a lesson of one language:

    ## Title of the topic
    *Rust Reference, “Section”.* What it is about.
    a cell tagged topic:ID, which asserts what the prose says and prints something that is compared
    a cell tagged fails, where the compiler's or the runtime's error is the lesson
    a cell tagged exercise:ID check:ID, which fails until it is solved; a `{hint}`; a `{solution} language ID`

This reads sources and committed outputs. `execute.py` proves on every run that the exercise fails and that its solution passes.
"""

import re
import tomllib
from collections import Counter
from dataclasses import dataclass

import nbformat

from .execute import error_of, printed
from .lessons import CHECK_LINE, DISPLAY, FENCE, load, tagged, tags
from .places import HOME, LANGUAGES, NOTE

LIST = HOME / "curriculum.toml"
# Of each language.
TOPICS_MIN = 40
# The books that the topics follow, as their references name them.
BOOKS = {"rust": "Rust Reference", "go": "Go specification", "elixir": "Elixir guides", "python": "Python guides"}
ASSERTIONS = {"rust": r"\bassert(_eq|_ne)?!", "go": r"\bwant\(", "elixir": r"\b(assert|refute)(_\w+)?\b", "python": r"\bassert\b"}
SECTION = re.compile(r"^## (?P<title>.+)\n", re.M)
TAGS = re.compile(r":tags: \[([^\]]*)\]")


@dataclass(frozen=True)
class Topic:
    """One row of the list."""

    language: str
    id: str
    title: str
    reference: str
    lesson: str

    def __str__(self):
        return f"{self.lesson}: topic {self.id}"


def listed(text):
    """The topics of a `curriculum.toml`."""
    found = tomllib.loads(text)
    return [
        Topic(language, each["id"], each["title"], each["reference"], chapter["lesson"])
        for language in LANGUAGES
        for chapter in found.get(language, [])
        for each in chapter["topics"]
    ]


def curriculum():
    """(failures, checks) of the list against the lessons of this clone."""
    topics = listed(LIST.read_text())
    failures, checks = shortfalls(topics)
    for name in sorted({topic.lesson for topic in topics}):
        mine = [topic for topic in topics if topic.lesson == name]
        checks += 2 * len(mine)
        folder = NOTE / name
        if not (folder / "lesson.myst").exists():
            failures.append(f"{name}: the curriculum lists it, and it is not there")
            continue
        lesson = load(folder)
        failures += unlisted(lesson, mine)
        paths = {language: lesson.notebook_path(language) for language in {topic.language for topic in mine}}
        books = {language: nbformat.read(path, as_version=4) for language, path in paths.items() if path.exists()}
        for topic in mine:
            failures += [f"{topic}: {what}" for what in [*missing(topic, lesson), *unproven(topic, books.get(topic.language))]]
    return failures, checks


def shortfalls(topics):
    """Too few topics of a language, and topics that are listed twice."""
    failures = []
    for language in LANGUAGES:
        ids = Counter(topic.id for topic in topics if topic.language == language)
        if len(ids) < TOPICS_MIN:
            failures.append(f"curriculum: {len(ids)} topics of {DISPLAY[language]}, at least {TOPICS_MIN} are promised")
        failures += [f"curriculum: {language} lists {name} {count} times" for name, count in ids.items() if count > 1]
    return failures, 2 * len(LANGUAGES)


def sections(text):
    """Title -> text of each section."""
    parts = SECTION.split(text)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def cells(section, language):
    """(tags, source) of each code cell of a section."""
    for match in FENCE.finditer(section):
        if match["kind"] == "code-cell" and match["words"].split() == [language]:
            options = TAGS.match(match["body"])
            yield (options[1].split(",") if options else []), match["body"]


def missing(topic, lesson):
    """What a topic's section lacks."""
    section = sections(lesson.text).get(topic.title)
    if section is None:
        return ["its section is missing"]
    found = [({tag.strip() for tag in names}, source) for names, source in cells(section, topic.language)]
    shows = [source for names, source in found if f"topic:{topic.id}" in names and not names & {"varies", "fails"}]
    checks = [source for names, source in found if {f"exercise:{topic.id}", f"check:{topic.id}"} <= names]
    solution = lesson.solutions.get((topic.language, topic.id))
    lacks = []
    if f"*{BOOKS[topic.language]}, “{topic.reference}”.*" not in section:
        lacks.append(f"it does not name its reference, {BOOKS[topic.language]}, “{topic.reference}”")
    if not any(re.search(ASSERTIONS[topic.language], source) for source in shows):
        lacks.append("no compared cell of it asserts anything")
    if len(checks) != 1 or len(CHECK_LINE.findall(checks[0])) != 1:
        lacks.append("no exercise with a check")
    elif not re.search(ASSERTIONS[topic.language], CHECK_LINE.split(checks[0])[1]):
        lacks.append("the check of its exercise asserts nothing")
    if "```{hint}" not in section:
        lacks.append("no hint")
    if solution is None:
        lacks.append("no solution")
    return lacks


def unlisted(lesson, topics):
    """Topics that a lesson shows and the list does not know."""
    shown = {tag.strip().removeprefix("topic:") for options in TAGS.findall(lesson.text) for tag in options.split(",") if tag.strip().startswith("topic:")}
    return [f"{lesson.name}: topic {name} is not in the curriculum" for name in sorted(shown - {topic.id for topic in topics})]


def unproven(topic, notebook):
    """What the committed notebook does not show of a topic: what it says came out, and the unsolved exercise failed."""
    if notebook is None:
        return ["its notebook is not there: run `lab write`"]
    lacks, code = [], [cell for cell in notebook.cells if cell.cell_type == "code"]
    shows = [cell for cell in code if f"topic:{topic.id}" in tags(cell)]
    checks = [cell for cell in code if tagged(cell, "check") == topic.id]
    if not any(printed(cell).strip() and error_of(cell, topic.language) is None for cell in shows):
        lacks.append("its cell has no output in the notebook")
    if not checks or any(error_of(cell, topic.language) is None for cell in checks):
        lacks.append("its unsolved exercise has not failed in the notebook")
    return lacks
