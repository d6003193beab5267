"""The ops under the names of other methods: one line changes, the numbers stay, within float32's rounding.

    FoD                       forward-only diffusion: MC and NMC steps, training states
    IRSDE                     IR-SDE, DA-CLIP, Refusion: reverse SDE, ODE and posterior steps, training states
    GOUB                      generalized Ornstein-Uhlenbeck bridge: SDE and mean-ODE steps, training states
    ResidualDiffusion         RDDM and DiffUIR: residual steps, deterministic or not
    ResShift                  residual shifting: prior, training states, posterior steps
    DDIM                      DDIM, and DDPM as its case eta = 1; noise, clean image or velocity predicted
    mixture_of_experts, projected_experts, prompt_mixture, channel_gates     MoCE-IR, PromptIR, InstructIR

A schedule is an nn.Module without parameters or state dict: coefficients are computed once, in float64, and kept on
the device, float32 whatever the model is cast to. `for t in process.times: x = process.step(x, ..., t, seed=7)` copies
nothing from the host and makes the host wait for nothing; `noise=` takes the ε that another code drew. The file of
each method has the lines before and after, and the defaults of the code that they replace.

t is an int, or a tensor of whole numbers: one for all samples, or one per sample, [B] or [B,1,1,1]. A seed is mixed
with t and the sample's index, so that one seed serves a trajectory and a training batch, with the same noise for every
kind of t. One compiled graph serves all of them. ValueError for a time that has no step; a tensor on a GPU, and any
time in a compiled graph, is not looked at, and fails as an index out of range does in PyTorch.
"""

from f2d_kernels.integrations.bridge import GOUB
from f2d_kernels.integrations.ddim import DDIM
from f2d_kernels.integrations.fod import FoD
from f2d_kernels.integrations.mean_reverting import IRSDE
from f2d_kernels.integrations.mixture import channel_gates, mixture_of_experts, projected_experts, prompt_mixture
from f2d_kernels.integrations.residual import ResidualDiffusion
from f2d_kernels.integrations.resshift import ResShift

__all__ = [
    "DDIM",
    "GOUB",
    "IRSDE",
    "FoD",
    "ResShift",
    "ResidualDiffusion",
    "channel_gates",
    "mixture_of_experts",
    "projected_experts",
    "prompt_mixture",
]
