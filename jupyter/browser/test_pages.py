"""What a newcomer sees first: the page to start from, a drawing in an output, the tutor's hint below a check that failed."""

import re

import pytest
from conftest import CODE, EDITOR, edited

LANGUAGES = ("python", "rust", "go", "elixir")
OUTPUT = ".jp-OutputArea-output"


def test_the_page_to_start_from(opened, picture):
    page = opened("00-start/python.ipynb")
    page.wait_for_selector(".jp-RenderedMarkdown table")
    assert page.locator(".jp-RenderedMarkdown table").first.locator("tbody tr").count() == 5
    # What is committed was read as trusted or is plain text: every cell shows what it printed.
    assert page.locator(f"{CODE} {OUTPUT}").first.is_visible()
    assert page.locator(f'{CODE} {OUTPUT}[data-mime-type*="stderr"]').count() == 0
    picture("start")


def only_the_drawing(book):
    """JupyterLab lays out only those cells that are near the window."""
    drawn = [cell for cell in book["cells"] if any("image/svg+xml" in output.get("data", {}) for output in cell.get("outputs", []))]
    book["cells"] = [book["cells"][0], drawn[0]]


@pytest.mark.parametrize("path", ["crypto/02-merkle-trees/python.ipynb", "crypto/04-signatures/elixir.ipynb"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_drawing_is_seen(lab, opened, picture, path, theme):
    """As committed: it is not executed again."""
    edited(lab[2], path, only_the_drawing)
    page = opened(path)
    if theme == "dark":
        page.locator(".lm-MenuBar-itemLabel:text-is('Settings')").click()
        page.locator(".lm-Menu-itemLabel:text-is('Theme')").click()
        page.locator(".lm-Menu-itemLabel:text-is('JupyterLab Dark')").click()
        # The body itself has no height.
        page.wait_for_selector('body[data-jp-theme-light="false"]', state="attached")
    drawing = page.locator(f"{OUTPUT} img, {OUTPUT} svg").first
    drawing.wait_for()
    drawing.evaluate("drawing => drawing.scrollIntoView({block: 'center'})")
    box = drawing.bounding_box()
    assert box["width"] >= 100 and box["height"] >= 50, box
    assert drawing.evaluate("drawing => drawing.tagName !== 'IMG' || drawing.naturalWidth > 0")
    picture(f"drawing-{path.split('/')[1]}-{theme}")


def only_the_first_exercise(book):
    """And a cell that asks for a hint."""
    tagged = (cell for cell in book["cells"] if any(tag.startswith("check:") for tag in cell["metadata"].get("tags", [])))
    exercise, first = next(tagged), next(cell for cell in book["cells"] if cell["cell_type"] == "code")
    asked = {"cell_type": "code", "id": "asked", "source": "%%tutor", "metadata": {}}
    # The first cell of a lesson brings what the checks are written with.
    book["cells"] = [*([first] if first is not exercise else []), exercise, asked]
    for cell in book["cells"]:
        cell["execution_count"], cell["outputs"] = None, []


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_tutor_answers_a_check_that_failed(lab, opened, picture, language):
    path = f"syntax/{language}/01-values/{language}.ipynb"
    edited(lab[2], path, only_the_first_exercise)
    page = opened(path)
    cells = page.locator(CODE)
    # A cell that is sent before the kernel is there is not kept for it.
    page.get_by_text("| Idle").wait_for()
    count = cells.count()
    for number in range(count):
        cells.nth(number).locator(EDITOR).click()
        page.keyboard.press("Shift+Enter")
        # A cell that is sent while the one before it is about to fail would be dropped.
        cells.nth(number).locator(".jp-InputPrompt", has_text=re.compile(r"\d")).wait_for()
    # The last cell is a new one by now.
    hint = cells.nth(count - 1).locator(".jp-RenderedMarkdown")
    hint.wait_for()
    assert "The check of" in hint.inner_text() and "(1 of" in hint.inner_text(), hint.inner_text()
    picture(f"tutor-{language}")
