"""Random calls of every op, drawn by hypothesis: shapes, dtypes, memory layouts, optional arguments, noise sources, and
which arguments require a gradient. Beside each call stands its formula in plain PyTorch."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from f2d_kernels import (
    expert_assembly,
    expert_head,
    gaussian_transition,
    group_norm_silu,
    lognormal_transition,
    transport_step,
)

from .drawing import JITTER, UNIT, Case, Draw, Tensors


def promoted(tensors: list[Tensor]) -> torch.dtype:
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def numbered(leaves: Tensors, name: str) -> list[Tensor]:
    return [t for key, t in leaves.items() if key.startswith(f"{name}[")]


def per_image(value: Tensor) -> Tensor:
    return value[:, None, None, None] if value.dim() else value


def experts_of(d: Draw, leaves: Tensors, name: str, experts: int, channels: int, shared: bool) -> None:
    """Stacked, stacked and shared by the batch, or a sequence."""
    form = d.pick("stacked", "sequence", *(["shared"] if shared else []))
    if form == "sequence":
        leaves.update({f"{name}[{k}]": d.tensor(d.batch, channels, *d.size) for k in range(experts)})
    else:
        leaves[name] = d.tensor(1 if form == "shared" else d.batch, experts, channels, *d.size)


def experts_in(leaves: Tensors, name: str) -> Tensor | list[Tensor]:
    return leaves[name] if name in leaves else numbered(leaves, name)


def gated_sum(t: Tensors, deltas: list[Tensor]) -> Tensor:
    gates = t["gates"] if t["gates"].dim() == 3 else t["gates"][:, :, None]
    weights = gates[..., None, None] * (t["maps"][:, :, None] if "maps" in t else 1)
    total = sum(weights[:, k] * delta for k, delta in enumerate(deltas))
    return t["base"] + total if "base" in t else total


def assembled(t: Tensors) -> Tensor:
    return gated_sum(t, list(t["deltas"].unbind(1)) if "deltas" in t else numbered(t, "deltas"))


def transported(t: Tensors, mu: Tensor) -> Tensor:
    z = per_image(t["log_mean"]) + per_image(t["log_std"]) * t["noise"]
    return mu + (t["x"] - mu) * z.clamp(-20, 20).exp()


def assembly_leaves(d: Draw, channels: int) -> Tensors:
    leaves: Tensors = {}
    experts = d.pick(1, 2, 3, 4, 5, 8, 9)
    experts_of(d, leaves, "deltas", experts, channels, shared=True)
    leaves["gates"] = d.tensor(d.batch, experts, *d.pick((), (channels,)))
    d.maybe(leaves, "maps", d.batch, experts, *d.size)
    d.maybe(leaves, "base", d.batch, channels, *d.size)
    return leaves


def schedule_leaves(d: Draw, leaves: Tensors) -> None:
    """Now and then beyond the clamp of the exponent at -20, where no gradient passes."""
    mean = d.values(d.batch).clamp(-1, 1) - d.pick(0.0, 1.0, 25.0)
    leaves["log_mean"], leaves["log_std"] = d.schedule(mean), d.schedule(0.5 * d.values(d.batch).clamp(-2, 2))


@st.composite
def assembly_cases(draw) -> Case:
    d = Draw(draw)
    leaves = assembly_leaves(d, d.pick(1, 2, 3, 4, 5, 31))
    images = [t for name, t in leaves.items() if name.startswith(("deltas", "base"))]
    return d.finish(
        Case(
            "expert_assembly", leaves,
            lambda t: expert_assembly(experts_in(t, "deltas"), t["gates"], t.get("maps"), t.get("base")),
            assembled, [promoted(images)],
        )
    )  # fmt: skip


@st.composite
def lognormal_cases(draw) -> Case:
    d, drawn = Draw(draw), {}
    shape = d.batch, d.pick(1, 2, 3, 4, 31), *d.size
    leaves = {"x": d.tensor(*shape), "mu": d.tensor(*shape)}
    schedule_leaves(d, leaves)
    noise = d.noise(leaves, drawn, *shape)

    def call(t: Tensors) -> Tensor:
        return lognormal_transition(t["x"], t["mu"], t["log_mean"], t["log_std"], noise=t.get("noise"), **noise)

    dtypes = [promoted([leaves["x"], leaves["mu"]])]
    formula = lambda t: transported(t, t["mu"])  # noqa: E731
    return d.finish(Case("lognormal_transition", leaves, call, formula, dtypes, drawn=drawn, options=str(noise)))


@st.composite
def gaussian_cases(draw) -> Case:
    d, drawn = Draw(draw), {}
    shape, count = (d.batch, d.pick(1, 2, 3, 4, 31), *d.size), d.pick(1, 2, 3, 4)
    leaves = {f"terms[{j}]": d.tensor(*shape) for j in range(count)}
    numbers = [1.5 * j - 1 for j in range(count)]
    std = d.pick(0, 0.0, 0.75, None)
    if (form := d.pick("[B,J]", "[J]", "numbers")) != "numbers":
        leaves["coefficients"] = d.tensor(*([d.batch] if form == "[B,J]" else []), count)
    if std is None:
        leaves["std"] = d.schedule(d.values(d.batch).abs())
    noise = d.noise(leaves, drawn, *shape)

    def call(t: Tensors) -> Tensor:
        coefficients = t.get("coefficients", numbers)
        deviation = t.get("std", std)
        return gaussian_transition(numbered(t, "terms"), coefficients, deviation, noise=t.get("noise"), **noise)

    def formula(t: Tensors) -> Tensor:
        columns = t["coefficients"].unbind(-1) if "coefficients" in t else [torch.tensor(c) for c in numbers]
        total = sum(per_image(c) * term for c, term in zip(columns, numbered(t, "terms"), strict=True))
        return total + (per_image(t["std"]) if "std" in t else std) * t["noise"]

    dtypes, options = [promoted(numbered(leaves, "terms"))], f"{numbers}, {std}, {noise}"
    return d.finish(Case("gaussian_transition", leaves, call, formula, dtypes, drawn=drawn, options=options))


def quiet_bounds(raw: Tensor, unit: float) -> tuple[float, float]:
    """A clamp that binds at both ends with no value of `raw` so near a bound that rounding decides on which side."""
    values = raw.flatten().sort().values
    count = len(values) // 3
    if count < 2:
        return -float("inf"), float("inf")
    bounds = []
    for part, none in ((values[:count], -float("inf")), (values[-count:], float("inf"))):
        gap, at = (part[1:] - part[:-1]).max(0)
        bounds.append(float(part[at] + gap / 2) if gap > 32 * unit * values.abs().max() else none)
    return bounds[0], bounds[1]


@st.composite
def transport_cases(draw) -> Case:
    d, drawn = Draw(draw), {}
    shape = d.batch, d.pick(1, 2, 3, 4), *d.size
    leaves = {"x": d.tensor(*shape), **assembly_leaves(d, shape[1])}
    d.maybe(leaves, "anchor", *shape)
    schedule_leaves(d, leaves)
    noise = d.noise(leaves, drawn, *shape)
    images = [t for name, t in leaves.items() if name.startswith(("deltas", "base"))]
    anchored = promoted([*images, leaves.get("anchor", leaves["x"])])
    coarsest = max((promoted(images), anchored), key=UNIT.__getitem__)

    def target(t: Tensors) -> Tensor:
        return t.get("anchor", t["x"]) + assembled(t)

    clamp = quiet_bounds(target({name: t.double() for name, t in leaves.items()}), UNIT[coarsest])

    def formula(t: Tensors) -> tuple[Tensor, Tensor]:
        mu = target(t).clamp(*clamp)
        return transported(t, mu), mu

    def call(t: Tensors) -> tuple[Tensor, Tensor]:
        return transport_step(
            t["x"], experts_in(t, "deltas"), t["gates"], t.get("maps"), t.get("base"), t["log_mean"], t["log_std"],
            anchor=t.get("anchor"), clamp=clamp, noise=t.get("noise"), **noise,
        )  # fmt: skip

    dtypes, options = [torch.promote_types(leaves["x"].dtype, anchored), anchored], f"{clamp}, {noise}"
    return d.finish(
        Case("transport_step", leaves, call, formula, dtypes, drawn=drawn, rounded_to=coarsest, options=options)
    )


@st.composite
def head_cases(draw) -> Case:
    d, leaves = Draw(draw), {}
    experts, channels, features = d.pick(1, 2, 4, 5), d.pick(1, 3, 4), d.pick(1, 3, 8, 17)
    experts_of(d, leaves, "features", experts, features, shared=False)
    leaves |= {"weight": d.tensor(experts, channels, features), "gates": d.tensor(d.batch, experts)}
    d.maybe(leaves, "bias", experts, channels)
    d.maybe(leaves, "channel_scale", d.batch, experts, features)
    d.maybe(leaves, "maps", d.batch, experts, *d.size)
    d.maybe(leaves, "base", d.batch, channels, *d.size)

    def formula(t: Tensors) -> Tensor:
        listed = t["features"].unbind(1) if "features" in t else numbered(t, "features")
        deltas = []
        for k, image in enumerate(listed):
            scaled = image * t["channel_scale"][:, k, :, None, None] if "channel_scale" in t else image
            projected = (t["weight"][k][:, :, None, None] * scaled[:, None]).sum(2)
            deltas.append(projected + t["bias"][k][:, None, None] if "bias" in t else projected)
        return gated_sum(t, deltas)

    def call(t: Tensors) -> Tensor:
        optional = (t.get("bias"), t.get("channel_scale"), t["gates"], t.get("maps"), t.get("base"))
        return expert_head(experts_in(t, "features"), t["weight"], *optional)

    images = [t for name, t in leaves.items() if name.startswith(("features", "base"))]
    return d.finish(Case("expert_head", leaves, call, formula, [promoted(images)]))


@st.composite
def norm_cases(draw) -> Case:
    d, leaves = Draw(draw), {}
    groups, per_group = d.pick(1, 2, 3), d.pick(1, 2, 5, 16)
    channels, eps, with_mean = groups * per_group, d.pick(1e-5, 1e-3), d.draw(st.booleans())
    shape = (d.batch, channels, *d.size)
    leaves["x"] = d.tensor(*shape, values=d.pick(1.0, 0.1) * d.values(*shape) + d.pick(0.0, 3.0))
    for name, table in (("weight", ()), ("bias", ()), ("scale", (d.batch,)), ("shift", (d.batch,))):
        d.maybe(leaves, name, *table, channels)

    def formula(t: Tensors) -> Tensor | tuple[Tensor, Tensor]:
        flat = t["x"].reshape(d.batch, groups, per_group * d.size[0] * d.size[1])
        # the two sums over a group are off for all of it: jitter of single elements would average out
        centred = flat - flat.mean(-1, keepdim=True) * (1 + t["slip"])
        variance = centred.square().mean(-1, keepdim=True) * (1 + t["slip"])
        u = (centred * (variance + eps).rsqrt()).reshape(shape)
        u = u * t["weight"][:, None, None] if "weight" in t else u
        u = u + t["bias"][:, None, None] if "bias" in t else u
        u = u * (1 + t["scale"][:, :, None, None]) if "scale" in t else u
        u = u + t["shift"][:, :, None, None] if "shift" in t else u
        out = u * torch.sigmoid(u)
        return (out, out.mean((2, 3))) if with_mean else out

    def call(t: Tensors) -> Tensor | tuple[Tensor, Tensor]:
        tables = (t.get(name) for name in ("weight", "bias", "scale", "shift"))
        return group_norm_silu(t["x"], groups, *tables, eps, with_mean)

    dtypes = [leaves["x"].dtype, *([None] if with_mean else [])]
    case = Case("group_norm_silu", leaves, call, formula, dtypes, options=f"{groups} groups, {eps}")
    case.drawn = {"slip": torch.zeros(d.batch, groups, 1)}
    case.drawn_error = JITTER * case.unit * (1 + (per_group * d.size[0] * d.size[1]) ** 0.5 / 8)  # sums lose as sqrt(n)
    return d.finish(case)


CASES = {
    "expert_assembly": assembly_cases(),
    "lognormal_transition": lognormal_cases(),
    "gaussian_transition": gaussian_cases(),
    "transport_step": transport_cases(),
    "expert_head": head_cases(),
    "group_norm_silu": norm_cases(),
}
