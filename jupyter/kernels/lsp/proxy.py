"""proxy.py rust|go FOLDER -- SERVER ARGUMENTS…: stands between JupyterLab and a language server that knows no notebooks.

Texts of notebooks are translated, positions moved by the one line on top; plain source files pass unchanged.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import framing  # noqa: E402
from translate import LINES_ON_TOP, TRANSLATIONS  # noqa: E402

# What is wrong about the translation, not about the notebook.
NOISE = {
    "rust": re.compile(r"defined multiple times|E0428|snake.case|unused|unresolved module|inactive"),
    "go": re.compile(r"redeclared|other declaration|declared and not used|is unused|missing package"),
}
LOCATIONS = {f"textDocument/{name}" for name in ("definition", "declaration", "typeDefinition", "implementation", "references")}
# Requests without an answer yet; a server that never answers must not fill the memory.
PENDING_MAX = 4096


def is_notebook(uri):
    return ".virtual_documents" in uri or uri.endswith(".ipynb")


def moved(value, lines):
    """The same JSON with every position moved."""
    if isinstance(value, dict):
        if value.keys() == {"line", "character"}:
            return {**value, "line": value["line"] + lines}
        return {key: moved(each, lines) for key, each in value.items()}
    if isinstance(value, list):
        return [moved(each, lines) for each in value]
    return value


class Proxy:
    def __init__(self, language, folder, settings):
        self.language, self.folder, self.settings = language, Path(folder).resolve(), settings
        self.translate, self.extension = TRANSLATIONS[language]
        self.path_of, self.client_of, self.pending, self.lock = {}, {}, {}, threading.Lock()

    def server_path(self, uri):
        """The file that stands for a notebook. Its URI is another text: there `ü` and blanks are escaped."""
        if uri not in self.path_of:
            name = "nb" + hashlib.sha256(uri.encode()).hexdigest()[:12]
            path = self.folder / ("src/bin" if self.language == "rust" else name) / f"{name}.{self.extension}"
            path.parent.mkdir(parents=True, exist_ok=True)
            self.path_of[uri], self.client_of[path.as_uri()] = path, uri
        return self.path_of[uri]

    def to_server(self, message):
        method, params = message.get("method"), message.get("params")
        if method == "initialize":
            params |= {"rootUri": self.folder.as_uri(), "rootPath": str(self.folder), "workspaceFolders": [{"uri": self.folder.as_uri(), "name": "lab"}]}
            params["initializationOptions"] = {**(params.get("initializationOptions") or {}), **self.settings}
        document = params.get("textDocument") if isinstance(params, dict) else None
        uri = document.get("uri") if isinstance(document, dict) else None
        if uri and is_notebook(uri):
            message = {**message, "params": self.document_to_server(method, params, document)}
        if "id" in message and method and len(self.pending) < PENDING_MAX:
            with self.lock:
                self.pending[message["id"]] = (method, uri)
        return message

    def document_to_server(self, method, params, document):
        path = self.server_path(document["uri"])
        uri = path.as_uri()
        if method == "textDocument/didOpen":
            text = self.translate(document["text"])
            # The server looks for the file on the disk, too.
            path.write_text(text)
            return {**params, "textDocument": {**document, "uri": uri, "languageId": self.language, "text": text}}
        if method == "textDocument/didChange":
            # Full texts only: `initialize` has promised no others.
            return {"textDocument": {**document, "uri": uri}, "contentChanges": [{"text": self.translate(params["contentChanges"][-1]["text"])}]}
        rest = {key: value for key, value in params.items() if key not in ("textDocument", "text")}
        return {**moved(rest, LINES_ON_TOP), "textDocument": {**document, "uri": uri}}

    def to_client(self, message):
        """What the client gets, or None."""
        method = message.get("method")
        if method in ("window/showMessage", "window/logMessage") and message["params"].get("type", 3) >= 3:
            # JupyterLab shows these as modal dialogs over the page.
            return None
        if method == "textDocument/publishDiagnostics" and message["params"]["uri"] in self.client_of:
            return {**message, "params": self.diagnostics(message["params"])}
        if method is None and "id" in message:
            with self.lock:
                asked, uri = self.pending.pop(message["id"], (None, None))
            if message.get("result") is not None:
                message = {**message, "result": self.result(asked, uri, message["result"])}
        return message

    def diagnostics(self, params):
        found = []
        for each in moved(params["diagnostics"], -LINES_ON_TOP):
            if each["range"]["start"]["line"] >= 0 and not NOISE[self.language].search(each["message"]):
                found.append({key: value for key, value in each.items() if key != "relatedInformation"})
        return {**params, "uri": self.client_of[params["uri"]], "diagnostics": found}

    def result(self, method, uri, result):
        if method == "initialize":
            sync = result["capabilities"].get("textDocumentSync")
            full = {**(sync if isinstance(sync, dict) else {"openClose": True}), "change": 1}
            return {**result, "capabilities": {**result["capabilities"], "textDocumentSync": full}}
        if method in LOCATIONS:
            return [self.location(each) for each in (result if isinstance(result, list) else [result])]
        if not uri or not is_notebook(uri):
            return result
        result = moved(result, -LINES_ON_TOP)
        if method == "textDocument/completion":
            # Edits elsewhere, imports mostly: the kernels find these themselves.
            for item in result["items"] if isinstance(result, dict) else result:
                item.pop("additionalTextEdits", None)
        return result

    def location(self, found):
        key = "targetUri" if "targetUri" in found else "uri"
        client = self.client_of.get(found[key])
        return {**moved(found, -LINES_ON_TOP), key: client} if client else found


def main():
    language, folder, server = sys.argv[1], sys.argv[2], sys.argv[sys.argv.index("--") + 1 :]
    proxy = Proxy(language, folder, json.loads(os.environ.get("LAB_LSP_SETTINGS", "{}")))
    process = subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=proxy.folder)

    def down():
        while (message := framing.read(process.stdout)) is not None:
            answer = proxy.to_client(message)
            if answer is not None:
                framing.write(sys.stdout.buffer, answer)
        os._exit(process.wait())  # The server is gone; the main thread waits for the client.

    threading.Thread(target=down, daemon=True).start()
    while (message := framing.read(sys.stdin.buffer)) is not None:
        framing.write(process.stdin, proxy.to_server(message))
    process.terminate()


if __name__ == "__main__":
    main()
