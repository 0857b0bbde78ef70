"""Odd and damaged image files, drawn here so that every clone has them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # tag of EXIF
SIZE = (160, 115)


def write_tricky_images(folder: Path) -> Path:
    """Write the files; those without a size in their name have 160 x 115 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = _drawing()
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    drawn.convert("1").save(folder / "bilevel.png")
    drawn.convert("CMYK").save(folder / "cmyk.jpg")
    drawn.save(folder / "exif_orient6.jpg", exif=exif)
    drawn.convert("L").save(folder / "gray.jpg")
    ramp = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
    Image.fromarray(ramp).save(folder / "gray16.png")
    drawn.resize((1, 1)).save(folder / "one_pixel.jpg")
    drawn.quantize(64).save(folder / "palette.png")
    drawn.resize((600, 4)).save(folder / "panorama_600x4.jpg")
    transparent = drawn.convert("RGBA")
    transparent.putalpha(drawn.convert("L"))
    transparent.save(folder / "png_rgba_named.jpg", format="PNG")
    drawn.save(folder / "progressive.jpg", progressive=True)
    drawn.resize((1, 115)).save(folder / "width1.jpg")
    drawn.save(folder / "whole.jpg", quality=90)
    whole = (folder / "whole.jpg").read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) * 3 // 5])
    (folder / "whole.jpg").unlink()
    (folder / "not_an_image.jpg").write_bytes(b"<html>404</html>")
    (folder / "zero_bytes.jpg").touch()
    return folder


def _drawing() -> Image.Image:
    """Smooth colours under coarse noise: enough detail that a cut file loses some."""
    across, down = np.meshgrid(np.linspace(0, 1, SIZE[0]), np.linspace(0, 1, SIZE[1]))
    noise = np.random.default_rng(0).uniform(0, 60, (SIZE[1], SIZE[0], 3))
    colours = 190 * np.stack([across, down, 1 - across], axis=2) + noise
    return Image.fromarray(colours.astype(np.uint8))
