"""Build HTML and SVG as text; everything that is not `Markup` is escaped."""

from html import escape


class Markup(str):
    """Text that is already HTML. Any other text is escaped when it is inserted."""

    __slots__ = ()


def element(name: str, *inside: str, **attributes: object) -> Markup:
    """``<name attributes>inside</name>``; whatever is not `Markup` is escaped.

    Attributes: ``class_`` and ``for_`` lose the underscore, and ``data_x`` becomes ``data-x``. True gives the bare
    name; None and False omit the attribute.
    """
    opening = "".join([name, *(_attribute(*pair) for pair in attributes.items())])
    if name in _VOID:
        return Markup(f"<{opening}>")
    return Markup(f"<{opening}>{together(*inside)}</{name}>")


def together(*parts: str) -> Markup:
    """Join parts one after the other."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


_VOID = {"img", "input", "br"}


def _attribute(name: str, value: object) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
