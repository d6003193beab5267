"""The cases of each op, one file per op; `ops` has them by name."""

from bench.cases.expert_assembly import OP as EXPERT_ASSEMBLY
from bench.cases.expert_head import OP as EXPERT_HEAD
from bench.cases.gaussian_transition import OP as GAUSSIAN_TRANSITION
from bench.cases.group_norm_silu import OP as GROUP_NORM_SILU
from bench.cases.lognormal_transition import OP as LOGNORMAL_TRANSITION
from bench.cases.transport_step import OP as TRANSPORT_STEP
from bench.registry import Op

OPS = (EXPERT_ASSEMBLY, LOGNORMAL_TRANSITION, TRANSPORT_STEP, GAUSSIAN_TRANSITION, EXPERT_HEAD, GROUP_NORM_SILU)


def ops() -> dict[str, Op]:
    """Return all ops by name, in the order of the specification; raise ValueError if two cases have the same name."""
    for op in OPS:
        names = [case.name for case in op.cases]
        if len(names) != len(set(names)):
            raise ValueError(f"{op.name}: two cases have one name among {sorted(names)}")
    return {op.name: op for op in OPS}
