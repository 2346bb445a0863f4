"""Completion in a real JupyterLab, in each language, of names that only the notebook's cells declare, before any of them has run.

No kernel can know these names: what the popup shows comes from the language servers, through the proxy.
"""

import pytest
from conftest import CODE, EDITOR, edited

# What is typed into a new cell below the first, and names that must be offered. Each needs the type of what a cell above declares.
TYPED = {
    "python": ('leaf(b"block").is', ["isalnum", "isascii"]),
    "rust": ("root(&[leaf(b\"block\")]).is_", ["is_ascii", "is_empty"]),
    "go": ("%%\nvar block strings.Builder\nblock.Write", ["WriteByte", "WriteString"]),
    "elixir": ("Tree.", ["leaf", "node", "root"]),
}
POPUP = ".jp-Completer:not(.lm-mod-hidden) .jp-Completer-item"
# The servers say nowhere when they have read a notebook; so the key is pressed again while the popup shows too little.
PRESSED_MAX, POPUP_MS = 120, 1500


def new_cell(book):
    first = next(number for number, cell in enumerate(book["cells"]) if cell["cell_type"] == "code")
    for cell in book["cells"]:
        if cell["cell_type"] == "code":
            cell["execution_count"], cell["outputs"] = None, []
    book["cells"].insert(first + 1, {"cell_type": "code", "id": "typed", "source": [], "metadata": {}, "outputs": [], "execution_count": None})


@pytest.mark.parametrize("language", TYPED)
def test_before_any_cell_has_run(lab, opened, picture, language):
    text, expected = TYPED[language]
    path = f"crypto/02-merkle-trees/{language}.ipynb"
    edited(lab[2], path, new_cell)
    page = opened(path)
    cell = page.locator(CODE).nth(1)
    # In the middle of the page, so that the picture shows the cell and the popup.
    cell.evaluate("cell => cell.scrollIntoView({block: 'center'})")
    cell.locator(EDITOR).click()
    page.keyboard.type(text)
    labels = complete(page, expected)
    assert set(expected) <= set(labels), labels
    counts = page.locator(f"{CODE} .jp-InputPrompt").all_inner_texts()
    assert not [each for each in counts if any(map(str.isdigit, each))], f"a cell has run: {counts}"
    picture(f"completion-{language}")


def complete(page, expected):
    """What the popup offers, as soon as it offers what is expected."""
    labels = []
    for _ in range(PRESSED_MAX):
        page.keyboard.press("Tab")
        try:
            page.wait_for_selector(POPUP, timeout=POPUP_MS)
        except Exception as late:  # noqa: BLE001
            if type(late).__name__ != "TimeoutError":
                raise
            continue
        labels = [text.split("(")[0].split()[0] for text in page.locator(f"{POPUP} .jp-Completer-match").all_inner_texts() if text.strip()]
        if set(expected) <= set(labels):
            break
        page.keyboard.press("Escape")
    return labels
