"""The code blocks of a Markdown page, and how they are run."""

import doctest
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[2]
SKIP = re.compile(r"<!-- skip: (.+?) -->")
FENCE = re.compile(r"```(\w*)(?: title=\"(.+?)\")?$")
# Hours of training are cut to two steps of two small crops; a page that says itself that it is short runs as it stands
SHORT = (
    "steps=2",
    "validate_every=2",
    "validation_images=2",
    "validation_crop=32",
    "stages=[{start: 0, crop: 32, batch_size: 2}]",
    "workers=0",
)


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins in its page, the name of a file it is to be, why it cannot be run here."""

    page: Path
    line: int
    language: str
    title: str | None
    skipped: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks. A comment `<!-- skip: reason -->` in the line before one says why it cannot be run."""
    found, start, skipped, lines = [], None, None, page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        fence = FENCE.fullmatch(line)
        if start is None and fence:
            start, language, title = number, *fence.groups()
        elif start is not None and line == "```":
            text = "".join(f"{content}\n" for content in lines[start + 1 : number])
            found.append(Block(page, start + 1, language, title, skipped, text))
            start = skipped = None
        elif start is None and line.strip():
            comment = SKIP.fullmatch(line)
            skipped = comment.group(1) if comment else None
    if start is not None:
        raise ValueError(f"{page}:{start + 1}: a block that does not end")
    return found


class Reader:
    """Someone who reads a page from its top, in the current folder, and does all that it says.

    A block with a title is a file to be written. Python blocks share one namespace; those that begin with >>> must give
    what they show. Every line of a shell block must be a command of ours, and succeed.
    """

    def __init__(self):
        self.names: dict = {"__name__": "__main__"}

    def run(self, block: Block) -> None:
        if block.title:
            path = Path(block.title)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            self._python(block)
        elif block.language == "sh":
            for command in commands(block.text):
                self._command(command, block)

    def _python(self, block: Block) -> None:
        if block.text.startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(block.text, self.names, str(block), str(block.page), block.line)
            runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
            said: list[str] = []
            runner.run(test, out=said.append, clear_globs=False)
            assert runner.failures == 0, "".join(said)
            self.names |= test.globs
            return
        # a file, as a reader would have it: accelerate() looks at sources; its lines have the numbers of the page
        path = Path(f".{block.page.stem}_{block.line}.py").resolve()
        path.write_text("\n" * block.line + block.text, encoding="utf-8")
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), self.names)

    def _command(self, words: list[str], block: Block) -> None:
        told = f"{block}: {shlex.join(words)}"
        if words[0] == "f2d":
            from f2d.cli.commands import app

            if words[1] in ("train", "finetune") and not any(re.fullmatch(r"steps=\d\d?", word) for word in words):
                words = [*words, *(word for change in SHORT for word in ("-s", change))]
            result = CliRunner().invoke(app, words[1:])
            code, said = result.exit_code, result.output
        elif words[:2] == ["python", "-m"]:
            home = Path.cwd() if Path("f2d_kernels").is_dir() else ROOT
            environment = os.environ | {"PYTHONPATH": str(home)}
            done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, env=environment)
            code, said = done.returncode, done.stdout + done.stderr
        else:
            raise AssertionError(f"{told}\nis no command of ours; say before the block why it is not run")
        assert code == 0, f"{told}\nended with {code}:\n{said[-3000:]}"


def commands(text: str) -> list[list[str]]:
    """The words of each command, comments left out, lines that end in a backslash joined."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]
