"""Clones share one cache: their installations wait for each other, and packages of another lock lie elsewhere."""

import os
import subprocess
import sys

import pytest
from laboratory import install, places
from laboratory.places import HOME

# Says that it is in, and stays until its input ends.
HOLDER = "import sys; from laboratory.install import alone\nwith alone():\n    print('in', flush=True); sys.stdin.read()"


def holder(cache):
    return subprocess.Popen([sys.executable, "-c", HOLDER], cwd=HOME, env={**os.environ, "LAB_CACHE": str(cache)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_one_installation_at_a_time(tmp_path):
    with holder(tmp_path) as first:
        assert first.stdout.readline() == "in\n"
        with holder(tmp_path) as second:
            assert second.stdout.readline() == "lab: waiting for another installation\n"
            first.stdin.close()
            assert second.stdout.readline() == "in\n"


def test_another_lock_is_another_environment(tmp_path):
    other = tmp_path / "jupyter"
    (other / "laboratory").mkdir(parents=True)
    (other / "laboratory" / "places.py").write_text((HOME / "laboratory" / "places.py").read_text())
    (other / "requirements.lock").write_text("other")
    ask = [sys.executable, "-c", "from laboratory.places import VENV; print(VENV)"]
    env = {**os.environ, "LAB_CACHE": str(places.CACHE), "PYTHONPATH": ""}
    found = [subprocess.run(ask, cwd=home, env=env, capture_output=True, text=True, check=True).stdout.strip() for home in (HOME, other)]
    assert found[0] == str(places.VENV) and found[1] != found[0]


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_not_installed_to_its_end_is_not_installed(tmp_path, monkeypatch, fails):
    """The environment is made anew, and used only once all packages are in it."""
    for module in (install, places):
        monkeypatch.setattr(module, "VENV", tmp_path / "venv")
        monkeypatch.setattr(module, "PYTHON", tmp_path / "venv" / "bin" / "python")
    made = []

    def create(folder, **options):
        made.append(options["clear"])
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "python").touch()

    def pip(argv):
        assert not places.installed()
        if fails:
            raise subprocess.CalledProcessError(1, argv)

    monkeypatch.setattr(install.venv, "create", create)
    monkeypatch.setattr(install, "run", pip)
    if fails:
        with pytest.raises(subprocess.CalledProcessError):
            install.install_python()
    else:
        install.install_python()
        install.install_python()
    assert (places.installed(), made) == (not fails, [True])
