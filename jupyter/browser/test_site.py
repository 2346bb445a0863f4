"""The site of `lab html`, opened from its folder without a server or a network, in both schemes, on a desk's screen and on a telephone's."""

import pytest
from laboratory.site import build

PAGES = ["index", "00-start-python", "crypto-02-merkle-trees-python", "crypto-04-signatures-rust", "syntax-rust-02-ownership-rust", "chain-01-verify-a-block-go", "system-ebpf-02-verifier-python"]
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
# WCAG's least contrast of text, level AA.
CONTRAST_MIN = 4.5
# Of each text's own colour against the nearest background that is painted behind it: texts that are too pale, with their contrast.
PALE = """least => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      const alpha = (colour.match(/^rgba\\(.*, ([\\d.]+)\\)$/) || [])[1];
      if (alpha === undefined || alpha === '1') return colour;
      if (alpha !== '0') throw new Error(`a translucent background: ${colour} of ${element.className || element.tagName}`);
    }
    return 'rgb(255, 255, 255)';
  };
  const found = [];
  const texts = document.createTreeWalker(document.querySelector('article'), NodeFilter.SHOW_TEXT);
  for (let text; text = texts.nextNode();) {
    const element = text.parentElement;
    if (!text.data.trim() || element.closest('svg') || !element.getClientRects().length || getComputedStyle(element).visibility === 'hidden') continue;
    const [one, other] = [light(getComputedStyle(element).color), light(behind(element))].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < least) found.push(`${text.data.trim().slice(0, 30)} (${element.className || element.tagName}): ${contrast.toFixed(2)}`);
  }
  return [...new Set(found)];
}"""


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    assert build(folder) == 0
    return folder


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole(site, page, picture, name, size, scheme):
    said = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("requestfailed", lambda request: said.append(request.url))
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size(dict(zip(("width", "height"), SIZES[size], strict=True)))
    page.goto(f"file://{site}/{name}.html")
    assert not said, said
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"
    assert page.evaluate("[...document.images].filter(image => !image.naturalWidth).map(image => image.src)") == []
    assert page.evaluate("document.querySelectorAll('.cell_output .err').length") == 0, "an output is marked as wrong code"
    picture(f"site-{name}-{size}-{scheme}")
    pale = page.evaluate(PALE, CONTRAST_MIN)
    assert not pale, pale


def test_the_same_lesson_in_another_language_is_one_click_away(site, page):
    page.goto(f"file://{site}/crypto-02-merkle-trees-python.html")
    page.locator("article").get_by_role("link", name="Elixir", exact=True).click()
    assert page.url.endswith("/crypto-02-merkle-trees-elixir.html")
    assert page.locator("h1").inner_text().startswith("Merkle trees")
