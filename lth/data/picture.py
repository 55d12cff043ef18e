"""One image file to bytes of grey or colour, as a person sees it."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".tif", ".tiff")
WHITE_IS_ZERO = 0  # a value of the TIFF tag


def decode(content: bytes) -> tuple[np.ndarray, int]:
    """(pixels, pages) of an image file: uint8 (H, W) where it is grey, else (H, W, 3), of the first page.

    It is turned as its EXIF orientation says. Under what is transparent lies black. 16-bit grey is scaled by
    255/65535 (12-bit by 255/4095); of 16-bit colours Pillow keeps the upper byte. Raises ValueError where values
    have no known range (floating point, 32 bits), where black is drawn on a transparent ground, which black
    would hide, and, as one of Pillow's many exceptions, for what is damaged or too large.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(content)) as image:
            pages = getattr(image, "n_frames", 1)
            ImageOps.exif_transpose(image, in_place=True)
            return np.array(_bytes(image)), pages


def _bytes(image: Image.Image) -> Image.Image | np.ndarray:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _scaled(image)
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are floating-point or 32-bit numbers of unknown range: save it with 8 or 16 bits")
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if not image.has_transparency_data:
        return image.convert(mode)
    drawn = image.convert("RGBA")
    flat = Image.alpha_composite(Image.new("RGBA", image.size, "black"), drawn).convert(mode)
    least, most = drawn.getchannel("A").getextrema()
    if least < most and flat.getbbox() is None:
        raise ValueError("it is black on a transparent ground, and that ground is read as black: give it another one")
    return flat


def _scaled(image: Image.Image) -> np.ndarray:
    """Grey values of more than 8 bits, as 8 bits."""
    tags = getattr(image, "tag_v2", {})
    top = 2 ** tags.get(BITSPERSAMPLE, (16,))[0] - 1
    values = np.array(image, dtype=np.float64)
    values[values == image.info.get("transparency")] = 0
    if tags.get(PHOTOMETRIC_INTERPRETATION) == WHITE_IS_ZERO:
        values = top - values
    return (values * (255 / top)).round().astype(np.uint8)
