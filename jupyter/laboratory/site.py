"""`lab html`: the lessons as a site, from the committed outputs; nothing is executed and nothing comes from a CDN."""

import re
import shutil
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
nb_execution_mode = "off"
html_show_sphinx = False
# Widgets and formulas would load scripts from elsewhere; no lesson uses them.
nb_ipywidgets_js = {}
suppress_warnings = ["misc.highlighting_failure"]
"""
# What a page would load from another host. Links that a reader follows are none.
FOREIGN = re.compile(r"""<(?:script|img|iframe)[^>]+src=["'](?:https?:)?//[^>]*>|<link[^>]+rel=["'](?:stylesheet|preload|preconnect)["'][^>]+href=["'](?:https?:)?//[^>]*>""")


def build(output):
    """0 if the site was made without a warning and loads nothing from elsewhere."""
    output = Path(output).resolve()
    with tempfile.TemporaryDirectory(prefix="lab-html-") as folder:
        source = Path(folder)
        (source / "conf.py").write_text(CONFIG)
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
    """Copies the notebooks; the index links each lesson in each language."""
    lines, toctree = ["# The laboratory", "", "One lesson, four languages; every output was executed and compared.", ""], []
    for lesson in all_lessons():
        links = []
        for language in lesson.languages:
            path = lesson.notebook_path(language)
            if not path.exists():
                continue
            name = f"{lesson.name.replace('/', '-')}-{language}"
            shutil.copy(path, source / f"{name}.ipynb")
            links.append(f"[{DISPLAY[language]}]({name})")
            toctree.append(name)
        lines.append(f"- **{lesson.title}**: " + " · ".join(links))
    return "\n".join([*lines, "", "```{toctree}", ":hidden:", "", *toctree, "```", ""])
