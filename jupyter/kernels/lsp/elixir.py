"""A small language server for Elixir, over the same BEAM session as the kernel's: completion, hover, syntax errors."""

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "elixir")]
import framing  # noqa: E402
from session import Session  # noqa: E402

SECONDS_MAX = 10
CAPABILITIES = {"textDocumentSync": {"openClose": True, "change": 1}, "completionProvider": {"triggerCharacters": [".", ":"]}, "hoverProvider": True}

# Of the protocol's kinds of items.
FUNCTION, VARIABLE, MODULE = 3, 6, 9


def outlined(lines, word):
    """The names of an outline that go on where `word` ends: the next segment of each."""
    outer, found = word.rpartition(".")[0], {}
    for kind, fields in lines:
        if kind != "ITEM" or not fields[0].startswith(word):
            continue
        name, _, deeper = fields[0][len(outer) + 1 if outer else 0 :].partition(".")
        detail = "module" if deeper else fields[1]
        found.setdefault(name, {"label": name, "kind": {"module": MODULE, "variable": VARIABLE}.get(detail, FUNCTION), "detail": detail})
    return found


class Server:
    def __init__(self, write):
        self.beam, self.texts, self.write = Session(), {}, write

    def ask(self, verb, text):
        return list(self.beam.ask(verb, text, SECONDS_MAX))

    def before(self, params, whole_word=False):
        line = self.texts[params["textDocument"]["uri"]].split("\n")[params["position"]["line"]]
        at = params["position"]["character"]
        return line[: at + (re.match(r"[\w!?]*", line[at:]).end() if whole_word else 0)]

    def handle(self, message):
        method, params = message.get("method"), message.get("params") or {}
        if method in ("textDocument/didOpen", "textDocument/didChange"):
            document = params["textDocument"]
            self.texts[document["uri"]] = document["text"] if method.endswith("Open") else params["contentChanges"][-1]["text"]
            self.diagnose(document["uri"])
        elif method == "textDocument/didClose":
            self.texts.pop(params["textDocument"]["uri"], None)
        elif "id" in message and method:
            self.write({"id": message["id"], **self.answer(method, params)})

    def answer(self, method, params):
        if method == "initialize":
            return {"result": {"capabilities": CAPABILITIES, "serverInfo": {"name": "ebpf-blockchain-elixir"}}}
        if method == "textDocument/completion":
            return {"result": {"isIncomplete": False, "items": self.items(params)}}
        if method == "textDocument/hover":
            text = "".join(fields[1] for kind, fields in self.ask("INSPECT", self.before(params, True)) if kind == "RES")
            return {"result": {"contents": {"kind": "markdown", "value": text}} if text else None}
        if method == "shutdown":
            return {"result": None}
        return {"error": {"code": -32601, "message": method}}

    def items(self, params):
        """What the cells declare, then what the language has."""
        before = self.before(params)
        found = outlined(self.ask("OUTLINE", self.texts[params["textDocument"]["uri"]]), re.search(r"[\w.!?]*$", before).group())
        for kind, fields in self.ask("COMPLETE", before):
            if kind == "ITEM":
                # Without the arity, so that the kernel's items and these are one.
                name = re.sub(r"/\d+$", "", fields[0])
                found.setdefault(name, {"label": name, "kind": FUNCTION})
        return list(found.values())

    def diagnose(self, uri):
        found = []
        for kind, fields in self.ask("CHECK", self.texts[uri]):
            if kind == "DIAG":
                start = {"line": max(0, int(fields[0]) - 1), "character": max(0, int(fields[1]) - 1)}
                end = {**start, "character": start["character"] + 1}
                found.append({"range": {"start": start, "end": end}, "severity": 1, "source": "elixir", "message": fields[3]})
        self.write({"method": "textDocument/publishDiagnostics", "params": {"uri": uri, "diagnostics": found}})


def main():
    server = Server(lambda message: framing.write(sys.stdout.buffer, message))
    while (message := framing.read(sys.stdin.buffer)) is not None and message.get("method") != "exit":
        server.handle(message)
    server.beam.close()


if __name__ == "__main__":
    main()
