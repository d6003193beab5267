"""The small network of the tests: every part of the real one, in sizes that run in milliseconds."""

from f2d.nets import F2DNetConfig


def small_config(**changes) -> F2DNetConfig:
    """A configuration with two of everything; `changes` replace fields."""
    sizes = {
        "stage_widths": (8, 16),
        "blocks_per_stage": (1, 1),
        "bottleneck_blocks": 1,
        "attention_heads": 2,
        "groups": 4,
        "time_dim": 16,
        "frequency_dim": 8,
        "expert_width": 8,
        "enhancer_width": 8,
        "enhancer_blocks": 1,
        "parser_widths": (8, 8),
        "parser_decoder_widths": (8, 8),
    }
    return F2DNetConfig(**{**sizes, **changes})


# as the presets that ship: half resolution, gain and offset, no enhancer
TINY = small_config(bottleneck_blocks=0, enhancer_width=None, patch=2, head="affine")
