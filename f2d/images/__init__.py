"""Image files: read and write photographs in the usual formats, with depth and metadata; convert images and tensors.

`read` and `write` handle a `Photo`; `open_image`, `save_image` and the tensor functions are for plain 8-bit images.
"""

from f2d.images.formats import IMAGE_SUFFIXES, ImageError
from f2d.images.photo import Change, Photo
from f2d.images.pictures import image_to_tensor, open_image, to_picture, to_tensor
from f2d.images.reading import from_picture, read, stored, upright_size
from f2d.images.writing import check_holds, replacing, save_image, write

__all__ = [
    "IMAGE_SUFFIXES",
    "Change",
    "ImageError",
    "Photo",
    "check_holds",
    "from_picture",
    "image_to_tensor",
    "open_image",
    "read",
    "replacing",
    "save_image",
    "stored",
    "to_picture",
    "to_tensor",
    "upright_size",
    "write",
]
