"""Annotations as the released code keeps them: one json of all regions, in pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from lavis_dynrefer.datasets.prepared import RawDataset, open_prepared, prepare
from lavis_dynrefer.datasets.sources.collector import TRAIN, RegionCollector, Stores
from lavis_dynrefer.datasets.sources.raw_files import Opener
from lavis_dynrefer.lab.benchmarks.annotation_reading import Source, measure_reading
from lavis_dynrefer.lab.benchmarks.processes import Answer
from lavis_dynrefer.structures import ImageRecord, RegionRecord, RegionSet

TAGS_PER_CAPTION = 1.76  # mean of 1,174 real captions by the released way
TAG_LIST = 4585  # tags of RAM


def cut_sample(prepared: str, folder: str, released: str, count: int) -> Answer:
    """The first training regions as tables of their own and as the released code's json.

    Both carry the same tags, drawn at random.
    """
    whole = open_prepared(prepared, [TRAIN])[TRAIN]
    regions = list(islice(whole.regions, count))
    rng = np.random.default_rng(0)
    tags = [
        rng.integers(TAG_LIST, size=size).tolist()
        for size in rng.poisson(TAGS_PER_CAPTION, size=len(regions))
    ]

    def read(splits: Sequence[str], stores: Stores, opener: Opener) -> dict[str, RegionSet]:
        del opener
        collector = RegionCollector("sample", TRAIN, stores)
        for region, numbers in zip(regions, tags):
            named = replace(region, tags=tuple(f"tag {number}" for number in numbers))
            collector.add(named, whole.images[region.image_id])
        return dict.fromkeys(splits, collector.finish())

    images = Path(whole.images[regions[0].image_id].path).parents[1]
    prepare(RawDataset("sample", "", None, {}, images, read), [TRAIN], Path(folder))
    document = {
        "dataset": {"description": "", "image_root": "", "extra_info": {}},
        "images": [
            _image(whole.images[image_id])
            for image_id in dict.fromkeys(region.image_id for region in regions)
        ],
        "annotations": [_annotation(*pair) for pair in zip(regions, tags)],
    }
    Path(released).write_text(json.dumps(document), encoding="utf-8")
    return {"regions": len(regions), "json_bytes": Path(released).stat().st_size}


def measure_released_way(path: str) -> Answer:
    """Open such a file and read it; see `measure_reading`."""
    return measure_reading(lambda: _open(path))


def _open(path: str) -> Source:
    with contextlib.redirect_stdout(io.StringIO()):  # it reports its progress there
        content = COCO(path)
    keys = content.getAnnIds()
    return Source(content, len(keys), lambda row: content.loadAnns(keys[row])[0])


def _image(image: ImageRecord) -> dict[str, Any]:
    return {
        "id": image.image_id,
        "file_name": Path(image.path).name,
        "height": image.height,
        "width": image.width,
        "extra_info": {},
    }


def _annotation(region: RegionRecord, tags: Sequence[int]) -> dict[str, Any]:
    x1, y1, x2, y2 = map(int, region.box)
    return {
        "id": region.region_id,
        "image_id": region.image_id,
        "caption": region.caption,
        "bbox": [x1, y1, x2, y2],
        "segmentation": [[x1, y1, x1, y2, x2, y2, x2, y1]],
        "extra_info": {
            "vg_result": {},
            "parser_result": {"tag_set1": tags[::2], "tag_set2": tags[1::2]},
        },
    }
