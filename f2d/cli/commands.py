"""The subcommands of `f2d` and its own options."""

import sys
from collections.abc import Callable
from inspect import getdoc
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from f2d.cli.app_command import app_command
from f2d.cli.compare import compare
from f2d.cli.console import out, report_error
from f2d.cli.convert import convert
from f2d.cli.degrade import degrade
from f2d.cli.demo import demo
from f2d.cli.eval import evaluate
from f2d.cli.export import export
from f2d.cli.figures import figures
from f2d.cli.info import info
from f2d.cli.report import report
from f2d.cli.restore import restore
from f2d.cli.train import finetune, train


class OneLineErrors(TyperGroup):
    """Report a wrong option in one line, as every other mistake, in place of typer's usage text and frame."""

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        extra["standalone_mode"] = False
        if not standalone_mode:
            return super().main(*args, **extra)
        try:
            code = super().main(*args, **extra)
        except Exception as error:
            # typer's and click's usage errors share no base class over the versions in use, but have these two names
            if not (hasattr(error, "format_message") and hasattr(error, "exit_code")):
                raise
            # some versions of typer check values with pydantic, which says "Value error, " before each message
            if message := error.format_message().replace("Value error, ", ""):  # none if the help was printed
                report_error(message)
            sys.exit(error.exit_code)
        sys.exit(code)


app = typer.Typer(
    name="f2d",
    cls=OneLineErrors,
    help="Restore photographs in which rain, haze, low light and snow overlap (F²D-Net, ResFlow).",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
NAMES = {app_command: "app", evaluate: "eval"}


def _help(command: Callable) -> str:
    """Join the lines of each paragraph of the docstring: rich would keep their breaks at any width of the terminal."""
    return "\n\n".join(" ".join(part.split()) for part in (getdoc(command) or "").split("\n\n"))


for command in (
    *(restore, degrade, demo, info, export, convert, train, finetune),
    *(app_command, evaluate, compare, report, figures),
):
    app.command(name=NAMES.get(command), help=_help(command))(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            out.print(f"f2d {version('f2d')}")
        except PackageNotFoundError:  # the package is a source tree on PYTHONPATH
            from f2d_kernels import __version__

            out.print(f"f2d {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Handle the options of `f2d` itself."""
