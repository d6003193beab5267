"""Fill pixels that cannot be seen from those that can, so that a network takes them for more of the same picture.

``fill(p) = seen(2 n(p) - p)``, n(p) the nearest seen pixel: the picture is mirrored at the edge of what is seen, and
again where the mirrored place is not seen either. Measured with f2d-lite on five photographs of CBSD68, clean and with
three degradations, under two masks: PSNR of the seen pixels, dB, where the whole photograph gives 31.4.

    black 24.4, white 23.9, mean 26.2, nearest pixel 27.1, smooth extrapolation 25.9, mirrored 28.9
    every statistic of the network over seen pixels alone: black 26.6, white 28.6, mirrored 29.6

Statistics over seen pixels need a fill as well: without one, black and white below still differ by 57 levels at the
worst pixel (mean over the pictures), as the convolutions at the edge see them.
"""

import numpy as np

_GRID = 512  # cells per side in which nearest pixels are searched: 0.3 s and 10 MB, whatever the picture
_ROWS = 256  # rows filled at a time
_BOUNCES = 4
_FAR = 1 << 24  # where no pixel is seen: farther than any pixel


def filled(levels: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Return levels [H, W, C] with new values where seen [H, W] is False; unchanged if no pixel is seen or all are."""
    if seen.all() or not seen.any():
        return levels
    height, width = seen.shape
    step = -(-max(height, width) // _GRID)
    nearest = _nearest(seen, step)
    result = levels.copy()
    for top in range(0, height, _ROWS):
        y, x = np.nonzero(~seen[top : top + _ROWS])
        y += top
        to_y, to_x = y, x
        for _ in range(_BOUNCES):
            mirror = nearest[to_y // step, to_x // step].astype(np.int64)
            again = ~seen[to_y, to_x]
            to_y = np.where(again, _inside(2 * mirror[:, 0] - to_y, height), to_y)
            to_x = np.where(again, _inside(2 * mirror[:, 1] - to_x, width), to_x)
        found = seen[to_y, to_x]
        edge = nearest[y // step, x // step].astype(np.int64)
        result[y, x] = levels[np.where(found, to_y, edge[:, 0]), np.where(found, to_x, edge[:, 1])]
    return result


def _inside(place: np.ndarray, length: int) -> np.ndarray:
    """Reflect coordinates at the border of the picture."""
    return np.clip(np.where(place < 0, -place, np.where(place >= length, 2 * length - 2 - place, place)), 0, length - 1)


def _nearest(seen: np.ndarray, step: int) -> np.ndarray:
    """Return [h, w, 2] float32: a seen pixel (y, x) about nearest to the middle of each cell of step x step pixels.

    Jump flooding: every cell looks at eight others, half as far away each time (Rong and Tan, I3D 2006).
    """
    places = _first_seen(seen, step)
    height, width = places.shape[:2]
    middle = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=2).astype(np.float32)
    middle = (middle + 0.5) * step - 0.5
    least = np.square(places - middle).sum(axis=2)
    jump = 1 << max(height, width).bit_length()
    while jump := jump // 2:
        for i, j in ((i, j) for i in (-jump, 0, jump) for j in (-jump, 0, jump) if (i, j) != (0, 0)):
            here, there = _overlap(i, j, height, width)
            distance = np.square(places[there] - middle[here]).sum(axis=2)
            closer = distance < least[here]
            places[here][closer], least[here][closer] = places[there][closer], distance[closer]
    return places


def _overlap(i: int, j: int, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the cells that have another one i rows below and j columns to the right, and those others."""
    here = slice(max(0, -i), max(0, height - max(0, i))), slice(max(0, -j), max(0, width - max(0, j)))
    there = slice(max(0, i), max(0, height + min(0, i))), slice(max(0, j), max(0, width + min(0, j)))
    return here, there


def _first_seen(seen: np.ndarray, step: int) -> np.ndarray:
    height, width = (-(-side // step) for side in seen.shape)
    padded = np.zeros((height * step, width * step), bool)
    padded[: seen.shape[0], : seen.shape[1]] = seen
    cells = padded.reshape(height, step, width, step).swapaxes(1, 2).reshape(height, width, step * step)
    y, x = np.divmod(cells.argmax(axis=2), step)
    places = np.stack([y + step * np.arange(height)[:, None], x + step * np.arange(width)], axis=2).astype(np.float32)
    return np.where(cells.any(axis=2)[..., None], places, np.float32(_FAR))
