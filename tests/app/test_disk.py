"""What is old goes, what is not stays, and no error ends it."""

import os
import threading
import time

from f2d.app.disk import BLOCK, delete_old, deleting, used


def aged(path, seconds: float):
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def test_used_is_what_was_written_and_a_block_for_what_is_empty(tmp_path):
    assert used(tmp_path) == 0
    (tmp_path / "large").write_bytes(bytes(10**5))
    assert used(tmp_path) == 10**5
    (tmp_path / "empty").touch()
    assert used(tmp_path) == 10**5 + BLOCK


def test_old_files_are_deleted_then_their_folder(tmp_path):
    (tmp_path / "place").mkdir()
    old, new, example = tmp_path / "place" / "old.png", tmp_path / "new.png", tmp_path / "example.png"
    for path in (old, new, example):
        path.touch()
    for path in (old, example, tmp_path / "place"):
        aged(path, 100)
    assert delete_old(tmp_path, 50, {example}) == {old}
    assert {path.name for path in tmp_path.iterdir()} == {"new.png", "example.png", "place"}
    aged(tmp_path / "place", 100)
    delete_old(tmp_path, 50, {example})
    assert {path.name for path in tmp_path.iterdir()} == {"new.png", "example.png"}


def test_a_link_is_deleted_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "outside").mkdir()
    kept = tmp_path / "outside" / "kept.png"
    kept.touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "folder" / "to_nothing").symlink_to(tmp_path / "nowhere")
    aged(kept, 100)
    delete_old(tmp_path / "folder", -50, set())
    assert kept.exists() and list((tmp_path / "folder").iterdir()) == []


def test_an_error_does_not_end_the_deletion(tmp_path):
    calls, twice = [], threading.Event()

    def forget(gone):
        calls.append(gone)
        if len(calls) == 2:
            twice.set()
        raise OSError("once")

    with deleting(tmp_path, 1, set(), forget):
        assert twice.wait(30)
