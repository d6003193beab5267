"""Training data from any layout: clean photographs, pairs, lists, CDD-11 and the authors' LMDB, in any mixture.

`Mixture` yields samples, `stack` collates them in the workers, and `finish` degrades them on the device of the step.
"""

from f2d.data.augment import Augment
from f2d.data.find import open_pool
from f2d.data.mixture import Mixture
from f2d.data.pool import Pool
from f2d.data.sample import Batch, Draft, Sample, finish, stack
from f2d.data.source import Source
from f2d.data.unpacking import unpack

__all__ = [
    "Augment",
    "Batch",
    "Draft",
    "Mixture",
    "Pool",
    "Sample",
    "Source",
    "finish",
    "open_pool",
    "stack",
    "unpack",
]
