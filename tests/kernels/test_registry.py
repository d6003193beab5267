"""The choice of a backend: by name, by environment, by what is there; and the reasons when one is not."""

import dataclasses
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from f2d_kernels import BackendUnavailableError, backends, expert_assembly, use_backend
from f2d_kernels.registry import (
    DELTAS_AT,
    MAX_LISTED,
    REGISTRY,
    Implementation,
    _for_long_lists,
    _resolve,
    implementation,
    requested_backend,
)

CPU = torch.device("cpu")


def test_every_backend_is_available_or_says_why():
    status = backends()
    assert list(status) == ["reference", "cpp", "triton", "cuda"]
    assert status["reference"] == "available"
    assert all(len(reason) > 8 and "\n" not in reason for reason in status.values())


def test_use_backend_nests_and_restores():
    assert requested_backend() == "auto"
    with use_backend("reference"):
        with use_backend("auto"):
            assert requested_backend() == "auto"
        assert requested_backend() == "reference"
    assert requested_backend() == "auto"


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="'cudaa'; known are auto, reference, cpp, triton, cuda"), use_backend("cudaa"):
        pass


def test_the_environment_variable_is_read_at_each_call_and_checked(monkeypatch):
    monkeypatch.setenv("F2D_KERNELS_BACKEND", "reference")
    assert requested_backend() == "reference"
    monkeypatch.setenv("F2D_KERNELS_BACKEND", "fast")
    with pytest.raises(ValueError, match="F2D_KERNELS_BACKEND: unknown backend 'fast'"):
        expert_assembly(torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, 1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows the refusal on a machine without a GPU")
def test_a_backend_asked_for_by_name_fails_with_its_reason():
    with (
        pytest.raises(BackendUnavailableError, match="'cuda' was requested but is not available: "),
        use_backend("cuda"),
    ):
        pass
    with pytest.raises(BackendUnavailableError, match="runs on cuda tensors, not on cpu"):
        implementation("expert_assembly", CPU, "cuda")


def test_auto_falls_back_with_one_log_line(monkeypatch, caplog):
    broken = REGISTRY["cpp"].__class__("cpp", lambda device: "no compiler was there", REGISTRY["cpp"].implementation)
    monkeypatch.setitem(REGISTRY, "cpp", broken)
    _resolve.cache_clear()
    with caplog.at_level(logging.WARNING, "f2d_kernels"):
        for _ in range(3):
            expert_assembly(torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, 1))
    _resolve.cache_clear()
    assert [record.message for record in caplog.records] == [
        "f2d_kernels: expert_assembly runs on the reference backend on cpu; not available: cpp (no compiler was there)"
    ]


@pytest.mark.parametrize(("op", "place"), [("expert_assembly", 1), ("transport_step", 3)])
def test_a_list_too_long_for_cuda_runs_on_triton_with_one_log_line(op, place, monkeypatch, caplog):
    """As on a machine whose GPU serves both backends; what runs is recorded instead."""
    ran: list[str] = []

    def fake(name: str):
        def both(_):
            return Implementation(*(lambda *a, way=way: ran.append(f"{name} {way}") for way in ("forward", "backward")))

        return dataclasses.replace(REGISTRY[name], unavailable=lambda device: None, implementation=both)

    for name in ("cuda", "triton"):
        monkeypatch.setitem(REGISTRY, name, fake(name))
    caches = (_resolve, _for_long_lists)
    for cached in caches:
        cached.cache_clear()
    device, tensor = torch.device("cuda"), torch.zeros(1)
    try:
        with caplog.at_level(logging.WARNING, "f2d_kernels"):
            for requested in ("auto", "cuda"):
                for count in (1, 32, 33, 40):
                    arguments = [tensor] * place + [[tensor] * count] + [tensor] * 3
                    chosen = implementation(op, device, requested)
                    chosen.forward(*arguments)
                    chosen.backward(*arguments)
    finally:
        for cached in caches:
            cached.cache_clear()
    names = ["cuda", "cuda", "triton", "triton", *["cuda"] * 4]  # by name: the kernels refuse, and say why
    assert ran == [f"{name} {way}" for name in names for way in ("forward", "backward")]
    assert len(caplog.records) == 1
    assert f"{op} of more than 32 listed deltas runs on the triton backend" in caplog.records[0].message


def test_the_limit_of_a_list_is_that_of_the_cuda_kernels():
    source = (Path(__file__).parents[2] / "csrc" / "cuda" / "experts.h").read_text()
    assert f"constexpr int kMaxListed = {MAX_LISTED};" in source
    for op, place in DELTAS_AT.items():
        for name in (f"{op}_out", f"{op}_backward_out"):
            schema = getattr(torch.ops.f2d_kernels, name).default._schema
            assert schema.arguments[place].name == "deltas", name


def test_another_thread_keeps_its_own_choice():
    seen = []
    with use_backend("reference"):
        thread = threading.Thread(target=lambda: seen.append(requested_backend()))
        thread.start()
        thread.join()
    assert seen == ["auto"]


@pytest.fixture
def backward_on_reference(monkeypatch) -> Iterator[list[str]]:
    """One entry for every backward pass that runs on the reference backend."""
    used: list[str] = []
    reference = REGISTRY["reference"]

    def spied(op):
        _, backward = reference.implementation(op)
        return reference.implementation(op)._replace(backward=lambda *a: used.append(op) or backward(*a))

    monkeypatch.setitem(REGISTRY, "reference", dataclasses.replace(reference, implementation=spied))
    _resolve.cache_clear()
    yield used
    _resolve.cache_clear()


def test_the_backward_pass_runs_where_the_forward_pass_ran(backward_on_reference):
    deltas = torch.randn(1, 2, 1, 2, 2, requires_grad=True)
    with use_backend("reference"):
        out = expert_assembly(deltas, torch.ones(1, 2))
    out.sum().backward()
    assert backward_on_reference == ["expert_assembly"]


@pytest.mark.skipif(backends()["cpp"] != "available", reason=f"cpp: {backends()['cpp']}")
def test_a_compiled_graph_does_not_keep_the_backend_under_which_it_was_made(backward_on_reference, monkeypatch):
    """PyTorch also keeps it on disk, for processes that may lack this backend."""
    deltas = torch.randn(1, 2, 1, 2, 2, requires_grad=True)
    step = torch.compile(lambda d: expert_assembly(d, torch.ones(1, 2)).sum(), fullgraph=True, backend="aot_eager")
    with use_backend("reference"):
        step(deltas).backward()
    assert len(backward_on_reference) == 1
    step(deltas).backward()
    assert len(backward_on_reference) == 1
    monkeypatch.setenv("F2D_KERNELS_BACKEND", "reference")
    step(deltas).backward()
    assert len(backward_on_reference) == 2


def test_importing_the_package_imports_no_triton():
    code = "import sys, f2d_kernels; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_info_prints_every_backend():
    result = subprocess.run([sys.executable, "-m", "f2d_kernels.info"], capture_output=True, text=True, check=True)
    for name in backends():
        assert f"backend {name}" in result.stdout
