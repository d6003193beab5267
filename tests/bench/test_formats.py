"""Storages of a gradient: it is stored as its name says, with equal values; bad arguments are refused."""

import re

import pytest
import torch

from bench import formats
from bench.cases import ops
from bench.providers import Inputs
from bench.registry import Case


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", formats.OPTIONS)
def test_gradients_are_stored_as_named(name, channels_last):
    case = Case(name, "formats", 2, 8, 6, 5, torch.float32, channels_last, "seed", True, options=formats.OPTIONS[name])
    inputs = Inputs.new(ops()[name], case, formats.CPU)
    for storage, store in formats.STORAGES.items():
        for given, stored in zip(inputs.upstream, formats.stored(inputs, case, store).upstream, strict=True):
            in_format, in_other = (
                stored.is_contiguous(memory_format=layout)
                for layout in (torch.channels_last, torch.contiguous_format)[:: 1 if channels_last else -1]
            )
            assert (in_format, in_other) == (storage == "same format", storage == "other"), storage
            exact = given[:, :, :1, :1].expand_as(given) if storage == "one pixel" else given
            assert torch.equal(stored, exact), storage
            assert (stored.stride()[2:] == (0, 0)) == (storage == "one pixel")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--size", "0", "0", "0", "0"], r"at least 1, and C a multiple of 8, got \[0, 0, 0, 0\]"),
        (["--size", "1", "12", "8", "8"], r"C a multiple of 8, got \[1, 12, 8, 8\]"),
        (["--samples", "0"], "--samples must be at least 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, words, capsys):
    with pytest.raises(SystemExit):
        formats.main(arguments)
    assert re.search(words, capsys.readouterr().err)


def test_wrong_results_are_not_timed(monkeypatch):
    case = Case("lognormal_transition", "formats", 1, 8, 3, 4, torch.float32, variant="seed", train=True)
    op = ops()[case.op]
    assert list(formats.times(op, case, 1)) == [*formats.STORAGES, formats.PLAIN]
    monkeypatch.setattr("bench.gate.TOLERANCE", {"ours": {torch.float32: -1.0}, "others": {torch.float32: 1.0}})
    with pytest.raises(formats.RedGateError, match="lognormal_transition, same format: result 0"):
        formats.times(op, case, 1)
