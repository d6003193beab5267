"""Sampling steps and mixtures of other methods, built on the ops; results agree with theirs up to float32 rounding.

    FoD                       forward-only diffusion: MC and NMC steps, training states
    IRSDE                     IR-SDE, DA-CLIP, Refusion: reverse SDE, ODE and posterior steps, training states
    GOUB                      generalized Ornstein-Uhlenbeck bridge: SDE and mean-ODE steps, training states
    ResidualDiffusion         RDDM and DiffUIR: residual steps, deterministic or not
    ResShift                  residual shifting: prior, training states, posterior steps
    DDIM                      DDIM, and DDPM as its case eta = 1; for networks that predict noise, x_0 or velocity
    mixture_of_experts, projected_experts, prompt_mixture, channel_gates     MoCE-IR, PromptIR, InstructIR

A process is an nn.Module without parameters or state dict. Its coefficients are computed once, in float64, and kept on
the device in float32, whatever dtype the model is cast to. The loop
`for t in process.times: x = process.step(x, ..., t, seed=7)` copies nothing from the host and never makes it wait. Pass
`noise=` to use ε drawn by other code. The file of each method shows the code before and after, and the defaults of the
code that it replaces.

t is an int, or a tensor of whole numbers: one for all samples, or one per sample, [B] or [B,1,1,1]. A seed is mixed
with t and the sample's index, so you can use one seed for a whole trajectory or training batch, and the noise is the
same whether t is an int or a tensor. One compiled graph serves all times. A time without a step raises ValueError.
Tensors on a GPU, and times in a compiled graph, are not checked: there such a time fails like an index out of range.
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
