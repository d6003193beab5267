"""What the Hub's mixin makes of the networks: one format on disk, cards, and nothing lost of a module."""

import copy
import json
import pickle

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, PyTorchModelHubMixin

from f2d import checkpoints
from f2d.nets import F2DNet
from f2d.nets.resflow import ResFlowNet
from tests.nets.small import TINY, resflow_net

FILES = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture(params=["F²D-Net", "ResFlow"])
def net(request, nets):
    return nets["main"] if request.param == "F²D-Net" else resflow_net()


def same(one, other) -> bool:
    state = other.state_dict()
    equal = all(torch.equal(value, state[name]) for name, value in one.state_dict().items())
    return one.config == other.config and one.state_dict().keys() == state.keys() and equal


def test_a_module_as_any_other(net):
    assert isinstance(net, PyTorchModelHubMixin) and isinstance(net, torch.nn.Module)
    assert same(copy.deepcopy(net), net) and same(pickle.loads(pickle.dumps(net)), net)
    again = type(net)(net.config)
    again.load_state_dict(net.state_dict())
    assert same(again, net)


def test_it_compiles(nets):
    compiled = torch.compile(nets["main"], backend="eager")
    x = torch.rand(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(compiled(x, x, 3).prediction, nets["main"](x, x, 3).prediction)


def test_a_folder_and_its_card(net, tmp_path):
    folder = tmp_path / "my-model"
    net.save_pretrained(folder, model_card_kwargs={"license": "cc-by-4.0", "training_data": "Ten photographs."})
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert same(type(net).from_pretrained(folder), net)
    card = ModelCard.load(folder / "README.md")
    assert (card.data.license, card.data.library_name, card.data.pipeline_tag) == ("cc-by-4.0", "f2d", "image-to-image")
    assert {"image-restoration", "pytorch_model_hub_mixin"} <= set(card.data.tags)
    assert ("deraining" in card.data.tags) == bool(net.config.factors)
    count = sum(parameter.numel() for parameter in net.parameters())
    for words in (
        f"# {net.TITLE}\n",
        f"{count:,} parameters",
        'f2d.load("this-folder")',
        "Ten photographs.",
        type(net).__name__,
    ):
        assert words in card.content
    line = next(line for line in card.content.splitlines() if "from_pretrained" in line)
    names: dict = {}
    exec(line.split("`")[1].partition(";")[0], names)
    assert names[type(net).__name__] is type(net)


def test_a_card_that_is_there_stays(nets, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    nets["main"].save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_nothing_is_written_where_the_card_cannot_be_made(nets, tmp_path):
    for wrong, error in (({"evaluation": tmp_path / "none"}, FileNotFoundError), ({"colour": "red"}, TypeError)):
        with pytest.raises(error):
            nets["main"].save_pretrained(tmp_path / "out", model_card_kwargs=wrong)
    with pytest.raises(ValueError, match="config must be omitted"):
        nets["main"].save_pretrained(tmp_path / "out", config={"factors": []})
    assert not (tmp_path / "out").exists()


def test_a_reader_always_finds_a_configuration(nets, tmp_path, monkeypatch):
    """The mixin's own way to save removes config.json before it writes the weights."""
    nets["main"].save_pretrained(tmp_path)
    save_file = checkpoints.save_file

    def save_and_look(*arguments, **options):
        assert same(F2DNet.from_pretrained(tmp_path), nets["main"])
        save_file(*arguments, **options)

    monkeypatch.setattr(checkpoints, "save_file", save_and_look)
    nets["v1"].save_pretrained(tmp_path)
    assert same(F2DNet.from_pretrained(tmp_path), nets["v1"])


def test_results_of_an_evaluation(nets, tmp_path):
    measures = [
        {"key": "psnr rgb 8bit", "title": "PSNR RGB", "better": "higher", "unit": "dB", "digits": 2},
        {"key": "niqe", "title": "NIQE", "better": "lower", "unit": "", "digits": 2},
        {"key": "lpips alex", "title": "LPIPS", "better": "lower", "unit": "", "digits": 4},
    ]
    row = {
        "categories": ["rain", "haze"],
        "images": 10,
        "values": {"psnr rgb 8bit": 21.3912, "niqe": float("nan")},
        "input": {"psnr rgb 8bit": 15.8149, "niqe": 9.5},
    }
    settings = {"measures": measures, "data": "cdd-11=data", "options": {"steps": 1, "sampler": "MC", "limit": None}}
    results = {"settings": settings, "title": "CDD-11", "rows": [{}, row]}
    (tmp_path / "results.json").write_text(json.dumps(results))
    card = nets["main"].generate_model_card(name="owner/tiny", evaluation=tmp_path)
    (result,) = ModelCard(str(card)).data.eval_results
    assert (result.metric_type, result.metric_value, result.dataset_type) == ("psnr", 21.39, "cdd-11")
    assert card.data.metrics == ["psnr", "niqe"]
    assert "| PSNR RGB (dB) | 15.81 | 21.39 |" in card.content and "the mean of 2 categories" in card.content
    assert "CDD-11, 10 images" in card.content and "(steps 1, sampler MC)" in card.content
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(ValueError, match=r"results\.json is not what f2d eval writes"):
        nets["main"].generate_model_card(evaluation=tmp_path)


def test_results_that_f2d_eval_wrote(nets, tmp_path):
    """Its own writer, on records of pictures that never were."""
    from types import SimpleNamespace

    from f2d.evaluation.summary import summarize
    from f2d.evaluation.tables import write_results
    from tests.evaluation.records import folder_of, record

    records = [record("rain/a", 30.0), record("haze/b", 20.0)]
    folder = folder_of(tmp_path, records)
    data = SimpleNamespace(title="CDD-11", problems=(), published=())
    write_results(folder, data, summarize(records), records)
    card = nets["main"].generate_model_card(evaluation=tmp_path)
    assert "| PSNR RGB (dB) | 15.00 | 25.00 |" in card.content
    found = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert found == {"psnr": 25.0, "ssim": 0.625, "niqe": 4.0}


def test_a_push_uploads_what_is_saved(net, monkeypatch):
    """The one boundary that is not real: creating a repository and uploading a folder."""
    pushed = {}

    def upload(api, *, repo_id, folder_path, **options):
        pushed["files"] = sorted(path.name for path in folder_path.iterdir())
        pushed["net"] = type(net).from_pretrained(folder_path)
        pushed["card"] = (folder_path / "README.md").read_text(encoding="utf-8")
        return f"commit of {repo_id}"

    monkeypatch.setattr(HfApi, "create_repo", lambda api, repo_id, **_: type("Url", (), {"repo_id": repo_id}))
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    assert net.push_to_hub("owner/name", model_card_kwargs={"limits": "Few."}) == "commit of owner/name"
    assert pushed["files"] == FILES and same(pushed["net"], net)
    assert 'f2d.load("owner/name")' in pushed["card"] and "Few." in pushed["card"]


def test_presets_never_ask_the_hub(monkeypatch):
    monkeypatch.setattr("f2d.checkpoints.hub.fetch", lambda *_, **__: pytest.fail("the Hub was asked"))
    assert F2DNet.from_pretrained("f2d-lite").config.factors == TINY.factors
    with pytest.raises(FileNotFoundError, match="is neither a folder nor a preset"):
        ResFlowNet.from_pretrained("resflow-nope")
