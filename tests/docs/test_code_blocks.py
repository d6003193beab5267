"""Every page does what it says: its Python blocks and its commands, read from top to bottom, run."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from .blocks import ROOT, Reader, blocks_of, commands

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNNABLE = ("python", "sh")
LANGUAGES = (*RUNNABLE, "text", "math", "cpp", "yaml", "bibtex", "nginx")


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def to_run(page: Path) -> list:
    return [block for block in blocks_of(page) if not block.skipped and (block.title or block.language in RUNNABLE)]


def params() -> list:
    without_av = pytest.mark.skipif(find_spec("av") is None, reason="needs PyAV, which is not installed")
    marks = {
        "docs/tutorials/export.md": pytest.mark.slow,  # ONNX takes a minute
        "docs/failure-modes.md": pytest.mark.slow,  # four trainings and eight evaluations take a minute
        "docs/tutorials/video.md": without_av,
    }
    return [pytest.param(page, marks=marks.get(name_of(page), ()), id=name_of(page)) for page in PAGES if to_run(page)]


@pytest.mark.parametrize("page", params())
def test_a_page_runs(page, request):
    request.getfixturevalue("checkout" if page.name == "add_an_op.md" else "place")
    reader = Reader()
    for block in to_run(page):
        reader.run(block)


def test_what_is_not_run_and_why(capsys):
    skipped = [block for page in PAGES for block in blocks_of(page) if block.skipped]
    with capsys.disabled():
        print(f"\n{len(skipped)} blocks of the documentation are not run:")
        for block in skipped:
            print(f"  {block}: {block.skipped}")
    everything = [block for page in PAGES for block in blocks_of(page)]
    # a block without a language, or of one that nothing here knows, would be passed over in silence
    assert [str(block) for block in everything if block.language not in LANGUAGES] == []
    assert len([b for b in everything if b.language in RUNNABLE and not b.skipped]) > 2 * len(skipped)


PAGE = """# A

```sh
f2d info  # all
f2d restore \\
    a.jpg
```

<!-- skip: because -->
```python
x
```

```python title="a/b.py"
```
"""


def test_blocks_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    one, two, three = blocks_of(page)
    assert (one.language, one.line, one.skipped) == ("sh", 3, None)
    assert commands(one.text) == [["f2d", "info"], ["f2d", "restore", "a.jpg"]]
    assert (two.language, two.skipped, two.text) == ("python", "because", "x\n")
    assert (three.title, three.skipped, three.text) == ("a/b.py", None, "")


@pytest.mark.parametrize(
    "text",
    [
        "```python\nassert False\n```\n",
        "```python\n>>> 1 + 1\n3\n```\n",
        "```sh\nf2d restore nothing.jpg -o out\n```\n",
        "```sh\nf2d no-such-command\n```\n",
        "```sh\nls\n```\n",
        "```sh\npython -m f2d_kernels.no_such_module\n```\n",
    ],
)
def test_what_is_wrong_is_noticed(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "page.md"  # a name for messages: what is read lies elsewhere
    (tmp_path / "page.md").write_text(text)
    (block,) = blocks_of(tmp_path / "page.md")
    block = type(block)(page, block.line, block.language, block.title, block.skipped, block.text)
    with pytest.raises(AssertionError):
        Reader().run(block)
