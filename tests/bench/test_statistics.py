"""Medians, quantiles, means and what is made of them."""

import math

import numpy as np
import pytest
import torch

from bench import report
from bench.measure import Row
from bench.timing import Times, host_microseconds, interleaved, sets_needed

CPU = torch.device("cpu")


def row(provider: str, role: str, ms: float, case: str = "a", mode: str = "forward", **more) -> Row:
    return Row("op", case, "", mode, provider, role, ms, ms, ms, 3, **more)


@pytest.mark.parametrize("count", [1, 2, 3, 10, 31])
def test_quantiles_are_numpys(count):
    values = np.random.default_rng(count).lognormal(size=count)
    times = Times.of(values.tolist())
    expected = np.quantile(values, [0.5, 0.2, 0.8])
    np.testing.assert_allclose([times.median, times.p20, times.p80], expected, rtol=1e-12)
    assert times.samples == count


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="no samples"):
        Times.of([])


def test_ratios_take_the_fastest_eager_way_and_the_worst_case():
    rows = [row("cpp", "ours", 2.0), row("eager:sum", "eager", 10.0), row("eager:loop", "eager", 6.0)]
    rows += [row("compile", "compile", 1.0), row("ceiling:x", "ceiling", 0.5), row("copy_", "copy", 0.5)]
    rows += [row("cpp", "ours", 1.0, case="b"), row("eager:sum", "eager", 12.0, case="b")]
    kinds = report.ratios(rows)["op", "", "forward", "cpp"]
    assert kinds["eager/ours"] == {"a": 3.0, "b": 12.0}
    assert kinds["compile/ours"] == {"a": 0.5}
    text = "\n".join(report.summary(rows))
    assert "6.00    worst   3.00  a   (2 cases)" in text  # sqrt(3 · 12) = 6


def test_extra_memory_is_shown_as_a_share_of_eagers_and_its_worst_case_is_the_largest():
    rows = [
        row("cpp", "ours", 1.0, mode="both", extra_mib=1.0),
        row("eager:sum", "eager", 2.0, mode="both", extra_mib=8.0),
    ]
    rows += [
        row("cpp", "ours", 1.0, "b", "both", extra_mib=4.0),
        row("eager:sum", "eager", 2.0, "b", "both", extra_mib=8.0),
    ]
    assert report.ratios(rows)["op", "", "both", "cpp"]["extra memory by eager's"] == {"a": 0.125, "b": 0.5}
    assert "worst   0.50  b" in "\n".join(report.summary(rows))


def test_compare_divides_new_by_old():
    old = [row("cpp", "ours", 4.0), row("compile", "compile", 2.0), row("gone", "x", 1.0)]
    new = [row("cpp", "ours", 1.0), row("compile", "compile", 2.0), row("fresh", "x", 1.0)]
    lines = report.compare(new, old)
    assert lines[1:] == [
        "  0.250  op a forward cpp",
        "  1.000  op a forward compile",
        "  0.500  geometric mean of 2 rows",
    ]
    assert "no row in common" in report.compare(new, [row("cpp", "ours", 1.0, case="other")])[0]


def test_json_and_csv_keep_every_figure(tmp_path):
    rows = [row("cpp", "ours", 1.25, gbps=3.5, peak_mib=0.0, unit="MP/s", rate=7.0), row("compile", "compile", 2.0)]
    report.write(tmp_path / "deep" / "r.json", report.to_json(rows, {"device": "x"}, ["a: no time"]))
    read, environment = report.from_json((tmp_path / "deep" / "r.json").read_text())
    assert (read, environment) == (rows, {"device": "x"})
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["r.json"]
    lines = report.to_csv(rows).splitlines()
    assert lines[0].startswith("op,case,variant,mode,provider,role,ms,") and len(lines) == 3
    assert lines[1].split(",")[6] == "1.25" and lines[2].split(",")[10] == ""


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"rows": [{"op": 1}], "environment": {}}'])
def test_what_is_no_result_is_refused(text):
    with pytest.raises(ValueError, match="not a result of"):
        report.from_json(text)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    target = tmp_path / "r.json"
    report.write(target, "old")
    with pytest.raises(TypeError):
        report.write(target, None)
    assert target.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_providers_take_turns_in_a_rotating_order_and_untimed_work_stays_untimed():
    order = []

    def provider(name):
        class Context:
            def __enter__(self):
                order.append(name)
                return [lambda: None, lambda: None]

            def __exit__(self, *_):
                return None

        return Context

    times = interleaved({"a": provider("a"), "b": provider("b")}, CPU, samples=4, seconds=60)
    assert order == ["a", "b", "a", "b", "b", "a"]  # warm-up, first round, second round
    assert {t.samples for t in times.values()} == {4}


def test_a_time_limit_still_gives_two_rounds():
    from contextlib import nullcontext

    times = interleaved({"a": lambda: nullcontext([lambda: None])}, CPU, samples=10**9, seconds=0)
    assert times["a"].samples == 2


def test_buffers_exceed_twice_the_last_cache():
    from bench.timing import last_cache_bytes

    cache = last_cache_bytes(CPU)
    assert cache >= 2**18
    assert sets_needed(cache, CPU) == 2 and sets_needed(cache // 4, CPU) == 8
    assert sets_needed(10 * cache, CPU) == 2 and sets_needed(1, CPU) == 32


def test_host_time_is_that_of_one_call():
    import time

    assert 1000 < host_microseconds(lambda: time.sleep(0.001), CPU, calls=5, repeats=2) < 20_000
    assert math.isfinite(host_microseconds(lambda: None, CPU))
