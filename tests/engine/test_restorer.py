"""`f2d.load`: any kind of image in, the same kind out; the same bytes whatever else is going on."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import f2d
from f2d.demo import sample_photograph
from f2d.engine import Engine
from f2d.engine.describe import describe
from f2d.engine.execution import DoesNotFitError, choose_execution
from f2d.engine.plan import Plan
from f2d.engine.restorer import Restored, Restorer
from f2d.images import ImageError, open_image
from f2d.images.icc import from_code_points, profile


@pytest.fixture(scope="module", params=["float32", "bf16"])
def restorer(request) -> Restorer:
    return f2d.load("f2d-lite", device="cpu", precision=request.param)


@pytest.fixture(scope="module")
def levels() -> np.ndarray:
    """[33, 47, 3] uint8, smooth with some noise."""
    rng = np.random.default_rng(0)
    y, x, _ = np.meshgrid(np.arange(33), np.arange(47), np.arange(3), indexing="ij")
    return np.clip(120 + 80 * np.sin(y / 9) * np.cos(x / 7) + rng.normal(0, 10, y.shape), 0, 255).astype(np.uint8)


def as_levels(image) -> np.ndarray:
    """uint8 [H, W, 3] of any kind of result."""
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    array = image if isinstance(image, np.ndarray) else image.movedim(-3, -1).numpy()
    # in float32, as a file is written: what is a tie there may lie beside it in float64
    return array if array.dtype == np.uint8 else (array.astype(np.float32).clip(0, 1) * 255).round().astype(np.uint8)


def test_every_kind_gives_the_same_pixels_and_its_own_kind(restorer, levels, tmp_path):
    Image.fromarray(levels).save(tmp_path / "a.png")
    floats = levels.astype(np.float32) / 255
    tensor = torch.from_numpy(levels).movedim(-1, 0)
    expected = as_levels(restorer(levels).image)
    assert np.abs(expected.astype(int) - levels).max() > 5
    for given, kind in (
        (tmp_path / "a.png", Image.Image),
        (str(tmp_path / "a.png"), Image.Image),
        (Image.fromarray(levels), Image.Image),
        (levels, np.ndarray),
        (floats, np.ndarray),
        (floats.astype(np.float64), np.ndarray),
        (tensor, torch.Tensor),
        (tensor.float() / 255, torch.Tensor),
    ):
        found = restorer(given)
        assert isinstance(found, Restored) and isinstance(found.image, kind)
        if kind is not Image.Image:
            assert found.image.dtype == given.dtype and found.image.shape == given.shape
        assert np.array_equal(as_levels(found.image), expected)
        assert found.maps.shape == (4, 33, 47) and found.gates.shape == found.presence.shape == (4,)
        assert found.maps.min() > 0 and found.maps.max() < 1 and found.gates.sum() == pytest.approx(1, abs=1e-5)
        assert found.seconds > 0 and found.factors == ("low", "haze", "rain", "snow")
    for batch in (levels[None], tensor[None].expand(2, -1, -1, -1)):
        found = restorer(batch)
        assert found.image.shape == batch.shape and found.maps.shape[:2] == (len(batch), 4)
        assert np.array_equal(as_levels(found.image[0]), expected)


@pytest.mark.parametrize("make", [lambda levels: levels, torch.from_numpy], ids=["array", "tensor"])
def test_levels_of_16_bits(restorer, levels, make):
    deep = levels.astype(np.uint16) * 257
    given = make(deep if make is not torch.from_numpy else np.ascontiguousarray(deep.transpose(2, 0, 1)))
    found = restorer(given).image
    expected = restorer(levels.astype(np.float64) / 255).image
    assert found.dtype == given.dtype and found.shape == given.shape
    found = np.asarray(found) if make is not torch.from_numpy else found.movedim(0, -1).numpy()
    assert np.abs(found.astype(np.float64) - expected.clip(0, 1) * 65535).max() <= 1


def test_values_outside_the_range_are_no_batch(restorer):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\], got nan"):
        restorer.restore_batch(torch.full((1, 3, 8, 8), torch.nan))


@pytest.mark.parametrize("shape", [(0, 3, 8, 8), (1, 3, 0, 8), (1, 4, 8, 8), (3, 8, 8)])
def test_shapes_that_are_no_batch(restorer, shape):
    with pytest.raises(ValueError, match=r"images must be \[B, 3, H, W\] with B, H, W >= 1, got \("):
        restorer.restore_batch(torch.zeros(shape))


def test_overshoot_of_resampling_is_accepted(restorer, levels):
    image = levels / 255
    image[0, 0], image[1, 1] = -0.09, 1.09
    assert np.isfinite(restorer(image).image).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "CMYK"])
def test_colours_mean_what_they_meant(restorer, levels, tmp_path, mode):
    """A picture in a wide colour space came back without its profile, and was taken for sRGB."""
    wide = profile(from_code_points(12, 13), grey=mode == "L")  # Display P3
    given = Image.fromarray(levels).convert(mode)
    given.info["icc_profile"] = wide[:16] + b"CMYK" + wide[20:] if mode == "CMYK" else wide
    expected = wide if mode in ("RGB", "RGBA") else None
    assert restorer(given).image.info.get("icc_profile") == expected
    if mode != "CMYK":
        given.save(tmp_path / "a.png", icc_profile=wide)
        restorer(tmp_path / "a.png").image.save(tmp_path / "b.png")
        assert Image.open(tmp_path / "b.png").info.get("icc_profile") == expected


def test_transparency_comes_back(restorer, levels):
    alpha = Image.fromarray(levels[..., 0])
    given = Image.fromarray(levels)
    given.putalpha(alpha)
    found = restorer(given).image
    assert found.mode == "RGBA" and np.array_equal(np.asarray(found)[..., 3], levels[..., 0])


@pytest.mark.parametrize(
    ("image", "error", "said"),
    [
        (np.zeros((4, 4)), ValueError, r"must be \[H, W, 3\].*got \(4, 4\)"),
        (np.zeros((3, 4, 4)), ValueError, r"must be \[H, W, 3\]"),
        (np.zeros((4, 4, 3), np.int32), TypeError, r"must hold uint8.*got int32"),
        (np.full((4, 4, 3), 255, np.float32), ValueError, r"must lie in \[0, 1\], got 255 to 255"),
        (np.full((4, 4, 3), -1, np.float64), ValueError, r"must lie in \[0, 1\], got -1 to -1"),
        (np.array([[[0.5, np.nan, 0.5]]]), ValueError, r"must lie in \[0, 1\], got nan to nan"),
        (torch.full((1, 3, 4, 4), torch.inf), ValueError, r"must lie in \[0, 1\], got inf"),
        (torch.rand(3, 4, 4).half() * 255, ValueError, r"must lie in \[0, 1\]"),
        (torch.zeros(4, 4, 3), ValueError, r"must be \[3, H, W\]"),
        (torch.zeros(0, 3, 4, 4), ValueError, "B, H, W >= 1"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), TypeError, r"must hold uint8.*got torch.int64"),
        ([1, 2], TypeError, r"an image must be .*got list"),
        ("missing.png", ValueError, "missing.png: no such file"),
    ],
)
def test_what_is_no_image_is_named(restorer, image, error, said):
    with pytest.raises(error, match=said):
        restorer(image)


def test_pictures_of_16_bits_are_not_clipped(restorer, levels, tmp_path):
    """Pillow's own conversion to RGB makes 16-bit grey white."""
    grey = levels[..., 0]
    picture = Image.fromarray(grey.astype(np.uint16) * 257)
    picture.save(tmp_path / "grey.png")
    expected = as_levels(restorer(np.repeat(grey[..., None], 3, axis=2)).image)
    for image in (picture, picture.convert("I"), tmp_path / "grey.png"):
        assert np.abs(as_levels(restorer(image).image).astype(int) - expected).max() <= 1
    with pytest.raises(ImageError, match="other ranges are undefined"):
        restorer(picture.convert("F"))


@pytest.mark.parametrize("change", ["read-only", "big-endian", "reversed"])
def test_arrays_that_pytorch_does_not_take(restorer, levels, change, recwarn):
    image = (levels / 255).astype(np.float32)
    expected = restorer(image).image
    if change == "read-only":
        image.flags.writeable = False
    elif change == "big-endian":
        image = image.astype(">f4")
    else:
        image = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    assert np.array_equal(restorer(image).image, expected)
    assert not [w for w in recwarn if "writ" in str(w.message)]


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"only": "rain"}, TypeError, "collection of factor names"),
        ({"max_memory": "4G"}, TypeError, "must be a number of bytes"),
    ],
)
def test_options_of_the_wrong_kind(restorer, levels, options, error, said):
    with pytest.raises(error, match=said):
        restorer(levels, **options)


def test_explain_says_what_a_call_says(restorer, levels):
    found, explained = restorer(levels), restorer.explain(Image.fromarray(levels))
    assert torch.equal(found.maps, explained.maps) and torch.equal(found.gates, explained.gates)
    assert torch.equal(found.presence, explained.presence)
    batch = restorer.explain(np.stack([levels, levels]))
    assert batch.maps.shape == (2, *found.maps.shape)
    torch.testing.assert_close(batch.gates, found.gates.expand(2, -1), atol=1e-2, rtol=0)


def test_options_reach_the_engine(restorer, levels):
    plain = restorer(levels).image
    assert not np.array_equal(restorer(levels, only=["rain"]).image, plain)
    assert np.array_equal(restorer(levels, strength={"rain": 1.0}).image, plain)
    both = restorer(np.stack([levels, levels]), only=iter(["haze"])).image  # used for every image of a batch
    assert np.array_equal(both[0], both[1]) and np.array_equal(both[0], restorer(levels, only=["haze"]).image)
    assert not np.array_equal(restorer(levels, steps=3, seed=1).image, restorer(levels, steps=3, seed=2).image)
    with pytest.raises(ValueError, match=r"factors must be among .*got 'fog'"):
        restorer(levels, only=["fog"])


def test_alone_or_in_a_batch_the_same_bytes(restorer, levels):
    pixels = torch.from_numpy(levels).movedim(-1, 0)[None].float() / 255
    batch = torch.cat([pixels, pixels.flip(3), pixels.flip(2), pixels])
    together = restorer.restore_batch(batch, steps=2, seed=5)
    for i in range(4):
        assert torch.equal(restorer.restore_batch(batch[i : i + 1], steps=2, seed=5)[0], together[i])
    noise = torch.randn(2, *batch.shape, generator=torch.Generator().manual_seed(0))
    together = restorer.restore_batch(batch, steps=2, noise=noise)
    assert torch.equal(restorer.restore_batch(batch[2:3], steps=2, noise=noise[:, 2:3])[0], together[2])
    assert not torch.equal(together[0], together[3])  # the same image, other noise


@pytest.mark.parametrize("in_bands", [False, True])
def test_results_are_ordinary_tensors(restorer, levels, monkeypatch, in_bands):
    """They were tensors of inference mode: PyTorch refused to change them, and to train on them."""
    if in_bands:
        monkeypatch.setattr(Restorer, "plan", lambda *_, **__: Plan(False, 512, False, 0, 0))
    batch = torch.from_numpy(levels).movedim(-1, 0)[None].float().div(255).contiguous()
    found, result, seen = restorer.restore_batch(batch, seed=1), restorer(batch), restorer.explain(batch)
    for tensor in (found, result.image, result.maps, result.gates, result.presence, *seen[1:]):
        tensor.mul_(2)
    layer = torch.nn.Conv2d(3, 1, 1)
    layer(found).sum().backward()
    assert torch.allclose(layer.weight.grad[0, :, 0, 0], found.sum(dim=(0, 2, 3)))


def test_seeds_of_a_batch(restorer, levels):
    batch = torch.from_numpy(levels).movedim(-1, 0)[None].float().div(255).expand(2, -1, -1, -1)

    def run(seed, images=batch):
        return restorer.restore_batch(images, steps=2, seed=seed)

    each = run(torch.tensor([3, 4]))
    assert torch.equal(each[0], run(3)[0]) and torch.equal(each[1], run(4, batch[:1])[0])
    assert torch.equal(run(torch.tensor(3)), run(3)) and not torch.equal(each[0], each[1])
    assert torch.equal(run(2**64 - 1), run(-1))
    for drawn in (np.int64(5), np.uint64(2**64 - 1)):  # by a NumPy generator
        assert torch.equal(run(drawn), run(int(drawn)))
    for seed, error, said in (
        (2**64, ValueError, "must fit in 64 bits"),
        (1.5, TypeError, r"a seed must be .*got float"),
        (torch.tensor([1, 2, 3]), ValueError, r"one per image of the batch of 2"),
    ):
        with pytest.raises(error, match=said):
            run(seed)
    with pytest.raises(ValueError, match=r"noise must be a tensor \[steps, B.*got \(2, 3, 33, 47\)"):
        restorer.restore_batch(batch, noise=torch.zeros(2, 3, 33, 47))


THREADS = """
import sys, torch, hashlib, f2d
torch.set_num_threads(int(sys.argv[1]))
restorer = f2d.load("f2d-lite", device="cpu", precision=sys.argv[2])
generator = torch.Generator().manual_seed(0)
for height, width in ((40, 56), (97, 131), (256, 240)):
    image = torch.rand(1, 3, height, width, generator=generator)
    print(hashlib.sha256(restorer.restore_batch(image, steps=2, seed=1).numpy().tobytes()).hexdigest())
"""


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_one_thread_or_two_the_same_bytes(precision):
    one, two = (
        subprocess.run([sys.executable, "-c", THREADS, n, precision], capture_output=True, text=True, check=True).stdout
        for n in "12"
    )
    assert len(one.split()) == 3 and one == two


def test_many_threads_share_one_restorer(levels):
    restorer = f2d.load("f2d-lite", device="cpu", precision="float32")  # new: its constants are made by racing threads
    jobs = [
        (np.roll(levels, k, axis=1), {"steps": 1 + k % 3, "seed": k, "only": [["rain"], None][k % 2]}) for k in range(8)
    ]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda job: restorer(job[0], **job[1]).image, jobs))
    for image, (given, options) in zip(found, jobs, strict=True):
        assert np.array_equal(image, restorer(given, **options).image)


def test_describe_names_what_runs(make_net):
    engine = Engine(make_net(), torch.bfloat16)
    told = describe(engine)
    assert "bfloat16, channels_last" in told["convolutions"] and "experts 8" in told["convolutions"]
    assert told["once per image"] == "enhancer, parser" and "6 inputs to 3 (where nothing is padded)" in told["folded"]
    assert "0.05 of an 8-bit level" in told["skipped"] and "float32" in next(k for k in told if k.startswith("kept in"))
    plain = describe(Engine(make_net(enhancer_width=None), torch.float32))
    assert plain["once per image"] == "parser" and "rounding" not in plain
    assert all(c.weight.dtype == torch.bfloat16 for c in engine.modules() if type(c).__name__ == "Conv")


def test_the_restorer_runs_in_the_precision_it_was_given(make_net):
    for precision, dtype in (("float32", torch.float32), ("bf16", torch.bfloat16)):
        assert Restorer(make_net(), choose_execution("cpu", precision)).engine.dtype == dtype


def change_of_clean(name: str) -> np.ndarray:
    clean = np.asarray(open_image(sample_photograph(name)).convert("RGB"))
    return np.abs(f2d.load("f2d-lite", precision="float32")(clean).image.astype(int) - clean)


@pytest.mark.parametrize("name", ["coffee", "astronaut", "rocket"])
def test_a_clean_photograph_is_changed_little(name):
    """Measured: 0.10, 0.18 and 1.33 grey levels on average."""
    assert change_of_clean(name).mean() < 1.5


@pytest.mark.parametrize("name", ["coffee", "astronaut", "rocket"])
def test_no_pixel_of_a_clean_photograph_is_changed_much(name):
    """Measured: 18, 7 and 37 grey levels at most."""
    assert change_of_clean(name).max() < 60


@pytest.mark.parametrize("call", ["whole", "batch"])
def test_memory_that_runs_out_is_one_error(restorer, monkeypatch, call):
    """PyTorch's own error of an allocation that no machine can serve; another RuntimeError is a defect and stays."""
    images = torch.rand(1, 3, 24, 40)
    run = restorer if call == "whole" else restorer.restore_batch
    monkeypatch.setattr("f2d.engine.restorer.restore_tensor", lambda *_, **__: torch.empty(2**50))
    with pytest.raises(DoesNotFitError, match=r"^40x24 does not fit into memory$"):
        run(images)
    monkeypatch.setattr("f2d.engine.restorer.restore_tensor", lambda *_, **__: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        run(images)
