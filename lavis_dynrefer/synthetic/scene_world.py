"""The synthetic world: its words, how often each occurs, and what is held out.

All other modules take their words from here, so that captions, attributes, categories and tags
agree.
"""

from __future__ import annotations

from collections.abc import Mapping

from lavis_dynrefer.errors import InputError, choice_problem

WIDTH, HEIGHT = 480, 360  # pixels of every image
WORLDS = ("landmark", "neighbour", "crowded")  # random numbers depend on the place in this list
LANDMARK_WORLDS = ("landmark", "crowded")  # whose captions refer to one large solid object

# Every shape of painting/shapes.py, in the order of the COCO-style category ids 1, 2, ...
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
SUPERCATEGORIES: Mapping[str, tuple[str, ...]] = {
    "plant": ("tree", "mushroom", "flower", "apple"),
    "animal": ("fish", "butterfly"),
    "vehicle": ("car", "boat"),
    "toy": ("ball", "balloon"),
    "sign": ("star", "heart", "moon"),
    "thing": ("house", "mug", "umbrella", "crown", "bell"),
}
SYMMETRIC = frozenset({"star", "ball", "flower"})  # look the same at many angles, so have no pose

# Word -> share of all objects. The uneven shares make some attributes head, some medium, some tail.
COLOURS: Mapping[str, float] = {
    "red": 0.17,
    "blue": 0.16,
    "green": 0.15,
    "yellow": 0.14,
    "orange": 0.11,
    "black": 0.10,
    "purple": 0.09,
    "pink": 0.08,
}
PATTERNS: Mapping[str, float] = {"solid": 0.40, "striped": 0.22, "checkered": 0.20, "dotted": 0.18}
SIZES: Mapping[str, float] = {"small": 0.32, "medium": 0.38, "large": 0.30}
FINISHES: Mapping[str, float] = {"matte": 0.60, "shiny": 0.40}
BORDERS: Mapping[str, float] = {"borderless": 0.60, "outlined": 0.40}
POSES: Mapping[str, float] = {"upright": 0.60, "tilted": 0.40}
SLOTS: Mapping[str, Mapping[str, float]] = {  # properties of an object -> their words
    "colour": COLOURS,
    "pattern": PATTERNS,
    "size": SIZES,
    "finish": FINISHES,
    "border": BORDERS,
    "pose": POSES,
}
SURFACES = ("grass", "sand", "water", "snow", "wood", "brick", "stone", "carpet")
RELATIONS = ("left of", "right of", "above", "below")
LOCATIONS = ("top", "bottom", "left", "right", "middle")

# Longest side of the upright object in pixels. Tilting and the border add at most a quarter, so no
# object is between two sizes.
SIDES: Mapping[str, tuple[int, ...]] = {
    "small": (12, 14, 16, 18, 20, 22, 24),
    "medium": (34, 37, 40, 43, 46),
    "large": (58, 64, 70, 78, 86, 95, 104),
}
LANDMARK_SIDES = (96, 107, 118, 129, 140)
LANDMARK_WORLD_LIMIT = 70  # pixels; the other objects of a landmark scene are not larger
TILTS = (-42, -28, 28, 42)  # degrees

# First scene index of each split. A scene depends only on (seed, index, world), so a larger dataset
# contains the smaller one, val and test scenes included.
SPLIT_START: Mapping[str, int] = {
    "train": 1,
    "val": 1_000_001,
    "test": 2_000_001,
    "val2017": 3_000_001,
}


def held_out_pairs() -> frozenset[tuple[str, str]]:
    """(colour, category) pairs that no training scene shows: 16 of 144, two for each colour.

    The first 16 categories lose one colour each; 3 and 8 are coprime, so each colour occurs twice.
    """
    colours = tuple(COLOURS)
    return frozenset((colours[3 * i % len(colours)], CATEGORIES[i]) for i in range(16))


def split_of(index: int) -> str:
    """Name of the split of the scene `index`.

    >>> split_of(12), split_of(1_000_001)
    ('train', 'val')
    """
    if index < 1:
        raise InputError(f"scene indices start at 1, got {index}")
    return max((start, name) for name, start in SPLIT_START.items() if start <= index)[1]


def check_world(name: str) -> None:
    """Refuse an unknown world with an InputError."""
    problem = choice_problem("world", name, WORLDS)
    if problem:
        raise InputError(problem)


def check_split(name: str) -> None:
    """Refuse an unknown split with an InputError."""
    problem = choice_problem("split", name, SPLIT_START)
    if problem:
        raise InputError(problem)
