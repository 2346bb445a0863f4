"""One server and one browser for all tests; a page of its own for each."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME))

from laboratory.places import NOTE, environment  # noqa: E402

os.environ.update({**environment(), "LAB_SEED": "1"})

from laboratory.serving import serving  # noqa: E402
from laboratory.trust import trust  # noqa: E402
from playwright.sync_api import sync_playwright  # noqa: E402

# Of anything that a page is waited for; the machine may be busy, and rust-analyzer reads all crates first.
WAIT_MS_MAX = 120_000
ARGUMENTS = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--force-color-profile=srgb"]
# Whatever a page asks for elsewhere is not found, as without a network.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
CODE, EDITOR = ".jp-Notebook .jp-CodeCell", ".cm-content"


@pytest.fixture(scope="session")
def chromium():
    arguments = [*ARGUMENTS, OFFLINE, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=os.environ["LAB_CHROMIUM"], args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """JupyterLab over a copy of the lessons: what a test types is nobody's work."""
    folder = tmp_path_factory.mktemp("note")
    shutil.copytree(NOTE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".ipynb_checkpoints", ".virtual_documents"))
    trust(folder)
    with serving("lab", folder) as (host, token):
        yield host, token, folder


@pytest.fixture
def page(chromium, request):
    """Fails if the page asked another host for anything."""
    dark = request.node.get_closest_marker("dark") is not None
    context = chromium.new_context(viewport={"width": 1180, "height": 720}, color_scheme="dark" if dark else "light")
    page = context.new_page()
    page.set_default_timeout(WAIT_MS_MAX)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    yield page
    context.close()
    foreign = [url for url in asked if not url.startswith(("http://127.0.0.1:", "ws://127.0.0.1:", "file:", "data:", "blob:"))]
    assert not foreign, foreign


@pytest.fixture
def opened(lab, page):
    """Opens a notebook of the copy in a workspace of its own."""

    def open_notebook(path):
        host, token, _ = lab
        page.goto(f"http://{host}/lab/workspaces/{path.replace('/', '-').replace('.', '-')}/tree/{path}?token={token}", wait_until="domcontentloaded")
        page.wait_for_selector(f"{CODE} {EDITOR}")
        return page

    return open_notebook


@pytest.fixture
def picture(page):
    """Keeps what the page shows, if pictures are wanted."""

    def keep(name, clip=None):
        if "LAB_PICTURES" in os.environ:
            folder = Path(os.environ["LAB_PICTURES"])
            folder.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=folder / f"{name}.png", clip=clip, animations="disabled", caret="hide")

    return keep


def edited(folder, path, change):
    """A notebook as it is committed, put into the copy with a change before it is opened."""
    file, book = folder / path, json.loads((NOTE / path).read_text())
    change(book)
    file.write_text(json.dumps(book))
    trust(file.parent, file.name)
