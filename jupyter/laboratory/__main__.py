"""The commands that need the installed packages."""

import argparse
import os
import sys

from .install import write_kernels
from .places import HOME, NOTE, evcxr
from .servers import write_servers
from .trust import trust


def options():
    parser = argparse.ArgumentParser(prog="jupyter/lab", description="The Jupyter laboratory.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("install", help="install everything, once")
    commands.add_parser("doctor", help="say what is missing, and the fix")
    up = commands.add_parser("up", help="install what is missing and open JupyterLab on loopback")
    up.add_argument("--port", type=int, default=8888)
    for name, text in (("test", "execute notebooks, compare their outputs, check values across languages"), ("write", "execute notebooks and write them with their outputs")):
        command = commands.add_parser(name, help=text)
        command.add_argument("--all", action="store_true", help="every lesson, and a second seed")
        if name == "test":
            command.add_argument("--ci", action="store_true", help="read all, execute what has changed and a rotating sample, run the tools' tests")
        command.add_argument("--lesson", default="", metavar="TEXT", help="lessons whose path contains it")
        command.add_argument("--language", action="append", metavar="NAME", help="python, rust, go or elixir; may be repeated")
    html = commands.add_parser("html", help="make the site")
    html.add_argument("--output", default=str(HOME / "target" / "html"))
    browser = commands.add_parser("browser", help="test the laboratory and its site in a headless Chromium")
    browser.add_argument("--pictures", metavar="DIR", help="keep what the tests saw")
    browser.add_argument("--only", default="", metavar="TEXT", help="tests whose name contains it")
    image = commands.add_parser("image", help="build the image of docker/ without a Docker engine, and run lessons in it")
    image.add_argument("--base", metavar="IMAGE", help="build on this image; otherwise on a Debian 12 made here")
    image.add_argument("--keep", action="store_true", help="leave the image in the cache")
    new = commands.add_parser("new-lesson", help="write the skeleton of a lesson")
    new.add_argument("path", help="for instance crypto/06-commitments")
    return parser.parse_args()


def main():
    chosen = options()
    write_kernels()
    write_servers()
    if chosen.command == "up":
        return up(chosen.port)
    if chosen.command == "new-lesson":
        from .skeleton import new_lesson

        return new_lesson(chosen.path)
    if chosen.command == "image":
        from .image import image

        return image(chosen.base, chosen.keep)
    if chosen.command == "browser":
        from .browser import browser

        return browser(chosen.pictures, chosen.only)
    if chosen.command == "html":
        from .site import build

        return build(chosen.output)
    from .suite import suite

    return suite(chosen)


def up(port):
    """JupyterLab on loopback with a token; its URL is printed by the server."""
    if not evcxr().exists():
        print("lab: without the Rust kernel; `jupyter/lab doctor` says how to get it")
    trust()
    argv = [sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", f"--port={port}", "--no-browser", f"--ServerApp.root_dir={NOTE}"]
    argv.append("--LabApp.default_url=/lab/tree/00-start/python.ipynb")
    if os.geteuid() == 0:
        argv.append("--allow-root")
    os.execv(sys.executable, argv)


if __name__ == "__main__":
    sys.exit(main())
