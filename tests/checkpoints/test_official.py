"""Checkpoints of the authors: the key map is exact both ways, and a file of theirs loads."""

import io
import json
import math
import os
import pickle
import warnings

import pytest
import torch

from f2d.checkpoints import official
from f2d.checkpoints.official import translate
from f2d.engine.analysis import FastEnhancer
from f2d.nets import F2DNet, F2DNetConfig
from tests.nets.conftest import GOLDEN
from tests.nets.small import small_config


@pytest.fixture
def save(tmp_path, golden_weights):
    """save(**entries) -> path of a .pt file in the authors' layout, "model" holding the golden weights by default."""

    def write(**entries):
        path = tmp_path / "checkpoint.pt"
        torch.save({"model": golden_weights, "step": 500_000, **entries}, path)
        return path

    return write


@pytest.fixture
def small_official() -> dict[str, torch.Tensor]:
    """The weights of a small network under names that `translate` leaves alone, or that are the authors'."""
    net = F2DNet(small_config(groups=8, stage_widths=(8, 16)))
    back = {"parser.decoder.": "parser.spatial_decoder.", "gate.complexity_bias": "complexity_bias"}
    state = net.state_dict()
    for ours, theirs in back.items():
        state = {name.replace(ours, theirs): tensor for name, tensor in state.items()}
    return state


def test_key_map_covers_the_official_list_exactly():
    official = json.loads((GOLDEN / "official_checkpoint_keys.json").read_text())
    with torch.device("meta"):
        ours = {name: list(value.shape) for name, value in F2DNet(F2DNetConfig()).state_dict().items()}
    assert {translate(name): shape for name, shape in official.items()} == ours
    assert len({translate(name) for name in official}) == len(official)


def test_from_official_model(save, golden, golden_net):
    net = F2DNet.from_official(save(), weights="model")
    assert net.config == golden_net.config and not net.training
    with torch.no_grad():
        out = net(golden["x_t"], golden["degraded"], golden["t"])
    torch.testing.assert_close(out.prediction, golden["prediction"], rtol=0, atol=1e-4)


def test_ema_is_laid_over_the_model(save, golden_weights):
    """The average lacks the Laplacian and the complexity bias; those come from "model"."""
    fixed = ("complexity_bias", "backbone.freq_embed.high_pass.weight")
    shadow = {name: value + 1 for name, value in golden_weights.items() if name not in fixed}
    path = save(ema={"shadow": shadow, "decay": 0.9999})
    averaged, plain = F2DNet.from_official(path).state_dict(), F2DNet.from_official(path, "model").state_dict()
    for name, value in golden_weights.items():
        assert torch.equal(averaged[translate(name)], value if name in fixed else value + 1)
        assert torch.equal(plain[translate(name)], value)


def test_enhancer_and_factors_are_read_off_the_shapes(tmp_path, golden_weights):
    three = {name: value for name, value in golden_weights.items() if not name.startswith(("brightness", "experts.3"))}
    for name in ("complexity_bias", "alpha_mlp.2.weight", "alpha_mlp.2.bias"):
        three[name] = three[name][:3]
    for name in ("w_mlp.2", "cls_mlp.2", "spatial_decoder.8"):
        for part in ("weight", "bias"):
            three[f"parser.{name}.{part}"] = three[f"parser.{name}.{part}"][:3]
    three["alpha_mlp.0.weight"] = torch.zeros(51, 64 + 3 + 3 + 32)
    three["alpha_mlp.0.bias"] = torch.zeros(51)
    three["alpha_mlp.2.weight"] = torch.zeros(3, 51)
    torch.save({"model": three}, tmp_path / "three.pt")
    net = F2DNet.from_official(tmp_path / "three.pt", weights="model")
    assert net.config.factors == ("noise", "haze", "rain") and net.enhancer is None
    assert net.config.gate_noise == 0.3 / 3
    named = F2DNet.from_official(tmp_path / "three.pt", weights="model", factors=("a", "b", "c"))
    assert named.config.factors == ("a", "b", "c")


def test_missing_and_unexpected_keys_are_named(save, golden_weights):
    lacking = {name: value for name, value in golden_weights.items() if name != "experts.1.conv1.bias"}
    with pytest.raises(ValueError, match=r"missing experts\.1\.conv1\.bias$"):
        F2DNet.from_official(save(model=lacking), weights="model")
    with pytest.raises(ValueError, match=r"unexpected experts\.0\.extra$"):
        F2DNet.from_official(save(model={**golden_weights, "experts.0.extra": torch.zeros(1)}), weights="model")
    odd = {**golden_weights, "experts.0.conv2.bias": torch.zeros(5)}
    with pytest.raises(ValueError, match=r"experts\.0\.conv2\.bias must be \(16,\), got \(5,\)"):
        F2DNet.from_official(save(model=odd), weights="model")


def test_files_of_other_kinds(save, tmp_path):
    with pytest.raises(ValueError, match="must be 'model' or 'ema'"):
        F2DNet.from_official(save(), weights="best")
    with pytest.raises(ValueError, match=r"no 'ema' entry \(it has model, step\), so use weights='model'"):
        F2DNet.from_official(save())
    with pytest.raises(ValueError, match=r"'ema' averages parameters that 'model' lacks: other"):
        F2DNet.from_official(save(ema={"shadow": {"other": torch.zeros(1)}}))
    with pytest.raises(ValueError, match=r"not an F²D-Net: it has no gate\.complexity_bias"):
        F2DNet.from_official(save(model={"conv.weight": torch.zeros(1)}), weights="model")
    torch.save({"state_dict": {}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"no 'model' entry.*it has state_dict"):
        F2DNet.from_official(tmp_path / "other.pt")


# as the authors' training script leaves them, with options of training that say nothing of the network
ARGS = {
    "base_ch": 8,
    "num_experts": 4,
    "use_brightness_enhancer": True,
    "num_timesteps": 100,
    "model_type": "SFLOW",
    "brightness_threshold": 0.3,
    "factors": None,
    "lr": 3e-4,
    "resume": None,
    "progressive_patch": "0:384:16,150000:512:12",
}


def test_options_of_the_checkpoint_set_the_process(tmp_path, small_official):
    def load(**changes):
        torch.save({"model": small_official, "args": {**ARGS, **changes}}, tmp_path / "options.pt")
        return F2DNet.from_official(tmp_path / "options.pt", weights="model")

    usual, torch_file = load(), tmp_path / "none.pt"
    torch.save({"model": small_official}, torch_file)
    assert usual.config == F2DNet.from_official(torch_file, weights="model").config
    for target in ("FINAL_X", "FLOW", "SFLOW"):
        assert load(model_type=target).config.target == target
    config = load(num_timesteps=50, theta_schedule="linear", sigma_schedule="cosine", sigmas_scale=1.0).config
    assert (config.num_steps, config.theta, config.sigma2) == (50, "linear", "cosine")
    for names in ("noise, haze,rain,fog", ["noise", "haze", "rain", "fog"]):
        assert load(factors=names).config.factors == ("noise", "haze", "rain", "fog")


def test_the_threshold_of_the_checkpoint_moves_the_gate(tmp_path, small_official):
    """gate = sigmoid(10 (threshold - luma)) · a learned part that the threshold does not touch."""
    gates, x = {}, torch.full((1, 3, 16, 16), -0.2)  # luma 0.4
    for threshold in (0.3, 0.9):
        torch.save({"model": small_official, "args": {**ARGS, "brightness_threshold": threshold}}, tmp_path / "t.pt")
        net = F2DNet.from_official(tmp_path / "t.pt", weights="model")
        with torch.no_grad():
            gates[threshold] = float(net.enhancer(x)[1])
            fast = FastEnhancer(net.enhancer, torch.float32).gate_of(x.mean(dim=(2, 3)))
        assert float(fast) == pytest.approx(gates[threshold], rel=1e-6)
    sigmoid = {t: 1 / (1 + math.exp(-10 * (t - 0.4))) for t in gates}
    assert gates[0.9] / gates[0.3] == pytest.approx(sigmoid[0.9] / sigmoid[0.3], rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "EPSILON"}, r"'args' must have model_type among SFLOW, FLOW, FINAL_X, got 'EPSILON'"),
        ({"theta_schedule": "sine"}, r"theta_schedule among cosine, linear, got 'sine'"),
        ({"sigma_schedule": "none"}, r"sigma_schedule among .*got 'none'"),
        ({"sigmas_scale": 0.5}, r"sigmas_scale among 1, got 0.5"),
        ({"base_ch": 64}, r"base_ch = 64, and its tensors have 8"),
        ({"num_experts": 3}, r"num_experts = 3, and its tensors have 4"),
        ({"use_brightness_enhancer": False}, r"use_brightness_enhancer = False, and its tensors have True"),
        ({"brightness_enhancer_blocks": 6}, r"brightness_enhancer_blocks = 6, and its tensors have 1"),
        ({"factors": "noise,haze"}, r"factors = \['noise', 'haze'\], and its tensors 4 factors"),
        ({"factors": 3}, r"factors = 3"),
        ({"num_timesteps": "many"}, r"num_steps must be a whole number, got 'many'"),
        ({"brightness_threshold": 2.0}, r"brightness_threshold must be a luma in \[0, 1\].*got 2.0"),
    ],
)
def test_options_that_are_not_understood(tmp_path, small_official, changes, words):
    torch.save({"model": small_official, "args": {**ARGS, **changes}}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=words) as caught:
        F2DNet.from_official(tmp_path / "odd.pt", weights="model")
    assert "odd.pt" in str(caught.value)


def test_options_of_another_kind(tmp_path, small_official):
    torch.save({"model": small_official, "args": ["--lr", "1e-4"]}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd\.pt: 'args' is a list"):
        F2DNet.from_official(tmp_path / "odd.pt", weights="model")


def test_every_form_of_the_average(save, golden_weights):
    """The averaged tensors themselves, as older files have them; and with averaged buffers beside them."""
    bias = golden_weights["complexity_bias"]
    shadow = {name: value + 1 for name, value in golden_weights.items() if name != "complexity_bias"}
    nested = F2DNet.from_official(save(ema={"shadow": shadow, "decay": 0.9})).state_dict()
    bare = F2DNet.from_official(save(ema=shadow)).state_dict()
    assert all(torch.equal(bare[name], value) for name, value in nested.items())
    buffers = {"shadow": shadow, "shadow_buffers": {"complexity_bias": bias + 2}}
    assert torch.equal(F2DNet.from_official(save(ema=buffers)).state_dict()["gate.complexity_bias"], bias + 2)


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("should-not-exist",)


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": RunsCode()}, "evil.pt")
    with pytest.raises(ValueError, match="cannot be loaded"):
        F2DNet.from_official("evil.pt")
    assert not (tmp_path / "should-not-exist").exists()


def torch_bytes(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello world, this is no checkpoint",
        b"\x80",
        b"\x80\x02X",
        b"\x80\x02}q\x00(X\x05",
        bytes(range(256)),
        pickle.dumps([1, 2]),
        pickle.dumps({"model": os.getcwd}),
        torch_bytes({"model": torch.zeros(100)})[:-30],
        b"PK\x03\x04" + bytes(60),
    ],
    ids=["empty", "text", "one byte", "cut opcode", "cut string", "binary", "list", "function", "cut zip", "zip head"],
)
def test_junk_is_one_error(tmp_path, content):
    (tmp_path / "junk.pt").write_bytes(content)
    with warnings.catch_warnings(), pytest.raises(ValueError, match=r"junk\.pt .*(cannot be loaded|no 'model' entry)"):
        warnings.simplefilter("error")
        F2DNet.from_official(tmp_path / "junk.pt")


def test_missing_file_stays_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        F2DNet.from_official(tmp_path / "nope.pt")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"model": [1, 2]}, "'model' is a list"),
        ({"model": None}, "'model' is a NoneType"),
        ({"model": {"conv.weight": 3}}, "must contain only tensors by name, got 'conv.weight': int"),
        ({"model": {3: torch.zeros(1)}}, "must contain only tensors by name, got 3: Tensor"),
        ({"model": {}, "ema": 0.999}, "no 'shadow'"),
        ({"model": {}, "ema": {"decay": 0.9}}, "no 'shadow'"),
        ({"model": {}, "ema": {"shadow": [torch.zeros(1)]}}, "'shadow' of 'ema' is a list"),
        ({"model": {}, "ema": {}}, "no 'shadow'"),
        ({"model": {}, "ema": {3: torch.zeros(1)}}, "'ema' must contain only tensors by name, got 3: Tensor"),
        ({"model": {"gate.mlp.0.bias": torch.zeros(1), "alpha_mlp.0.bias": torch.zeros(1)}}, "under two names"),
    ],
)
def test_entries_of_another_kind(tmp_path, entries, words):
    torch.save(entries, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=words) as caught:
        F2DNet.from_official(tmp_path / "odd.pt", weights="ema" if "ema" in entries else "model")
    assert "odd.pt" in str(caught.value)


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize("name", ["parser.spatial_decoder.2.weight", "complexity_bias", "experts.0.conv1.weight"])
def test_tensors_of_too_few_dimensions(tmp_path, small_official, name, shape):
    torch.save({"model": {**small_official, name: torch.zeros(shape)}}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd\.pt"):
        F2DNet.from_official(tmp_path / "odd.pt", weights="model")


@pytest.mark.parametrize(("value", "words"), [(float("nan"), "not finite"), (3, "torch.int64")])
def test_weights_that_are_none(tmp_path, small_official, value, words):
    bias = torch.full_like(small_official["experts.0.conv1.bias"], value, dtype=None if value != 3 else torch.int64)
    torch.save({"model": {**small_official, "experts.0.conv1.bias": bias}}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=rf"experts\.0\.conv1\.bias .*{words}"):
        F2DNet.from_official(tmp_path / "odd.pt", weights="model")


def test_the_rules_are_read_once(monkeypatch):
    official._rewrites.cache_clear()
    reads = []
    monkeypatch.setattr(official.json, "loads", lambda text: reads.append(1) or json.JSONDecoder().decode(text))
    assert [translate(f"alpha_mlp.{i}.bias") for i in range(3)] == [f"gate.mlp.{i}.bias" for i in range(3)]
    assert len(reads) == 1
