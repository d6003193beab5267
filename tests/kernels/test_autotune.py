"""The choice of warps: what is timed, what is remembered, and what happens to files that are not as they should be."""

import itertools
import json
import logging
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("triton")

from f2d_kernels.triton import _autotune


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("F2D_KERNELS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_autotune, "_chosen", None)
    monkeypatch.setattr(_autotune, "_known", {})
    return tmp_path / "cache" / "autotune.json"


def timer(times: dict[int, float], calls: list[int]):
    """`time` and `run` of `choose`: running with w warps takes times[w]."""

    def time(thunk) -> float:
        thunk()
        return times[calls[-1]]

    return calls.append, time


def test_the_fastest_is_chosen_and_remembered(fresh, monkeypatch):
    calls: list[int] = []
    times = {1: 5.0, 2: 3.0, 4: 4.0, 8: 2.0, 16: 6.0}
    assert _autotune.choose("key", 4, *timer(times, calls)) == 8
    assert sorted(calls) == [1, 2, 4, 8, 16]
    assert json.loads(fresh.read_text()) == {"key": 8}
    monkeypatch.setattr(_autotune, "_chosen", None)  # as a new process
    assert _autotune.choose("key", 4, *timer({}, [])) == 8


def test_a_difference_within_the_noise_keeps_the_rule_of_thumb():
    times = {1: 5.0, 2: 3.95, 4: 4.0, 8: 3.9, 16: 6.0}
    assert _autotune.choose("key", 4, *timer(times, [])) == 4


@pytest.mark.parametrize("warps", [1, 2, 4, 8, 16])
def test_at_most_six_candidates_and_the_rule_of_thumb_first(warps):
    found = _autotune.candidates(warps)
    assert found[0] == warps and len(found) == len(set(found)) <= 6
    assert all(w in (1, 2, 4, 8, 16) for w in found)


def test_sizes_within_a_factor_of_two_share_a_bucket():
    assert [_autotune.bucket(n) for n in (1, 2, 3, 4, 5, 1000, 1024, 1025)] == [1, 2, 4, 4, 8, 1024, 1024, 2048]


def test_the_key_holds_what_a_choice_depends_on():
    def kernel() -> None: ...

    def key(programs=100, device="A", dtype=torch.float32, **constants):
        arguments = (torch.zeros(1, dtype=dtype), None, (torch.zeros(1),), 3)
        return _autotune.key_of(SimpleNamespace(fn=kernel), programs, device, arguments, {"K": 4, **constants})

    base = key()
    assert key(programs=101) == base and key(num_warps=8) == base
    for other in (key(programs=1000), key(device="B"), key(dtype=torch.bfloat16), key(K=5)):
        assert other != base


def test_launches_share_a_quick_key_exactly_where_they_share_a_choice():
    """Every two launches of different kernels, sizes, devices, dtypes, absent arguments and constants."""

    def other() -> None: ...

    def kernel() -> None: ...

    kernels = [SimpleNamespace(fn=kernel), SimpleNamespace(fn=other)]
    wide, narrow = torch.zeros(1), torch.zeros(1, dtype=torch.bfloat16)
    arguments = [(wide, (wide, narrow), 3, (4, 1)), (wide, (wide, wide), 3, (4, 1)), (wide, (narrow,), 5, (2, 1))]
    launches = list(
        itertools.product(
            kernels, (1, 2, 3, 4, 1000, 1024), (0, 1), arguments, [{"K": 4, "num_warps": 8, "stride": 3}, {"K": 5}]
        )
    )
    texts = [_autotune.key_of(k, p, f"gpu{d}", a, c) for k, p, d, a, c in launches]
    quick = [_autotune.launch_key(k, p, torch.device("cuda", d), a, c) for k, p, d, a, c in launches]
    assert len(set(texts)) == len(set(quick)) == len(set(zip(texts, quick, strict=True))) == 2 * 4 * 2 * 3 * 2


def test_a_launch_that_was_made_before_reads_no_text(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA X")
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    monkeypatch.setattr(_autotune.triton.testing, "do_bench", lambda f, **_: 1.0)
    kernel = SimpleNamespace(fn=test_a_launch_that_was_made_before_reads_no_text)
    arguments = (kernel, 9, torch.device("cuda", 0), (torch.zeros(1), None), {"K": 4, "num_warps": 4}, lambda w: None)
    assert _autotune.tuned_warps(*arguments) == 4
    monkeypatch.setattr(_autotune, "key_of", None)
    assert _autotune.tuned_warps(*arguments) == 4
    monkeypatch.setenv("F2D_KERNELS_AUTOTUNE", "0")
    assert _autotune.tuned_warps(*arguments[:4], {"K": 4, "num_warps": 2}, None) == 2


@pytest.mark.parametrize("content", ["{", "[]", '{"key": 3}', '{"key": "8"}'])
def test_a_damaged_file_is_timed_again_and_replaced(fresh, content):
    fresh.parent.mkdir()
    fresh.write_text(content)
    assert _autotune.choose("key", 4, *timer({1: 5.0, 2: 1.0, 4: 4.0, 8: 2.0, 16: 6.0}, [])) == 2
    assert json.loads(fresh.read_text()) == {"key": 2}


def test_choices_of_other_processes_are_kept(fresh):
    _autotune.choose("mine", 4, *timer(dict.fromkeys((1, 2, 4, 8, 16), 1.0), []))
    fresh.write_text(json.dumps({"theirs": 2}))
    _autotune.choose("mine too", 4, *timer(dict.fromkeys((1, 2, 4, 8, 16), 1.0), []))
    assert json.loads(fresh.read_text()) == {"mine": 4, "mine too": 4, "theirs": 2}


def test_a_folder_that_cannot_be_written_is_no_error(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("F2D_KERNELS_CACHE", str(tmp_path / "file"))
    times = dict.fromkeys((1, 2, 4, 8, 16), 1.0)
    with caplog.at_level(logging.WARNING, "f2d_kernels"):
        assert _autotune.choose("key", 4, *timer(times, [])) == 4
    assert "not kept" in caplog.text


def test_nothing_is_timed_on_a_cpu_or_when_switched_off(monkeypatch):
    def never(*_) -> None:
        raise AssertionError("timed")

    constants = {"num_warps": 4}
    assert _autotune.tuned_warps(None, 1, torch.device("cpu"), (), constants, never) == 4
    monkeypatch.setenv("F2D_KERNELS_AUTOTUNE", "0")
    assert _autotune.tuned_warps(None, 1, torch.device("cuda"), (), constants, never) == 4
