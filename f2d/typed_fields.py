"""Check dataclasses filled from files: each field against its annotation, with errors that name the field."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

_NAMES = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text", NoneType: "null"}


def check_types(instance: Any, owner: str) -> None:
    """Raise ValueError ``owner: field must be ..., got value`` unless each field of a dataclass has its annotated type.

    Lists become tuples where a tuple is annotated, as JSON and YAML only have lists, and whole numbers become floats.
    Booleans do not count as numbers, nor NaN and infinity as floats. Supported annotations are int, float, bool, str,
    None, tuples, dict[str, X], unions of these, classes, and Any.
    """
    hints = get_type_hints(type(instance))
    for field in fields(instance):
        value, kind = getattr(instance, field.name), hints[field.name]
        try:
            object.__setattr__(instance, field.name, _converted(value, kind))
        except TypeError:
            raise ValueError(f"{owner}: {field.name} must be {_described(kind)}, got {_shown(value)}") from None


def checked(
    instance: Any,
    owner: str,
    limits: Mapping[str, tuple[float, float | None]] = {},
    choices: Mapping[str, Iterable[str]] = {},
) -> Callable[[str, bool, str], None]:
    """Check a dataclass by `check_types`, and fields against `limits` and `choices`.

    limits: field -> (least, most), of each number of a tuple; most is None if there is no upper limit. choices: field
    -> its values. Returns check(name, condition, wanted), which requires a condition of a field.
    """
    check_types(instance, owner)
    hints = get_type_hints(type(instance))

    def check(name: str, condition: bool, wanted: str) -> None:
        require(condition, owner, name, getattr(instance, name), wanted)

    for name, (least, most) in limits.items():
        values = getattr(instance, name)
        sizes = [size for size in (values if isinstance(values, tuple) else (values,)) if size is not None]
        if most is None:
            optional = ", or null" if NoneType in get_args(hints[name]) else ""
            check(name, all(least <= size for size in sizes), f"at least {least}{optional}")
        else:
            check(name, all(least <= size <= most for size in sizes), f"{least} to {most:,}")
    for name, known in choices.items():
        check(name, getattr(instance, name) in known, f"one of {', '.join(known)}")
    return check


def require(condition: bool, owner: str, name: str, value: Any, wanted: str) -> None:
    """Raise ValueError ``owner: name must be wanted, got value`` unless `condition`."""
    if not condition:
        raise ValueError(f"{owner}: {name} must be {wanted}, got {_shown(value)}")


def _converted(value: Any, kind: Any) -> Any:
    if kind is Any:
        return value
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        if value is None and NoneType in arguments:
            return None
        (kind,) = (argument for argument in arguments if argument is not NoneType)
        return _converted(value, kind)
    if origin is tuple:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise TypeError
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            raise TypeError
        return tuple(_converted(item, kind) for item, kind in zip(value, kinds, strict=True))
    if origin is dict:
        if not isinstance(value, dict):
            raise TypeError
        return {_converted(key, arguments[0]): _converted(item, arguments[1]) for key, item in value.items()}
    if kind is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**53:
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise TypeError
    if kind is float and not math.isfinite(value):
        raise TypeError
    return value


def _described(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(_described(argument) for argument in arguments)
    if origin is tuple:
        what = _described(arguments[0])
        return f"a list, each {what}" if arguments[-1] is Ellipsis else f"a list of {len(arguments)}, each {what}"
    if origin is dict:
        return (
            "a mapping of names" if arguments[1] is Any else f"a mapping of names, each to {_described(arguments[1])}"
        )
    return _NAMES.get(kind, f"a {kind.__name__}")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
