"""Which pictures a command finds, where they go, and what a rerun does."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from f2d.cli.folders import find_pictures
from tests.cli.conftest import assert_one_line_error, smooth_pixels


@pytest.fixture
def tree(tmp_path, monkeypatch) -> Path:
    """in/a.png, in/b.JPG, in/deeper/c.png, in/deeper/still/d.bmp, and things that are none; run from above."""
    for name in ("in/a.png", "in/b.JPG", "in/deeper/c.png", "in/deeper/still/d.bmp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(smooth_pixels(8, 8)).save(path)
    (tmp_path / "in" / "notes.txt").write_text("no picture")
    (tmp_path / "in" / "._b.jpg").write_text("what macOS leaves beside a file")
    (tmp_path / "in" / ".hidden").mkdir()
    shutil.copy(tmp_path / "in" / "a.png", tmp_path / "in" / ".hidden" / "a.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def places(inputs: list[str], out: str = "out", *, recursive: bool = False) -> list[str]:
    sources, failures, _ = find_pictures([Path(name) for name in inputs], Path(out), recursive=recursive)
    assert failures == []
    return [source.place.as_posix() for source in sources]


ALL = {"a.png", "b.JPG", "deeper/c.png", "deeper/still/d.bmp"}


def test_a_tree_is_kept(f2d, model, tree):
    assert f2d("restore", "in", "-r", "-o", "out", "--model", model).exit_code == 0
    assert written(tree / "out") == ALL
    result = f2d("restore", "in", "-o", "flat", "--model", model)
    assert result.exit_code == 0 and written(tree / "flat") == {"a.png", "b.JPG"}


def test_an_output_folder_inside_the_input_is_not_restored_again(f2d, model, tree):
    for name in ("in", "in/**/*"):
        for _ in range(2):
            assert f2d("restore", name, "-r", "-o", "in/out", "--model", model).exit_code == 0
            assert written(tree / "in" / "out") == ALL


def test_patterns_are_for_shells_that_leave_them_alone(tree):
    assert places(["in/*.png"]) == ["a.png"]
    assert set(places(["in/*"])) == {"a.png", "b.JPG"}
    assert set(places(["in/*"], recursive=True)) == ALL
    assert set(places(["in/**/*.png"])) == {"a.png", "deeper/c.png"}
    assert places(["in/*/*.png"]) == ["deeper/c.png"]
    assert places(["in/[ab].png", "in/a.png"]) == ["a.png"]
    assert places([str(tree / "i?" / "a.png")]) == ["in/a.png"]


def test_a_name_with_brackets_is_a_name(tree):
    shutil.copy("in/a.png", "in/[b].png")
    assert places(["in/[b].png"]) == ["[b].png"]


def test_patterns_on_the_command_line(f2d, model, tree):
    assert f2d("restore", "in/**/*.png", "-o", "out", "--model", model).exit_code == 0
    assert written(tree / "out") == {"a.png", "deeper/c.png"}
    assert_one_line_error(
        f2d("restore", "in/*.gif", "-o", "out"), 1, "in/*.gif", "matches no photo or video that f2d reads"
    )
    assert_one_line_error(f2d("restore", "in/*.png", "-o", "out.png"), 2, "out.png", "folder")


def test_an_empty_folder_says_where_to_look(f2d, tree):
    (tree / "top" / "below").mkdir(parents=True)
    assert_one_line_error(f2d("restore", "top", "-o", "out"), 1, "top", "--recursive")


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_links_are_followed_once(tree):
    os.symlink(tree / "in", tree / "in" / "deeper" / "loop")  # back up
    os.symlink(tree / "in" / "deeper", tree / "in" / "aside")  # to what is found anyway
    (tree / "elsewhere").mkdir()
    shutil.copy("in/a.png", "elsewhere/e.png")
    os.symlink(tree / "elsewhere", tree / "in" / "link")
    assert set(places(["in"], recursive=True)) == ALL | {"link/e.png"}


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links")
def test_a_link_is_not_restored_from_what_its_target_became(f2d, model, tree):
    """In place, a.png would be replaced before its link is read, and the link's copy be restored twice."""
    os.symlink("a.png", tree / "in" / "link.png")
    before = (tree / "in" / "a.png").read_bytes()
    result = f2d("restore", "in", "-o", "in", "--overwrite", "--model", model)
    assert_one_line_error(result, 2, "in/a.png: would be replaced", "in/link.png links to it")
    assert (tree / "in" / "a.png").read_bytes() == before and (tree / "in" / "link.png").is_symlink()
    assert f2d("restore", "in", "-o", "out", "--overwrite", "--model", model).exit_code == 0
    assert (tree / "out" / "link.png").read_bytes() == (tree / "out" / "a.png").read_bytes()
    (tree / "in" / "link.png").unlink()
    assert f2d("restore", "in", "-o", "in", "--overwrite", "--model", model).exit_code == 0
    assert (tree / "in" / "a.png").read_bytes() != before


@pytest.mark.skipif(sys.platform == "win32", reason="needs symbolic links, pipes and odd names")
def test_odd_files_are_one_line_each_and_the_rest_goes_on(f2d, model, tree):
    folder = tree / "odd"
    folder.mkdir()
    good = ["new\nline.png", "[red]markup[bold].png", "ünïcode.png", "x" * 240 + ".png"]
    names = [os.fsencode(name) for name in good] + [b"no-character-\xff.png"]
    for name in names:
        shutil.copy(b"in/a.png", os.path.join(b"odd", name))
    os.symlink(folder / "loop.png", folder / "loop.png")
    os.symlink(folder / "nowhere", folder / "dangling.png")
    os.mkfifo(folder / "pipe.png")
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()
    result = f2d("restore", "odd", "-o", "out", "--model", model)
    lines = result.stderr.splitlines()
    assert result.exit_code == 1 and len(lines) == 4, result.stderr
    for words in (
        "loop.png: cannot be read",
        "dangling.png: no such file",
        "pipe.png: is a pipe",
        "empty.png: is an empty",
    ):
        assert sum(words in line for line in lines) == 1, words
    assert sorted(os.listdir(b"out")) == sorted(names)
    done = [line for line in result.stdout.splitlines() if "  8x8  " in line]
    assert len(done) == len(names) and any("new\\nline.png" in line for line in done)
    assert any("[red]markup[bold].png" in line for line in done) and any("\\udcff" in line for line in done)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read even by root")
def test_an_unreadable_file_says_why(f2d, tmp_path):
    (tmp_path / "a.png").symlink_to("/proc/self/mem")
    assert_one_line_error(f2d("restore", tmp_path / "a.png", "-o", tmp_path / "o"), 1, "a.png: cannot be read (Input")


def test_an_unreadable_folder_is_one_line(f2d, model, tree, monkeypatch):
    listing = Path.iterdir

    def iterdir(path: Path):
        if path.name == "deeper":
            raise PermissionError(13, "Permission denied")
        return listing(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    result = f2d("restore", "in", "-r", "-o", "out", "--model", model)
    assert (
        result.exit_code == 1 and result.stderr == f"error: {Path('in/deeper')}: cannot be read (Permission denied)\n"
    )
    assert written(tree / "out") == {"a.png", "b.JPG"}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no telling there")
def test_what_a_killed_process_left_is_removed(f2d, model, tree):
    from f2d.replacing import replacing

    (tree / "out" / "deeper").mkdir(parents=True)
    ended = max(int(name) for name in os.listdir("/proc") if name.isdecimal()) if Path("/proc").exists() else 1
    ended = next(n for n in range(ended + 1000, 2**22) if not Path(f"/proc/{n}").exists())
    left = []
    for place in ("a.png", "deeper/c.png", "other.png"):
        with replacing(tree / "out" / place) as temporary:
            temporary.write_text("half")
            left.append(temporary.with_name(temporary.name.replace(f".{os.getpid()}.", f".{ended}.")))
            os.link(temporary, left[-1])
        (tree / "out" / place).unlink()
    assert f2d("restore", "in", "-r", "-o", "out", "--model", model).exit_code == 0
    assert [path.exists() for path in left] == [False, False, True]  # the last may be another machine's
    assert written(tree / "out") == ALL | {left[-1].name}
    os.utime(left[-1], (0, 0))
    (tree / "out" / "a.png").unlink()
    assert f2d("restore", "in", "-r", "-o", "out", "--model", model).exit_code == 0
    assert written(tree / "out") == ALL


def test_a_place_in_the_tree_that_is_taken_by_a_file(f2d, model, tree):
    (tree / "out").mkdir()
    (tree / "out" / "deeper").write_text("a file")
    result = f2d("restore", "in", "-r", "-o", "out", "--model", model)
    lines = result.stderr.splitlines()
    assert result.exit_code == 1 and len(lines) == 2 and all("deeper" in line for line in lines), result.stderr
    assert written(tree / "out") == {"a.png", "b.JPG", "deeper"}


@pytest.mark.skipif(sys.platform == "win32", reason="names have another limit")
def test_a_name_too_long_for_its_maps_is_one_line(f2d, model, tree):
    name = "x" * 250 + ".png"
    shutil.copy("in/a.png", f"in/{name}")
    result = f2d("restore", "in", "-o", "out", "--save-maps", "--model", model)
    assert_one_line_error(result, 1, name, "File name too long")
    assert "2 restored, 1 failed" in result.stdout
    assert f2d("restore", "in", "-o", "out", "--model", model).exit_code == 0
    assert name in written(tree / "out")
