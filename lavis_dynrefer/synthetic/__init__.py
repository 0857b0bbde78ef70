"""Procedural scenes in the raw formats of the public datasets: data without a download."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lavis_dynrefer.lazy_names import lazy_names

if TYPE_CHECKING:
    from lavis_dynrefer.synthetic.scene import Look, Scene, SceneObject
    from lavis_dynrefer.synthetic.scene_captions import facts, full_caption
    from lavis_dynrefer.synthetic.scene_dataset import read_truth, split_sizes, write_dataset
    from lavis_dynrefer.synthetic.scene_drawing import render
    from lavis_dynrefer.synthetic.scene_layout import make_scene

__all__ = [
    "Look",
    "Scene",
    "SceneObject",
    "facts",
    "full_caption",
    "make_scene",
    "read_truth",
    "render",
    "split_sizes",
    "write_dataset",
]

__getattr__ = lazy_names(
    __name__,
    {
        "scene": (
            "Look",
            "Scene",
            "SceneObject",
        ),
        "scene_captions": (
            "facts",
            "full_caption",
        ),
        "scene_dataset": (
            "read_truth",
            "split_sizes",
            "write_dataset",
        ),
        "scene_drawing": ("render",),
        "scene_layout": ("make_scene",),
    },
)
