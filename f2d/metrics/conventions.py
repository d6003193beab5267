"""The papers' conventions for PSNR and SSIM, taken from their published evaluation code."""

from typing import NamedTuple

from f2d.metrics.fidelity import Fidelity


class Convention(NamedTuple):
    """text: description for tables. measures: PSNR and SSIM in the convention's own colour, then in the other one."""

    text: str
    measures: tuple[Fidelity, ...]

    @property
    def keys(self) -> list[str]:
        """The keys of the measures; conventions with the same measure share its key."""
        return [measure.about.key for measure in self.measures]


def _convention(text: str, colours: tuple[str, str], bits: str, window: str, border: int = 0) -> Convention:
    pairs = [
        (Fidelity("psnr", colour, bits, None, border), Fidelity("ssim", colour, bits, window, border))
        for colour in colours
    ]
    return Convention(text, (*pairs[0], *pairs[1]))


CONVENTIONS = {
    "onerestore": _convention("RGB after 8 bits; SSIM 7x7 uniform", ("rgb", "y"), "8bit", "7x7"),
    # scikit-image's SSIM with gaussian_weights=True keeps the sample covariance, which MATLAB's does not have
    "moce-ir": _convention(
        "RGB in float; SSIM Gaussian 11 with sample covariance", ("rgb", "y"), "float", "gaussian11-sample"
    ),
    # on three and five tasks, the code of MoCE-IR, PromptIR and AirNet first crops images to multiples of 16 pixels
    "promptir": _convention("RGB in float; SSIM 7x7 uniform", ("rgb", "y"), "float", "7x7"),
    # F²D-Net's paper states only the luma; bits and window are assumed to be OneRestore's, with which it compares
    "f2dnet": _convention(
        "Y (0.299, 0.587, 0.114) after 8 bits; SSIM 7x7 uniform; bits and window not published, taken as OneRestore's",
        ("y", "rgb"),
        "8bit",
        "7x7",
    ),
    # the test scripts crop `scale` pixels, which the options for deraining and deblurring leave at 4
    "ir-sde": _convention(
        "RGB after 8 bits, 4 pixels cut off each side; SSIM Gaussian 11; Y is BT.601 studio range",
        ("rgb", "y-studio"),
        "8bit",
        "gaussian11",
        4,
    ),
    "weatherbench": _convention(
        "Y (BT.601 studio range) after 8 bits, 4 pixels cut off each side; SSIM Gaussian 11",
        ("y-studio", "rgb"),
        "8bit",
        "gaussian11",
        4,
    ),
}
