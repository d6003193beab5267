"""Saving and loading: exact round trips, whole files or none, errors that say what to do."""

import pytest
import torch

from f2d import checkpoints
from f2d.nets import F2DNet
from tests.nets.small import TINY


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_round_trip(make_net, tmp_path, memory_format):
    net = make_net(patch=2, head="affine").to(memory_format=memory_format)
    net.save_pretrained(tmp_path / "new" / "folder")
    loaded = F2DNet.from_pretrained(tmp_path / "new" / "folder")
    assert loaded.config == net.config and not loaded.training
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    state = net.state_dict()
    assert loaded.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())
    x = torch.rand(1, 3, 9, 9) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(loaded(x, x, 0).prediction, net(x, x, 0).prediction)
    assert not loaded.backbone.frequency_embedding.laplacian.requires_grad


def test_a_preset_resolves_to_its_shipped_weights(make_net, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "WEIGHTS", tmp_path)
    net = make_net()
    net.save_pretrained(tmp_path / "f2d-tiny")
    assert F2DNet.from_pretrained("f2d-tiny").config == net.config
    with pytest.raises(FileNotFoundError, match=r"'f2d-huge' is neither a folder nor a preset.*\(f2d-tiny\)"):
        F2DNet.from_pretrained("f2d-huge")


def test_a_failed_write_leaves_the_old_checkpoint(make_net, tmp_path, monkeypatch):
    make_net().save_pretrained(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def save_half(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoints, "save_file", save_half)
    with pytest.raises(OSError, match="disk full"):
        make_net(expert_width=16).save_pretrained(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_missing_and_damaged_files(make_net, tmp_path):
    make_net().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        F2DNet.from_pretrained(tmp_path)
    make_net().save_pretrained(tmp_path / "best")  # of a run, which is given instead
    with pytest.raises(FileNotFoundError, match=r"but a checkpoint has .*, as .*best has"):
        F2DNet.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not one")
    with pytest.raises(ValueError, match="not a safetensors file"):
        F2DNet.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not JSON"):
        F2DNet.from_pretrained(tmp_path)


def test_weights_that_do_not_fit_the_configuration(make_net, tmp_path):
    net = make_net()
    config = net.config.to_dict()
    checkpoints.write(tmp_path, {**config, "expert_width": 16}, net.state_dict())
    with pytest.raises(ValueError, match=r"does not fit.*must be \(16, 8, 1, 1\), got \(8, 8, 1, 1\).*and \d+ more"):
        F2DNet.from_pretrained(tmp_path)
    checkpoints.write(tmp_path, {**config, "colour": "red"}, net.state_dict())
    with pytest.raises(ValueError, match="has no colour, only"):
        F2DNet.from_pretrained(tmp_path)


def test_files_can_be_read_by_whoever_can_read_the_folder(tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir(mode=0o755)
    F2DNet(TINY).save_pretrained(folder)
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == folder.stat().st_mode & 0o666
