"""Are the outputs that are committed the ones that come out?"""

import re

from .lessons import tags

# At least so many cells with output must be compared, of a hundred.
COMPARED_PERCENT_MIN = 80
NOISE = [
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    # Rust: the thread's id, and the frames of a panic.
    (re.compile(r"thread '([^']*)' \(\d+\)"), r"thread '\1'"),
    # evcxr compiles a cell after what it carries over from earlier ones.
    (re.compile(r"src/lib\.rs:\d+:\d+"), "src/lib.rs:…"),
    (re.compile(r"^stack backtrace:\n(?:.*\n?)*", re.M), ""),
    (re.compile(r"0x[0-9a-f]{4,16}\b"), "0x…"),
    (re.compile(r"(?<=\+)0x[0-9a-f]+"), "0x…"),
    (re.compile(r"lab-go-\w+"), "lab-go"),
    (re.compile(r"#PID<[\d.]+>"), "#PID<…>"),
    # Elixir's functions without a name: a number of the build.
    (re.compile(r"#Function<[\d.]+/"), "#Function<…/"),
    (re.compile(r"#Reference<[\d.]+>"), "#Reference<…>"),
    (re.compile(r"(goroutine )\d+"), r"\1…"),
    # Python's traceback: the kernel's process number and the frames' decoration.
    (re.compile(r"ipykernel_\d+/\d+\.py"), "ipykernel"),
    (re.compile(r"^-+\n", re.M), ""),
]


def normal(text):
    for pattern, replacement in NOISE:
        text = pattern.sub(replacement, text)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def shape(cell):
    """A cell's outputs as comparable text."""
    found = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            found.append((output.name, normal(output.text)))
        elif output.output_type == "error":
            # Frames name files of the machine; the class and the message are the lesson.
            found.append(("error", normal(f"{output.ename}: {output.evalue}")))
        else:
            for mime, data in sorted(output.data.items()):
                found.append((mime, normal(data if isinstance(data, str) else "".join(data) if isinstance(data, list) else repr(data))))
    return found


def compare(result, committed):
    """(cells compared, cells with output); what differs is added to the result's failures."""
    new = [cell for cell in result.notebook.cells if cell.cell_type == "code"]
    old = [cell for cell in committed.cells if cell.cell_type == "code"]
    result.check([cell.source for cell in result.notebook.cells] == [cell.source for cell in committed.cells], "the notebook is not what its source says: run `lab write`")
    compared = with_output = 0
    for before, after in zip(old, new):
        if not after.outputs and not before.outputs:
            continue
        with_output += 1
        if "varies" in tags(after):
            result.check("assert" in after.source or "panic" in after.source or "raise" in after.source, f"a cell that varies asserts nothing: {after.source[:60]!r}")
            continue
        compared += 1
        result.check(shape(before) == shape(after), difference(before, after))
    if with_output:
        result.check(100 * compared >= COMPARED_PERCENT_MIN * with_output, f"only {compared} of {with_output} cells are compared")
    return compared, with_output


def difference(before, after):
    return f"another output of {after.source[:60]!r}:\n  committed {shape(before)!r:.700}\n  now       {shape(after)!r:.700}"


def across_languages(results):
    """Failures among the values of one lesson in all its languages."""
    failures, checks = [], 0
    for key in sorted({key for result in results for key in result.values}):
        values = {result.language: result.values.get(key) for result in results}
        checks += 1
        if len(set(values.values())) != 1:
            failures.append(f"{results[0].lesson}: languages differ in {':'.join(key)}: {values}")
    return failures, checks


def across_seeds(first, second):
    """A seeded value must move with the seed, else it is not computed at all."""
    failures, checks = [], 0
    for key, value in first.values.items():
        if key[0] == "seeded":
            checks += 1
            if second.values.get(key) == value:
                failures.append(f"{first.lesson} ({first.language}): {key[1]} is the same under another seed")
    return failures, checks


