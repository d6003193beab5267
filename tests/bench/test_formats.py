"""Mixed memory formats: the gradients have the other format and equal values; bad arguments are refused."""

import re

import pytest
import torch

from bench import formats
from bench.cases import ops
from bench.providers import Inputs
from bench.registry import Case


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", formats.OPTIONS)
def test_gradients_have_the_other_format(name, channels_last):
    case = Case(name, "formats", 2, 8, 6, 5, torch.float32, channels_last, "seed", True, options=formats.OPTIONS[name])
    same = Inputs.new(ops()[name], case, formats.CPU)
    for a, b in zip(same.upstream, formats.in_the_other_format(same, case).upstream, strict=True):
        assert torch.equal(a, b)
        assert a.is_contiguous(memory_format=torch.channels_last) is channels_last
        assert b.is_contiguous(memory_format=torch.channels_last) is not channels_last


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
    assert list(formats.times(op, case, 1)) == ["same", "other", "plain"]
    monkeypatch.setattr("bench.gate.TOLERANCE", {"ours": {torch.float32: -1.0}, "others": {torch.float32: 1.0}})
    with pytest.raises(formats.RedGateError, match="lognormal_transition, cpp: result 0"):
        formats.times(op, case, 1)
