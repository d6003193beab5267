"""What Griffe runs on docstrings: its parser knows `Examples:` and takes the doctests of our `Example:` for text."""

from typing import Any

import griffe


class Examples(griffe.Extension):
    """`Example:` as `Examples:`, so that what follows is shown as code."""

    def on_instance(self, *, obj: griffe.Object, **rest: Any) -> None:
        if obj.docstring is not None:
            lines = obj.docstring.value.splitlines()
            obj.docstring.value = "\n".join("Examples:" if line == "Example:" else line for line in lines)
