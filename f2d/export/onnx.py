"""Convert an exported program to ONNX; f2d's ops become standard operators, which any runtime supports."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram


def onnx_file(program: ExportedProgram, description: dict[str, str]) -> bytes:
    """Return the program as the bytes of an ONNX file that contains `description`."""
    import onnx

    ops = torch.ops.f2d_kernels
    plain = {
        ops.expert_assembly.default: _assembly,
        ops.gaussian_transition.default: _gaussian,
        ops.group_norm_silu.default: _group_norm_silu,
        ops.lognormal_transition.default: _transition,
    }
    names = ["image", "noise"][: len(program.graph_signature.user_inputs)]
    written = torch.onnx.export(
        program.run_decompositions(plain), input_names=names, output_names=["restored"], verbose=False, dynamo=True
    )
    assert written is not None  # holds with dynamo=True
    model = written.model_proto
    del model.graph.value_info[:]  # shapes of intermediate results, which runtimes infer
    for value in (*model.graph.input, *model.graph.output):
        dims = [dim for dim in value.type.tensor_type.shape.dim if dim.dim_param]
        for dim, name in zip(dims, ("batch", "height", "width"), strict=True):
            dim.dim_param = name
    onnx.helper.set_model_props(model, description)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _assembly(deltas: list[Tensor], gates: Tensor, maps: Tensor | None, base: Tensor | None) -> Tensor:
    """Express `f2d_kernels.expert_assembly` in standard operators."""
    total: Any = base
    for k, delta in enumerate(deltas):
        weight = gates[:, k, None, None, None]
        term = (weight if maps is None else weight * maps[:, k, None]) * delta
        total = term if total is None else total + term
    return total


def _group_norm_silu(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    eps: float,
    *_: object,
) -> tuple[Tensor, ...]:
    """Express `f2d_kernels.group_norm_silu` in standard operators; the op's other three results are unused."""
    h = nn.functional.group_norm(x, groups, weight, bias, eps)
    if scale is not None:
        h = h * (1 + scale[:, :, None, None])
    if shift is not None:
        h = h + shift[:, :, None, None]
    return (nn.functional.silu(h),) * 4


def _transition(x: Tensor, mu: Tensor, log_mean: Tensor, log_std: Tensor, noise: Tensor, *_: object) -> Tensor:
    """Express `f2d_kernels.lognormal_transition` with given noise in standard operators."""
    exponent = log_mean[:, None, None, None] + log_std[:, None, None, None] * noise
    return mu + (x - mu) * exponent.clamp(-20, 20).exp()


def _gaussian(terms: list[Tensor], coefficients: Tensor, std: Any, noise: Tensor | None, *_: object) -> Tensor:
    """Express `f2d_kernels.gaussian_transition` with given noise, or without noise, in standard operators."""
    total: Any = sum(coefficients[:, j, None, None, None] * term for j, term in enumerate(terms))
    return total if noise is None else total + std[:, None, None, None] * noise
