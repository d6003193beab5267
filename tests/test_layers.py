"""The layer rule of CONTRIBUTING.md, read off the imports of every file."""

import ast
from pathlib import Path

import pytest

import f2d_kernels

ROOT = Path(__file__).resolve().parents[1]
PUBLIC_KERNEL_MODULES = {"f2d_kernels", "f2d_kernels.modules"}
PACKAGES = ("f2d_kernels", "f2d", "bench", "tests")

# inside f2d_kernels: which parts may import which (ops -> backends -> kernels, never back)
KERNEL_LAYERS = {
    "ops": {"_checks", "registry", "noise", "ops"},
    "reference": {"reference"},
    "triton": {"triton"},
    "compiled": {"version"},
    "registry": {"compiled"},
    "noise": {"_checks"},
    "_checks": set(),
    "modules": {"ops"},
    "integrations": {"ops", "integrations"},
    "fusing": {"ops", "fusing"},
    "info": {"compiled", "version"},
    "version": set(),
}


def imports_of(path: Path) -> list[tuple[str, list[str]]]:
    """(module, names) of every import in `path`, relative ones made absolute."""
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            found.append((".".join([*base, *([node.module] if node.module else [])]), [a.name for a in node.names]))
    return found


def violations(path: Path) -> list[str]:
    top, *rest = path.relative_to(ROOT).with_suffix("").parts
    wrong = []
    for module, names in imports_of(path):
        target = module.split(".")
        if target[0] not in PACKAGES or target[0] == top == "tests":
            continue
        if top == "f2d_kernels":
            if target[0] != "f2d_kernels":
                wrong.append(f"f2d_kernels imports {module}")
            elif rest[0] not in ("__init__", "info"):
                # "from f2d_kernels import x" names a part as well
                folder = Path(f2d_kernels.__file__).parent
                parts = target[1:2] or [n for n in names if (folder / n).is_dir() or (folder / f"{n}.py").exists()]
                allowed = KERNEL_LAYERS[rest[0]]
                wrong += [f"f2d_kernels.{rest[0]} imports {part}" for part in parts if part not in allowed]
        elif top == "f2d":
            public = module in PUBLIC_KERNEL_MODULES and (
                not names or set(names) <= set(f2d_kernels.__all__) | {"modules"}
            )
            if target[0] in ("bench", "tests") or (target[0] == "f2d_kernels" and not public):
                wrong.append(f"f2d imports {module} {names}")
        elif target[0] == "tests":
            wrong.append(f"{top} imports {module}")
    return [f"{path.relative_to(ROOT)}: {w}" for w in wrong]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_import_goes_down_the_layers(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    assert [w for path in files for w in violations(path)] == []


def test_gradio_is_known_to_the_page_alone():
    """`f2d app` is optional: nothing else of f2d fails where gradio is missing."""
    room = ROOT / "f2d" / "app"
    users = {path for path in (ROOT / "f2d").rglob("*.py") for module, _ in imports_of(path) if module == "gradio"}
    assert users == {room / "page.py", room / "parts.py", room / "theme.py"}


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("f2d/x.py", "from f2d_kernels.registry import implementation"),
        ("f2d/x.py", "import bench.run"),
        ("f2d_kernels/ops/x.py", "from f2d.nets import F2DNet"),
        ("f2d_kernels/reference/x.py", "from f2d_kernels.ops import expert_assembly"),
        ("f2d_kernels/triton/x.py", "from f2d_kernels import registry"),
        ("bench/x.py", "from tests.kernels import cases"),
    ],
)
def test_the_rule_catches_a_wrong_import(where, line, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    path = tmp_path / where
    path.parent.mkdir(parents=True)
    path.write_text(line + "\n")
    assert len(violations(path)) == 1
