"""Environment variables as ops read them, at every call."""

import os
from functools import cache
from typing import Any

# os.environ.get takes 1.2 us for a name that is not set, where a whole op may take 6; the dictionary behind it, 0.05
_values: Any = getattr(os.environ, "_data", os.environ)
_encode: Any = cache(getattr(os.environ, "encodekey", str))


def variable(name: str) -> str | None:
    """Return the value of the environment variable `name`, or None if it is not set."""
    return os.environ.get(name) if _encode(name) in _values else None
