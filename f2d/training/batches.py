"""Choose the samples of each step, on any machine, as a function of the step alone."""

from collections.abc import Iterator

from torch.utils.data import Sampler

from f2d.training.recipe import Stage


class Batches(Sampler):
    """Yields lists of (sample index, crop), one list per part of a step, from step `first` to `steps` - 1.

    The length counts from step 0, as a trainer that resumes compares it with all batches of the run.

    Step s uses the next batch_size indices of its stage in `accumulate` parts, each split evenly among `world`
    processes. Neither resuming nor the number of processes changes which samples a step sees. Raises ValueError if a
    batch cannot be split evenly.
    """

    def __init__(
        self, stages: tuple[Stage, ...], steps: int, accumulate: int = 1, first: int = 0, rank: int = 0, world: int = 1
    ):
        for stage in stages:
            if stage.batch_size % (accumulate * world):
                raise ValueError(
                    f"batch_size {stage.batch_size} cannot be split evenly among {world} processes in {accumulate} "
                    f"parts, so it must be a multiple of {accumulate * world}"
                )
        self.stages, self.steps, self.accumulate, self.first = stages, steps, accumulate, first
        self.rank, self.world = rank, world

    def stage(self, step: int) -> Stage:
        """Return the stage that a step belongs to."""
        return [stage for stage in self.stages if stage.start <= step][-1]

    def start(self, step: int) -> int:
        """Return the index of a step's first sample, the number of samples in all steps before it."""
        ends = [*(stage.start for stage in self.stages[1:]), step]
        return sum(
            max(0, min(end, step) - stage.start) * stage.batch_size
            for stage, end in zip(self.stages, ends, strict=True)
        )

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.first, self.steps):
            stage, start = self.stage(step), self.start(step)
            share = stage.batch_size // (self.accumulate * self.world)
            for part in range(self.accumulate):
                begin = start + (part * self.world + self.rank) * share
                yield [(index, stage.crop) for index in range(begin, begin + share)]

    def __len__(self) -> int:
        return self.steps * self.accumulate
