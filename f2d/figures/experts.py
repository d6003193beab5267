"""Figures of the experts: gates and maps, also beside the ground-truth masks, and how much each acts when needed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from math import isfinite
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from f2d.engine.restorer import Restored, Restorer
from f2d.evaluation.bootstrap import Estimate, ratio
from f2d.evaluation.case import Case
from f2d.evaluation.record import Record
from f2d.figures.grid import CELL, Cell, grid
from f2d.figures.panels import GROUND_TRUTH, Shown, picture
from f2d.metrics.localisation import located
from f2d.metrics.selectivity import EPSILON

FLOOR = 1e-4  # smaller effective gates are drawn at this value, as the axis says


class Experts(NamedTuple):
    """The experts of a model. look: its result for an image, which runs the model once for all figures of this image.

    spatial: whether the model computes maps (False: they are ones, since it routes whole images).
    """

    look: Callable[[Tensor], Restored[Tensor]]
    spatial: bool

    @classmethod
    def of(cls, restorer: Restorer) -> "Experts":
        """Return those of a model that has factors."""

        @cache
        def look(image: Tensor) -> Restored[Tensor]:
            return restorer(image, steps=1)

        return cls(look, getattr(restorer.config, "spatial_maps", False))


class Acting(NamedTuple):
    """The mean effective gate of one factor's expert, over the images with the factor and over those without it.

    experts: the number of experts of the model.
    """

    factor: str
    present: Estimate
    absent: Estimate
    experts: int


def gates(experts: Experts, cases: Sequence[Shown]) -> Figure:
    """Draw a row for each case: the input, then ``alpha_k m_k`` of every expert at the first step."""
    rows = []
    for case in cases:
        seen = experts.look(case.degraded)
        row: list[Cell] = [("input", picture(case.degraded), case.name)]
        for k, factor in enumerate(seen.factors):
            row.append((factor, (seen.gates[k] * seen.maps[k]).numpy(), f"gate {seen.gates[k]:.2f}"))
        rows.append(row)
    return grid(rows, limits=(0, 1), unit="gate x map")


def maps(models: Mapping[str, Experts], cases: Sequence[Shown]) -> Figure:
    """Draw a row for each case and factor that is present: input, ground-truth mask, and every model's map m_k.

    All maps of a row are divided by the largest value of its mask, since rain reaches only a fraction of what haze
    does. The caption is the Pearson correlation r with the mask. Raises ValueError if no case has a mask.
    """
    rows = []
    for case in cases:
        seen = {name: experts.look(case.degraded) for name, experts in models.items()} if case.masks else {}
        for factor, mask in case.masks.items():
            scale = max(float(mask.max()), EPSILON)
            row: list[Cell] = [
                ("input", picture(case.cut(case.degraded)), case.name),
                (GROUND_TRUTH, (case.cut(mask) / scale).numpy(), f"{factor}, largest {scale:.2f}"),
            ]
            for name, found in seen.items():
                if factor in found.factors:
                    map_ = found.maps[found.factors.index(factor)]
                    r = located(map_, mask).correlation
                    told = f"r = {r:.2f}" if isfinite(r) else "constant map, no r"
                    told = told if models[name].spatial else "no map, m = 1"
                    row.append((name, (case.cut(map_) / scale).numpy(), told))
            rows.append(row)
    if not rows:
        raise ValueError("a figure of maps needs ground-truth masks, but none of these images has one")
    return grid(rows, limits=(0, 1), unit="map / largest value of the mask")


def acting(evaluated: Iterable[tuple[Case, Record]]) -> list[Acting]:
    """Average ``e_k = alpha_k · mean m_k`` of each factor over the images with it, and over those without it.

    Images have equal weight; the intervals are those of `f2d.evaluation.bootstrap.ratio`. Images whose factors are
    unknown are excluded.
    """
    found: dict[str, tuple[dict, dict]] = {}
    scenes = {}
    experts = 0
    for case, record in evaluated:
        experts = max(experts, len(record.effective))
        scenes[case.name] = record.scene
        for factor, effective in record.effective.items() if case.factors else ():
            side = found.setdefault(factor, ({}, {}))[factor not in case.factors]
            side.setdefault(case.category, {})[case.name] = (effective, 1.0)
    return [
        Acting(factor, ratio(with_it, scenes=scenes), ratio(without, scenes=scenes), experts)
        for factor, (with_it, without) in found.items()
        if with_it and without
    ]


def weights(methods: Mapping[str, Sequence[Acting]]) -> Figure:
    """Draw a panel for each method: the mean effective gate of each factor where it is present and where it is absent.

    The axis is logarithmic, so the length of the line between both is the factor's own selectivity, which is printed.
    Bars are 95 % intervals. Raises ValueError if no method has effective gates.
    """
    drawn = {name: found for name, found in methods.items() if found}
    if not drawn:
        raise ValueError(
            "no method has effective gates for factors that are present in some images and absent in others"
        )
    figure = Figure(figsize=(1.25 * CELL * len(drawn) + 1.6, 1.25 * CELL), layout="constrained")
    axes = figure.subplots(1, len(drawn), squeeze=False, sharey=True)[0]
    for axis, (name, found) in zip(axes, drawn.items()):
        places = np.arange(len(found))
        for label, shift, marker, colour in (("present", -0.08, "o", "C3"), ("absent", 0.08, "s", "C0")):
            estimates = np.clip([getattr(one, label) for one in found], FLOOR, 1)
            value, low, high = np.where(np.isnan(estimates), estimates[:, :1], estimates).T
            axis.errorbar(
                places + shift, value, (value - low, high - value), fmt=marker, color=colour, capsize=2, label=label
            )
        for place, one in zip(places, found):
            ends = np.clip([one.present.value, one.absent.value], FLOOR, 1)
            axis.plot([place - 0.08, place + 0.08], ends, color="0.6", linewidth=1, zorder=0)
        axis.axhline(1 / found[0].experts, color="0.6", linestyle=":", linewidth=1, label="all equal, no maps")
        ratios = [f"{one.factor}\n{one.present.value / (one.absent.value + EPSILON):.1f}x" for one in found]
        axis.set_xticks(places, ratios, fontsize=8, parse_math=False)
        axis.set(yscale="log", ylim=(FLOOR * 0.7, 1.5), xlim=(-0.5, len(found) - 0.5))
        axis.set_title(name, fontsize=9, parse_math=False)
        axis.tick_params(axis="y", labelsize=8)
    axes[0].set_ylabel(f"mean gate x map, at least {FLOOR}", fontsize=8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)
    return figure
