"""Every image says in words what it shows: for readers who don't see it, and for those whose notebook viewer doesn't."""

import re

# An SVG names itself by an aria-label, or by a title or desc of its own; HTML and Markdown by alt.
SVG_WORDS = re.compile(r"<svg[^>]*\saria-label=\"[^\"]+\"|<title>[^<]+</title>|<desc>[^<]+</desc>")
HTML_IMAGE = re.compile(r"<img\b[^>]*>")
HTML_WORDS = re.compile(r"\balt=\"[^\"]+\"")
MARKDOWN_IMAGE = re.compile(r"!\[(?P<words>[^\]]*)\]\(")


def without_words(notebook):
    """The first image without words, described; None if there is none."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and any(not match["words"].strip() for match in MARKDOWN_IMAGE.finditer(cell.source)):
            return f"an image without alternative text in {cell.source[:60]!r}"
        for output in cell.get("outputs", []):
            for mime, data in output.get("data", {}).items():
                text = data if isinstance(data, str) else "".join(data) if isinstance(data, list) else ""
                if silent(mime, text, output.get("metadata", {})):
                    return f"an image ({mime}) without alternative text from {cell.source[:60]!r}"
    return None


def silent(mime, text, metadata):
    if mime == "image/svg+xml" or (mime == "text/html" and "<svg" in text):
        return not SVG_WORDS.search(text)
    if mime == "text/html":
        return any(not HTML_WORDS.search(image) for image in HTML_IMAGE.findall(text))
    return mime.startswith("image/") and not metadata.get(mime, {}).get("alt")
