"""Executes a lesson's notebook and judges every cell; afterwards runs the solutions in the same kernel."""

import copy
import os
from dataclasses import dataclass, field

from .kernel import Kernel, KernelFailed
from .lessons import solved, tagged, tags

SKIPPED = "skipped: "


@dataclass
class Result:
    lesson: str
    language: str
    notebook: object
    values: dict = field(default_factory=dict)  # (kind, key) -> text
    failures: list = field(default_factory=list)
    skipped: list = field(default_factory=list)
    checks: int = 0

    def check(self, holds, text):
        self.checks += 1
        if not holds:
            self.failures.append(f"{self.lesson} ({self.language}): {text}")


def printed(cell, name="stdout"):
    return "".join(output.text for output in cell.get("outputs", []) if output.output_type == "stream" and output.name == name)


def error_of(cell, language):
    """Why a cell failed, or None. evcxr calls a panic, a failed assertion and `?` on an error a success: what it prints to
    standard error tells."""
    for output in cell.get("outputs", []):
        if output.output_type == "error":
            return f"{output.ename}: {output.evalue}"
    if language == "rust" and "stderr-ok" not in tags(cell):
        return printed(cell, "stderr") or None
    return None


def execute(lesson, language, seed):
    """The executed notebook with what was found. Raises nothing that a cell does."""
    book = lesson.notebook(language)
    result = Result(lesson.name, language, book)
    previous = os.environ.get("LAB_SEED")
    os.environ["LAB_SEED"] = seed
    try:
        with Kernel(book.metadata["kernelspec"]["name"], lesson.folder) as kernel:
            for cell in book.cells:
                if cell.cell_type == "code":
                    cell.outputs = kernel.run(cell.source)
                    judge(result, cell)
            solve(lesson, kernel, result)
    except KernelFailed as error:
        result.check(False, str(error))
    finally:
        if previous is None:
            del os.environ["LAB_SEED"]
        else:
            os.environ["LAB_SEED"] = previous
    tidy(book)
    return result


def judge(result, cell):
    error, where = error_of(cell, result.language), first_line(cell)
    if "fails" in tags(cell):
        return result.check(error is not None, f"a cell that must fail did not: {where}")
    if tagged(cell, "check"):
        return result.check(error is not None, f"exercise {tagged(cell, 'check')} passes unsolved")
    result.check(error is None, f"{where}: {error}")
    # What a cell could not do on this machine it says itself.
    result.skipped += [f"{result.lesson}/{result.language}: {line.removeprefix(SKIPPED)}" for line in printed(cell).splitlines() if line.startswith(SKIPPED)]
    for kind in ("same", "seeded"):
        if key := tagged(cell, kind):
            result.values[kind, key] = printed(cell).strip()
            result.check(result.values[kind, key] != "", f"{kind}:{key} prints nothing")
    return None


def first_line(cell):
    lines = [line for line in cell.source.splitlines() if line.strip() and not line.startswith("%%")]
    return lines[0] if lines else "empty cell"


def solve(lesson, kernel, result):
    """Each exercise has a solution, and its check passes with it."""
    for cell in result.notebook.cells:
        name = tagged(cell, "check")
        if name is None:
            continue
        code = lesson.solutions.get((result.language, name))
        result.check(code is not None, f"exercise {name} has no solution")
        for source in solved(cell, code) if code is not None else ():
            error = error_of({"outputs": kernel.run(source), "metadata": {}}, result.language)
            result.check(error is None, f"the solution of {name} fails: {error}")


def tidy(book):
    """Nothing that differs from run to run and says nothing: times, the language's patch version."""
    for count, cell in enumerate((each for each in book.cells if each.cell_type == "code"), 1):
        cell.metadata.pop("execution", None)
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output["execution_count"] = count
        cell.outputs = merge_streams(cell.outputs)
    book.metadata.pop("language_info", None)


def merge_streams(outputs):
    """Text of one stream arrives in pieces of any size."""
    merged = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last is not None and output.output_type == "stream" and last.output_type == "stream" and last.name == output.name:
            last.text += output.text
        else:
            merged.append(copy.deepcopy(output))
    return merged
