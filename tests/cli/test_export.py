"""`f2d export`: what it refuses, and what it writes."""

import pytest
import torch

from f2d import export as exporting
from tests.cli.conftest import assert_one_line_error


def test_mistakes_are_one_line_before_any_work(f2d, model, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "export", lambda *_, **__: pytest.fail("work was done"))
    (tmp_path / "old.pt2").write_bytes(b"old")
    assert_one_line_error(f2d("export", model, "-o", tmp_path / "old.pt2"), 2, "--overwrite")
    assert_one_line_error(f2d("export", model, "-o", tmp_path / "a.pth"), 2, ".onnx or .pt2")
    assert_one_line_error(f2d("export", model, "-o", tmp_path), 2, "is a folder")
    assert_one_line_error(f2d("export", "f2d-huge", "-o", tmp_path / "a.pt2"), 2, "f2d-huge")
    assert_one_line_error(f2d("export", model, "-o", tmp_path / "a.onnx", "--precision", "bf16"), 2, "float32")
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    assert_one_line_error(f2d("export", model, "-o", tmp_path / "a.onnx"), 2, "f2d[export]")
    assert [path.name for path in tmp_path.iterdir()] == ["old.pt2"]


def test_a_program_is_written_and_checked(f2d, model, tmp_path):
    path = tmp_path / "deep" / "a.pt2"
    result = f2d("export", model, "-o", path, "--precision", "float32", "--check")
    assert result.exit_code == 0, result.output
    assert "precision: float32" in result.stdout and "2 of 70x45" in result.stdout
    assert torch.export.load(path).module()(torch.rand(1, 3, 20, 30)).shape == (1, 3, 20, 30)


@pytest.mark.parametrize("found", [{(1, 8, 8): float("nan")}, {(1, 1, 1): 0.0, (1, 8, 8): float("nan")}])
def test_a_file_that_differs_is_a_failure(f2d, model, tmp_path, monkeypatch, found):
    path = tmp_path / "a.pt2"
    monkeypatch.setattr(exporting, "export", lambda net, path, **_: path.write_bytes(b"x"))
    monkeypatch.setattr(exporting, "description", lambda path: {"image": "any"})
    monkeypatch.setattr(exporting, "differences", lambda path, net: found)
    assert_one_line_error(f2d("export", model, "-o", path, "--precision", "float32", "--check"), 1, "differs")
