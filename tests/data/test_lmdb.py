"""The authors' LMDB: read as NumPy would, and nothing in it ever runs."""

import builtins
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from f2d.data import lmdb as lmdb_pools
from f2d.data import open_pool
from f2d.data.unpickling import Array, loads, middle
from tests.data.conftest import picture, record


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_entries_are_what_was_put_in(make_lmdb, protocol):
    entries = {"low_haze_1": record(1), "rain_haze_1": record(1, "rain_haze"), "c_2": record(2, "clean", 200, 300)}
    pool = open_pool(make_lmdb({**entries, "__len__": 3}, protocol))
    assert pool.categories == ("low_haze", "haze_rain", "clear") and len(pool) == 3
    for i in range(3):
        known = entries[pool.records[i].key.decode()]
        for mine, name in zip(pool.read(i), ("LQ", "GT"), strict=True):
            assert mine.dtype == torch.uint8 and np.array_equal(mine.permute(1, 2, 0).numpy(), known[name])
        assert pool.size(i) == known["GT"].shape[1::-1]
    scenes = {pool.records[i].key: pool.entries[i].scene for i in range(3)}
    assert scenes[b"low_haze_1"] == scenes[b"rain_haze_1"] != scenes[b"c_2"]
    assert open_pool(pool.path, category="haze").categories == ("haze",)


@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"])
@pytest.mark.parametrize("protocol", [3, 5])
def test_pickles_of_numpy_1_and_2(core, protocol):
    """The module's name is all that differs; protocol 3 has it with its length only as a line."""
    array = picture(0)
    data = pickle.dumps({"GT": array}, protocol)
    name = b"numpy._core" if b"numpy._core" in data else b"numpy.core"
    if protocol == 3:
        data = data.replace(name + b".multiarray", core + b".multiarray")
    else:
        old, new = name + b".numeric", core + b".numeric"
        data = data.replace(bytes([len(old)]) + old, bytes([len(new)]) + new)
        frame = data.index(b"\x95")
        (length,) = struct.unpack("<Q", data[frame + 1 : frame + 9])
        length += len(new) - len(old)
        data = data[: frame + 1] + struct.pack("<Q", length) + data[frame + 9 :]
    assert core + b"." in data
    assert np.array_equal(loads(data, "x")["GT"].numpy(), array)


numbers = st.sampled_from(["u1", "<u2", ">u2", "<i4", ">i8", "<f4", ">f8", "<f2", "?"])


@settings(deadline=None)
@given(numbers, st.lists(st.integers(0, 5), max_size=4), st.integers(3, 5), st.booleans(), st.integers(0, 999))
@example("u1", [200, 200, 3], 4, False, 0)
def test_arrays_are_those_that_numpy_unpickles(kind, shape, protocol, fortran, seed):
    values = np.random.default_rng(seed).integers(0, 200, shape)
    array = np.asarray(values).astype(kind)
    array = np.asfortranarray(array) if fortran else array
    value = ({"a": [array, None], "b": (1, -(2**70), 0.5, True, "é", b"x")}, array)
    mine = loads(pickle.dumps(value, protocol), "x")
    known = pickle.loads(pickle.dumps(value, protocol))
    assert mine[0]["b"] == known[0]["b"] and mine[0]["a"][1] is None
    for one in (mine[0]["a"][0], mine[1]):
        got = one.numpy()
        assert got.dtype == array.dtype and got.shape == array.shape and np.array_equal(got, array)
        assert got.flags.writeable


def test_an_index_reads_the_middle_alone():
    """Of an array of 24 MB, 4 KB: what is around them may be anything, and is not read."""
    array = np.random.default_rng(0).integers(0, 256, (2000, 4000, 3), dtype=np.uint8)
    data = bytearray(pickle.dumps({"GT": array, "deg_name": "low"}))
    first = data.index(array[:1].tobytes()[:64])
    start = (array.size - 4096) // 2
    skimmed = loads(bytes(data), "x", skim=True)
    assert skimmed["GT"].shape == array.shape and skimmed["deg_name"] == "low"
    assert middle(skimmed["GT"]) == array.tobytes()[start : start + 4096]
    data[first : first + start] = bytes(start)
    assert middle(loads(bytes(data), "x", skim=True)["GT"]) == middle(skimmed["GT"])


class Runs:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


EVIL = {
    "os.system": (Runs(os.system, "touch ran"), r"(posix|nt)\.system"),
    "eval": (Runs(builtins.eval, "open('ran', 'w').close()"), r"(builtins|__builtin__)\.eval"),
    "exec in a list": ([1, {"a": Runs(exec, "open('ran', 'w').close()")}], r"(builtins|__builtin__)\.exec"),
    "getattr": (Runs(getattr, "", "format"), r"(builtins|__builtin__)\.getattr"),
    "numpy": (Runs(np.load, "ran"), r"numpy.*load"),
    "objects": ({"LQ": np.array([os.getcwd, 1], dtype=object)}, "(an array of 'O8'|getcwd)"),
    "objects of plain values": ({"LQ": np.array([1, "a", None], dtype=object)}, "an array of 'O8'"),
    "texts": ({"LQ": np.array(["a"])}, "an array of 'U1'"),
    "records": ({"LQ": np.zeros(2, dtype=[("a", "u1")])}, "an array of 'V1'"),
    "torch": ({"LQ": torch.zeros(2)}, r"torch\._utils\._rebuild_tensor_v2"),
    "set of classes": ({"LQ": pytest.Item}, "Item"),
}


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("name", EVIL)
def test_nothing_is_run(make_lmdb, tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    value, words = EVIL[name]
    data = pickle.dumps(value, protocol)
    # before protocol 3 the bytes of arrays are a call of their own, which is refused as well
    words = words if protocol > 2 else rf"({words}|_codecs\.encode|copy_reg\._reconstructor)"
    with pytest.raises(ValueError, match=rf"^x is refused: it contains .*{words}"):
        loads(data, "x")
    with pytest.raises(ValueError, match=rf"key 00001 is refused: it contains .*{words}"):
        open_pool(make_lmdb({"00001": data}))
    assert not (tmp_path / "ran").exists()


HAND_WRITTEN = {
    "state of a class": b"cnumpy\nndarray\n(dS'__setstate__'\nI1\nsb.",
    "attributes of a class": b"\x80\x02cnumpy\ndtype\nN}X\x04\x00\x00\x00type\x4b\x01s\x86b.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"Pid\n.",
    "stack": b"\x80\x02R.",
    "long line": b"c" + b"a" * 10_000 + b"\nb\n.",
    "huge bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".",
    "cut": pickle.dumps({"LQ": picture(0)})[:-500],
    "empty": b"",
}


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_pickles_of_no_writer(name):
    before = dict(vars(Array))
    with pytest.raises(ValueError, match=r"^x is (damaged|refused)"):
        loads(HAND_WRITTEN[name], "x")
    assert dict(vars(Array)) == before


@pytest.mark.parametrize(
    "state", [(1, (9, 9, 3), None, False, b""), (1, (2, 2, 3), 3, False, b"x" * 12), (1, (2,)), 7, {"shape": 1}]
)
def test_arrays_with_a_state_that_is_none(state):
    array = loads(pickle.dumps(np.zeros((2, 2, 3), np.uint8), 4), "x")
    with pytest.raises((ValueError, TypeError)):
        array.__setstate__(state)
        array.numpy()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damage_is_one_error(data):
    whole = pickle.dumps({"LQ": np.arange(60, dtype=np.uint8), "deg_name": "low"}, data.draw(st.integers(3, 5)))
    place = data.draw(st.integers(0, len(whole) - 1))
    bad = whole[:place] + bytes([data.draw(st.integers(0, 255))]) + whole[place + 1 :]
    try:
        loads(bad[: data.draw(st.integers(place, len(bad)))], "x")
    except ValueError as error:
        assert str(error).startswith("x is ")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([1, 2], "must be a dict with LQ, GT and deg_name, got list"),
        ({"input": 1}, "must be a dict with LQ, GT and deg_name, got input"),
        ({**record(0), "GT": 3}, r"GT must be an array.*got int"),
        ({**record(0), "GT": picture(0)[..., 0]}, r"GT must be uint8 \[H,W,3\], got uint8 \(40, 48\)"),
        ({**record(0), "LQ": picture(0) / 255}, r"LQ must be uint8.*got float64 \(40, 48, 3\)"),
        ({**record(0), "LQ": picture(0, 40, 44)}, "LQ and GT must have the same size"),
        ({**record(0), "deg_name": 3}, "deg_name must be text such as low_haze, got 3"),
        (b"no pickle", "is damaged or not a pickle"),
    ],
)
def test_values_of_another_kind_are_named(make_lmdb, value, words):
    with pytest.raises(ValueError, match=rf"train\.lmdb, key bad.*{words}"):
        open_pool(make_lmdb({"bad": value}))


def test_folders_that_are_no_lmdb(make_lmdb, tmp_path):
    with pytest.raises(ValueError, match="without entries"):
        open_pool(make_lmdb({}))
    (tmp_path / "data.mdb").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="cannot be opened as an LMDB"):
        open_pool(tmp_path)


def test_without_the_library(make_lmdb, monkeypatch):
    path = make_lmdb({"a": record(0)})
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install \"f2d\[train\]\""):
        open_pool(path)


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_open_their_own(make_lmdb, context):
    pool = open_pool(make_lmdb({f"{i}": record(i) for i in range(4)}))
    known = [pool.read(i)[1] for i in range(4)]  # open here before the workers start
    with torch.multiprocessing.get_context(context).Pool(1) as workers:
        read = workers.map(pool.read, range(4))
        processes = workers.map(opened_in, [pool] * 4)
    assert all(torch.equal(clean, mine) for (_, clean), mine in zip(read, known, strict=True))
    assert all(process != os.getpid() and distance == 0 for process, distance in processes)
    assert torch.equal(pool.read(0)[1], known[0])


def opened_in(pool) -> tuple[int, int]:
    """(this process, how far from it the one is in which the LMDB that it reads from was opened)"""
    pool.read(0)
    process, _ = lmdb_pools._opened[os.path.realpath(pool.path)]
    return os.getpid(), process - os.getpid()
