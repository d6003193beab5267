"""YAML with the numbers of YAML 1.2."""

import re
from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """A loader with YAML 1.2's numbers: PyYAML reads 1e-3, without a point, as text, and 0500 as 320, in octal."""


class Dumper(yaml.SafeDumper):
    """A dumper that quotes text which `Loader` would read as a number."""


for _kind in (Loader, Dumper):
    for _name, _pattern in (("float", r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), ("int", r"[-+]?\d+$")):
        _kind.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_pattern), list("-+.0123456789"))


def _whole(loader: Loader, node: Any) -> int:
    text = loader.construct_scalar(node)
    return int(text) if text.lstrip("-+").isdecimal() else loader.construct_yaml_int(node)


Loader.add_constructor("tag:yaml.org,2002:int", _whole)
