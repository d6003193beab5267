"""The parts of a page, each against what it is to be by hand or by another program."""

import base64
import io
import math
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import f2d
from f2d.demo import sample_photograph
from f2d.engine.execution import choose_execution
from f2d.engine.restorer import Restorer
from f2d.evaluation.case import Case
from f2d.images import image_to_tensor
from f2d.metrics.measure import About
from f2d.report.charts import Series, bars, gates_over_time
from f2d.report.details import SEEDS, SPREAD_STEPS, look
from f2d.report.gather import choose
from f2d.report.maps import Scales, model_groups
from f2d.report.numbers import best, printed
from f2d.report.pictures import MAPS, PHOTOGRAPHS, encode_within, inferno, scale_of, shrunk
from tests.nets.small import resflow_net

HIGHER, LOWER = About("psnr", "PSNR", "higher", "dB", 2), About("lpips", "LPIPS", "lower", "", 3)


@pytest.mark.parametrize(
    "value, text",
    [(21.346, "21.35"), (-1.5, "−1.50"), (math.inf, "∞"), (-math.inf, "−∞"), (math.nan, "–"), (None, "–")],
)
def test_numbers_are_printed_with_the_digits_of_their_measure(value, text):
    assert printed(value, HIGHER) == text


@pytest.mark.parametrize(
    "values, about, places",
    [
        ([1, 3, 2], HIGHER, {1}),
        ([1, 3, 2], LOWER, {0}),
        ([2.001, 2.004, 1], HIGHER, {0, 1}),  # they print as one
        ([math.nan, None, 2], HIGHER, set()),
        ([math.nan, 1, 2], LOWER, {1}),
        ([math.inf, 1], HIGHER, {0}),
        ([1, 2], About("sharpness", "Sharpness", ""), set()),
    ],
)
def test_best(values, about, places):
    assert best(values, about) == places


def test_inferno_is_that_of_the_publication():
    # #000004, #bc3754 and #fcffa4: first, middle and last of the table by van der Walt and Smith
    picture = np.asarray(inferno(np.array([[0, 128 / 255, 1, 7]])))
    assert picture[0].tolist() == [[0, 0, 4], [188, 55, 84], [252, 255, 164], [252, 255, 164]]


def test_without_matplotlib_one_line_says_what_to_install():
    code = "import sys; sys.modules['matplotlib'] = None\nfrom f2d.report.pictures import colours\ncolours()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (
        'ValueError: maps are drawn with the colours of matplotlib, which is not installed: pip install "f2d[eval]"'
        in ran.stderr
    )


def test_shrunk_keeps_means():
    values = np.random.default_rng(0).uniform(0, 100, (960, 480))
    small = shrunk(values, 240)
    assert small.shape == (240, 120)
    np.testing.assert_allclose(small, values.reshape(240, 4, 120, 4).mean((1, 3)), rtol=1e-3)
    assert shrunk(values[:100, :50], 240).shape == (100, 50)


def test_scale_holds_99_of_100_values():
    values = np.linspace(0, 20, 10001)
    assert scale_of([values], (8, 16, 19, 20)) == 20
    assert scale_of([values * 0.95, values * 0], (8, 16, 19, 20)) == 19
    assert scale_of([values * 10], (8, 16)) == 16
    assert scale_of([], (8, 16)) == 8


def noisy_photographs(count: int, size: tuple[int, int]) -> list[Image.Image]:
    """Large crops of texture with noise of 10 levels, which no codec makes small."""
    generator = np.random.default_rng(0)
    picture = Image.open(sample_photograph("coffee")).convert("RGB").resize(size, Image.Resampling.LANCZOS)
    noise = [generator.normal(0, 10, (size[1], size[0], 3)) for _ in range(count)]
    return [Image.fromarray((np.asarray(picture) + n).clip(0, 255).astype(np.uint8)) for n in noise]


@pytest.mark.parametrize("ladder", [PHOTOGRAPHS, MAPS])
def test_pictures_fit_their_budget_and_use_it(ladder):
    pictures = noisy_photographs(2, (1080, 720))
    qualities, sizes = [], []
    for budget in (700_000, 60_000):
        encoded = encode_within(pictures, budget, ladder)
        assert encoded.characters <= budget
        decoded = [
            Image.open(io.BytesIO(base64.b64decode(p.url.removeprefix("data:image/webp;base64,"))))
            for p in encoded.pictures
        ]
        assert [d.size for d in decoded] == [(p.width, p.height) for p in encoded.pictures]
        assert abs(decoded[0].width / decoded[0].height - 1.5) < 0.02
        place = ladder.index((max(decoded[0].size), encoded.quality))
        if place:  # the step above would have been too much
            assert encode_within(pictures, 0, ladder[:place]).characters > budget
        qualities.append(place)
        sizes.append(encoded.characters)
    assert qualities == sorted(qualities) and sizes == sorted(sizes, reverse=True)


def test_a_picture_is_near_what_it_shows():
    picture = Image.open(sample_photograph("coffee")).convert("RGB").resize((300, 200))
    url = encode_within([picture], 1e6, PHOTOGRAPHS).pictures[0].url
    back = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")
    assert np.abs(np.asarray(back, float) - np.asarray(picture, float)).mean() < 4


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_bars_are_as_long_as_their_values():
    series = [Series("in", "input", [10, 20, None]), Series("<out>", "method-0", [20, 40, math.inf])]
    svg = parse(bars(HIGHER, ["a", "b", "c"], series))
    lengths = [float(bar.get("width")) for bar in svg.iter("rect")]
    assert lengths[3] == 2 * lengths[2] == 2 * lengths[1] == 4 * lengths[0] and lengths[4] == 0
    assert lengths[5] == lengths[3]  # what is infinite ends at the edge
    assert [text.text for text in svg.iter("text")][1:3] == ["10.00", "20.00"]
    assert svg.get("role") == "img" and "<out>" in svg.get("aria-label")


def test_gates_are_drawn_at_their_heights():
    paths = np.array([[0, 1.0], [0.5, 0.5], [0.49, 0.51]])
    svg = parse(gates_over_time(("rain", "snow"), (0, 0.5, 0.9), paths))
    lines = [[tuple(map(float, p.split(","))) for p in line.get("points").split()] for line in svg.iter("polyline")]
    (left, bottom), (_, top) = lines[0][0], lines[1][0]
    assert lines[0][1][1] == lines[1][1][1] == (top + bottom) / 2
    # the times are spaced as they are
    assert (lines[0][2][0] - left) / (lines[0][1][0] - left) == pytest.approx(0.9 / 0.5, rel=1e-3)
    names = [text for text in svg.iter("text") if text.text in ("rain", "snow")]
    assert abs(float(names[0].get("y")) - float(names[1].get("y"))) >= 13  # though the lines end together
    assert "rain 0.00 to 0.49; snow 1.00 to 0.51" in svg.get("aria-label")


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(1, 60))
def test_pictures_are_chosen_evenly(sizes, number):
    cases = [Case(f"{c}/{i}", str(c), None, None) for c, size in enumerate(sizes) for i in range(size)]
    chosen = choose(cases, number)
    assert len(chosen) == min(number, len(cases)) and list(chosen) == [case for case in cases if case in chosen]
    counts = [sum(case.category == str(c) for case in chosen) for c in range(len(sizes))]
    # a category has fewer than another one only where it has no more, or comes later by one
    assert all(counts[c] == sizes[c] or counts[c] >= max(counts) - 1 for c in range(len(sizes)))
    assert choose(cases, number) == chosen


def test_chosen_pictures_lie_across_their_category():
    cases = [Case(f"a/{i}", "a", None, None) for i in range(100)]
    assert [case.name for case in choose(cases, 4)] == ["a/12", "a/37", "a/62", "a/87"]


@pytest.fixture(scope="module")
def asked():
    """(model, picture [3, 40, 56], its details)."""
    restorer = f2d.load("f2d-lite", device="cpu", precision="float32")
    picture = image_to_tensor(sample_photograph("chelsea"))[:, 100:140, 200:256]
    return restorer, picture, look(restorer, picture)


def test_details_are_those_of_the_restorer(asked):
    restorer, picture, details = asked
    restored = restorer(picture, steps=10, sampler="MC", seed=0)
    torch.testing.assert_close(torch.tensor(details.gates), restored.gates, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.tensor(details.presence), restored.presence, atol=1e-5, rtol=0)
    np.testing.assert_allclose(np.stack(details.maps), restored.maps, atol=1e-3)  # they are kept in float16
    assert details.factors == restored.factors and details.sampled == (56, 40)


def test_gates_along_the_way_are_those_of_the_network_itself(asked):
    """The plain network, at the states of the plain sampler: no engine, and MC's formula written out."""
    from f2d.nets.models import load_network
    from f2d_kernels import lognormal_transition

    _, picture, details = asked
    net = load_network("f2d-lite")
    assert details.times == tuple(i / 10 for i in range(10))
    with torch.inference_mode():
        analysis = net.analyse(picture[None] * 2 - 1)
        x, schedule = analysis.enhanced, net.schedule
        for i, gates in enumerate(details.paths):
            out = net.velocity(x, analysis, 10 * i)
            np.testing.assert_allclose(out.gates[0], gates, atol=2e-3)
            mu = (x + out.prediction).clamp(-1, 1)
            x = lognormal_transition(x, mu, *schedule.transition(10 * i, 10 * i + 10), seed=0, stream=i).clamp(-2, 2)


def test_spread_is_the_deviation_of_samples_and_none_at_one_step(asked):
    restorer, picture, details = asked
    assert [spread.steps for spread in details.spread] == list(SPREAD_STEPS)
    steps = SPREAD_STEPS[1]
    samples = np.stack([restorer(picture, steps=steps, seed=seed).image for seed in range(SEEDS)]).astype(np.float64)
    wanted = samples.std(0, ddof=1).mean(0) * 255
    np.testing.assert_allclose(details.spread[1].values, wanted, atol=0.05, rtol=2e-3)
    assert details.spread[1].mean == pytest.approx(wanted.mean(), rel=1e-3)
    # in grey levels: one call draws next to nothing
    assert details.spread[0].mean < min(0.25, details.spread[1].mean / 2)


def test_a_model_without_factors_has_spread_alone():
    restorer = Restorer(resflow_net(), choose_execution("cpu"))
    details = look(restorer, torch.rand(3, 16, 24))
    assert details.factors == details.maps == details.gates == () and details.sampled == (24, 16)
    groups = model_groups(details, Scales(8, 8), (24, 16), "")
    assert [group.title for group in groups] == ["Spread of samples"]
    assert "by construction" not in groups[0].note  # it is so of the log-normal transport alone


def test_large_pictures_are_sampled_in_their_centre(monkeypatch):
    monkeypatch.setattr("f2d.report.details.SPREAD_SIDE", 16)
    restorer = Restorer(resflow_net(), choose_execution("cpu"))
    picture = torch.rand(3, 20, 40)
    details = look(restorer, picture)
    alone = look(restorer, picture[:, 2:18, 12:28])
    assert details.sampled == (16, 16) and details.spread[1].mean == alone.spread[1].mean > 0
    note = model_groups(details, Scales(8, 8), (40, 20), "")[0].note
    assert note == f"Standard deviation over {SEEDS} seeds of the centre, 16 × 16 pixels."
