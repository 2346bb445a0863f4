"""The curriculum is checked, and each of its rules can fail."""

import nbformat
import pytest
from laboratory import lessons
from laboratory.curriculum import TOPICS_MIN, Topic, curriculum, listed, missing, shortfalls, unlisted, unproven
from laboratory.lessons import BadLesson, solved

SOURCE = """# Rust 1

## Integers

*Rust Reference, “Numeric types”.* They have a width.

```{code-cell} rust
:tags: [topic:integers]
assert_eq!(1, 1);
println!("1");
```
```{code-cell} rust
:tags: [exercise:integers, check:integers]
fn one() -> u8 { 0 }
// check
assert_eq!(one(), 1);
```
```{hint} Hint
The number after 0.
```
```{solution} rust integers
fn one() -> u8 { 1 }
```
"""
TOPIC = Topic("rust", "integers", "Integers", "Numeric types", "a")


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.setattr(lessons, "NOTE", tmp_path)

    def write(text):
        (tmp_path / "a").mkdir(exist_ok=True)
        (tmp_path / "a" / "lesson.myst").write_text(text)
        return lessons.load(tmp_path / "a")

    return write


def test_the_curriculum_is_all_there():
    failures, checks = curriculum()
    assert failures == []
    assert checks > 4 * TOPICS_MIN


@pytest.mark.parametrize(
    ("old", "new", "lacks"),
    [
        ("", "", []),
        ("## Integers", "## Numbers", ["its section is missing"]),
        ("“Numeric types”", "“Numbers”", ["it does not name its reference, Rust Reference, “Numeric types”"]),
        ("assert_eq!(1, 1);\n", "", ["no compared cell of it asserts anything"]),
        ("[topic:integers]", "[topic:integers, varies]", ["no compared cell of it asserts anything"]),
        ("// check\n", "", ["no exercise with a check"]),
        (", check:integers]", "]", ["no exercise with a check"]),
        ("assert_eq!(one(), 1);", "one();", ["the check of its exercise asserts nothing"]),
        ("{hint} Hint", "{code-cell} go", ["no hint"]),
        ("{solution} rust integers", "{solution} rust other", ["no solution"]),
    ],
)
def test_what_a_topic_may_lack(load, old, new, lacks):
    assert missing(TOPIC, load(SOURCE.replace(old, new) if old else SOURCE)) == lacks


def test_topics_too_few_or_twice():
    enough = [Topic(language, str(number), "T", "R", "a") for language in lessons.LANGUAGES for number in range(TOPICS_MIN)]
    assert shortfalls(enough)[0] == []
    assert len(shortfalls(enough[1:])[0]) == 1
    assert len(shortfalls([*enough, enough[0]])[0]) == 1


def test_a_topic_that_is_not_listed(load):
    assert unlisted(load(SOURCE), [TOPIC]) == []
    assert unlisted(load(SOURCE), []) == ["a: topic integers is not in the curriculum"]


def test_the_list_is_read_in_the_order_of_languages():
    text = '[[go]]\nlesson = "a"\ntopics = [{ id = "x", title = "X", reference = "R" }]\n'
    assert listed(text) == [Topic("go", "x", "X", "R", "a")]


def test_the_committed_notebook_shows_the_value_and_the_failure(load):
    book = load(SOURCE).notebook("rust")
    shows, check = (cell for cell in book.cells if cell.cell_type == "code")
    assert len(unproven(TOPIC, book)) == 2 and len(unproven(TOPIC, None)) == 1
    shows.outputs = [nbformat.v4.new_output("stream", name="stdout", text="1")]
    check.outputs = [nbformat.v4.new_output("stream", name="stderr", text="panicked")]
    assert unproven(TOPIC, book) == []


def test_a_solution_takes_the_place_of_what_is_the_readers(load):
    check = [cell for cell in load(SOURCE).notebook("rust").cells if cell.cell_type == "code"][1]
    assert solved(check, "fn one() -> u8 { 1 }") == ["fn one() -> u8 { 1 }\nassert_eq!(one(), 1);"]
    check.source = "fn one() -> u8 { 0 }"
    with pytest.raises(BadLesson, match="needs one line"):
        solved(check, "")
    check.metadata.tags = ["check:integers"]
    assert solved(check, "first") == ["first", check.source]
