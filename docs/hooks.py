"""What MkDocs runs: files of the sources become pages, the page of the commands is written from the commands, and
formulas become MathML, which browsers draw without a script."""

import re
from html import unescape
from pathlib import Path
from typing import Any

import typer
from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = "<!-- commands -->"
INCLUDE = re.compile(r"<!-- include: (.+?) -->")
# what pymdownx.arithmatex makes of $...$ and of a block of math
FORMULA = re.compile(r'(<(?:span|div) class="arithmatex">)\\(\(|\[)(.+?)\\[)\]]', re.DOTALL)


def on_page_markdown(markdown: str, page: Any, **rest: Any) -> str:
    """`<!-- commands -->` becomes a section for every subcommand of `f2d`, `<!-- include: FILE -->` that file of the
    sources, whose links to docs/ are made to fit."""
    up = "../" * page.file.src_uri.count("/")

    def included(found: re.Match) -> str:
        return (ROOT / found.group(1)).read_text(encoding="utf-8").replace("](docs/", f"]({up}")

    markdown = INCLUDE.sub(included, markdown)
    return markdown.replace(COMMANDS, commands()) if COMMANDS in markdown else markdown


def on_page_content(html: str, **rest: Any) -> str:
    """The page with every formula in LaTeX as MathML."""

    def mathml(found: re.Match) -> str:
        return found[1] + convert(unescape(found[3]), display="block" if found[2] == "[" else "inline")

    return FORMULA.sub(mathml, html)


def commands() -> str:
    """Usage, help, arguments and options of every subcommand, in the order of `f2d --help`, as Markdown."""
    from f2d.cli.commands import app

    group = typer.main.get_command(app)
    context = group.make_context("f2d", [], resilient_parsing=True)
    return "\n\n".join(_section(name, group.get_command(context, name)) for name in group.list_commands(context))


def _section(name: str, command: Any) -> str:
    context = command.make_context(name, [], resilient_parsing=True)
    pieces = [re.sub(r"\{(.+?)\}", r"\1", piece) for piece in command.collect_usage_pieces(context)]
    usage = " ".join(["f2d", name, *pieces]).replace("......", "...")
    rows = []
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record:
            names, text = record
            if parameter.param_type_name == "argument":
                names = names.split(" <")[0]  # its type, in Python's words
            rows.append(f"| <code>{_cell(names)}</code> | {_cell(text)} |")
    paragraphs = command.help.replace("\\[", "[").split("\n\n")
    text = "\n\n".join(" ".join(part.split()).replace("[", "\\[") for part in paragraphs)
    table = ["| option | what it does |", "|---|---|", *rows]
    return "\n".join([f"## f2d {name}", "", f"```text\n{usage}\n```", "", text, "", *table])


def _cell(text: str) -> str:
    """Help as text in a table: rich's escapes undone, what Markdown or HTML would take for its own escaped."""
    text = " ".join(text.replace("\\[", "[").split())
    for character in "&<>|*[_":
        text = text.replace(character, f"&#{ord(character)};") if character != "&" else text.replace("&", "&amp;")
    return text
