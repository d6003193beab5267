"""The two-point target: one call is the mean, the deterministic flow has one answer, stochastic calls decide."""

import pytest
import torch
from matplotlib.figure import Figure

from bench import two_points
from bench.two_points import FLOWS, MODES, Case, ends, figure, table

EVEN, TILTED = Case(0.1, 0.5), Case(0.1, 0.7)


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("case", [EVEN, TILTED])
def test_one_call_is_the_mean_of_the_modes(flow, case):
    mean = MODES[0] * (1 - case.odds) + MODES[1] * case.odds
    assert (ends(case, flow, 1) - mean).abs().max() < 0.02  # 0.001 of the residual, five deviations of its factor


@pytest.mark.parametrize("steps", [4, 10, 100])
def test_the_deterministic_flow_has_one_answer(steps):
    assert ends(EVEN, "deterministic", steps).abs().max() < 1e-6  # the tie of even odds: between the modes
    torch.testing.assert_close(ends(TILTED, "deterministic", steps), torch.full((65536,), 0.5))


def test_the_stochastic_transport_decides_pixel_by_pixel():
    few, many = (ends(EVEN, "stochastic", steps) for steps in (4, 100))
    decided = [float(((out.abs() - 0.5).abs() < 0.1).float().mean()) for out in (few, many)]
    assert decided[0] < 0.6 < 0.9 < decided[1]
    assert 0.4 < float((many > 0).float().mean()) < 0.6


def test_what_is_written():
    assert table().count("\n") == 1 + 3 * 2 * 4
    assert len(figure(EVEN).axes) == 8


def test_a_new_folder_is_created(monkeypatch, tmp_path):
    monkeypatch.setattr(two_points, "table", lambda: "the table")
    monkeypatch.setattr(two_points, "figure", lambda case: Figure())
    two_points.main(["-o", str(tmp_path / "new" / "folder")])
    assert (tmp_path / "new" / "folder" / "two-points.md").read_text() == "the table\n"
    assert (tmp_path / "new" / "folder" / "two-points.png").read_bytes().startswith(b"\x89PNG")
