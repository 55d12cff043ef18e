"""lth.data.picture against pixels written here, by Pillow or byte by byte."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lth.data.picture import decode

RAMP = np.linspace(0, 65535, 36).astype(np.uint16).reshape(6, 6)
GREY = (RAMP // 257).astype(np.uint8)
COLOUR = np.stack([GREY, GREY[::-1], GREY.T], axis=-1)


def file(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(sink := io.BytesIO(), kind, **options)
    return sink.getvalue()


def png(header: tuple[int, int], rows: np.ndarray) -> bytes:
    """A PNG of 16-bit values, whose (bit depth, colour type) Pillow cannot write."""
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))  # noqa: E731
    height, width = rows.shape[:2]
    data = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows))
    parts = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, *header, 0, 0, 0)), chunk(b"IDAT", data)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def pgm(values: np.ndarray, top: int) -> bytes:
    return f"P5 {values.shape[1]} {values.shape[0]} {top}\n".encode() + values.astype(">u2").tobytes()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
@pytest.mark.parametrize("pixels", [GREY, COLOUR], ids=["grey", "colour"])
def test_8_bit_pixels_are_as_written(kind: str, pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels)
    if kind == "GIF" and pixels.ndim == 3:
        image = image.quantize(64)
    read, pages = decode(file(image, kind, **({"lossless": True} if kind == "WEBP" else {})))
    truth = pixels if kind not in ("GIF", "WEBP") else np.array(image.convert("RGB"))  # which know no grey
    assert pages == 1 and read.dtype == np.uint8
    assert np.array_equal(read if read.ndim == truth.ndim else np.stack([read] * 3, -1), truth)


@pytest.mark.parametrize(
    ("content", "grey"),
    [
        (file(RAMP), RAMP / 65535),
        (file(RAMP, "TIFF"), RAMP / 65535),
        (file(RAMP, "TIFF", tiffinfo={262: 0}), 1 - RAMP / 65535),  # white is zero
        (file(RAMP, transparency=65535), np.where(RAMP == 65535, 0, RAMP / 65535)),
        (pgm(RAMP, 65535), RAMP / 65535),
        (pgm(RAMP // 16, 4095), (RAMP // 16) / 4095),
        (png((16, 0), RAMP), RAMP / 65535),
    ],
    ids=["png", "tiff", "white is zero", "transparent value", "pgm", "pgm of 12 bits", "png by hand"],
)
def test_deep_grey_is_scaled_by_its_own_depth(content: bytes, grey: np.ndarray) -> None:
    read, _ = decode(content)
    assert read.shape == (6, 6) and read.dtype == np.uint8
    assert np.abs(read - grey * 255).max() <= 0.51


def test_12_bit_tiff_is_scaled_by_12_bits() -> None:
    values = np.array([[0, 1024, 2048, 4095]])
    bits = "".join(f"{value:012b}" for value in values[0])
    data = int(bits, 2).to_bytes(6, "big")
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 6)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    content = struct.pack("<2sHI", b"II", 42, 14) + data + struct.pack("<H", len(tags)) + entries + bytes(4)
    assert np.abs(decode(content)[0] - values * 255 / 4095).max() <= 0.51


def test_deep_colour_keeps_its_upper_byte() -> None:
    deep = np.stack([RAMP, RAMP[::-1], RAMP.T], axis=-1)
    assert np.array_equal(decode(png((16, 2), deep))[0], deep >> 8)


@pytest.mark.parametrize(
    "pixels", [np.linspace(0, 1, 36, dtype=np.float32).reshape(6, 6), RAMP.astype(np.int32)], ids=["float", "int32"]
)
def test_values_of_unknown_range_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="unknown range: save it with 8 or 16 bits"):
        decode(file(pixels, "TIFF"))


def over_black(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return colour * (alpha / 255 if colour.ndim == 2 else alpha[..., None] / 255)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_black_lies_under_what_is_transparent(kind: str) -> None:
    red = np.zeros((6, 6, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    for colour, alpha in ((red, np.zeros_like(GREY)), (red, GREY), (COLOUR, GREY.T), (COLOUR, np.full_like(GREY, 255))):
        read, _ = decode(file(np.concatenate([colour, alpha[..., None]], axis=-1), kind))
        assert read.shape == (6, 6, 3) and np.abs(read - over_black(colour, alpha)).max() <= 1
    white = np.full_like(GREY, 255)
    read, _ = decode(file(np.stack([white, GREY], axis=-1), kind))  # drawn by alpha only
    assert np.abs(read.astype(int) - GREY).max() <= 1


def test_transparent_colours_of_palettes_and_grey_are_black() -> None:
    two = np.where(np.indices((6, 6)).sum(0) % 2, 200, 90).astype(np.uint8)
    assert np.array_equal(decode(file(two, transparency=200))[0], np.where(two == 200, 0, two))
    palette = Image.fromarray(np.stack([two] * 3, -1)).quantize(2)
    index, clear = np.array(palette), int(np.array(palette)[0, 1])
    for kind in ("PNG", "GIF"):
        read, _ = decode(file(palette, kind, transparency=clear))
        assert np.array_equal(read[..., 0], np.where(index == clear, 0, two))


def test_black_on_a_transparent_ground_is_refused() -> None:
    for colour in (np.zeros((6, 6, 1), np.uint8), np.zeros((6, 6, 3), np.uint8)):
        with pytest.raises(ValueError, match="black on a transparent ground"):
            decode(file(np.concatenate([colour, GREY[..., None]], axis=-1)))
        for alpha in (0, 255):  # nothing is lost here
            read, _ = decode(file(np.concatenate([colour, np.full((6, 6, 1), alpha, np.uint8)], axis=-1)))
            assert not read.any()


# What an image has to be turned by, by EXIF orientation: its first row and column are which sides.
TURNED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.T,
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].T,
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", TURNED)
def test_images_are_turned_as_exif_says(orientation: int) -> None:
    pixels = np.kron(np.array([[10, 80, 150], [60, 130, 240]]), np.ones((8, 8))).astype(np.uint8)
    truth = TURNED[orientation](pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert np.abs(decode(file(pixels, "JPEG", exif=exif, quality=100))[0].astype(int) - truth).max() <= 2
    assert np.array_equal(decode(file(pixels, "PNG", exif=exif))[0], truth)
    assert np.array_equal(decode(file(pixels, "TIFF", tiffinfo={0x0112: orientation}))[0], truth)
    assert np.array_equal(decode(file(pixels.astype(np.uint16) * 257, "PNG", exif=exif))[0], truth)


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_of_several_pages_the_first_is_read(kind: str) -> None:
    pages = [Image.fromarray(np.full((6, 6), grey, np.uint8)) for grey in (10, 200, 90)]
    options = {"lossless": True} if kind == "WEBP" else {}
    read, count = decode(file(pages[0], kind, save_all=True, append_images=pages[1:], **options))
    assert count == 3 and (read == 10).all()


@pytest.mark.parametrize("side", [10_000, 40_000])
def test_what_would_fill_the_memory_is_refused(side: int) -> None:
    small = png((16, 0), RAMP)
    header = b"IHDR" + struct.pack(">II", side, side) + small[24:29]
    content = small[:12] + header + struct.pack(">I", zlib.crc32(header)) + small[33:]
    with pytest.raises((Warning, Image.DecompressionBombError), match="decompression bomb"):
        decode(content)
