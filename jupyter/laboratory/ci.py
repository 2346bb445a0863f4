"""`lab test --ci`: what a daily run can afford.

Every notebook is read: it is there, it is what its source says, enough of its outputs are compared, its images have words. Then notebooks are
executed, within a budget of time: first those that have changed since they were last proven on this machine, or never were, then the ones whose
proof is oldest, so that a run a day comes round to all. What the budget leaves for the next run is counted, never called passed.
`lab test --all` executes everything.
"""

import datetime
import fcntl
import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import nbformat

from .compare import across_languages
from .execute import execute
from .images import without_words
from .inputs import common, inputs
from .lessons import all_lessons
from .places import CACHE, evcxr
from .tally import FIRST_SEED, check_committed

# Of notebooks, seconds; the tests of kernels and servers come on top. No new notebook begins after it.
BUDGET_SECONDS = 200
# Notebooks at once: a cell mostly waits for one compiler.
WORKERS = 2
RECORD = CACHE / "proven.json"
RECORD_MAX = 4096


@dataclass
class Candidate:
    """One notebook of one lesson."""

    lesson: object
    language: str
    digest: str
    proven: str | None  # the day on which this very notebook last came out again

    @property
    def name(self):
        return f"{self.lesson.name}/{self.language}"


def sampled(tally):
    """Reads all notebooks, executes those that are due."""
    os.environ["LAB_SEED"] = FIRST_SEED
    record = proofs()
    found = list(candidates(all_lessons(), record, tally))
    due = sorted(found, key=lambda each: (each.proven or "", each.language != "rust", shuffled(each)))
    changed = sum(each.proven is None for each in found)
    deadline = time.monotonic() + BUDGET_SECONDS
    results = []

    def prove(candidate):
        if time.monotonic() > deadline:
            return
        result = execute(candidate.lesson, candidate.language, FIRST_SEED)
        results.append((candidate, result))

    with ThreadPoolExecutor(WORKERS) as workers:
        list(workers.map(prove, due))
    for candidate, result in results:
        check_committed(result, candidate.lesson, tally)
        verdict = "FAILED" if result.failures else "ok    "
        print(f"{verdict}  {candidate.name}: {result.checks} checks", flush=True)
    keep(verdicts(results, agreement(results, tally)))
    print(f"lab: {len(found)} notebooks read, {changed} of them not proven here before; {len(results)} executed, {len(found) - len(results)} left for later runs")


def candidates(lessons, record, tally):
    """Every notebook of this clone, read; one that is not what its source says is a failure and not executed."""
    shared = common()
    for lesson in lessons:
        for language in lesson.languages:
            if language == "rust" and not evcxr().exists():
                tally.skipped.append(f"{lesson.name}/rust: no evcxr")
                continue
            path = lesson.notebook_path(language)
            tally.checks += 1
            problem = unsound(lesson, language, path)
            if problem:
                tally.failures.append(f"{lesson.name} ({language}): {problem}")
                continue
            digest = hashlib.sha256(shared + inputs(lesson, language)).hexdigest()
            last = record.get(f"{lesson.name}/{language}", {})
            yield Candidate(lesson, language, digest, last.get("day") if last.get("digest") == digest else None)


def unsound(lesson, language, path):
    """What is wrong with a committed notebook, seen without running it."""
    if not path.exists():
        return "the notebook is not there: run `lab write`"
    committed = nbformat.read(path, as_version=4)
    if [cell.source for cell in committed.cells] != [cell.source for cell in lesson.notebook(language).cells]:
        return "the notebook is not what its source says: run `lab write`"
    return without_words(committed)


def agreement(results, tally):
    """Compares the values of lessons of which more than one language was executed; the names of those that disagree."""
    by_lesson, disagree = {}, set()
    for candidate, result in results:
        by_lesson.setdefault(candidate.lesson.name, []).append(result)
    for name, group in by_lesson.items():
        if len(group) > 1:
            failures, checks = across_languages(group)
            tally.add(failures, checks)
            disagree |= {name} if failures else set()
    return disagree


def verdicts(results, disagree):
    """Proven is what came out again whole, and in all languages alike; what did not is due again: None."""
    day = datetime.date.today().isoformat()
    return {
        candidate.name: None if result.failures or result.skipped or candidate.lesson.name in disagree else {"digest": candidate.digest, "day": day}
        for candidate, result in results
    }


def shuffled(candidate):
    """An order that moves on every day, for a machine that has no record."""
    return hashlib.sha256(f"{datetime.date.today()} {candidate.name}".encode()).digest()


def proofs():
    """What was proven on this machine; a record that can't be read is no proof."""
    try:
        record = json.loads(RECORD.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) and all(isinstance(each, dict) for each in record.values()) else {}


def keep(found):
    """Enters verdicts into the record. Another clone's run may do so at the same time."""
    with RECORD.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        record = {name: entry for name, entry in {**proofs(), **found}.items() if entry is not None}
        newest = sorted(record.items(), key=lambda item: item[1].get("day", ""))[-RECORD_MAX:]
        temporary = RECORD.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(dict(newest), indent=1, sort_keys=True) + "\n")
        temporary.replace(RECORD)
