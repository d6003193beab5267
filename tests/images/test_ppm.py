"""PPM and PGM with more than 8 bits, written here from the definition of Netpbm."""

import numpy as np
import pytest

from f2d.images import ImageError, read

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("most", [256, 1023, 65535])
@pytest.mark.parametrize("magic", ["P2", "P3", "P5", "P6"])
def test_the_depth_is_kept(tmp_path, magic, most):
    channels = 3 if magic in ("P3", "P6") else 1
    values = RNG.integers(0, most + 1, (13, 17, channels))
    header = f"{magic}\n# a comment\n17 13\n{most}\n".encode()
    text = " ".join(map(str, values.flat)).encode() + b"\n"
    (tmp_path / "a.ppm").write_bytes(header + (text if magic in ("P2", "P3") else values.astype(">u2").tobytes()))
    photo = read(tmp_path / "a.ppm")
    assert photo.depth == 16 and photo.grey == (channels == 1)
    assert np.abs(photo.levels - values * 65535 / most).max() <= 1


def test_missing_values_are_damage(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 17 13 65535\n" + bytes(100))
    with pytest.raises(ImageError, match=r"a\.ppm: damaged"):
        read(tmp_path / "a.ppm")
