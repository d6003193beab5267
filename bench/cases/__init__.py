"""The cases of each op, one file per op."""

from bench.cases.expert_assembly import OP as EXPERT_ASSEMBLY
from bench.cases.expert_head import OP as EXPERT_HEAD
from bench.cases.gaussian_transition import OP as GAUSSIAN_TRANSITION
from bench.cases.group_norm_silu import OP as GROUP_NORM_SILU
from bench.cases.lognormal_transition import OP as LOGNORMAL_TRANSITION
from bench.cases.transport_step import OP as TRANSPORT_STEP

OPS = (EXPERT_ASSEMBLY, LOGNORMAL_TRANSITION, TRANSPORT_STEP, GAUSSIAN_TRANSITION, EXPERT_HEAD, GROUP_NORM_SILU)
