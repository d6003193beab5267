"""`f2d convert`: official checkpoints and LMDBs, as folders that the other commands take."""

import pickle

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from f2d.cli.convert import convert
from f2d.data import open_pool
from f2d.data.unpacking import unpack
from f2d.nets import F2DNet
from tests.cli.conftest import assert_one_line_error
from tests.data.conftest import make_lmdb, negative, picture, record
from tests.nets.small import small_config

__all__ = ["make_lmdb"]  # a fixture


@pytest.fixture
def run():
    """run(source, "-o", folder, ...) -> result of the command."""
    app = typer.Typer()
    app.command()(convert)

    def invoke(*arguments: object):
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return invoke


@pytest.fixture
def official(tmp_path):
    """(path, network): a small checkpoint in the authors' names, whose average is its weights plus 1."""
    torch.manual_seed(0)
    net = F2DNet(small_config(groups=8, stage_widths=(8, 16)))
    state = {
        name.replace("parser.decoder.", "parser.spatial_decoder.").replace("gate.complexity_bias", "complexity_bias"): v
        for name, v in net.state_dict().items()
    }
    path = tmp_path / "official.pt"
    torch.save({"model": state, "ema": {"shadow": {name: value + 1 for name, value in state.items()}}}, path)
    return path, net


def test_a_checkpoint_becomes_a_folder(run, official, tmp_path):
    path, net = official
    for options, more in (((), 1), (("--weights", "model"), 0), (("--factors", "a,b, c,d"), 1)):
        folder = tmp_path / f"weights{len(options)}{more}"
        result = run(path, "-o", folder, *options)
        assert result.exit_code == 0, result.output
        loaded = F2DNet.from_pretrained(folder)
        assert loaded.config.factors == (tuple("abcd") if "a,b, c,d" in options else ("low", "haze", "rain", "snow"))
        assert all(torch.equal(loaded.state_dict()[name], value + more) for name, value in net.state_dict().items())
    assert_one_line_error(run(path, "-o", folder), 2, "--overwrite")
    assert run(path, "-o", folder, "--overwrite").exit_code == 0


def test_mistakes_are_one_line_and_write_nothing(run, official, tmp_path):
    path, _ = official
    junk = tmp_path / "junk.pt"
    junk.write_bytes(b"junk")
    (tmp_path / "folder").mkdir()
    target = tmp_path / "out"
    assert_one_line_error(run(tmp_path / "none.pt", "-o", target), 2, "no such file")
    assert_one_line_error(run(junk, "-o", target), 2, "junk.pt cannot be loaded")
    assert_one_line_error(run(path, "-o", target, "--factors", "a,b"), 2, "does not fit")
    assert_one_line_error(run(path, "-o", target, "--factors", "a,,c,d"), 2, "factors")
    assert_one_line_error(run(path, "-o", junk), 2, "must be a folder, but is a file")
    assert_one_line_error(run(tmp_path / "folder", "-o", target), 2, "no data.mdb")
    assert_one_line_error(run(tmp_path / "folder", "-o", target, "--weights", "ema"), 2, "only apply to checkpoints")
    assert not target.exists()


def entries() -> dict:
    return {
        f"{category}_{scene:05}.png": record(scene, category)
        for scene in range(3)
        for category in ("low", "haze_low", "rain")
    }


def files_below(folder) -> dict:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_an_lmdb_becomes_the_folders_of_cdd11(run, make_lmdb, tmp_path):
    source, target = make_lmdb(entries()), tmp_path / "out"
    result = run(source, "-o", target)
    assert result.exit_code == 0 and "12 pictures written" in result.stdout, result.output
    homes = ("clear", "low", "low_haze", "rain")
    assert set(files_below(target)) == {f"{home}/{scene:05}.png" for home in homes for scene in range(3)}
    for scene in range(3):
        for home in homes:
            expected = picture(scene) if home == "clear" else negative(picture(scene))
            assert np.array_equal(np.array(Image.open(target / home / f"{scene:05}.png")), expected)
    pool = open_pool(target)
    assert len(pool) == 9 and pool.categories == ("low", "rain", "low_haze")


def test_it_goes_on_where_it_was_stopped(run, make_lmdb, tmp_path):
    source, target = make_lmdb(entries()), tmp_path / "out"

    def stop(done, of):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(source, target, each=stop)
    before = files_below(target)
    assert 0 < len(before) < 12
    result = run(source, "-o", target)
    assert f"{12 - len(before)} pictures written, {len(before)} kept" in result.stdout
    after = files_below(target)
    assert len(after) == 12 and before.items() <= after.items()
    result = run(source, "-o", target, "--overwrite")
    assert "12 pictures written" in result.stdout and all(files_below(target)[n] > t for n, t in after.items())


def test_scenes_of_one_name_get_folders_of_pairs(run, make_lmdb, tmp_path):
    source = make_lmdb({"haze/1": record(1, "haze"), "rain/1": record(2, "rain")})
    assert run(source, "-o", tmp_path / "out").exit_code == 0
    names = {f"{home}/{side}/1.png" for home in ("haze", "rain") for side in ("input", "gt")}
    assert set(files_below(tmp_path / "out")) == names
    for home, seed in (("haze", 1), ("rain", 2)):
        degraded, clean = open_pool(tmp_path / "out" / home, category=home).read(0)
        assert np.array_equal(clean.permute(1, 2, 0), picture(seed))
        assert np.array_equal(degraded.permute(1, 2, 0), negative(picture(seed)))


def test_a_scene_twice_in_a_category(make_lmdb, tmp_path):
    """Several hazes of one picture, and clean entries: every picture is written, and reads back."""
    values = {"1_0.8": record(1, "haze"), "1_0.9": record(1, "haze"), "1_c": record(1, "clean"), "2": record(2, "rain")}
    assert unpack(make_lmdb(values), tmp_path / "out") == (6, 0)
    pool = open_pool(tmp_path / "out")
    assert len(pool) == 3 and pool.categories == ("haze", "rain")
    for i in range(3):
        degraded, clean = pool.read(i)
        assert torch.equal(degraded, 255 - clean)


def test_pictures_that_share_their_middle_rows_are_two_scenes(make_lmdb, tmp_path):
    """Their index is the same, but each has its own ground truth."""
    values = {"a": record(1, "low", 160, 180), "b": record(2, "haze", 160, 180)}
    for value in values.values():
        value["GT"][70:90] = 255
    assert unpack(make_lmdb(values), tmp_path / "out") == (4, 0)
    for name, category in (("a", "low"), ("b", "haze")):
        for home, side in ((category, "LQ"), ("clear", "GT")):
            written = np.array(Image.open(tmp_path / "out" / home / f"{name}.png"))
            assert np.array_equal(written, values[name][side])


@pytest.mark.parametrize("category", ["../../up", "a/b", "", ".", "-x"])
def test_categories_that_are_no_folder_names(run, make_lmdb, tmp_path, category):
    source = make_lmdb({"../../1": record(1, category or " ")})
    assert_one_line_error(run(source, "-o", tmp_path / "deep" / "out"), 2, "cannot be the name of a folder")
    assert not list(tmp_path.rglob("*.png"))


def test_keys_are_no_paths(make_lmdb, tmp_path):
    unpack(make_lmdb({"../../a/../b": record(1, "haze"), "..": record(2, "haze")}), tmp_path / "deep" / "out")
    assert {p.parent.parent for p in tmp_path.rglob("*.png")} == {tmp_path / "deep" / "out"}
    assert len(list(tmp_path.rglob("*.png"))) == 4


def test_an_lmdb_that_would_run_code(run, make_lmdb, tmp_path):
    data = pickle.dumps({"LQ": eval, "GT": 1, "deg_name": "low"})
    result = run(make_lmdb({"1": data}), "-o", tmp_path / "out")
    assert_one_line_error(result, 2, "key 1 is refused: it contains builtins.eval")
