"""Fixtures of the networks."""

from tests.nets.conftest import golden, golden_net, golden_weights, make_net  # noqa: F401
