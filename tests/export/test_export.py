"""Exported files against the package itself: other programs get what `f2d.restore_tensor` gives."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from f2d import export as exporting
from f2d.engine import Engine
from f2d.export import description, differences, export
from f2d.export.graph import cropped, padded
from f2d.nets import F2DNet, F2DNetConfig
from f2d.nets.padding import pad_to_multiple
from f2d.transport.restore import restore_tensor
from tests.nets.small import TINY, resflow_net

# one pixel; padded by reflection; too narrow to reflect; multiples of the stride; a batch
SIZES = ((1, 1, 1), (2, 13, 22), (1, 30, 3), (1, 16, 32), (3, 7, 9))


@pytest.fixture(scope="module")
def net() -> F2DNet:
    """As the presets that ship, with no weight at zero."""
    torch.manual_seed(3)
    net = F2DNet(TINY).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return net


@pytest.fixture(scope="module")
def program(net, tmp_path_factory) -> Path:
    """`net` as a .pt2 file; tracing is slow, so there is one for all tests."""
    path = tmp_path_factory.mktemp("export") / "net.pt2"
    export(net, path)
    return path


@pytest.fixture
def onnx():
    reason = 'needs onnx, onnxscript and onnxruntime: pip install "f2d[export]"'
    for name in ("onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=reason)
    return pytest.importorskip("onnx", reason=reason)


def test_a_sampler_that_stops_short_is_told(net, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "traced", lambda *_: None)
    monkeypatch.setattr(torch.export, "save", lambda *_, **__: None)
    with pytest.warns(RuntimeWarning, match="EM advances one dt per step, so 2 of 100 steps stop short"):
        export(net, tmp_path / "net.pt2", steps=2, sampler="EM")


def test_noise_is_said_to_have_the_networks_distribution(tmp_path, monkeypatch):
    """A network trained with y_1 = -1 or 1 must not be given normal noise."""
    told = []
    monkeypatch.setattr(exporting, "traced", lambda *_: None)
    monkeypatch.setattr(torch.export, "save", lambda *_, extra_files: told.append(extra_files[exporting.DESCRIPTION]))
    for distribution in ("rademacher", "gaussian"):
        export(resflow_net(distribution=distribution), tmp_path / "net.pt2")
    one, other = (json.loads(text)["noise"] for text in told)
    assert one.endswith("of distribution rademacher with mean 0 and variance 1") and "normal" not in one
    assert other.endswith("standard normal")


def test_the_default_dtype_does_not_reach_the_file(tmp_path, monkeypatch):
    def trace(_, inputs, **__):
        raise TypeError(", ".join(str(value.dtype) for value in inputs))

    net = resflow_net()
    monkeypatch.setattr(torch.export, "export", trace)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with pytest.raises(TypeError, match=r"^torch\.float32, torch\.float32$"):
            export(net, tmp_path / "net.pt2")
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("multiple", [1, 2, 8])
def test_padding_by_number_is_the_networks_padding(multiple):
    for size in range(1, 20):
        x = torch.rand(2, 3, size, 21 - size)
        assert torch.equal(padded(x, multiple), pad_to_multiple(x, multiple))
        assert torch.equal(cropped(padded(x, multiple), size, 21 - size), x)


def test_onnx_restores_as_pytorch_does(net, onnx, tmp_path):
    path = tmp_path / "net.onnx"
    export(net, path)
    found = differences(path, net, SIZES)
    assert set(found) == set(SIZES) and max(found.values()) <= 1e-4, found

    model = onnx.load(path)
    assert {node.domain for node in model.graph.node} == {""}  # standard operators alone
    dims = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert [value.name for value in model.graph.input] == ["image"] and dims == ["batch", 3, "height", "width"]
    assert F2DNetConfig.from_dict(json.loads(description(path)["config"])) == net.config


@pytest.mark.slow
def test_onnx_of_every_part_takes_noise(make_net, onnx, tmp_path):
    """Enhancer, residual head, full resolution, a learned schedule, and two steps."""
    net, path = make_net(learned_schedule=True, num_steps=4), tmp_path / "net.onnx"
    net.learned_schedule.observe(torch.arange(5), torch.tensor([1.0, 0.3, 0.2, 0.1, 0.05]))
    assert net.schedule.log_mean[2] != net.config.schedule.log_mean[2]
    export(net, path, steps=2, sampler="MC")
    found = differences(path, net, SIZES)
    assert max(found.values()) <= 1e-4, found
    text = description(path)
    assert (text["steps"], text["sampler"]) == ("2", "MC") and "standard normal" in text["noise"]


def test_exported_program_is_the_engine(net, program):
    found = differences(program, net, SIZES)
    assert max(found.values()) <= 2e-6, found
    loaded = torch.export.load(program)
    assert "f2d_kernels.expert_head" in loaded.graph_module.code  # the fast path, not plain PyTorch
    assert description(program)["precision"] == "float32"


@pytest.mark.slow
def test_exported_program_in_bfloat16(make_net, tmp_path):
    net, path = make_net(), tmp_path / "net.pt2"
    export(net, path, steps=2, sampler="MC", dtype=torch.bfloat16)
    found = differences(path, net, SIZES)
    assert max(found.values()) <= 2e-2, found
    assert description(path)["precision"] == "bfloat16"


@pytest.mark.slow
def test_exported_program_of_resflow(tmp_path):
    """One noise, whatever the steps; padding in the graph where the network has it."""
    net, path = resflow_net(patch=2), tmp_path / "net.pt2"
    export(net, path, steps=2)
    found = differences(path, net, SIZES)
    assert max(found.values()) <= 2e-6, found
    text = description(path)
    assert (text["steps"], text["sampler"]) == ("2", "euler") and "factors" not in text
    assert text["noise"].startswith("float32 [1, batch, 3")


def test_differences_see_other_weights(net, program):
    other = copy.deepcopy(net)
    other.backbone.conv_out.bias += 0.01
    assert differences(program, other, SIZES[1:2])[SIZES[1]] > 1e-3


def test_exported_program_needs_the_kernels_alone(net, program, tmp_path):
    image = torch.rand(1, 3, 9, 14, generator=torch.Generator().manual_seed(5))
    torch.save(image, tmp_path / "image.pt")
    script = (
        f"import sys, torch, f2d_kernels; program = torch.export.load({str(program)!r}).module()\n"
        "torch.save(program(torch.load('image.pt')), 'restored.pt'); assert 'f2d' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    expected = (restore_tensor(Engine(net).predictor(skipping=False), image * 2 - 1, sampler="mean") + 1) / 2
    assert (torch.load(tmp_path / "restored.pt") - expected).abs().max() < 2e-6


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("net.onx", {}, "must end in .onnx or .pt2"),
        ("net.pt2", {"steps": 2}, "mean"),
        ("net.pt2", {"steps": 1000, "sampler": "MC"}, "steps"),
        ("net.pt2", {"sampler": "best"}, "sampler must be one of"),
        ("net.onnx", {"dtype": torch.bfloat16}, "float32"),
    ],
)
def test_wrong_wishes_are_refused_before_any_work(name, options, words, net, onnx, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "traced", lambda *_: pytest.fail("work was done"))
    with pytest.raises(ValueError, match=words):
        export(net, tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []


def test_without_onnx_the_extra_is_named(net, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"onnxscript.*f2d\[export\]"):
        export(net, tmp_path / "net.onnx")


def test_a_failed_export_leaves_what_was_there(net, tmp_path, monkeypatch):
    path = tmp_path / "net.pt2"
    path.write_bytes(b"old")

    def fail(program, file, **_):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(exporting, "traced", lambda *_: None)  # nothing to write: tracing is slow
    monkeypatch.setattr(torch.export, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        export(net, path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
