"""The daily run: which notebooks are due, and what an image must say."""

import json
import subprocess
import sys

import nbformat
import pytest
from laboratory import ci, inputs, lessons
from laboratory.execute import Result
from laboratory.images import without_words
from laboratory.lessons import all_lessons
from laboratory.places import HOME
from laboratory.tally import Tally
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output


def found(record):
    tally = Tally()
    return list(ci.candidates(all_lessons("00-start"), record, tally)), tally


def test_a_notebook_is_due_until_this_very_one_is_proven():
    (candidate,), tally = found({})
    assert candidate.proven is None and not tally.failures
    (again,), _ = found({candidate.name: {"digest": candidate.digest, "day": "2026-01-02"}})
    assert again.proven == "2026-01-02"
    (other,), _ = found({candidate.name: {"digest": "of another notebook", "day": "2026-01-02"}})
    assert other.proven is None


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A lesson in two languages in a project of its own."""
    for name, text in {
        "Cargo.lock": "",
        "Cargo.toml": '[workspace.dependencies]\nbelow = { path = "crates/below" }\n',
        "crates/used/Cargo.toml": '[dependencies]\nbelow.workspace = true\nhex = "1"\nnear = { path = "../near" }\n[dev-dependencies]\nonly-tests = { path = "../only-tests" }\n',
        "crates/used/src/deep/a.rs": "",
        "crates/used/target/made": "",
        "crates/below/Cargo.toml": "",
        "crates/below/src/lib.rs": "",
        "crates/near/Cargo.toml": "",
        "crates/near/src/lib.rs": "",
        "crates/other/src/lib.rs": "",
        "crates/only-tests/Cargo.toml": "",
        "vectors/chain.json": "",
        "kernels/go/kernel.py": "",
        "requirements.lock": "",
        "note/part/shared.py": "",
        "note/part/a/recording.json": "",
        "note/part/a/__pycache__/made.pyc": "",
        "note/part/a/python.ipynb": "",
        "note/part/a/rust.ipynb": "",
        "note/part/a/lesson.myst": '# A\n```{code-cell} python\n1\n```\n```{code-cell} rust\n:dep used = { path = "../../../crates/used", features = ["x"] }\n```\n```{solution} python x\n1\n```\n',
        "note/part/b/other.json": "",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name, path in (("LOCK", "requirements.lock"), ("KERNELS", "kernels"), ("VECTORS", "vectors")):
        monkeypatch.setattr(inputs, name, tmp_path / path)
    return tmp_path


def digests(project):
    lesson = lessons.load(project / "note/part/a")
    return {language: inputs.common() + inputs.inputs(lesson, language) for language in lesson.languages}


@pytest.mark.parametrize(
    ("file", "languages"),
    [
        ("requirements.lock", {"python", "rust"}),
        ("kernels/go/kernel.py", {"python", "rust"}),
        ("vectors/chain.json", {"python", "rust"}),
        ("note/part/shared.py", {"python", "rust"}),
        ("note/part/a/recording.json", {"python", "rust"}),
        ("note/part/a/python.ipynb", {"python"}),
        ("crates/used/src/deep/a.rs", {"rust"}),
        ("crates/below/src/lib.rs", {"rust"}),
        ("crates/near/src/lib.rs", {"rust"}),
        ("crates/only-tests/Cargo.toml", set()),
        ("crates/other/src/lib.rs", set()),
        ("crates/used/target/made", set()),
        ("note/part/a/__pycache__/made.pyc", set()),
        ("note/part/b/other.json", set()),
    ],
)
def test_a_notebook_is_due_when_what_it_depends_on_has_changed(project, file, languages):
    before = digests(project)
    (project / file).write_text("# changed")
    after = digests(project)
    assert {language for language in before if before[language] != after[language]} == languages


def test_the_lessons_crates_are_found():
    (lesson,) = all_lessons("chain/01")
    assert "lib.rs" in {path.name for path in inputs.crates(lesson)}


def test_a_notebook_that_is_not_what_its_source_says_is_a_failure():
    (lesson,) = all_lessons("00-start")
    lesson.text = lesson.text.replace("```{code-cell} python\n", "```{code-cell} python\nextra = 1\n", 1)
    tally = Tally()
    assert list(ci.candidates([lesson], {}, tally)) == []
    assert "not what its source says" in tally.failures[0]


@pytest.mark.parametrize(("failures", "skipped", "disagree", "proven"), [([], [], set(), True), (["x"], [], set(), False), ([], ["x"], set(), False), ([], [], {"00-start"}, False)])
def test_proven_is_only_what_came_out_again_whole(failures, skipped, disagree, proven):
    (candidate,), _ = found({})
    result = Result("00-start", "python", None, failures=failures, skipped=skipped)
    verdict = ci.verdicts([(candidate, result)], disagree)[candidate.name]
    assert (verdict or {}).get("digest") == (candidate.digest if proven else None)


def test_runs_at_the_same_time_keep_all_that_they_found(tmp_path, monkeypatch):
    monkeypatch.setattr(ci, "RECORD", tmp_path / "proven.json")
    monkeypatch.setattr(ci, "RECORD_MAX", 10_000)
    ci.keep({"due": {"day": "2026-01-01"}, "kept": {"day": "2026-01-01"}})
    enter = "import sys; from pathlib import Path; from laboratory import ci; ci.RECORD = Path(sys.argv[1])\nfor number in range(50): ci.keep({'due': None, f'{sys.argv[2]}/{number}': {'day': '2026-01-02'}})"
    runs = [subprocess.Popen([sys.executable, "-c", enter, str(ci.RECORD), str(run)], cwd=HOME) for run in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    assert set(ci.proofs()) == {"kept"} | {f"{run}/{number}" for run in range(3) for number in range(50)}
    assert {path.name for path in tmp_path.iterdir()} == {"proven.json", "proven.lock"}


def test_a_notebook_that_failed_did_not_pass(capsys):
    tally = Tally()
    tally.take(Result("a", "python", None, checks=3))
    tally.take(Result("b", "python", None, checks=2, failures=["b (python): x"]))
    assert tally.close() == 1
    assert "laboratory: 2 tests run: 1 passed, 1 failed" in capsys.readouterr().out


def test_a_record_that_cannot_be_read_is_no_proof(tmp_path, monkeypatch):
    monkeypatch.setattr(ci, "RECORD", tmp_path / "proven.json")
    assert ci.proofs() == {}
    for text in ("", "[]", '{"a": 1}', "\0"):
        ci.RECORD.write_text(text)
        assert ci.proofs() == {}
    ci.keep({"a": {"digest": "1", "day": "2026-01-01"}})
    assert json.loads(ci.RECORD.read_text()) == ci.proofs() == {"a": {"digest": "1", "day": "2026-01-01"}}


@pytest.mark.parametrize(
    ("mime", "data", "metadata", "silent"),
    [
        ("image/svg+xml", "<svg><rect/></svg>", {}, True),
        ("image/svg+xml", '<svg aria-label="a curve"><rect/></svg>', {}, False),
        ("text/html", "<svg><title>a curve</title></svg>", {}, False),
        ("text/html", '<img src="a.png">', {}, True),
        ("text/html", '<img src="a.png" alt="a tree">', {}, False),
        ("image/png", "AAAA", {}, True),
        ("image/png", "AAAA", {"image/png": {"alt": "a tree"}}, False),
        ("text/plain", "<svg", {}, False),
    ],
)
def test_images_say_what_they_show(mime, data, metadata, silent):
    cell = new_code_cell("draw()", outputs=[new_output("display_data", {mime: data}, metadata=metadata)])
    assert (without_words(new_notebook(cells=[cell])) is not None) == silent


def test_markdown_images_need_words():
    assert without_words(new_notebook(cells=[new_markdown_cell("![ ](a.svg)")])) is not None
    assert without_words(new_notebook(cells=[new_markdown_cell("![a tree](a.svg)")])) is None
    assert nbformat.validate(new_notebook()) is None
