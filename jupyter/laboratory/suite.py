"""`lab test` and `lab write`."""

import os
import re
import subprocess
import sys

import nbformat

from .ci import sampled
from .compare import across_languages, across_seeds
from .curriculum import curriculum
from .execute import execute
from .lessons import all_lessons
from .places import HOME, LANGUAGES, evcxr
from .tally import FIRST_SEED, Tally, check_committed

OTHER_SEED = "2"


def suite(chosen):
    tally = Tally()
    if getattr(chosen, "ci", False):
        tally.add(*curriculum())
        sampled(tally)
        run_tests(tally)
        return tally.close()
    languages = tuple(chosen.language or LANGUAGES)
    lessons = all_lessons(chosen.lesson)
    if not lessons:
        tally.failures.append(f"no lesson's path contains {chosen.lesson!r}")
    for lesson in lessons:
        first = run_lesson(lesson, languages, FIRST_SEED, tally)
        for result in first:
            keep(result, lesson, tally) if chosen.command == "write" else check_committed(result, lesson, tally)
        if chosen.all and chosen.command == "test":
            second_seed(lesson, first, languages, tally)
    if chosen.command == "test" and not chosen.lesson:
        tally.add(*curriculum())
    if chosen.all and chosen.command == "test":
        run_tests(tally)
    return tally.close()


def run_tests(tally, folder=HOME / "tests", env=None, options=()):
    """The tests of the kernels, the language servers and these tools. A test of ours that is skipped is counted with its reason;
    what `jupyter_kernel_test` skips has no meaning for that kernel."""
    argv = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *options, str(folder)]
    made = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=HOME, env=env)
    lines = made.stdout.strip().splitlines()
    for line in lines:
        if line.startswith(("FAILED", "SUBFAILED", "SKIPPED", "ERROR", "E   ")):
            print("        " + line)
        if ours := re.match(rf"SKIPPED \[\d+\] {folder.name}/\S+ (.*)", line):
            tally.skipped.append(ours[1])
    passed = re.search(r"(\d+) passed", lines[-1] if lines else "")
    tally.tests += int(passed[1]) if passed else 0
    if made.returncode:
        tally.failures.append(f"tests: {lines[-1] if lines else made.stderr[-500:]}")


def run_lesson(lesson, languages, seed, tally):
    results = []
    # Rust first: it takes the longest.
    for language in sorted(set(languages) & set(lesson.languages), key=lambda each: each != "rust"):
        if language == "rust" and not evcxr().exists():
            # Counted as skipped, never as passed.
            tally.skipped.append(f"{lesson.name}/rust: no evcxr")
            continue
        result = execute(lesson, language, seed)
        print(f"{'FAILED' if result.failures else 'ok    '}  {lesson.name} {language}, seed {seed}: {result.checks} checks", flush=True)
        for failure in result.failures:
            print("        " + failure.split(": ", 1)[1], flush=True)
        results.append(result)
    tally.add(*across_languages(results) if results else ([], 0))
    return results


def keep(result, lesson, tally):
    tally.take(result)
    if not result.failures:
        nbformat.write(result.notebook, lesson.notebook_path(result.language))


def second_seed(lesson, first, languages, tally):
    if not any(kind == "seeded" for result in first for kind, _ in result.values):
        return
    second = {result.language: result for result in run_lesson(lesson, languages, OTHER_SEED, tally)}
    for result in first:
        other = second[result.language]
        tally.take(other)
        tally.add(*across_seeds(result, other))
