from __future__ import annotations

import numpy as np
import pytest

from lavis_dynrefer.synthetic.paint import TONES, colourise, pattern_map
from lavis_dynrefer.synthetic.stencils import make_stencil
from lavis_dynrefer.synthetic.world import COLOURS, PATTERNS


def painted(colour="red", pattern="solid", shiny=False, outlined=False):
    stencil = make_stencil("heart", 64, 0, outlined)
    image = colourise(stencil, colour=colour, pattern=pattern, shiny=shiny, side=64, angle=0)
    return image, stencil


@pytest.mark.parametrize("colour", COLOURS)
def test_a_solid_matte_object_has_its_own_colour(colour):
    image, stencil = painted(colour)
    mean = image[stencil.alpha == 255].mean(axis=0)
    nearest = min(TONES, key=lambda name: float(np.abs(mean - TONES[name][0]).sum()))
    assert nearest == colour


@pytest.mark.parametrize("pattern", [name for name in PATTERNS if name != "solid"])
def test_a_pattern_shows_both_tones(pattern):
    share = pattern_map(pattern, 64, 28).mean()
    assert 0.2 < share < 0.6


def test_gloss_has_a_white_spot():
    shiny, stencil = painted(shiny=True)
    matte, _ = painted(shiny=False)
    assert shiny[stencil.glint].min() > 200
    assert matte[stencil.glint].min() < 100


@pytest.mark.parametrize(("colour", "light"), [("red", False), ("black", True)])
def test_the_rim_contrasts_with_the_colour(colour, light):
    image, stencil = painted(colour, outlined=True)
    rim = image[stencil.rim == 255].mean()
    assert (rim > 200) == light


@pytest.mark.parametrize("shiny", [False, True])
def test_colours_never_exceed_what_alpha_allows(shiny):
    image, stencil = painted("yellow", "striped", shiny=shiny, outlined=True)
    assert (image <= 255 * (stencil.alpha / 255.0)[..., None] + 1e-3).all()
    assert image.min() >= 0
