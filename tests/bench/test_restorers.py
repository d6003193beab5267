"""Whole restorations in the benchmark: the gate on the engine's result, and the table of where the time goes."""

import pytest
import torch

from bench import models, photo_time, profile, restorers
from bench.measure import RedGateError, Settings
from bench.registry import Case

CPU = torch.device("cpu")


@pytest.fixture(params=[torch.float32, torch.bfloat16])
def case(request) -> Case:
    name = f"lite/tiny/{'bf16' if request.param == torch.bfloat16 else 'f32'}"
    return Case("restore", name, 1, 3, 48, 64, request.param)


def test_rows_of_a_restoration(case):
    settings = Settings(CPU, samples=2, seconds=0.1)
    (rows,) = models.ModelMeasurement(settings).rows(case)
    roles = [row.role for row in rows]
    assert roles == (["ours", "plain", "eager"] if case.dtype == torch.bfloat16 else ["ours", "plain"])
    assert all(row.rate == pytest.approx(48 * 64 / 1e6 / (row.ms / 1e3)) and row.unit == "MP/s" for row in rows)
    assert all(row.peak_mib > 0.1 for row in rows)
    (rows,) = models.ModelMeasurement(Settings(CPU, samples=2, seconds=0.1, providers=("plain",))).rows(case)
    assert [row.role for row in rows] == ["ours", "plain"]  # ours is there always
    assert list(models.ModelMeasurement(Settings(CPU, modes=("both",))).rows(case)) == []


def test_a_wrong_engine_prints_no_figure(case, monkeypatch):
    results = {name: call() for name, (_, call) in restorers.restorers(case, CPU).items()}
    assert restorers.problem(case, results) is None
    noise = torch.randn(results["engine"].shape, generator=torch.Generator().manual_seed(0))
    off = 2 * 10 ** (-(restorers.LEAST_PSNR[case.dtype] - 1) / 20)  # one decibel below the bar
    wrong = results | {"engine": results["engine"] + off * noise}
    assert "dB from the plain network" in restorers.problem(case, wrong)
    assert "clamped" in restorers.problem(case, results | {"plain float32 NCHW": results["engine"] * 100})

    from f2d.engine import control

    monkeypatch.setattr("f2d.engine.engine.scaled", lambda gates, strength: control.scaled(gates, strength) * 1.5)
    with pytest.raises(RedGateError, match="dB from the plain network"):
        list(models.ModelMeasurement(Settings(CPU)).rows(case))


def test_drawn_weights_leave_nothing_at_zero():
    net = restorers.drawn_network("f2d-lite")
    assert all(parameter.any() for parameter in net.parameters())
    again, other = restorers.drawn_network("f2d-lite"), restorers.drawn_network("f2d-lite", seed=1)
    first = next(net.parameters())
    assert torch.equal(first, next(again.parameters())) and not torch.equal(first, next(other.parameters()))


def test_where_the_time_goes(capsys):
    assert profile.class_of("aten::mkldnn_convolution") == "convolutions"
    assert profile.class_of("f2d_kernels::group_norm_silu_out") == "our kernels"
    assert profile.class_of("aten::native_group_norm") == "normalisation, activation"
    assert profile.class_of("aten::addmm") == "matrix products"
    profile.main(["lite", "--height", "48", "--width", "64", "--repeats", "1"])
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split("|")[1]: line.split("|")[2:-1] for line in lines if line.startswith("|")}
    assert rows[" "] == ["engine", "plain float32 NCHW", "autocast, channels_last"]
    shares = [
        sum(int(rows[name][i].split("(")[1].rstrip("%)")) for name in [*profile.CLASSES, "other"]) for i in range(3)
    ]
    assert all(95 <= share <= 105 for share in shares)


def test_the_whole_command_runs_on_as_many_threads_as_the_model(monkeypatch, tmp_path):
    given = []
    monkeypatch.setattr(photo_time.subprocess, "run", lambda *command, env, **options: given.append(env))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    photo_time.command_seconds(tmp_path / "a.png", tmp_path / "b.png", "f2d-lite")
    assert [env["OMP_NUM_THREADS"] for env in given] == ["3"] * 4
