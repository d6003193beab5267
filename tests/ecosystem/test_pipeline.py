"""The pipeline of diffusers against `restore_tensor`: the same bits, from memory, a folder, or the Hub."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")

from diffusers import DiffusionPipeline

from f2d import F2DNet, restore_tensor
from f2d.images import to_picture
from f2d.integrations import LogNormalScheduler, RestorationModel, RestorationPipeline
from f2d.nets.resflow import ResFlowConfig, ResFlowNet
from tests.nets.small import TINY


@pytest.fixture(scope="module")
def net(nets) -> F2DNet:
    return nets["main"]


@pytest.fixture
def pipeline(net) -> RestorationPipeline:
    made = RestorationPipeline(net)
    made.set_progress_bar_config(disable=True)
    return made


def pixels(batch: int = 2) -> torch.Tensor:
    return torch.rand(batch, 3, 9, 13, generator=torch.Generator().manual_seed(4))


def ours(net, x: torch.Tensor, **options) -> torch.Tensor:
    """`restore_tensor` in [0, 1]."""
    return restore_tensor(net, x * 2 - 1, **options).add(1).div(2)


@pytest.mark.parametrize(("sampler", "steps"), [("MC", 1), ("MC", 5), ("NMC", 3), ("EM", 100), ("mean", 1)])
def test_it_restores_as_our_own_sampler_does_bit_by_bit(net, sampler, steps):
    made = RestorationPipeline(net, LogNormalScheduler.of(net, sampler))
    made.set_progress_bar_config(disable=True)
    x = pixels()
    found = made(x, steps, seed=11, output_type="pt").images
    assert torch.equal(found, ours(net, x, steps=steps, sampler=sampler, seed=11))
    assert not torch.equal(found, x)


def test_seeds(net, pipeline):
    x, seeds = pixels(), torch.tensor([3, 4])
    each = pipeline(x, 4, seed=seeds, output_type="pt").images
    assert torch.equal(each, ours(net, x, steps=4, seed=seeds))
    torch.manual_seed(9)
    drawn = pipeline(x, 4, output_type="pt").images
    torch.manual_seed(9)
    assert torch.equal(drawn, ours(net, x, steps=4))
    alone = pipeline(x[1:], 4, generator=[torch.Generator().manual_seed(6)], output_type="pt").images
    generators = [torch.Generator().manual_seed(s) for s in (5, 6)]
    together = pipeline(x, 4, generator=generators, output_type="pt").images
    torch.testing.assert_close(together[1:], alone, rtol=0, atol=1e-5)  # a batch's sums round otherwise
    assert not torch.allclose(together[1:], each[1:], atol=1e-4)


def test_a_generator_and_a_list_of_it_give_the_same_image(net, pipeline):
    x = pixels(1)
    one, listed = (
        pipeline(x, 4, generator=source(torch.Generator().manual_seed(6)), output_type="pt").images
        for source in (lambda g: g, lambda g: [g])
    )
    assert torch.equal(one, listed)
    generator = torch.Generator().manual_seed(6)
    seed = torch.randint(-(2**63), 2**63 - 1, (1,), generator=generator)
    assert torch.equal(one, ours(net, x, steps=4, seed=seed))  # one seed for the whole trajectory


def test_a_network_in_training_mode_is_evaluated_and_left_as_it_was(net, pipeline):
    x = pixels()
    expected = pipeline(x, seed=1, output_type="pt").images
    net.train()
    try:
        assert torch.equal(pipeline(x, seed=1, output_type="pt").images, expected)
        assert net.training and net.parser.training
    finally:
        net.eval()


def test_kinds_of_images_in_and_out(net, pipeline, tmp_path):
    levels = (pixels() * 255).round().byte()
    arrays = levels.permute(0, 2, 3, 1).numpy()
    pictures = [Image.fromarray(array) for array in arrays]
    pictures[0].save(tmp_path / "one.png")
    expected = pipeline(levels, seed=1, output_type="pt").images
    assert expected.dtype == torch.float32 and float(expected.min()) >= 0 and float(expected.max()) <= 1
    for image in (arrays, pictures, levels.float() / 255):
        assert torch.equal(pipeline(image, seed=1, output_type="pt").images, expected)
    one = pipeline(tmp_path / "one.png", seed=1, output_type="pt").images
    torch.testing.assert_close(one, expected[:1], rtol=0, atol=1e-5)
    array = pipeline(pictures, seed=1, output_type="np").images
    assert array.shape == (2, 9, 13, 3) and np.array_equal(array, expected.permute(0, 2, 3, 1).numpy())
    for found, one in zip(pipeline(pictures, seed=1).images, expected, strict=True):
        assert np.array_equal(np.asarray(found), np.asarray(to_picture(one)))
    assert torch.equal(pipeline(arrays, seed=1, output_type="pt", return_dict=False)[0], expected)


def test_callbacks_see_each_step_and_may_change_the_state(net, pipeline):
    seen = []

    def look(given, i, t, tensors):
        assert given is pipeline and set(tensors) == {"sample", "pred_original_sample"}
        seen.append((i, int(t)))
        return {"sample": torch.zeros_like(tensors["sample"])} if i == 3 else {}

    wanted = ["sample", "pred_original_sample"]
    found = pipeline(
        pixels(),
        4,
        output_type="pt",
        callback_on_step_end=look,
        callback_on_step_end_tensor_inputs=wanted,
    ).images
    assert seen == [(0, 0), (1, 25), (2, 50), (3, 75)]
    assert torch.equal(found, torch.full_like(found, 0.5))
    with pytest.raises(ValueError, match=r"callback tensors must be among .*got latents"):
        pipeline(pixels(), callback_on_step_end=look, callback_on_step_end_tensor_inputs=["latents"])


def test_a_pipeline_in_a_folder(net, pipeline, tmp_path):
    changed = RestorationPipeline(net, LogNormalScheduler.of(net, "NMC"))
    changed.save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["unet"] == ["f2d.integrations.pipeline", "RestorationModel"]  # published folders have these
    assert index["scheduler"] == ["f2d.integrations.scheduler", "LogNormalScheduler"]
    unet = F2DNet.from_pretrained(tmp_path / "unet")  # a checkpoint as any other
    assert unet.config == TINY
    loaded = RestorationPipeline.from_pretrained(tmp_path)
    assert loaded.scheduler.config.sampler == "NMC" and isinstance(loaded, DiffusionPipeline)
    x = pixels()
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(loaded(x, 3, seed=2, output_type="pt").images, ours(net, x, steps=3, sampler="NMC", seed=2))
    other = RestorationPipeline.from_pretrained(tmp_path, scheduler=LogNormalScheduler.of(net))
    assert other.scheduler.config.sampler == "MC"


def test_half_precision(net, pipeline, tmp_path):
    pipeline.save_pretrained(tmp_path)
    half = RestorationPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    half.set_progress_bar_config(disable=True)
    assert half.dtype == torch.bfloat16 and half.device == torch.device("cpu")
    x, own = pixels(), F2DNet.from_pretrained(tmp_path / "unet").bfloat16()
    found = half(x, 3, seed=2, output_type="pt").images
    assert found.dtype == torch.float32 and torch.equal(found, ours(own, x, steps=3, seed=2))


def test_whole_networks_are_not_offloaded_and_a_push_is_not_forgotten(pipeline, tmp_path):
    with pytest.raises((ValueError, ImportError)):  # without `accelerate` diffusers says so first
        pipeline.enable_model_cpu_offload(device="cpu")
    assert pipeline.model_cpu_offload_seq is None
    with pytest.raises(ValueError, match=r"net\.push_to_hub"):
        pipeline.unet.save_pretrained(tmp_path, push_to_hub=True)


def test_the_model_alone(net, tmp_path):
    model = RestorationModel(net)
    x = pixels() * 2 - 1
    with torch.no_grad():
        assert torch.equal(model(x, x, 30), net(x, x, 30).prediction)
    model.save_pretrained(tmp_path / "deep" / "unet")
    again = RestorationModel.from_pretrained(tmp_path / "deep", subfolder="unet")
    assert again.config == net.config and not again.training


def test_from_the_hub(hub, net, pipeline, tmp_path, monkeypatch):
    """The client reads its endpoint when it is imported; here it is told where it keeps it."""
    from huggingface_hub import constants

    pipeline.save_pretrained(hub.folder / "owner" / "pipe" / "main")
    (hub.folder / "owner" / "pipe" / "main" / "unet" / "pytorch_model.bin").write_bytes(b"a pickle")
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + template[template.index("/{repo_id}") :])
    loaded = RestorationPipeline.from_pretrained("owner/pipe", cache_dir=str(tmp_path / "cache"))
    assert torch.equal(next(loaded.unet.parameters()), next(net.parameters())) and not any(
        "pytorch_model" in request for request in hub.requests
    )


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"image": torch.rand(2, 4, 8, 8)}, ValueError, r"must be \[3, H, W\]"),
        ({"image": 3}, TypeError, r"an image must be .*got int"),
        ({"image": []}, ValueError, "images of a batch must have one size"),
        ({"image": [Image.new("RGB", (4, 4)), Image.new("RGB", (4, 5))]}, ValueError, r"\[\(4, 4\), \(5, 4\)\]"),
        ({"output_type": "latent"}, ValueError, r"output_type must be one of pil, np, pt.*got 'latent'"),
        ({"num_inference_steps": 0}, ValueError, "must be 1 to 100"),
        ({"seed": 1, "generator": torch.Generator()}, ValueError, "one source of noise"),
    ],
)
def test_what_does_not_fit(pipeline, options, error, words):
    with pytest.raises(error, match=words):
        pipeline(**{"image": pixels(), **options})


def test_other_networks_and_schedulers(net):
    from diffusers import DDIMScheduler

    with pytest.raises(TypeError, match=r"unet must be an F2DNet.*got ResFlowNet"):
        RestorationPipeline(ResFlowNet(ResFlowConfig(channels=8, multipliers=(1,), blocks=(1,), groups=4)))
    with pytest.raises(TypeError, match=r"scheduler must be a LogNormalScheduler.*got DDIMScheduler"):
        RestorationPipeline(net, DDIMScheduler())
