"""`lab html`: the lessons as a site, from the committed outputs; nothing is executed and nothing comes from a CDN."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from .lessons import DISPLAY, all_lessons

CONFIG = """
project = "ebpf-blockchain: the laboratory"
copyright = "the ebpf-blockchain authors"
extensions = ["myst_nb"]
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["lab.css"]
html_title = "ebpf-blockchain: the laboratory"
nb_execution_mode = "off"
# Errors are a compiler's or a shell's as often as Python's: read as a Python traceback, their every other sign would be marked as wrong.
nb_render_error_lexer = "text"
html_show_sphinx = False
# Widgets and formulas would load scripts from elsewhere; no lesson uses them.
nb_ipywidgets_js = {}
suppress_warnings = ["misc.highlighting_failure"]
"""
# The path of `00-start`: each step and what its lessons' names begin with.
STEPS = {
    "Start": ("00-start",),
    "1. Foundation": ("patterns/", "syntax/python/", "syntax/go/", "syntax/elixir/", "system/memory-", "system/storage-"),
    "2. Cryptography": ("crypto/",),
    "3. Rust": ("syntax/rust/",),
    "4. eBPF": ("system/ebpf-",),
    "5. The chain": ("system/p2p-", "system/bft-", "chain/", "system/ops-"),
}
# Drawings are made for paper: their dark is all that a dark page has.
STYLE = ".cell_output img, .cell_output svg { background: #fff; padding: 0.5rem; }\n"
# What a page would load from another host. Links that a reader follows are none.
FOREIGN = re.compile(r"""<(?:script|img|iframe)[^>]+src=["'](?:https?:)?//[^>]*>|<link[^>]+rel=["'](?:stylesheet|preload|preconnect)["'][^>]+href=["'](?:https?:)?//[^>]*>""")


def build(output):
    """0 if the site was made without a warning and loads nothing from elsewhere."""
    output = Path(output).resolve()
    with tempfile.TemporaryDirectory(prefix="lab-html-") as folder:
        source = Path(folder)
        (source / "conf.py").write_text(CONFIG)
        (source / "static").mkdir()
        (source / "static" / "lab.css").write_text(STYLE)
        (source / "index.md").write_text(collect(source))
        made = subprocess.run([sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(source), str(output)], check=False)
    foreign = [f"{page.name}: {found}" for page in sorted(output.rglob("*.html")) for found in FOREIGN.findall(page.read_text())]
    for each in foreign:
        print("lab: loads from elsewhere: " + each)
    if made.returncode or foreign:
        return 1
    print(f"lab: {len(list(output.rglob('*.html')))} pages in {output}")
    return 0


def collect(source):
    """Copies the notebooks; the index links each lesson in each language, step by step."""
    lines, lessons = ["# The laboratory", "", "One lesson, four languages; every output was executed and compared.", ""], all_lessons()
    left = {lesson.name for lesson in lessons}
    for step, starts in STEPS.items():
        lines += [f"## {step}", ""]
        first_pages = []
        for start in starts:
            for lesson in (each for each in lessons if each.name.startswith(start)):
                left.discard(lesson.name)
                pages = {language: f"{lesson.name.replace('/', '-')}-{language}" for language in lesson.languages if lesson.notebook_path(language).exists()}
                for language, page in pages.items():
                    (source / f"{page}.ipynb").write_text(json.dumps(paged(lesson.notebook_path(language), language, pages)))
                lines.append(entry(lesson.title, pages))
                first_pages += list(pages.values())[:1]
        lines += ["", toctree(first_pages, step), ""]
    if left:
        sys.exit(f"lab: in no step of the path: {', '.join(sorted(left))}")
    return "\n".join(lines)


def entry(title, pages):
    """A line of the index: a lesson in one language is its own link."""
    if len(pages) == 1:
        return f"- [**{title}**]({next(iter(pages.values()))})"
    return f"- **{title}**: " + " · ".join(f"[{DISPLAY[language]}]({page})" for language, page in pages.items())


def toctree(entries, caption=""):
    return "\n".join(["```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else []), "", *entries, "```"])


def paged(path, language, pages):
    """A notebook as a page: below its title the same lesson in the other languages, which the first one's page holds in the bar at the side."""
    book = json.loads(path.read_text())
    if len(pages) < 2:
        return book
    here = " · ".join(f"**{DISPLAY[each]}**" if each == language else f"[{DISPLAY[each]}]({page})" for each, page in pages.items())
    title, _, rest = "".join(book["cells"][0]["source"]).partition("\n")
    text = f"{title}\n\n{here}\n{rest}"
    if language == next(iter(pages)):
        text += "\n\n" + toctree([f"{DISPLAY[each]} <{page}>" for each, page in pages.items() if each != language])
    book["cells"][0]["source"] = text
    return book
