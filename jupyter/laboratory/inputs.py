"""What a notebook's outputs depend on, as a digest: a proof is one of these very files."""

import hashlib
import re
import tomllib

from .places import KERNELS, LOCK, VECTORS, rustc_version

# Made while a lesson runs, or by an editor.
MADE = {"__pycache__", ".ipynb_checkpoints", ".virtual_documents", "target"}
# A lesson's own cells come in through its notebook.
SOURCES = {".ipynb", ".myst"}
PATH_CRATE = re.compile(r"^:dep [\w-]+ = \{.*?\bpath = \"([^\"]+)\"", re.M)


def common():
    """Of all notebooks: the packages, the kernels, the chain's vectors, the compiler."""
    return digest([LOCK, *files(KERNELS), *files(VECTORS)], str(rustc_version()).encode())


def inputs(lesson, language):
    """Of one: itself, its solutions, what lies beside it and what lessons in its parent share, and the crates of this project that it compiles."""
    notebook = lesson.notebook_path(language)
    beside = [path for path in files(lesson.folder) if path.suffix not in SOURCES]
    shared = sorted(path for path in lesson.folder.parent.iterdir() if path.is_file() and path.suffix not in SOURCES)
    compiled = crates(lesson) if language == "rust" else []
    return digest([notebook, *beside, *shared, *compiled], *solutions(lesson, language))


def solutions(lesson, language):
    return [code.encode() for (of, _), code in sorted(lesson.solutions.items()) if of == language]


def crates(lesson):
    """The files of the crates that `:dep` lines name by path, and of those that these depend on by path."""
    due, found = [(lesson.folder / path).resolve() for path in PATH_CRATE.findall(lesson.text)], {}
    while due:
        folder = due.pop()
        if folder not in found and (folder / "Cargo.toml").exists():
            found[folder] = files(folder)
            due += depends(folder)
    return [path for folder in sorted(found) for path in found[folder]]


def depends(folder):
    """The folders of a crate's dependencies by path, the workspace's names among them; not of those that only its tests need."""
    root = next((parent for parent in folder.parents if (parent / "Cargo.lock").exists()), folder)
    named = manifest(root).get("workspace", {}).get("dependencies", {})
    for name, value in manifest(folder).get("dependencies", {}).items():
        value, base = (named.get(name), root) if isinstance(value, dict) and value.get("workspace") else (value, folder)
        if isinstance(value, dict) and "path" in value:
            yield (base / value["path"]).resolve()


def manifest(folder):
    path = folder / "Cargo.toml"
    return tomllib.loads(path.read_text()) if path.exists() else {}


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file() and not MADE & set(path.relative_to(folder).parts))


def digest(paths, *more):
    found = hashlib.sha256()
    for part in (*(part for path in paths for part in (path.name.encode(), path.read_bytes())), *more):
        # With its length: where one part ends is part of what it says.
        found.update(len(part).to_bytes(8, "big") + part)
    return found.digest()
