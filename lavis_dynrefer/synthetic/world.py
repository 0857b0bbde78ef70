"""What there is in the synthetic world: its words, how often each occurs, and what is held out.

Every other module of the generator reads its words from here, so that captions, attributes,
categories and tags cannot disagree.
"""

from __future__ import annotations

from types import MappingProxyType

from lavis_dynrefer.errors import InputError

WIDTH, HEIGHT = 480, 360  # pixels of every image
WORLDS = ("landmark", "neighbour")

# Every shape of shapes.py, in the order of the COCO-style category ids 1, 2, ...
CATEGORIES = (
    "house",
    "tree",
    "car",
    "boat",
    "star",
    "heart",
    "mug",
    "fish",
    "ball",
    "umbrella",
    "mushroom",
    "flower",
    "balloon",
    "moon",
    "crown",
    "bell",
    "butterfly",
    "apple",
)
SUPERCATEGORIES = MappingProxyType(
    {
        "plant": ("tree", "mushroom", "flower", "apple"),
        "animal": ("fish", "butterfly"),
        "vehicle": ("car", "boat"),
        "toy": ("ball", "balloon"),
        "sign": ("star", "heart", "moon"),
        "thing": ("house", "mug", "umbrella", "crown", "bell"),
    }
)
SYMMETRIC = frozenset({"star", "ball", "flower"})  # they look the same at many angles: no pose

# Word -> share of all objects. The shares are uneven on purpose: they decide what is head, medium
# and tail in the attribute vocabulary.
COLOURS = MappingProxyType(
    {
        "red": 0.17,
        "blue": 0.16,
        "green": 0.15,
        "yellow": 0.14,
        "orange": 0.11,
        "black": 0.10,
        "purple": 0.09,
        "pink": 0.08,
    }
)
PATTERNS = MappingProxyType({"solid": 0.40, "striped": 0.22, "checkered": 0.20, "dotted": 0.18})
SIZES = MappingProxyType({"small": 0.32, "medium": 0.38, "large": 0.30})
FINISHES = MappingProxyType({"matte": 0.60, "shiny": 0.40})
BORDERS = MappingProxyType({"borderless": 0.60, "outlined": 0.40})
POSES = MappingProxyType({"upright": 0.60, "tilted": 0.40})
SURFACES = ("grass", "sand", "water", "snow", "wood", "brick", "stone", "carpet")
RELATIONS = ("left of", "right of", "above", "below")
LOCATIONS = ("top", "bottom", "left", "right", "middle")

# Longest side of the upright object in pixels. The gaps between the sizes are wider than what
# tilting and the border add (a quarter at most), so that no object is between two sizes.
SIDES = MappingProxyType(
    {
        "small": (12, 14, 16, 18, 20, 22, 24),
        "medium": (34, 37, 40, 43, 46),
        "large": (58, 64, 70, 78, 86, 95, 104),
    }
)
LANDMARK_SIDES = (96, 107, 118, 129, 140)
LANDMARK_WORLD_LIMIT = 70  # pixels; the other objects of a landmark scene are not larger
TILTS = (-42, -28, 28, 42)  # degrees

# First scene index of each split. A scene depends on (seed, index, world) alone, so a larger data
# set repeats the smaller one and adds to it, and its val and test scenes stay comparable.
SPLIT_START = MappingProxyType(
    {"train": 1, "val": 1_000_001, "test": 2_000_001, "val2017": 3_000_001}
)


def held_out_pairs() -> frozenset[tuple[str, str]]:
    """(colour, category) pairs that no training scene shows: 16 of 144, two for each colour.

    The first 16 categories lose one colour each; 3 is prime to 8, so the colours go round evenly.
    """
    colours = tuple(COLOURS)
    return frozenset((colours[3 * i % len(colours)], CATEGORIES[i]) for i in range(16))


def split_of(index: int) -> str:
    """Name of the split that owns the scene `index`.

    >>> split_of(12), split_of(1_000_001)
    ('train', 'val')
    """
    if index < 1:
        raise InputError(f"scene indices start at 1, got {index}")
    return max((start, name) for name, start in SPLIT_START.items() if start <= index)[1]
