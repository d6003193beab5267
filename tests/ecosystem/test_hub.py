"""Checkpoints from the Hub by its real client: what is fetched, what is used when nobody answers, what is said."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from f2d.checkpoints import hub as hub_module
from tests.cli.conftest import assert_one_line_error
from tests.ecosystem.conftest import ROOT, settings
from tests.ecosystem.fake_hub import commit_of
from tests.ecosystem.loader import digest
from tests.nets.small import TINY

ID = "owner/tiny"
NEITHER = "is neither a folder nor a preset with shipped weights (f2d-lite, resflow-lite)"


def refused(answer: dict, *words: str) -> None:
    assert answer.get("error") == "FileNotFoundError", answer
    for word in (NEITHER, *words):
        assert word in answer["message"], answer
    assert "\n" not in answer["message"]


def test_a_network_comes_from_the_hub_as_it_was_saved_and_nothing_else_does(hub, load, nets):
    for what in ("net", "any"):
        assert load(what, ID) == {"config": TINY.to_dict(), "weights": digest(nets["main"].state_dict())}
    assert load("config", ID) == load("restorer", ID) == {"config": TINY.to_dict()}
    files = {request.rpartition("/")[2] for request in hub.requests}
    assert files == {"config.json", "model.safetensors"}
    assert sum(request.startswith("GET") for request in hub.requests) == 2  # each file once


@pytest.mark.parametrize("spelled", ["keyword", "suffix", "commit"])
def test_a_revision(hub, load, nets, spelled):
    commit = commit_of(hub.folder / ID / "v1")
    source, options = {
        "keyword": (ID, {"revision": "v1"}),
        "suffix": (f"{ID}@v1", {}),
        "commit": (f"{ID}@{commit}", {}),
    }[spelled]
    assert load("net", source, **options)["weights"] == digest(nets["v1"].state_dict())
    hub.stop()
    assert load("net", source, **options)["weights"] == digest(nets["v1"].state_dict())
    refused(load("net", ID), "could not be reached", "its config.json is not in the cache")  # main was not
    hub.start()


def test_a_command_asks_once_and_a_commit_that_is_here_is_not_asked_for(hub, load):
    commit = load("net", f"{ID}@v1") and commit_of(hub.folder / ID / "v1")
    hub.requests.clear()
    assert load("net", f"{ID}@{commit}")["config"] and hub.requests == []
    assert load("cli", ["info", ID])["exit_code"] == 0
    hub.requests.clear()
    hub.silent = True
    assert load("cli", ["info", ID])["exit_code"] == 0
    assert len(hub.requests) == 1  # to a Hub that does not answer; what was fetched is used


def test_a_folder_and_a_preset_have_no_revisions(load, tmp_path, nets):
    nets["main"].save_pretrained(tmp_path / "here")
    for source in ("f2d-lite", str(tmp_path / "here")):
        answer = load("net", source, revision="v1")
        assert answer["error"] == "ValueError" and "has no revisions" in answer["message"]


def test_two_revisions_at_once_and_one_that_is_not_there(hub, load):
    answer = load("net", f"{ID}@v1", revision="main")
    assert answer["error"] == "ValueError" and "but revision='main' is a different one" in answer["message"]
    assert not hub.requests
    assert load("net", ID)["config"]
    refused(load("net", f"{ID}@v9"), f"{hub.url}/{ID} has no revision 'v9'")


@pytest.mark.parametrize("how", ["stopped", "silent", "local_files_only"])
def test_what_was_fetched_before_is_used_when_the_hub_does_not_answer(hub, load, nets, how):
    kept = digest(nets["main"].state_dict())
    assert load("net", ID)["weights"] == kept
    hub.requests.clear()
    options = {"local_files_only": True} if how == "local_files_only" else {}
    if how == "stopped":
        hub.stop()
    hub.silent = how == "silent"
    assert load("net", ID, **options)["weights"] == kept
    refused(
        load("net", "owner/other", **options),
        "downloads are disabled" if options else f"{hub.url} could not be reached",
        "its config.json is not in the cache",
    )
    # once for each source: a client left to itself would ask a silent Hub six times, a minute each
    assert len(hub.requests) == (2 if how == "silent" else 0)
    if how == "stopped":
        hub.start()


def test_a_hub_that_is_busy_or_has_lost_a_repository_leaves_what_was_fetched(hub, load):
    assert load("net", ID)["config"]
    shutil.move(hub.folder / ID, hub.folder / "moved")
    assert load("net", ID)["config"]
    refused(load("net", ID, force_download=True), "has no such repository")
    refused(load("net", "busy/net"), f"{hub.url} answers 503", "not in the cache")


def test_a_new_commit_is_taken_and_its_two_files_belong_together(hub, load, nets):
    assert load("net", ID)["weights"] == digest(nets["main"].state_dict())
    shutil.copytree(hub.folder / ID / "v1", hub.folder / ID / "main", dirs_exist_ok=True)
    assert load("net", ID)["weights"] == digest(nets["v1"].state_dict())


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("owner/nothing", ("has no such repository, or it is private",)),
        ("gated/net", ("/gated/net is gated: request access there",)),
    ],
)
def test_repositories_that_the_hub_does_not_give(hub, load, source, words):
    refused(load("net", source), repr(source), *words)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_missing_file(hub, load, file):
    (hub.folder / ID / "main" / file).unlink()
    refused(load("net", ID), f"{hub.url}/{ID} has no {file}")


def test_a_damaged_file_is_named_and_can_be_fetched_again(hub, load, tmp_path):
    assert load("net", ID)["config"]
    (cached,) = (tmp_path / "cache").glob("models--owner--tiny/snapshots/*/model.safetensors")
    cached.resolve().write_bytes(b"not one")
    answer = load("net", ID)
    assert answer["error"] == "ValueError" and f"{cached} is not a safetensors file" in answer["message"]
    assert load("net", ID, force_download=True)["config"]
    assert load("net", ID)["config"]


def test_contradicting_options(load):
    answer = load("net", ID, local_files_only=True, force_download=True)
    assert answer["error"] == "ValueError" and "local_files_only and force_download" in answer["message"]
    assert load("net", ID, colour="red")["error"] == "TypeError"
    assert load("net", "f2d-lite", colour="red")["error"] == "TypeError"  # a mistake, wherever the weights are


def test_a_folder_wins_and_what_is_here_asks_nobody(hub, load, nets):
    nets["v1"].save_pretrained(load.folder / ID)
    assert load("net", ID)["weights"] == digest(nets["v1"].state_dict())
    assert load("net", "f2d-lite")["config"]
    (load.folder / ID / "config.json").unlink()
    answer = load("net", ID)  # a folder without its file is that, not a name for the Hub
    assert answer["error"] == "FileNotFoundError" and "owner/tiny has no config.json" in answer["message"]
    (load.folder / "owner" / "weights.bin").write_bytes(b"")
    refused(load("net", "owner/weights.bin"))
    for source in ("f2d-nope", "../owner/tiny", "/owner/tiny", "a/b/c", "owner/-tiny", "owner/a..b"):
        refused(load("net", source))
    assert not hub.requests


def test_names():
    assert hub_module.parse("owner/name") == ("owner/name", None)
    assert hub_module.parse("Own-er/na.me_2@refs/pr/1") == ("Own-er/na.me_2", "refs/pr/1")
    for text in ("name", "a/b/c", "owner/na--me", "owner/.name", "owner/name@", f"owner/{'x' * 96}", "ow ner/x", None):
        assert hub_module.parse(text) is None


def test_the_command_line(hub, load):
    def run(*arguments: str) -> SimpleNamespace:
        return SimpleNamespace(**load("cli", arguments))

    assert_one_line_error(run("info", "owner/nothing"), 2, "'owner/nothing'", NEITHER, "has no such repository")
    result = run("info", ID)
    assert result.exit_code == 0 and "loaded, finite" in result.stdout, result.output
    hub.stop()
    assert_one_line_error(run("restore", "x.png", "-o", "y.png", "--model", "owner/x"), 1, "x.png")  # no model is asked
    assert_one_line_error(run("export", "owner/x", "-o", "x.pt2"), 2, "'owner/x'", NEITHER, "could not be reached")
    hub.start()


def test_offline_by_the_client_s_own_switch(hub, load, tmp_path):
    assert load("net", ID)["config"]
    asked = [["net", source, {"cache_dir": str(tmp_path / "cache")}, str(tmp_path)] for source in (ID, f"{ID}@v1")]
    hub.requests.clear()
    result = subprocess.run(
        [sys.executable, "-m", "tests.ecosystem.loader"],
        env=settings(hub.url, tmp_path / "home", HF_HUB_OFFLINE="1"),
        input="\n".join(map(json.dumps, asked)) + "\n",
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
    )
    cached, other = map(json.loads, result.stdout.splitlines())
    assert cached["config"] == TINY.to_dict() and not hub.requests
    refused(other, "HF_HUB_OFFLINE is set, and its config.json is not in the cache")
