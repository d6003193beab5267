"""The page on installation has every message that building, loading and choosing a backend can give."""

import inspect
import re
import runpy
from types import SimpleNamespace

import pytest
import torch

from f2d_kernels import compiled
from f2d_kernels import triton as triton_backend
from f2d_kernels.registry import REGISTRY, requested_backend

from .blocks import ROOT

build = SimpleNamespace(**runpy.run_path(str(ROOT / "setup.py")))
PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
FIRST_CELLS = re.findall(r"(?m)^\| (.+?) \|", PAGE)
# what stands there between backticks, `…` being anything
SHOWN = [re.escape(text).replace("…", ".*") for cell in FIRST_CELLS for text in re.findall(r"`(.+?)`", cell)]


def is_shown(message: str) -> bool:
    return any(re.fullmatch(pattern, message, re.DOTALL) for pattern in SHOWN)


def torch_of(version: str = "2.13.0", cuda: str | None = "13.0"):
    return build.Torch(ROOT, version, cuda)


DECISIONS = [  # environ, torch, compiler, nvcc, system
    ({}, None, "g++", "nvcc", "Linux"),
    ({}, torch_of("2.9.1"), "g++", "nvcc", "Linux"),
    ({}, torch_of(), None, "nvcc", "Linux"),
    ({}, torch_of(), "g++", "nvcc", "Darwin"),
    ({}, torch_of(), "g++", None, "Linux"),
    ({}, torch_of(cuda=None), "g++", "nvcc", "Linux"),
    ({"F2D_KERNELS_SKIP_CPP": "1", "F2D_KERNELS_SKIP_CUDA": "1"}, torch_of(), "g++", "nvcc", "Linux"),
]


@pytest.mark.parametrize("given", DECISIONS)
def test_what_is_left_out(given):
    _, lines = build.decide(*given)
    assert lines
    for line in lines:
        assert is_shown(re.fullmatch(r"f2d_kernels: the \w+ part is skipped: (.+)", line).group(1)), line


@pytest.mark.parametrize(
    "refused",
    [
        lambda: build.decide({"F2D_KERNELS_SKIP_CUDA": "1", "F2D_KERNELS_FORCE_CUDA": "1"}, None, None, None),
        lambda: build.decide({"F2D_KERNELS_FORCE_CUDA": "1"}, torch_of(), "g++", None),
        lambda: build.architecture_flags("Ampere"),
        lambda: build.architecture_flags(" "),
        lambda: build._run(["false"]),
    ],
)
def test_what_stops_the_installation(refused):
    with pytest.raises((ValueError, RuntimeError)) as error:
        refused()
    first = str(error.value).splitlines()[0]  # a compiler's own words may follow
    assert is_shown(first), first


def test_what_the_loader_says(tmp_path, monkeypatch):
    binary = tmp_path / "_cpu.so"
    said = [compiled._load(binary, "C++", "a C++ compiler"), compiled._load(binary, "CUDA", "nvcc")]
    info = {"version": compiled.__version__, "minimum_torch": "2.10"}
    for found, running in ((None, "2.13"), (info | {"version": "0"}, "2.13"), (info, "2.9")):
        said.append(f"_cpu.so: {compiled.misfit(found, running)}")
    binary.write_text("no binary")
    monkeypatch.setattr(compiled, "misfit", lambda *given: None)
    said.append(compiled._load(binary, "C++", "a C++ compiler"))
    monkeypatch.setattr(compiled, "FOLDER", tmp_path)
    (tmp_path / "_cuda.so").write_text("no binary")
    if torch.version.cuda is None:
        said.append(compiled.load_cuda.__wrapped__())
    assert None not in said
    assert [text for text in said if not is_shown(text)] == []


def test_what_the_choice_of_a_backend_says(monkeypatch):
    said = [REGISTRY[name].missing("expert_head", "cuda") for name in ("cpp", "cuda")]
    monkeypatch.setenv("F2D_KERNELS_BACKEND", "tpu")
    with pytest.raises(ValueError) as unknown:
        requested_backend()
    said.append(str(unknown.value).removeprefix("F2D_KERNELS_BACKEND: "))
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said += [triton_backend.unavailable_reason(device) for device in ("cpu", "cuda", "mps")]
    # the others, as they stand in the source
    said += re.findall(r'return "(triton is not .+?|TRITON_INTERPRET=1 was .+?)"', inspect.getsource(triton_backend))
    assert len(said) == 8
    assert [text for text in said if not is_shown(text)] == []


def test_what_a_wrong_instruction_set_says():
    words = ": this processor does not have it"
    assert words in (ROOT / "csrc" / "cpu" / "level.h").read_text() and is_shown(f"F2D_KERNELS_SIMD=avx512{words}")
