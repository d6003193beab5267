"""The datasets of the papers: their layout on disk, names, and conventions."""

from typing import NamedTuple

from f2d.degradation import CATEGORIES


class Part(NamedTuple):
    """One group of images of a dataset.

    layout: "pairs", "cdd11", "clean" (degraded by each category in `made`), "list" or "unpaired". row: its row in the
    tables; "" means the category, or the name of the folder that contains a pair of folders (its path if several have
    that name). factors: those that all its images have. folders: possible names inside the dataset's folder, of which
    the first existing one is used; "" is that folder itself. pattern: an argument of `f2d.data.pairs.match_pairs`.
    """

    layout: str
    row: str = ""
    factors: tuple[str, ...] = ()
    folders: tuple[str, ...] = ("",)
    made: tuple[str, ...] = ()
    pattern: str | None = None


class Preset(NamedTuple):
    """A dataset by name. convention: that of most of its published results. tiers: (name, categories) of averages."""

    title: str
    parts: tuple[Part, ...]
    convention: str = "onerestore"
    tiers: tuple[tuple[str, tuple[str, ...]], ...] = ()


TIERS = tuple(
    (name, tuple(c for c in CATEGORIES if c.count("_") == others))
    for others, name in enumerate(("single", "pair", "triple"))
)
_SOTS = Part("pairs", "SOTS", ("haze",), ("SOTS/outdoor", "SOTS", "dehaze", "outdoor"))
_RAIN100L = Part("pairs", "Rain100L", ("rain",), ("Rain100L", "derain/Rain100L", "derain"))
_NOISE = ("noise15", "noise25", "noise50")
_CBSD68 = ("CBSD68/original_png", "CBSD68", "BSD68", "denoise/CBSD68", "denoise/bsd68", "denoise")

PRESETS: dict[str, Preset] = {
    "cdd-11": Preset("CDD-11", (Part("cdd11"),), tiers=TIERS),
    "composites": Preset("synthesised composites", (Part("clean", made=CATEGORIES),), tiers=TIERS),
    "three-task": Preset(
        "three tasks: haze, rain, noise", (_SOTS, _RAIN100L, Part("clean", made=_NOISE, folders=_CBSD68)), "moce-ir"
    ),
    "five-task": Preset(
        "five tasks: haze, rain, noise, blur, low light",
        (
            _SOTS,
            _RAIN100L,
            Part("clean", made=("noise25",), folders=_CBSD68),
            Part("pairs", "GoPro", ("blur",), ("GoPro/test", "GoPro", "deblur")),
            Part("pairs", "LOL", ("low",), ("LOL/eval15", "LOL", "enhance", "lowlight", "eval15")),
        ),
        "moce-ir",
    ),
    "rain100l": Preset("Rain100L", (Part("pairs", "Rain100L", ("rain",)),), "promptir"),
    "rain100h": Preset("Rain100H", (Part("pairs", "Rain100H", ("rain",)),), "promptir"),
    "rain13k": Preset("Rain13K", (Part("pairs", "", ("rain",)),), "promptir"),
    "rain1400": Preset("Rain1400", (Part("pairs", "Rain1400", ("rain",), ("testing", "")),), "promptir"),
    "raindrop": Preset("RainDrop", (Part("pairs", "RainDrop", (), ("test_a", "")),), "ir-sde"),
    "spa-data": Preset("SPA-Data", (Part("pairs", "SPA-Data", ("rain",)),), "promptir"),
    "lol": Preset("LOL", (Part("pairs", "LOL", ("low",), ("eval15", "test", "")),), "promptir"),
    "lol-v2-real": Preset("LOL-v2 real", (Part("pairs", "LOL-v2-real", ("low",), ("Real_captured", "")),), "promptir"),
    "lol-v2-synthetic": Preset(
        "LOL-v2 synthetic", (Part("pairs", "LOL-v2-synthetic", ("low",), ("Synthetic", "")),), "promptir"
    ),
    "sots": Preset("RESIDE SOTS", (Part("pairs", "", ("haze",), ("outdoor", "")),), "promptir"),
    "gopro": Preset("GoPro", (Part("pairs", "GoPro", ("blur",), ("test", "")),), "promptir"),
    "snow100k": Preset("Snow100K", (Part("pairs", "", ("snow",)),), "ir-sde"),
    "outdoor-rain": Preset("Outdoor-Rain", (Part("pairs", "Outdoor-Rain", ("haze", "rain")),), "ir-sde"),
    "weatherbench": Preset("WeatherBench", (Part("pairs"),), "weatherbench"),
    "dense-haze": Preset("Dense-Haze", (Part("pairs", "Dense-Haze", ("haze",)),), "ir-sde"),
    "nh-haze": Preset("NH-HAZE", (Part("pairs", "NH-HAZE", ("haze",)),), "ir-sde"),
    "o-haze": Preset("O-HAZE", (Part("pairs", "O-HAZE", ("haze",)),), "ir-sde"),
    "i-haze": Preset("I-HAZE", (Part("pairs", "I-HAZE", ("haze",)),), "ir-sde"),
    "sidd": Preset("SIDD", (Part("pairs", "SIDD", ("noise",)),), "ir-sde"),
    "lhp": Preset("LHP", (Part("pairs", "LHP", ("rain",)),), "ir-sde"),
    "realsnow": Preset("RealSnow", (Part("pairs", "RealSnow", ("snow",)),), "ir-sde"),
    "dpdd": Preset("DPDD", (Part("pairs", "DPDD", ("blur",), ("test_c", "test", ""), pattern="sorted"),), "ir-sde"),
    "live1-jpeg10": Preset("LIVE1, JPEG quality 10", (Part("clean", made=("jpeg10",)),), "ir-sde"),
    "bsd500-jpeg10": Preset("BSD500, JPEG quality 10", (Part("clean", made=("jpeg10",)),), "ir-sde"),
    "rtts": Preset("RTTS", (Part("unpaired", "RTTS", ("haze",)),)),
    "pairs": Preset("pairs", (Part("pairs"),)),
    "list": Preset("a list of pairs", (Part("list"),)),
    "unpaired": Preset("photographs without ground truth", (Part("unpaired"),)),
}
