"""The networks of the engine, whose every tensor counts."""

from tests.engine.conftest import make_net  # noqa: F401
