"""Kernels leave no temporary folders: one that ends removes its own, what a killed one leaves the next one removes."""

import fcntl
import os
import signal
import tempfile

import pytest
from laboratory.kernel import Kernel
from laboratory.places import KERNEL_NAMES, evcxr
from scratch import Scratch, locked, sweep

CELLS = {"rust": "1 + 1", "go": "%%\nfmt.Println(2)"}


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder of temporary folders, for this process and for the kernels that it starts."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return folder


def test_a_folder_is_swept_once_its_maker_has_ended(temporary):
    living, ended = Scratch("lab-a-"), Scratch("lab-a-")
    (ended.path / "file").write_text("left")
    other = temporary / "lab-b-1"
    other.mkdir()
    os.close(ended.lock)
    following = Scratch("lab-a-")
    assert living.path.exists() and following.path.exists() and other.exists() and not ended.path.exists()
    for each in (living, following):
        each.remove()
    assert list(temporary.iterdir()) == [other]


def test_a_link_is_nobodys_folder(temporary, tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    (temporary / "lab-a-1").symlink_to(kept)
    sweep("lab-a-")
    assert kept.exists()


@pytest.mark.parametrize("language", CELLS)
def test_a_kernel_leaves_nothing_and_removes_what_a_killed_one_left(temporary, tmp_path, language):
    if language == "rust" and not evcxr().exists():
        pytest.skip("no evcxr")
    with Kernel(KERNEL_NAMES[language], tmp_path) as killed:
        assert "2" in str(killed.run(CELLS[language]))
        (left,) = temporary.glob("lab-kernel-*")
        os.kill(killed.manager.provisioner.process.pid, signal.SIGKILL)
    assert left.exists()
    os.close(locked(left, fcntl.LOCK_EX))  # Free once its holder has ended.
    with Kernel(KERNEL_NAMES[language], tmp_path) as kernel:
        kernel.run(CELLS[language])
        assert not left.exists() and len(list(temporary.glob("lab-kernel-*"))) == 1
    assert [each.name for each in temporary.iterdir() if each.is_dir()] == []
