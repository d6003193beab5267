"""Columns, rows and notes of the localisation table, which compares the experts' maps with the ground-truth masks."""

from f2d.evaluation.markdown import number
from f2d.metrics.localisation import THRESHOLDS, Localisation

MAPS = (
    "Each map is compared with the ground-truth mask of its factor (low: 1 - light gain, haze: 1 - transmission, rain: "
    "added light, snow: coverage) in the pictures in which the factor is present. Correlation is Pearson's over the "
    "pixels of a picture, averaged over the pictures; pooled correlation takes the pixels of all these pictures "
    "together. Average precision takes the map as a score for the degraded pixels of a picture (rain, snow: mask above "
    f"{THRESHOLDS['rain']}; low, haze: mask above its mean over the picture) and is averaged over the pictures; by "
    "chance it would be the share of degraded pixels."
)
MAP_COLUMNS = ("pictures", "correlation", "pooled correlation", "average precision", "by chance")


def map_cells(found: Localisation) -> list[str]:
    """Return a factor's cells for the columns `MAP_COLUMNS`."""
    numbers = (found.correlation, found.pooled_correlation, found.average_precision, found.share)
    return [str(found.images), *(number(value, 3) for value in numbers)]


def map_notes(factor: str, found: Localisation) -> list[str]:
    """Return notes on the images that a mean excludes, and why; none if it excludes none."""
    left_out = {
        "correlation leaves out {}, where the map or the mask is constant": found.undefined,
        "average precision leaves out {}, where all pixels are degraded or none is": found.unranked,
    }
    return [
        f"{factor}: the mean {text.format(f'{count} of {found.images} pictures')}."
        for text, count in left_out.items()
        if count
    ]
