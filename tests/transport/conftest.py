"""Small networks."""

from tests.nets.conftest import make_net  # noqa: F401
