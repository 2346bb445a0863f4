"""Rust kernels that run at the same time share no cache of compiled crates."""

import fcntl
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from laboratory.kernel import Kernel
from laboratory.places import evcxr
from slots import claim

CELL = ':dep hex = "0.4"\nprintln!("{}", hex::encode("a"));'


def free(folder):
    with (folder / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def await_free(folder):
    """Returns when its last holder has ended."""
    with (folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def number(claimed):
    return int(claimed[0].name)


def test_the_first_free_folder_is_claimed(tmp_path):
    first, second, third = (claim(tmp_path) for _ in range(3))
    assert [number(each) for each in (first, second, third)] == [0, 1, 2]
    os.close(second[1])
    again = claim(tmp_path)
    assert number(again) == 1
    for _, lock in (first, third, again):
        os.close(lock)


def test_a_folder_is_claimed_until_the_last_process_that_holds_it_has_ended(tmp_path):
    folder, lock = claim(tmp_path)
    # The shell ends at once; `cat`, which it started, ends when its input does. (By way of 9: a shell gives what it starts behind it no input.)
    holder = subprocess.Popen(["sh", "-c", "exec 9<&0; cat <&9 >/dev/null & echo started"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[lock])
    os.close(lock)
    assert holder.stdout.read() == b"started\n" and holder.wait() == 0
    assert not free(folder)
    holder.stdin.close()
    await_free(folder)


@pytest.mark.parametrize("hits", [b"", b"\xff", None])
def test_an_entry_that_a_killed_process_left_is_removed(tmp_path, hits):
    whole, broken = (tmp_path / "evcxr-slots" / "0" / "evcxr" / name for name in ("1", "2"))
    for entry in (whole, broken):
        entry.mkdir(parents=True)
        (entry / "hits").write_bytes(b"3")
    (broken / "hits").unlink() if hits is None else (broken / "hits").write_bytes(hits)
    _, lock = claim(tmp_path)
    os.close(lock)
    assert whole.exists() and not broken.exists()


def crates(slot):
    return sorted({(entry / "meta").read_text().splitlines()[1] for entry in (slot / "evcxr").iterdir() if "hex" in (entry / "meta").read_text()})


def test_two_kernels_at_once_compile_into_two_caches(tmp_path, monkeypatch):
    if not evcxr().exists():
        pytest.skip("no evcxr")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    slots = [tmp_path / "evcxr-slots" / str(each) for each in range(2)]
    with Kernel("rust", tmp_path) as first, Kernel("rust", tmp_path) as second:
        with ThreadPoolExecutor() as both:
            outputs = list(both.map(lambda kernel: kernel.run(CELL), (first, second)))
        assert [[each["text"] for each in cell] for cell in outputs] == [["61\n"], ["61\n"]], outputs
        assert [free(each) for each in slots] == [False, False]
    assert [crates(each) for each in slots] == [["hex"], ["hex"]]


def test_a_cache_with_a_broken_entry_still_compiles(tmp_path, monkeypatch):
    """What evcxr itself answers with `cannot parse integer from empty string`."""
    if not evcxr().exists():
        pytest.skip("no evcxr")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    slot = tmp_path / "evcxr-slots" / "0"
    for _ in range(2):
        with Kernel("rust", tmp_path) as kernel:
            assert [each["text"] for each in kernel.run(CELL)] == ["61\n"]
        await_free(slot)
        assert crates(slot) == ["hex"]
        for hits in slot.glob("evcxr/*/hits"):
            hits.write_text("")
