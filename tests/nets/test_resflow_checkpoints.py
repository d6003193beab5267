"""ResFlow's checkpoints and configurations, and what is said of wrong ones."""

import json

import pytest
import torch

from f2d import checkpoints
from f2d.nets import F2DNet, F2DNetConfig
from f2d.nets.resflow import PRESETS, ResFlowConfig, ResFlowNet
from tests.nets.small import TINY
from tests.nets.test_resflow import VARIANTS, auxiliary_for, image, make_net


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_save_and_load(variant, tmp_path):
    net, x = make_net(**variant), image(1, 3, 10, 10)
    net.save_pretrained(tmp_path)
    loaded = ResFlowNet.from_pretrained(tmp_path)
    assert loaded.config == net.config and not loaded.training
    assert json.loads((tmp_path / "config.json").read_text())["architecture"] == "ResFlow"
    with torch.no_grad():
        auxiliary = auxiliary_for(net, x)
        assert torch.equal(loaded(x, auxiliary, 0.5), net(x, auxiliary, 0.5))


def test_the_transport_is_the_one_configured():
    transport = make_net(auxiliary="boundary", beta=3, gamma=0.5).transport
    assert (transport.auxiliary, transport.beta, transport.gamma) == ("boundary", 3.0, 0.5)
    assert make_net(distribution="laplace").transport.distribution == "laplace"


def test_checkpoints_from_before_other_distributions_are_gaussian(tmp_path):
    net, values = make_net(), make_net().config.to_dict()
    del values["distribution"]
    checkpoints.write(tmp_path, values, net.state_dict())
    assert ResFlowNet.from_pretrained(tmp_path).transport.distribution == "gaussian"


@pytest.mark.parametrize("name", PRESETS)
def test_json_round_trip(name):
    config = PRESETS[name]
    assert ResFlowConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_checkpoints_of_other_architectures_and_damaged_ones(tmp_path):
    F2DNet(TINY).save_pretrained(tmp_path / "f2d")
    with pytest.raises(ValueError, match=r"f2d.config\.json: ResFlowConfig: architecture must be 'ResFlow'.*got None"):
        ResFlowNet.from_pretrained(tmp_path / "f2d")
    make_net().save_pretrained(tmp_path / "resflow")
    with pytest.raises(ValueError, match="F2DNetConfig has no "):
        F2DNetConfig.from_pretrained(tmp_path / "resflow")
    path = tmp_path / "resflow" / "config.json"
    values = json.loads(path.read_text())
    for change, message in [
        ({"channels": "8"}, r"resflow.config\.json: ResFlowConfig: channels must be a whole number.*got '8'"),
        ({"base_ch": 8}, "ResFlowConfig has no base_ch, only "),
        ({"channels": 16}, "saved with a different config.json"),
    ]:
        path.write_text(json.dumps({**values, **change}))
        with pytest.raises(ValueError, match=message):
            ResFlowNet.from_pretrained(tmp_path / "resflow")
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="mapping of its fields, got list"):
        ResFlowNet.from_pretrained(tmp_path / "resflow")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"channels": 100}, r"channels must be a multiple of groups=32.*got 100"),
        ({"multipliers": (1, 2)}, "multipliers and blocks must be equally long, 1 to 8, got 2 and 4"),
        ({"multipliers": (), "blocks": ()}, "multipliers and blocks must be equally long, 1 to 8, got 0 and 0"),
        ({"multipliers": (1, 2, 2, 0)}, r"multipliers must be 1 to 64.*got \(1, 2, 2, 0\)"),
        ({"blocks": (2, 2, 2, 10**9)}, "must be 1 to 256"),
        ({"attention_levels": 5}, r"attention_levels must be 0 to 4.*got 5"),
        ({"time_dim": 5}, r"time_dim must be an even number.*got 5"),
        ({"patch": 3}, r"patch must be 1 or 2.*got 3"),
        ({"injection": "prayer"}, "must be one of adaptor, concatenation, addition"),
        ({"auxiliary": "linear"}, r"auxiliary must be one of .*got 'linear'"),
        ({"beta": 0.0}, "beta must be > 0"),
        ({"gamma": float("nan")}, r"gamma must be a finite number.*got nan"),
        ({"adaptor_width": True}, r"adaptor_width must be a whole number.*got True"),
    ],
)
def test_bad_configurations_say_what_is_wrong(change, message):
    with pytest.raises(ValueError, match=message):
        ResFlowConfig(**change)


def test_bad_calls_say_what_is_wrong():
    net, x = make_net(), image(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"x_t must be \[B, 3, H, W\].*got \(3, 8, 8\)"):
        net(x[0], x[0], 0.5)
    with pytest.raises(TypeError, match=r"x_t must hold floating-point values, got torch\.uint8"):
        net(x.byte(), x, 0.5)
    with pytest.raises(ValueError, match=r"the auxiliary must have the shape of x_t, \(2, 3, 8, 8\).*got None"):
        net(x, None, 0.5)
    with pytest.raises(ValueError, match=r"the auxiliary must have the shape of x_t, .*got \(1, 3, 8, 8\)"):
        net(x, x[:1], 0.5)
    with pytest.raises(ValueError, match=r"t must be a number or \[2\].*got \(3,\)"):
        net(x, x, torch.zeros(3))
    with pytest.raises(ValueError, match="the auxiliary must be None, because this network has none"):
        make_net(auxiliary="none")(x, x, 0.5)
    with pytest.raises(ValueError, match=r"preset must be one of resflow-paper, resflow-lite.*got 'resflow-huge'"):
        ResFlowNet.from_preset("resflow-huge")
