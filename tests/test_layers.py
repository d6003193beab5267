"""The layout of the code: ROOMS against the imports of every file, and against the table in CONTRIBUTING.md."""

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from os.path import dirname, join, normpath, relpath
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Room -> the rooms that it may import. A room is a folder, or a single file on the top floor of its package; the name
# of a package alone is what the package exports. From the ground up: a room imports only rooms that stand before it.
ROOMS = {
    "csrc": "",
    "csrc/cpu": "csrc",
    "csrc/cpu/bind": "csrc csrc/cpu",
    "csrc/cuda": "csrc",
    "csrc/build_info.cpp": "csrc/cpu",
    "f2d_kernels/version.py": "",
    "f2d_kernels/environment.py": "",
    "f2d_kernels/arguments.py": "",
    "f2d_kernels/reference": "arguments.py",
    "f2d_kernels/triton": "environment.py arguments.py",
    "f2d_kernels/_checks.py": "",
    "f2d_kernels/noise.py": "_checks.py",
    "f2d_kernels/compiled.py": "version.py",
    "f2d_kernels/registry.py": "environment.py compiled.py",
    "f2d_kernels/ops": "arguments.py _checks.py noise.py registry.py",
    "f2d_kernels/modules.py": "ops",
    "f2d_kernels/fusing": "ops",
    "f2d_kernels/integrations": "_checks.py ops fusing",
    "f2d_kernels": "version.py registry.py ops fusing",
    "f2d_kernels/info.py": "compiled.py f2d_kernels",
    "f2d/replacing.py": "",
    "f2d/typed_fields.py": "",
    "f2d/degradation": "",
    "f2d/images": "replacing.py",
    "f2d/metrics": "images",
    "f2d/data": "replacing.py typed_fields.py degradation images",
    "f2d/transport": "f2d_kernels",
    "f2d/checkpoints": "replacing.py typed_fields.py",
    "f2d/nets": "typed_fields.py transport checkpoints f2d_kernels f2d_kernels/modules.py",
    "f2d/engine": "images transport nets f2d_kernels f2d_kernels/modules.py",
    "f2d/export": "replacing.py transport nets engine f2d_kernels",
    "f2d/integrations": "images transport checkpoints nets engine",
    "f2d/cluster": "replacing.py images integrations f2d_kernels",
    "f2d/training": "replacing.py typed_fields.py degradation images metrics data transport checkpoints nets "
    "f2d_kernels",
    "f2d/evaluation": "replacing.py degradation images metrics data transport checkpoints nets engine f2d_kernels",
    "f2d/figures": "replacing.py degradation images metrics transport engine evaluation",
    "f2d/report": "replacing.py images metrics transport engine evaluation",
    "f2d/demo.py": "degradation images metrics engine",
    "f2d/video": "replacing.py engine",
    "f2d/app": "degradation images checkpoints engine demo.py video",
    "f2d/cli": "replacing.py degradation images metrics data transport checkpoints nets engine export training "
    "evaluation figures report demo.py video app cluster f2d_kernels",
    "f2d/__main__.py": "cli",
    "f2d": "degradation transport nets engine f2d_kernels",
    "bench/registry.py": "",
    "bench/timing.py": "",
    "bench/memory.py": "",
    "bench/environment.py": "f2d_kernels",
    "bench/plain_norms.py": "f2d_kernels/modules.py",
    "bench/cases": "registry.py f2d_kernels",
    "bench/ceiling_triton.py": "",
    "bench/ceiling.py": "registry.py ceiling_triton.py",
    "bench/providers.py": "registry.py timing.py f2d_kernels",
    "bench/gate.py": "registry.py providers.py f2d_kernels f2d_kernels/ops",
    "bench/measure.py": "registry.py timing.py memory.py ceiling.py providers.py gate.py",
    "bench/restorers.py": "registry.py f2d/images f2d/transport f2d/nets f2d/engine f2d/demo.py",
    "bench/models.py": "registry.py timing.py memory.py plain_norms.py measure.py restorers.py f2d/data f2d/nets "
    "f2d/training f2d_kernels",
    "bench/report.py": "measure.py f2d/replacing.py",
    "bench/ptx": "registry.py cases providers.py f2d_kernels/registry.py",
    "bench/integrations": "timing.py memory.py environment.py plain_norms.py f2d/nets f2d_kernels "
    "f2d_kernels/integrations f2d_kernels/fusing",
    "bench": "registry.py timing.py memory.py environment.py cases providers.py gate.py measure.py restorers.py "
    "models.py report.py f2d/replacing.py f2d/degradation f2d/images f2d/data f2d/transport f2d/nets f2d/engine "
    "f2d/training f2d/evaluation f2d/demo.py f2d/video f2d/cluster f2d_kernels",
}
PACKAGES = ("csrc", "f2d_kernels", "f2d", "bench")


def full_name(room: str, name: str) -> str:
    """A name in the permissions of `room`: of another room of its package, or with its package in front."""
    package = room.partition("/")[0]
    return name if name.partition("/")[0] in PACKAGES else f"{package}/{name}"


ALLOWED = {room: {full_name(room, name) for name in names.split()} for room, names in ROOMS.items()}


def room_of(path: str) -> str:
    """The room of a file: the longest name in ROOMS that is its own or its folder's; "" for files of no room."""
    folders = [path, *map(str, Path(path).parents)]
    found = next((folder for folder in folders if folder in ROOMS), "")
    # a package's own room has the files on its top floor alone, so that a new folder needs a name in ROOMS
    return found if "/" in found or dirname(path) == found else ""


@cache
def file_of(module: str) -> str | None:
    """The file of a module of this repository, such as f2d/nets/__init__.py."""
    names = (module.replace(".", "/") + tail for tail in (".py", "/__init__.py"))
    return next((name for name in names if (ROOT / name).is_file()), None)


def origin(path: str, node: ast.ImportFrom) -> str:
    """The module that a file imports names from."""
    folders = path.split("/")[: -node.level] if node.level else []
    return ".".join([*folders, *([node.module] if node.module else [])])


@cache
def imports(path: str, text: str) -> set[str]:
    """Files of this repository that a file imports or includes, inside functions and under TYPE_CHECKING as well."""
    if not path.endswith(".py"):
        return {normpath(join(dirname(path), name)) for name in re.findall(r'^#include "(.+)"', text, re.MULTILINE)}
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [file_of(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = origin(path, node)
            found += [file_of(f"{module}.{alias.name}") or file_of(module) for alias in node.names]
    return {name for name in found if name}


def violations(path: str, text: str) -> set[str]:
    """The rooms that a file imports and must not."""
    room, rooms = room_of(path), {room_of(name) for name in imports(path, text)}
    return rooms - ALLOWED[room] - {room}


@pytest.fixture(scope="module")
def sources() -> dict[str, str]:
    """Path -> text of every file in a room."""
    suffixes = {".py", ".h", ".cpp", ".cu"}
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.suffix in suffixes]
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted(files)}


def test_every_file_has_a_room(sources):
    assert {room_of(path) for path in sources} == set(ROOMS)
    for package in ("f2d", "f2d_kernels"):
        assert [path for path in sources if room_of(path) == package] == [f"{package}/__init__.py"]


def test_every_import_is_allowed(sources):
    assert {path: found for path, text in sources.items() if (found := violations(path, text))} == {}


def test_every_permission_is_used(sources):
    used = {(room_of(path), room_of(name)) for path, text in sources.items() for name in imports(path, text)}
    assert {(room, other) for room, others in ALLOWED.items() for other in others} - used == set()


def test_rooms_stand_on_one_another():
    rooms = list(ROOMS)
    for i, room in enumerate(rooms):
        assert ALLOWED[room] <= set(rooms[:i]), f"{room} may import only what stands before it"


def graph(sources: dict[str, str]) -> TopologicalSorter:
    return TopologicalSorter({path: imports(path, text) - {path} for path, text in sources.items()})


def test_no_import_circle(sources):
    graph(sources).prepare()
    for line in ("from f2d.engine import restorer", "def f():\n    from .restore import evaluating"):
        planted = "f2d/transport/interface.py"
        with pytest.raises(CycleError):
            graph(sources | {planted: sources[planted] + line}).prepare()


def written(path: str, target: str) -> list[str]:
    """The ways in which a file can import another."""
    if not target.endswith(".py"):
        return [f'#include "{relpath(target, dirname(path))}"\n']
    module = target.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    package, _, name = module.rpartition(".")
    lines = [f"import {module}", f"from {module} import anything"] + [f"from {package} import {name}"] * bool(package)
    return [*lines, f"if TYPE_CHECKING:\n    {lines[0]}", f"def f():\n    {lines[-1]}"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_forbidden_import_is_caught(room, sources):
    """Planted in every room, of every room that it must not import, however it is written."""
    example = {room_of(path): path for path in sources} | {"": "tests/conftest.py"}
    path = example[room]
    others = {other: name for other, name in example.items() if name.endswith(".py") == path.endswith(".py")}
    assert others.keys() - ALLOWED[room] - {room}
    for other, target in others.items():
        for line in written(path, target):
            assert violations(path, line) == {other} - ALLOWED[room] - {room}, line


def hidden(path: str, text: str) -> list[str]:
    """Modules of a package that its own __init__.py makes unreachable, as a function there has the same name."""
    package, found = dirname(path).replace("/", "."), []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                module = file_of(f"{package}.{alias.asname or alias.name}")
                found += [module] * (module != file_of(f"{origin(path, node)}.{alias.name}"))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name != "__init__":
            found.append(file_of(f"{package}.{node.name}"))
    return [module for module in found if module]


def test_no_name_hides_a_module(sources):
    assert [name for path, text in sources.items() if path.endswith("__init__.py") for name in hidden(path, text)] == []
    for line in ("from .plan import BudgetError as describe", "def describe(): ...", "from .describe import describe"):
        assert hidden("f2d/engine/__init__.py", line) == ["f2d/engine/describe.py"]
    assert hidden("f2d/engine/__init__.py", "from . import describe") == []


def test_the_table_is_the_rule():
    """CONTRIBUTING.md: the first column names rooms, the third what they may import."""
    rows = [line.split("|") for line in (ROOT / "CONTRIBUTING.md").read_text().splitlines() if line.startswith("| `")]
    table = {room.strip(" `"): re.findall("`(.+?)`", names) for _, room, _, names, _ in rows}
    assert {room: names for room, names in table.items() if room.partition("/")[0] in PACKAGES} == {
        room: names.split() for room, names in ROOMS.items()
    }


def test_gradio_is_known_to_the_page_alone(sources):
    """`f2d app` is optional: nothing else of f2d fails where gradio is missing."""
    users = {path for path, text in sources.items() if re.search(r"^\s*(import|from) gradio", text, re.MULTILINE)}
    assert users == {f"f2d/app/{name}.py" for name in ("clip_parts", "page", "parts", "theme")}
