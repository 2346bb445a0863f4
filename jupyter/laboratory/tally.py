"""What a run has seen, and its last lines."""

import os

import nbformat

from .compare import compare
from .images import without_words

FIRST_SEED = "1"


class Tally:
    def __init__(self):
        self.notebooks = self.compared = self.with_output = self.checks = self.tests = 0
        self.failures, self.skipped, self.failed_notebooks = [], [], 0

    def add(self, failures, checks):
        self.failures += failures
        self.checks += checks

    def take(self, result):
        """An executed notebook."""
        self.notebooks += 1
        self.failed_notebooks += bool(result.failures)
        self.add(result.failures, result.checks)
        self.skipped += result.skipped

    def last_line(self):
        skipped = f", {len(self.skipped)} SKIPPED ({', '.join(self.skipped)})" if self.skipped else ""
        verdict = "FAILED" if self.failures else "ok"
        return (
            f"{verdict}: {self.notebooks} notebooks executed, {self.compared} of {self.with_output} output cells compared, "
            f"{self.checks} checks, {self.tests} tests of kernels and tools, {len(self.failures)} failed{skipped}"
        )

    def close(self):
        """Prints what failed and the last lines; the exit status. What was skipped in CI has failed: its machine can run all."""
        if os.environ.get("CI") == "true":
            self.failures += [f"skipped in CI: {each}" for each in self.skipped]
        for failure in self.failures:
            print("FAILED  " + failure)
        passed = self.notebooks - self.failed_notebooks + self.tests
        print(f"laboratory: {passed + len(self.failures)} tests run: {passed} passed, {len(self.failures)} failed")
        print(self.last_line())
        return 1 if self.failures else 0


def check_committed(result, lesson, tally):
    path = lesson.notebook_path(result.language)
    result.check(path.exists(), "the notebook is not there: run `lab write`")
    if path.exists():
        committed = nbformat.read(path, as_version=4)
        silent = without_words(committed)
        result.check(silent is None, silent)
        compared, with_output = compare(result, committed)
        tally.compared += compared
        tally.with_output += with_output
    tally.take(result)
