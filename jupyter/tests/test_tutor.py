"""The tutor: its ladder, what it would send, what it sends, and `%%tutor` in all four kernels."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import StreamRequestHandler, TCPServer

import pytest
from laboratory.kernel import Kernel
from laboratory.lessons import all_lessons
from laboratory.places import KERNEL_NAMES, LANGUAGES
from laboratory.tutor import Tutor
from tutored import Tutored

LESSON = """# A lesson

```{code-cell} python
:tags: [exercise:sum]
def add(a, b): return 0
```
```{code-cell} go
:tags: [exercise:sum]
func add(a, b int) int { return 0 }
```
```{hint} A hint
Add.
```
```{hint} A further hint
Both.
```
```{code-cell} python
:tags: [check:sum]
assert add(1, 2) == 3, "one and two"
```
```{code-cell} go
:tags: [check:sum]
%%
if add(1, 2) != 3 { panic("no") }
```
"""
CHECK = 'assert add(1, 2) == 3, "one and two"'


@pytest.fixture
def tutor(tmp_path):
    (tmp_path / "lesson.myst").write_text(LESSON)
    return lambda **environment: Tutor("python", tmp_path, environment)


def test_the_ladder_belongs_to_the_check_that_failed(tutor):
    tutor = tutor()
    assert tutor.asked("print(1)") is None
    assert "No check has failed yet" in tutor.asked("%%tutor")
    tutor.saw("def add(a, b): return 0", None)
    tutor.saw(CHECK, "AssertionError: one and two")
    first = tutor.asked("%%tutor")
    assert "one and two" in first and "Add." in first and "1 of 2" in first
    assert "Both." in tutor.asked("%%tutor")
    assert "no further hints" in tutor.asked("%%tutor")
    tutor.saw(CHECK, None)
    assert "No check has failed yet" in tutor.asked("%%tutor")
    assert "Add." in tutor.asked("%%tutor sum")


def test_a_panic_is_told_by_what_failed_and_not_by_where(tutor):
    tutor = tutor()
    tutor.saw(CHECK, "\nthread '<unnamed>' (20986) panicked at src/lib.rs:11:1:\nassertion `left == right` failed\n  left: (0, 1)")
    said = tutor.asked("%%tutor").splitlines()[0]
    assert "assertion `left == right` failed" in said and "panicked" not in said
    assert "no exercise “other”" in tutor.asked("%%tutor other")


def test_nothing_is_sent_before_it_was_shown_and_then_exactly_that(tutor):
    seen = []

    class Stub(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append((self.path, self.headers.get("Authorization"), json.loads(body)))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"choices": [{"message": {"content": "What is one and two?"}}]}).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Stub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        tutor = tutor(LAB_TUTOR_URL=f"http://127.0.0.1:{server.server_port}", LAB_TUTOR_KEY="k", LAB_TUTOR_MODEL="m")
        assert "nothing to send" in tutor.asked("%%tutor send")
        tutor.saw("def add(a, b): return 0", None)
        tutor.saw(CHECK, "AssertionError: one and two")
        shown = tutor.asked("%%tutor\nWhy three?")
        assert seen == [] and "Why three?" in shown
        assert tutor.asked("%%tutor send") == "What is one and two?"
        ((path, key, body),) = seen
        assert path == "/v1/chat/completions" and key == "Bearer k" and body["model"] == "m"
        assert json.loads(shown.split("```json\n")[1].split("\n```")[0]) == body
        assert "def add(a, b): return 0" in body["messages"][1]["content"] and "Never write the solution" in body["messages"][0]["content"]
        assert "nothing to send" in tutor.asked("%%tutor send")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "file:///etc", "http://127.0.0.1:port", "http://127.0.0.1:9/a b"])
def test_an_endpoint_that_fails_leaves_the_hints(tutor, url):
    tutor = tutor(LAB_TUTOR_URL=url)
    tutor.saw(CHECK, "AssertionError: one and two")
    tutor.asked("%%tutor")
    answer = tutor.asked("%%tutor send")
    assert "did not answer" in answer and "Add." in answer


@pytest.mark.parametrize("answered", [b"no HTTP at all\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 60_000])
def test_an_answer_that_is_none_leaves_the_hints(tutor, answered):
    class Stub(StreamRequestHandler):
        def handle(self):
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            self.wfile.write(answered)

    with TCPServer(("127.0.0.1", 0), Stub) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        tutor = tutor(LAB_TUTOR_URL=f"http://127.0.0.1:{server.server_address[1]}")
        tutor.saw(CHECK, "AssertionError: one and two")
        tutor.asked("%%tutor")
        answer = tutor.asked("%%tutor send")
        thread.join()
    assert "did not answer" in answer and "Add." in answer


def test_a_check_that_has_passed_meanwhile_leaves_no_hints(tutor):
    tutor = tutor(LAB_TUTOR_URL="http://127.0.0.1:9")
    tutor.saw(CHECK, "AssertionError: one and two")
    tutor.asked("%%tutor")
    tutor.saw(CHECK, None)
    answer = tutor.asked("%%tutor send")
    assert "did not answer" in answer and "passed" in answer and "Add." not in answer


def test_a_tutor_that_fails_is_an_answer():
    class Broken(Tutored):
        @property
        def tutor(self):
            raise OSError("no lesson")

    assert "OSError: no lesson" in Broken().asked("%%tutor")
    assert Broken().asked("1 + 1") is None


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_kernel_has_the_tutor(language):
    (lesson,) = all_lessons("crypto/01")
    exercise = next(cell for cell in lesson.notebook(language).cells if any(tag.startswith("check:") for tag in cell.metadata.get("tags", [])))
    hints = Tutor(language, lesson.folder).exercises[0].hints
    with Kernel(KERNEL_NAMES[language], lesson.folder) as kernel:
        (before,) = kernel.run("%%tutor")
        assert "No check has failed yet" in before.data["text/markdown"]
        kernel.run(exercise.source)  # nothing is defined: it fails
        (after,) = kernel.run("%%tutor")
        assert hints[0][1] in after.data["text/markdown"]


def test_an_exercise_and_its_check_may_be_one_cell(tmp_path):
    one_cell = "```{code-cell} python\n:tags: [exercise:two, check:two]\ndef two(): return 0\n# check\nassert two() == 2\n```\n```{hint} Hint\nOne more than 1.\n```\n"
    (tmp_path / "lesson.myst").write_text("# A lesson\n\n" + one_cell)
    tutor = Tutor("python", tmp_path, {"LAB_TUTOR_URL": "http://127.0.0.1:9"})
    # The reader has changed what is above the line.
    tutor.saw("def two(): return 1\n# check\nassert two() == 2", "AssertionError")
    assert "One more than 1." in tutor.hint()
    shown = tutor.asked("%%tutor")
    assert "def two(): return 1" in shown and "assert two() == 2" in shown
    tutor.saw("def two(): return 2\n# check\nassert two() == 2", None)
    assert tutor.failed is None
