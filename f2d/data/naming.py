"""Folder and file names by which published datasets distinguish degraded images from clean ones."""

import re

# in the order in which they are looked for, in any case
DEGRADED_FOLDERS = (
    *("input", "lq", "degraded", "hazy", "haze", "rainy", "rainy_image", "rain/X2", "rain", "low", "snow", "synthetic"),
    *("blur", "noisy", "source", "in", "inputC", "input_crops", "data"),
)
CLEAN_FOLDERS = (
    *("gt", "target", "clean", "clear", "high", "sharp", "norain", "normal", "ground_truth", "target_crops"),
)
# degraded name -> clean name, in one folder or in two
_BESIDE = (
    (re.compile("^rain-"), "norain-"),  # Rain100L, Rain100H
    (re.compile("(?<![a-zA-Z])NOISY(?![a-zA-Z])"), "GT"),  # SIDD
    (re.compile("(?<![a-zA-Z])hazy(?![a-zA-Z])"), "GT"),  # NH-HAZE, Dense-Haze, O-HAZE, I-HAZE
    (re.compile("_rain$"), "_clean"),  # RainDrop
)
_CLEAN = re.compile("^norain-|(?<![a-zA-Z])GT(?![a-zA-Z])|_clean$")
# in two folders only, as any photograph may be called so
_APART = (
    (re.compile(r"^(norain-\d+)x2$"), r"\1"),  # Rain100L and Rain100H, first release
    (re.compile("^low"), "normal"),  # LOL-v2, real
    (re.compile("$"), "gt"),  # SPA-Data
)
_END = "(set|data|images|[a-d])?(?-i:(?![a-z]))"  # of train and val, as in TrainImages, but not in trains and valley
_TRAINING = re.compile(f"(?<![a-z])train(ing|val)?{_END}|^our485$|^all$", re.IGNORECASE)  # LOL's and Snow100K's too
_TEST = re.compile("(test|eval)(ing|set|uation)?([_-]?[a-z])?[0-9]{0,2}", re.IGNORECASE)
_VALIDATION = re.compile("val(id|idation)?([_-]?[a-z])?", re.IGNORECASE)
_LOOKS_LIKE_TEST = re.compile(f"(?<![a-z])(test|eval|val(id|idation)?{_END})", re.IGNORECASE)


def beside(stem: str) -> list[str]:
    """Return the names of the clean image in the same folder; none if `stem` is not named as degraded."""
    return [expression.sub(clean, stem) for expression, clean in _BESIDE if expression.search(stem)]


def is_named_clean(stem: str) -> bool:
    """Whether an image in a folder of both sides is named as a clean one."""
    return _CLEAN.search(stem) is not None and not beside(stem)


def clean_names(stem: str) -> list[str]:
    """Return the names that the clean image in another folder may have, best first."""
    cuts = [match.start() for match in re.finditer("_", stem)]
    apart = [expression.sub(clean, stem) for expression, clean in _APART if expression.search(stem)]
    return [stem, *beside(stem), *apart, *(stem[:cut] for cut in reversed(cuts))]


def is_test_set(names: tuple[str, ...]) -> bool:
    """Whether folders named so, from the outside in, contain images that must not be trained on."""
    return any(_LOOKS_LIKE_TEST.search(name) for name in names)


def split_rank(names: tuple[str, ...]) -> int:
    """Return 0 for a test set by the names of its folders, 1 for a validation set, 3 for a training set, else 2."""
    if any(_TRAINING.search(name) for name in names):
        return 3
    if any(_TEST.fullmatch(name) for name in names):
        return 0
    return 1 if any(_VALIDATION.fullmatch(name) for name in names) else 2


def own_name(names: tuple[str, ...]) -> str:
    """Return the innermost name that is not that of a split, such as test; the last if all are."""
    return next((n for n in reversed(names) if split_rank((n,)) == 2 or n[-1:].isdecimal()), names[-1])
