"""`%%tutor` in every kernel: a ladder of hints for the check that failed last, one step a call, without any network.

With `LAB_TUTOR_URL` set (an OpenAI-compatible endpoint; off by default) the tutor asks the reader a question about the error instead. What would be
sent is shown first; `%%tutor send` sends exactly that, once. Nothing else ever leaves the machine. The standard library only: it runs in every kernel.
"""

import http.client
import json
import os
import re
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

FENCE = re.compile(r"^```\{(?P<kind>code-cell|hint)\}(?P<words>[^\n]*)\n(?P<body>.*?)^```", re.M | re.S)
# An exercise and its check may be one cell, with this line between what is the reader's and the check.
CHECK_LINE = re.compile(r"^(?:#|//) check$", re.M)
TAGS = re.compile(r":tags: \[(?P<tags>[^\]]*)\]\n")
# What is sent of each text, characters; what is read of an answer, bytes; how long it may take, seconds.
TEXT_MAX, ANSWER_BYTES_MAX, ANSWER_SECONDS_MAX = 4000, 1 << 16, 60
PART = "You are a patient tutor of programming. The reader works on an exercise and its check fails. Explain in plain words what the error message says and ask one question that leads to the next step. Never write the solution or code that could be pasted."


@dataclass
class Exercise:
    name: str
    check: str = ""
    hints: list = field(default_factory=list)


def exercises(text, language):
    """The exercises of a lesson's source in this language: the hints between an exercise and its check are its ladder."""
    found, current = {}, None
    for match in FENCE.finditer(text):
        if match["kind"] == "hint":
            if current is not None:
                current.hints.append((match["words"].strip(), match["body"].strip()))
            continue
        words, body = match["words"].split(), match["body"]
        tagged = TAGS.match(body)
        names = dict(tag.strip().split(":", 1) for tag in tagged["tags"].split(",") if ":" in tag) if tagged else {}
        name = names.get("exercise") or names.get("check")
        if name is None:
            continue
        # Hints stand once, after the last language's cell: they belong to all.
        current = found.setdefault(name, Exercise(name))
        if "check" in names and words[:1] == [language]:
            current.check = parts(body[tagged.end() :])[1]
    return [each for each in found.values() if each.check]


def parts(code):
    """(the reader's part of a cell, its check)."""
    line = CHECK_LINE.search(code)
    return (code[: line.start()].strip(), code[line.end() :].strip()) if line else ("", code.strip())


class Tutor:
    """One kernel's memory of what failed."""

    def __init__(self, language, folder=None, environment=os.environ):
        self.language, self.environment = language, environment
        source = Path(folder or ".") / "lesson.myst"
        self.exercises = exercises(source.read_text(), language) if source.exists() else []
        self.failed, self.error, self.attempt, self.before, self.step, self.pending = None, "", "", "", 0, None

    def saw(self, code, error):
        """A cell has run; `error` is None if it passed."""
        attempt, check = parts(code)
        exercise = next((each for each in self.exercises if each.check == check), None)
        if exercise is None:
            self.before = code
            return
        if error is None:
            self.failed = None if self.failed is exercise else self.failed
            return
        if self.failed is not exercise:
            self.failed, self.step = exercise, 0
        self.error, self.attempt = error, attempt or self.before

    def asked(self, code):
        """The answer to a `%%tutor` cell in Markdown; None for any other cell."""
        first, _, question = code.lstrip().partition("\n")
        words = first.split()
        if words[:1] != ["%%tutor"]:
            return None
        if words[1:2] == ["send"]:
            return self.send()
        if len(words) > 1:
            chosen = next((each for each in self.exercises if each.name == words[1]), None)
            if chosen is None:
                return self.names(f"There is no exercise “{words[1]}”.")
            if self.failed is not chosen:
                self.failed, self.error, self.attempt, self.step = chosen, "", self.before, 0
        if self.failed is None:
            return self.names("No check has failed yet. Run the check of an exercise, then ask again.")
        if self.environment.get("LAB_TUTOR_URL"):
            return self.show(question.strip())
        return self.hint()

    def names(self, text):
        names = ", ".join(f"`{each.name}`" for each in self.exercises) or "none"
        return f"{text} Exercises of this notebook: {names}."

    def hint(self):
        hints = self.failed.hints
        # A panic in Rust says first where, and only then what.
        lines = [line for line in self.error.strip().splitlines() if not re.match(r"thread '.*' .*panicked at ", line)]
        said = f"The check of “{self.failed.name}” says: `{lines[0].strip()}`\n\n" if lines else ""
        if self.step >= len(hints):
            return said + "There are no further hints: the solution is folded below the exercise. Read it, close it, write it yourself."
        title, text = hints[self.step]
        self.step += 1
        more = f"{len(hints) - self.step} more: ask again." if self.step < len(hints) else "That was the last one."
        return f"{said}**{title}** ({self.step} of {len(hints)})\n\n{text}\n\n{more}"

    def show(self, question):
        parts = {"Check": self.failed.check, "Error": self.error, "Attempt": self.attempt, "Question": question}
        content = "\n\n".join(f"{name} ({self.language}):\n{text.strip()[:TEXT_MAX]}" for name, text in parts.items() if text.strip())
        model = self.environment.get("LAB_TUTOR_MODEL", "default")
        self.pending = {"model": model, "messages": [{"role": "system", "content": PART}, {"role": "user", "content": content}]}
        text = json.dumps(self.pending, indent=1, ensure_ascii=False)
        return f"This would be sent to `{self.environment['LAB_TUTOR_URL']}`, and nothing else:\n\n```json\n{text}\n```\n\nTo send it, run `%%tutor send`."

    def send(self):
        if self.pending is None:
            return "There is nothing to send: `%%tutor` shows first what would be sent."
        body, self.pending = self.pending, None
        try:
            return self.post(body)
        except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
            reason = getattr(error, "reason", None) or error
            # The check may have passed since the question was shown.
            without = f"Without it:\n\n{self.hint()}" if self.failed else "The check has passed meanwhile."
            return f"The tutor did not answer ({type(error).__name__}: {reason}). {without}"

    def post(self, body):
        headers = {"Content-Type": "application/json"}
        if key := self.environment.get("LAB_TUTOR_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        url = self.environment["LAB_TUTOR_URL"].rstrip("/") + "/v1/chat/completions"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS_MAX) as answer:
            text = json.loads(answer.read(ANSWER_BYTES_MAX))["choices"][0]["message"]["content"]
        if not isinstance(text, str):
            raise ValueError("the answer is no text")
        return text


def load_ipython_extension(shell):
    """The Python kernel's `%%tutor`."""
    from IPython.core.magic import register_line_cell_magic
    from IPython.display import Markdown, display

    tutor = Tutor("python")

    def after(result):
        error = result.error_before_exec or result.error_in_exec
        code = result.info.raw_cell
        if not code.lstrip().startswith("%%tutor"):
            tutor.saw(code, None if error is None else f"{type(error).__name__}: {error}")

    def answer(line, cell=""):
        display(Markdown(tutor.asked(f"%%tutor {line}\n{cell or ''}")))

    answer.__name__ = "tutor"
    register_line_cell_magic(answer)
    shell.input_transformers_cleanup.append(lonely)
    shell.events.register("post_run_cell", after)


def lonely(lines):
    """A cell magic wants a body: `%%tutor` alone gets an empty one."""
    if lines and lines[0].startswith("%%tutor") and len(lines) == 1:
        return [lines[0].rstrip("\n") + "\n", "\n"]
    return lines
