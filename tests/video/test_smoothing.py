"""Decisions about whole frames over time: laws of the filter, cuts, and the flicker of restored videos."""

import math
from itertools import pairwise

import pytest
import torch

from f2d.engine.execution import choose_execution
from f2d.engine.restorer import Restored, Restorer
from f2d.nets import F2DNet
from f2d.video.smoothing import Smoother, State
from tests.nets.small import small_config


def result(image: torch.Tensor) -> Restored:
    none = torch.empty(0)
    return Restored(image, 0.0, (), none, none, none)


GREY = torch.full((1, 3, 48, 64), 0.5)


def run(smoother: Smoother, values, images=None, rate=25.0):
    found = []
    for i, value in enumerate(values):
        smoother.advance(GREY if images is None else images[i], i / rate)
        found.append(float(smoother("presence", torch.tensor([[value]]))))
    return found


def test_a_constant_stays():
    assert run(Smoother(0.5), [0.25] * 20) == [0.25] * 20


@pytest.mark.parametrize("rate", [12.0, 25.0, 60.0])
def test_a_step_is_followed_by_its_share(rate):
    """1 - exp(-t / tau) of the step after t seconds, whatever the frame rate."""
    steps = round(rate)  # one second
    found = run(Smoother(0.5), [0.0] + [1.0] * steps, rate=rate)
    assert found[-1] == pytest.approx(1 - math.exp(-1 / 0.5), abs=1e-5)


def test_sums_of_one_stay_one():
    torch.manual_seed(0)
    smoother = Smoother(0.5)
    for i in range(30):
        smoother.advance(GREY, i / 25)
        assert smoother("gates", torch.randn(1, 4).softmax(dim=1)).sum() == pytest.approx(1, abs=1e-6)


def test_names_and_repeated_calls_are_apart():
    """The calls of several steps, or flips, of one frame each have a memory of their own."""
    smoother = Smoother(0.5)
    for i in range(5):
        smoother.advance(GREY, i / 25)
        for name, value in (("presence", 0.1), ("gates", 0.2), ("gates", 0.3)):
            assert float(smoother(name, torch.tensor([[value]]))) == pytest.approx(value)


def test_a_cut_resets_and_a_pan_does_not():
    torch.manual_seed(0)
    wide = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 20), (48, 160), mode="bilinear")
    pan = [wide[..., i : i + 64] for i in range(0, 40, 2)]
    smoother = Smoother(0.5)
    run(smoother, [0.0] * 20, pan)
    assert smoother.cuts == 0
    other = 1 - pan[-1]
    smoother.advance(other, 21 / 25)
    assert smoother.cuts == 1 and float(smoother("presence", torch.tensor([[1.0]]))) == 1.0
    smoother.advance(other, 22 / 25)
    assert smoother.cuts == 1 and float(smoother("presence", torch.tensor([[0.0]]))) == pytest.approx(math.exp(-0.08))


def test_rain_is_no_cut():
    torch.manual_seed(0)
    frames = [(0.4 + 0.5 * (torch.rand(1, 1, 48, 64) > 0.97).float()).expand(1, 3, 48, 64) for _ in range(20)]
    smoother = Smoother(0.5)
    run(smoother, [0.0] * 20, frames)
    assert smoother.cuts == 0


def test_the_state_is_numbers_and_goes_on_exactly():
    torch.manual_seed(0)
    images, values = [torch.rand(1, 3, 48, 64) for _ in range(10)], torch.rand(10).tolist()
    expected = run(Smoother(0.5), values, images)
    first, second = Smoother(0.5), Smoother(0.5)
    run(first, values[:6], images[:6])
    second.state = State(**first.state._asdict())
    found = []
    for i in range(6, 10):
        second.advance(images[i], i / 25)
        found.append(float(second("presence", torch.tensor([[values[i]]]))))
    assert found == expected[6:]


@pytest.fixture(scope="module")
def restorer() -> Restorer:
    torch.manual_seed(4)
    net = F2DNet(small_config())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return Restorer(net, choose_execution("cpu", "float32"))


def clip(count: int) -> list[torch.Tensor]:
    """A static scene under light that flickers by 4 %."""
    torch.manual_seed(2)
    scene = torch.nn.functional.interpolate(torch.rand(1, 3, 6, 8), (48, 64), mode="bilinear")
    return [(scene * (0.6 + 0.025 * (-1) ** i)).clamp(0, 1) for i in range(count)]


def restored(restorer: Restorer, frames, smoother: Smoother | None):
    found = []
    for i, frame in enumerate(frames):
        if smoother is not None:
            smoother.advance(frame, i / 25)
        found.append(restorer(frame, seed=3, adjust=smoother))
    return found


def test_equal_frames_are_restored_equally(restorer):
    """The noise is keyed by position and seed, so that it does not move over a video."""
    one, other = (r.image for r in restored(restorer, [clip(1)[0]] * 2, None))
    assert torch.equal(one, other)
    several = [restorer(clip(1)[0], seed=3, steps=3).image for _ in range(2)]
    assert torch.equal(*several)


def test_every_decision_of_the_engine_is_smoothed(restorer):
    frames, smoother = clip(8), Smoother(0.5)
    plain, smooth = restored(restorer, frames, None), restored(restorer, frames, smoother)
    assert set(smoother.state.decisions) == {"enhancer gate 0", "presence 0", "gates 0"}
    assert torch.equal(plain[0].image, smooth[0].image)

    def swing(results, name):
        values = torch.stack([getattr(r, name) for r in results])
        return float((values[1:] - values[:-1]).abs().mean())

    for name in ("gates", "presence"):
        assert 0 < swing(smooth, name) < 0.2 * swing(plain, name)


def test_a_restoration_adds_no_flicker():
    """Its mean change follows slowly, in every colour; what varies over the picture is untouched."""
    scene = 0.3 + 0.4 * clip(1)[0]
    colours = torch.tensor([0.04, -0.03, 0.02]).reshape(1, 3, 1, 1)
    added = [0.1 * (scene - scene.mean()) + (-1) ** i * colours for i in range(200)]
    smoother, changes = Smoother(0.5), []
    for i, change in enumerate(added):
        found, seconds = smoother.change(lambda image, adjust, change=change: result(image + change), scene, i / 25)
        assert seconds == 0 and torch.allclose(
            found - found.mean((2, 3), True), change - change.mean((2, 3), True), atol=1e-6
        )
        changes.append(found)
    assert torch.allclose(changes[0], added[0], atol=1e-6)
    steps = torch.stack([(b - a).mean(dim=(2, 3)).abs() for a, b in pairwise(changes)])
    share = 1 - math.exp(-0.04 / 0.5)
    assert torch.allclose(steps[-1], share * 2 * colours.abs().reshape(1, 3) / (2 - share), atol=1e-4)


def test_a_smoothed_restoration_stays_an_image():
    """Where a smoothed change would leave [0, 1], it is cut off."""
    smoother, dark = Smoother(10.0), torch.zeros(1, 3, 48, 64)
    for i in range(5):
        value = 0.0 if i % 2 else 1.0
        change, _ = smoother.change(
            lambda image, adjust, value=value: result(torch.full_like(image, value)), dark, i / 25
        )
        assert float((dark + change).min()) >= 0 and float((dark + change).max()) <= 1


@pytest.mark.parametrize("options", [{"steps": 3}, {"tta": True}, {"max_memory": "bands"}])
def test_smoothing_with_other_options(restorer, options, monkeypatch):
    """With several steps, flips and bands: a smoother that changes nothing changes nothing, and it is asked."""
    frame, asked = clip(1)[0], []

    def adjust(name, value):
        asked.append(name)
        return value

    if options == {"max_memory": "bands"}:
        options = {}
        plan = restorer.plan(frame, 2**40)._replace(whole=False, positions=200)
        monkeypatch.setattr(restorer, "plan", lambda *_, **__: plan)
    plain = restorer(frame, seed=3, **options)
    assert torch.equal(plain.image, restorer(frame, seed=3, adjust=adjust, **options).image)
    calls = {"steps": 3, "tta": 4}.get(next(iter(options), ""), 1)
    analyses = 4 if "tta" in options else 1
    assert [asked.count(name) for name in ("enhancer gate", "presence", "gates")] == [analyses, analyses, calls]

    def half(name, value):
        return value / 2 if name == "gates" else value

    assert not torch.equal(plain.image, restorer(frame, seed=3, adjust=half, **options).image)
