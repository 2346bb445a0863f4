"""The rules of lessons, on notebooks made by hand: each must be able to fail."""

import nbformat
import pytest
from laboratory import lessons
from laboratory.compare import across_languages, across_seeds, compare, normal
from laboratory.execute import Result, error_of, judge

SOURCE = """# Title

For all.

+++ go
Only Go.
+++

```{code-cell} python
:tags: [same:x]
print(1)
```
```{code-cell} go
:tags: [same:x]
%%
fmt.Println(1)
```
```{code-cell} rust
:dep hex = "1"
println!("1");
```
```{hint} Hint 1
Look.
```
```{solution} python x
print(2)
```
"""


@pytest.fixture
def lesson(tmp_path, monkeypatch):
    monkeypatch.setattr(lessons, "NOTE", tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "lesson.myst").write_text(SOURCE)
    return lessons.load(tmp_path / "a")


def test_each_language_gets_its_own_cells(lesson):
    assert (lesson.name, lesson.title, lesson.languages) == ("a", "Title", ("python", "rust", "go"))
    books = {language: lesson.notebook(language) for language in lesson.languages}
    code = {language: [(cell.source, lessons.tags(cell)) for cell in book.cells if cell.cell_type == "code"] for language, book in books.items()}
    assert code == {"python": [("print(1)", ["same:x"])], "go": [("%%\nfmt.Println(1)", ["same:x"])], "rust": [(':dep hex = "1"\nprintln!("1");', [])]}
    prose = {language: "".join(cell.source for cell in book.cells if cell.cell_type == "markdown") for language, book in books.items()}
    assert "Only Go." in prose["go"] and "Only Go." not in prose["python"]
    assert "<summary>Hint 1</summary>" in prose["rust"] and "print(2)" in prose["python"] and "print(2)" not in prose["go"]


def test_a_cell_that_nobody_would_see_is_refused(lesson):
    lesson.text += "```{code-cell} python\nassert False\n```\n"  # right below the solution's folded block
    with pytest.raises(lessons.BadLesson, match="2 cells are written, 1 are cells"):
        lesson.notebook("python")
    lesson.text = lesson.text.replace("```{code-cell} python\nassert", "\n```{code-cell} python\nassert")
    assert [cell.source for cell in lesson.notebook("python").cells if cell.cell_type == "code"] == ["print(1)", "assert False"]


def test_cells_keep_their_ids(lesson):
    first, second = lesson.notebook("go"), lesson.notebook("go")
    assert [cell.id for cell in first.cells] == [cell.id for cell in second.cells]


def test_an_unknown_language_is_refused(lesson):
    (lesson.folder / "lesson.myst").write_text("# T\n```{code-cell} cobol\nSTOP RUN\n```\n")
    with pytest.raises(lessons.BadLesson, match="cobol"):
        lessons.load(lesson.folder)


def cell(source="code", tags=(), out="", err="", error=False):
    made = nbformat.v4.new_code_cell(source, metadata={"tags": list(tags)})
    if out:
        made.outputs.append(nbformat.v4.new_output("stream", name="stdout", text=out))
    if err:
        made.outputs.append(nbformat.v4.new_output("stream", name="stderr", text=err))
    if error:
        made.outputs.append(nbformat.v4.new_output("error", ename="E", evalue="no", traceback=[]))
    return made


def result(*cells, language="python"):
    book = nbformat.v4.new_notebook()
    book.cells = list(cells)
    return Result("a", language, book)


def test_standard_error_fails_a_rust_cell_only():
    assert error_of(cell(err="thread panicked"), "rust") == "thread panicked"
    assert error_of(cell(err="warning"), "python") is None
    assert error_of(cell(err="compiling", tags=["stderr-ok"]), "rust") is None


@pytest.mark.parametrize(
    ("made", "failures"),
    [
        (cell(), 0),
        (cell(error=True), 1),
        (cell(tags=["fails"], error=True), 0),
        (cell(tags=["fails"]), 1),
        (cell(tags=["check:x"]), 1),
        (cell(tags=["check:x"], error=True), 0),
        (cell(tags=["same:x"]), 1),
        (cell(tags=["same:x"], out="1"), 0),
    ],
)
def test_judgement(made, failures):
    found = result(made)
    judge(found, made)
    assert len(found.failures) == failures


def compared(before, after):
    found, committed = result(*after), result(*before).notebook
    for old, new in zip(committed.cells, found.notebook.cells):
        old.id = new.id
    return compare(found, committed), found.failures


def test_another_output_is_found():
    assert compared([cell(out="1")], [cell(out="1")]) == ((1, 1), [])
    assert compared([cell(out="1")], [cell(out="2")])[1]
    assert compared([cell(out="1")], [cell()])[1]
    assert compared([cell("a", out="1")], [cell("b", out="1")])[1]


def test_a_cell_that_varies_must_assert():
    assert compared([cell("assert x", ["varies"], "1")] + [cell(out="1")] * 4, [cell("assert x", ["varies"], "2")] + [cell(out="1")] * 4) == ((4, 5), [])
    assert compared([cell("x", ["varies"], "1")] + [cell(out="1")] * 4, [cell("x", ["varies"], "2")] + [cell(out="1")] * 4)[1]


def test_too_few_compared_cells_fail():
    varying = [cell("assert x", ["varies"], "1")]
    assert compared(varying + [cell(out="1")], varying + [cell(out="1")])[1]


def test_noise_is_no_difference():
    assert normal("\x1b[31mthread 'main' (12) panicked") == normal("thread 'main' (9) panicked")
    assert normal("panicked at src/lib.rs:16:10:") == normal("panicked at src/lib.rs:12:10:")
    assert normal("#Function<41.3316493/2 in :erl_eval>") == normal("#Function<42.1/2 in :erl_eval>") != normal("#Function<42.1/1 in :erl_eval>")
    assert normal("a b") != normal("a c")


def test_values_across_languages_and_seeds():
    def of(language, value, kind="seeded"):
        return Result("a", language, None, {(kind, "k"): value})

    assert across_languages([of("go", "1"), of("rust", "1")]) == ([], 1)
    assert across_languages([of("go", "1"), of("rust", "2")])[0]
    assert across_languages([of("go", "1"), Result("a", "rust", None)])[0]
    assert across_seeds(of("go", "1"), of("go", "2")) == ([], 1)
    assert across_seeds(of("go", "1"), of("go", "1"))[0]
    assert across_seeds(of("go", "1", "same"), of("go", "1", "same")) == ([], 0)
