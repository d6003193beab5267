"""The tiny model of the commands."""

from tests.cli.conftest import model  # noqa: F401
