"""The translation of notebooks, its positions, and the servers over JupyterLab's own websocket."""

import asyncio
import contextlib
import json
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import tornado.websocket
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "kernels" / "lsp"))
from cells import command_lines, split  # noqa: E402
from laboratory import servers  # noqa: E402
from laboratory.places import NOTE  # noqa: E402
from laboratory.serving import serving  # noqa: E402
from proxy import Proxy, moved  # noqa: E402
from translate import LINES_ON_TOP, go, rust  # noqa: E402

SECONDS_MAX = 120
ASK_AGAIN_SECONDS = 0.3
RUST_CELLS = [":dep hex = \"1\"", "let v = vec![1];\nv.len()", "fn f() -> u8 { 1 }", "// only words", "", "let s = \"a\nb\";", "match 1 {\n    _ => {}\n}"]
GO_CELLS = ["import \"fmt\"", "var a = 1", "var a, b = 1, 2", "func f() {}", "%%\nfmt.Println(a)", "%% x\n// c", "%goflags -race", "var s = `\n%d\n`", "type T struct {\n\tx int\n}", "", "func f() int { return 2 }\n\n%%\nf() // last"]


def may_go(language, chosen):
    """The lines, by cell, that a translation may leave empty: commands, imports, and what a later cell declares anew."""
    for number, cell in enumerate(chosen):
        lines = cell.split("\n")
        if language == "rust":
            yield {at for at, line in enumerate(lines) if line.startswith((":", "%", "!"))}
            continue
        gone = {at for at in command_lines(cell) if not lines[at].startswith("%%")}
        later = {name for each in chosen[number + 1 :] for chunk in split(each).chunks for name in chunk.names}
        for chunk in split(cell).chunks:
            if chunk.kind == "import" or later & set(chunk.names):
                gone |= set(range(chunk.line, chunk.line + chunk.text.count("\n") + 1))
        yield gone


@pytest.mark.parametrize(("language", "translate", "known"), [("rust", rust, RUST_CELLS), ("go", go, GO_CELLS)])
def test_lines_and_columns_hold(language, translate, known):
    @given(st.lists(st.sampled_from(known), min_size=1, max_size=8))
    def holds(chosen):
        after, first = translate("\n\n\n".join(chosen)).split("\n"), LINES_ON_TOP
        for cell, gone in zip(chosen, may_go(language, chosen), strict=True):
            for number, line in enumerate(cell.split("\n")):
                now = after[first + number]
                # A line keeps every character at its column, or it is the head of a Go body, or it may go.
                assert now.startswith(line) or (line.startswith("%%") and now.startswith("func _() {")) or (number in gone and now == "")
            first += cell.count("\n") + 3

    holds()


def test_go_keeps_the_last_of_two_declarations():
    text = go("func f() int { return 1 }\n\n\nfunc f() int { return 2 }\n\n\n%%\nfmt.Println(f())")
    assert "return 1" not in text and "return 2" in text and 'import ( "fmt")' in text


# Rust's comments, strings and characters, of which none counts, or a bracket.
RUST_MARK = re.compile(r"""//[^\n]*|/\*.*?\*/|\bb?r(#*)".*?"\1|"(?:\\.|[^"\\])*"|'(?:\\[^\n']*'|\\''|[^'\\]')|(?P<open>[(\[{])|(?P<close>[)\]}])""", re.S)


def is_balanced(text):
    due = []
    for mark in RUST_MARK.finditer(text):
        if mark["open"]:
            due.append({"(": ")", "[": "]", "{": "}"}[mark["open"]])
        elif mark["close"] and (not due or due.pop() != mark["close"]):
            return False
    return not due


@pytest.mark.parametrize(
    ("text", "balanced"),
    [("f(a[1]) {}", True), ("{", False), (")", False), ("(]", False), ("'{' \"(\" // [\n r#\"\"}\"# /* { */ '\\'' b'['", True), ("fn f<'a>(x: &'a str) {}", True), ("fn f<'a>(x: &'a str) {", False)],
)
def test_what_balanced_means(text, balanced):
    assert is_balanced(text) == balanced


def test_every_lesson_becomes_one_balanced_rust_file():
    paths = sorted(NOTE.rglob("rust.ipynb"))
    assert paths
    for path in paths:
        book = json.loads(path.read_text())
        cells = ["".join(cell["source"]) for cell in book["cells"] if cell["cell_type"] == "code"]
        text = rust("\n\n\n".join(cells))
        assert ":dep" not in text and text.endswith("; Ok(()) }\n")
        assert is_balanced(text), path


positions = st.fixed_dictionaries({"line": st.integers(1, 1000), "character": st.integers(0, 100)})
trees = st.recursive(positions | st.text() | st.none(), lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from("abc"), each, max_size=3))


@given(trees)
def test_positions_there_and_back(tree):
    assert moved(moved(tree, LINES_ON_TOP), -LINES_ON_TOP) == tree


@pytest.mark.parametrize("name", ["plain", "jürgen", "two words", "100%25"])
def test_the_proxy_maps_a_notebook(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    proxy = Proxy("go", folder, {})
    uri = "file:///x/.virtual_documents/a.ipynb"
    opened = proxy.to_server({"method": "textDocument/didOpen", "params": {"textDocument": {"uri": uri, "text": "var a = 1"}}})
    inside = opened["params"]["textDocument"]["uri"]
    assert inside.startswith(folder.as_uri()) and opened["params"]["textDocument"]["text"].split("\n")[1] == "var a = 1"
    (file,) = folder.rglob("*.go")
    assert file.as_uri() == inside and file.read_text() == opened["params"]["textDocument"]["text"]
    asked = proxy.to_server({"id": 1, "method": "textDocument/definition", "params": {"textDocument": {"uri": uri}, "position": {"line": 0, "character": 4}}})
    assert asked["params"]["position"] == {"line": 1, "character": 4}
    span = {"start": {"line": 1, "character": 4}, "end": {"line": 1, "character": 5}}
    answer = proxy.to_client({"id": 1, "result": [{"uri": inside, "range": span}]})
    assert answer["result"] == [{"uri": uri, "range": {"start": {"line": 0, "character": 4}, "end": {"line": 0, "character": 5}}}]
    found = proxy.to_client({"method": "textDocument/publishDiagnostics", "params": {"uri": inside, "diagnostics": [{"range": span, "message": "undefined: x"}, {"range": span, "message": "a redeclared"}]}})
    assert found["params"]["uri"] == uri and [each["message"] for each in found["params"]["diagnostics"]] == ["undefined: x"]


def test_plain_files_pass(tmp_path):
    message = {"id": 1, "method": "textDocument/hover", "params": {"textDocument": {"uri": "file:///x/main.rs"}, "position": {"line": 3, "character": 1}}}
    assert Proxy("rust", tmp_path, {}).to_server(json.loads(json.dumps(message))) == message


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    with serving("server", tmp_path_factory.mktemp("root")) as found:
        yield found


def test_the_servers_token_is_no_argument_of_any_process(lab):
    host, token = lab
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"http://{host}/api/status", timeout=30)
    request = urllib.request.Request(f"http://{host}/api/status", headers={"Authorization": f"token {token}"})
    assert urllib.request.urlopen(request, timeout=30).status == 200
    assert not any(token in argument for argument in arguments())


def arguments():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes().decode("utf-8", "replace")


# Cells of which none has run, and what must be offered at their end.
CASES = [
    ("pylsp", "python", "import hashlib\nhashlib.sha25", "sha256"),
    ("elixir-lab", "elixir", "Enum.ma", "map"),
    ("elixir-lab", "elixir", "defmodule Chain.Tree do\n  def leaf(data) when is_binary(data), do: data\nend\n\n\nChain.Tree.le", "leaf"),
    ("elixir-lab", "elixir", "{:ok, seedling} = {:ok, 1}\n\n\nsee", "seedling"),
    ("rust-lab", "rust", ":dep hex = \"1\"\n\n\nlet v = vec![1u8];\nv.is_em", "is_empty"),
    ("rust-lab", "rust", "struct Block { height: u64 }\n\n\nBlock { height: 1 }.hei", "height"),
    ("go-lab", "go", "import \"fmt\"\n\n\n%%\nfmt.Printl", "Println"),
    ("go-lab", "go", "type Block struct {\n\tHeight int\n}\n\n\n%%\nvar b Block\nb.Hei", "Height"),
]


@pytest.mark.parametrize(("name", "language", "text", "expected"), CASES, ids=[f"{case[0]}-{case[3]}" for case in CASES])
def test_completion_before_any_cell_has_run(lab, name, language, text, expected):
    if name != "pylsp" and name not in servers.servers():
        pytest.skip(f"the language server {name} is not installed")
    labels = asyncio.run(asyncio.wait_for(complete(*lab, name, language, text, expected), SECONDS_MAX))
    assert any(label.startswith(expected) for label in labels), labels


async def complete(host, token, name, language, text, expected):
    request = urllib.request.Request(f"http://{host}/lsp/status", headers={"Authorization": f"token {token}"})
    assert urllib.request.urlopen(request, timeout=30).status == 200
    connection = await tornado.websocket.websocket_connect(f"ws://{host}/lsp/ws/{name}?token={token}")

    async def ask(number, method, params):
        await connection.write_message(json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}))
        while True:
            message = json.loads(await connection.read_message())
            if message.get("id") == number and "method" not in message:
                return message.get("result")
            if "id" in message and "method" in message:
                items = (message.get("params") or {}).get("items", [])
                await connection.write_message(json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": [None] * len(items) if items else None}))

    uri = f"file://{NOTE}/.virtual_documents/{expected}.ipynb"
    await ask(1, "initialize", {"processId": None, "rootUri": NOTE.as_uri(), "capabilities": {"textDocument": {"completion": {}, "hover": {}}}})
    for method, params in (("initialized", {}), ("textDocument/didOpen", {"textDocument": {"uri": uri, "languageId": language, "version": 1, "text": text}})):
        await connection.write_message(json.dumps({"jsonrpc": "2.0", "method": method, "params": params}))
    last = text.split("\n")
    position, number = {"line": len(last) - 1, "character": len(last[-1])}, 2
    while True:
        # A server that still indexes answers with nothing; the time limit of the test ends this.
        result = await ask(number, "textDocument/completion", {"textDocument": {"uri": uri}, "position": position}) or []
        labels = [item["label"] for item in (result["items"] if isinstance(result, dict) else result)]
        if any(label.startswith(expected) for label in labels):
            connection.close()
            return labels
        number += 1
        await asyncio.sleep(ASK_AGAIN_SECONDS)
