"""Which samples a step sees: the same ones however the run is shared out, split or stopped."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from f2d.training.batches import Batches
from f2d.training.recipe import Stage


@st.composite
def runs(draw):
    """(stages, steps, accumulate, world): batches that can be shared out so."""
    accumulate, world = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    steps = draw(st.integers(1, 12))
    starts = [0, *sorted(draw(st.sets(st.integers(1, 14), max_size=3)))]
    sizes = draw(st.lists(st.integers(1, 3), min_size=len(starts), max_size=len(starts)))
    crops = draw(st.lists(st.integers(8, 64), min_size=len(starts), max_size=len(starts)))
    stages = [Stage(s, crop, size * accumulate * world) for s, crop, size in zip(starts, crops, sizes)]
    return tuple(stages), steps, accumulate, world


@given(runs())
def test_every_step_sees_the_next_samples_whoever_works_on_them(run):
    stages, steps, accumulate, world = run
    ranks = [list(Batches(stages, steps, accumulate, rank=rank, world=world)) for rank in range(world)]
    expected = 0
    for step in range(steps):
        stage = [stage for stage in stages if stage.start <= step][-1]
        seen = []
        for part in range(accumulate):
            shares = [ranks[rank][step * accumulate + part] for rank in range(world)]
            assert len({len(share) for share in shares}) == 1
            seen += [sample for share in shares for sample in share]
        # in this order: what is gathered part by part and rank by rank is in the order of one process
        assert seen == [(expected + i, stage.crop) for i in range(stage.batch_size)]
        expected += stage.batch_size


@given(runs(), st.data())
def test_resuming_gives_the_tail(run, data):
    stages, steps, accumulate, world = run
    first, rank = data.draw(st.integers(0, steps)), data.draw(st.integers(0, world - 1))
    whole = Batches(stages, steps, accumulate, rank=rank, world=world)
    resumed = Batches(stages, steps, accumulate, first, rank, world)
    assert list(resumed) == list(islice(whole, first * accumulate, None))
    assert len(resumed) == len(whole) == len(list(whole))  # counted from the start of the run


def test_stages_by_hand():
    batches = Batches((Stage(0, 32, 4), Stage(2, 48, 2)), steps=4, accumulate=2)
    assert list(batches) == [
        [(0, 32), (1, 32)],
        [(2, 32), (3, 32)],
        [(4, 32), (5, 32)],
        [(6, 32), (7, 32)],
        [(8, 48)],
        [(9, 48)],
        [(10, 48)],
        [(11, 48)],
    ]


def test_a_batch_that_cannot_be_shared_evenly():
    with pytest.raises(ValueError, match=r"batch_size 6 cannot be split evenly among 2 processes in 2 parts.*of 4"):
        Batches((Stage(0, 32, 8), Stage(5, 48, 6)), steps=10, accumulate=2, world=2)
