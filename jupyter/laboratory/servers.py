"""Language servers: which are there, and how JupyterLab starts them. The standard library only."""

import json
import re
import shutil
from pathlib import Path

from .gopls import gopls
from .places import DATA, KERNELS, NOTE, PYTHON, SETTINGS, VENV

# Of this clone: the crates of the Rust lessons are.
SCRATCH = DATA / "lsp"
# Debian's rust-analyzer, and the source of the standard library that belongs to it.
RUST_PACKAGES = ["rust-web-analyzer", "rust-web-src"]
RUST_SOURCE = Path("/usr/lib/rustlib/src/rust/library")
RUST_SETTINGS = {
    "cargo": {"sysrootSrc": str(RUST_SOURCE), "buildScripts": {"enable": False}},
    "procMacro": {"enable": False},
    "checkOnSave": False,
}
FIXES = {
    "rust-analyzer": "sudo apt-get install -y --no-install-recommends " + " ".join(RUST_PACKAGES),
    "gopls": "jupyter/lab install (fetches Debian's), or, with a Go of your own: go install golang.org/x/tools/gopls@latest",
}


def rust_analyzer():
    """Not rustup's shim, which only says that the component is missing."""
    for path in ("/usr/bin/rust-analyzer", "/usr/lib/rust-web/bin/rust-analyzer"):
        if Path(path).exists():
            return path
    found = shutil.which("rust-analyzer")
    return found if found and ".cargo" not in found else None


def crates():
    """What the Rust lessons depend on, so that it completes before any cell has run: name -> the rest of the line."""
    found = {}
    for lesson in sorted(NOTE.rglob("lesson.myst")):
        for name, value in re.findall(r"^:dep ([\w-]+) = (.+)$", lesson.read_text(), re.M):
            path = re.search(r'path = "([^"]+)"', value)
            if path:
                value = json.dumps(str((lesson.parent / path[1]).resolve())).join(["{ path = ", " }"])
            found.setdefault(name, value)
    return found


def write_scratch():
    """A crate and a module in which the translated notebooks live."""
    rust, go = SCRATCH / "rust", SCRATCH / "go"
    for folder in (rust / "src" / "bin", go):
        folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} = {value}" for name, value in sorted(crates().items())]
    manifest = ["[package]", 'name = "notebooks"', 'version = "0.0.0"', 'edition = "2024"', "publish = false", "", "[workspace]", "", "[dependencies]", *lines, ""]
    (rust / "Cargo.toml").write_text("\n".join(manifest))
    (rust / "src" / "lib.rs").write_text("")
    (go / "go.mod").write_text("module lab\n\ngo 1.27\n")


def servers():
    """The configuration of jupyter-lsp, for the servers that are there; pylsp it finds by itself."""
    proxy = str(KERNELS / "lsp" / "proxy.py")
    found = {}
    if gopls():
        found["go-lab"] = server([str(PYTHON), proxy, "go", str(SCRATCH / "go"), "--", gopls()], "go", ["text/x-go"], "gopls")
    if rust_analyzer():
        argv = [str(PYTHON), proxy, "rust", str(SCRATCH / "rust"), "--", rust_analyzer()]
        found["rust-lab"] = server(argv, "rust", ["text/x-rust", "text/rust"], "rust-analyzer", {"LAB_LSP_SETTINGS": json.dumps(RUST_SETTINGS)})
    if shutil.which("elixir"):
        found["elixir-lab"] = server([str(PYTHON), str(KERNELS / "lsp" / "elixir.py")], "elixir", ["text/x-elixir"], "Elixir")
    return found


def server(argv, language, types, name, env=None):
    return {"version": 2, "argv": argv, "languages": [language], "mime_types": types, "display_name": name, "env": env or {}}


def write_servers():
    """The configuration of this clone: the proxy is a file of the clone."""
    write_scratch()
    # One in the environment would be everybody's, and start the proxy of a clone that may be gone.
    (VENV / "etc" / "jupyter" / "jupyter_server_config.d" / "lab-lsp.json").unlink(missing_ok=True)
    SETTINGS.mkdir(parents=True, exist_ok=True)
    (SETTINGS / "jupyter_server_config.json").write_text(json.dumps({"LanguageServerManager": {"language_servers": servers()}}, indent=1) + "\n")
