"""What one image and one region cost before and after the model: decoding, views, files, answers.

python -m lavis_dynrefer.lab.benchmarks.scale_costs FOLDER
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from lavis_dynrefer.bulk.answer_columns import RowAnswer, answer_table
from lavis_dynrefer.images import open_image_bytes
from lavis_dynrefer.lab.benchmarks.resource_usage import Numbers, describe_machine
from lavis_dynrefer.structures import NamedScore, RegionPrediction
from lavis_dynrefer.views.policies import FixedScales
from lavis_dynrefer.views.view_processor import ViewProcessor

SIZES = {"640x480": (640, 480), "1920x1080": (1920, 1080)}
_SCALES = [0.0, 0.1, 0.2]
_ATTRIBUTES, _CATEGORIES, _TAGS = 117, 80, 10  # those of OVAD and COCO; tags above the threshold
_WORDS, _CAPTION = 4585, 7  # words to choose from; words of a caption


def measure_images(*, repeats: int = 20) -> Numbers:
    """CPU milliseconds to decode a JPEG, and per region to crop three views of 224 pixels."""
    found: Numbers = {}
    for title, size in SIZES.items():
        content = photo_like_jpeg(size)
        image = open_image_bytes(content)
        crop = ViewProcessor(FixedScales(_SCALES), image_size=224).crop
        found[title] = {
            "bytes": len(content),
            "decode_ms": _cpu_ms(partial(open_image_bytes, content), repeats),
        }
        for count in (1, 10):
            call = partial(crop, image, _boxes(size, count))
            found[title][f"views_ms_of_{count}"] = _cpu_ms(call, max(repeats // count, 2)) / count
    return found


def measure_reading(folder: Path, *, images: int = 1000) -> Numbers:
    """CPU milliseconds to read an image of 640x480 that the system has in memory, undecoded."""
    content = photo_like_jpeg(SIZES["640x480"])
    files = folder / "files"
    files.mkdir(parents=True)
    for number in range(images):
        (files / f"{number:09}.jpg").write_bytes(content)
    with tarfile.open(folder / "shard.tar", "w") as shard:
        for path in sorted(files.iterdir()):
            shard.add(path, path.name)
    table = pa.table({"image": [content] * images})
    pq.write_table(
        table, folder / "rows.parquet", row_group_size=500, compression="NONE", use_dictionary=False
    )
    ways: dict[str, Callable[[], Iterator[bytes]]] = {
        "files": lambda: (path.read_bytes() for path in sorted(files.iterdir())),
        "tar": lambda: _from_tar(folder / "shard.tar"),
        "parquet": lambda: _from_parquet(folder / "rows.parquet"),
    }
    found: Numbers = {}
    for name, read in ways.items():

        def whole(read: Callable[[], Iterator[bytes]] = read) -> None:
            assert sum(map(len, read())) == images * len(content)

        found[f"{name}_ms"] = _cpu_ms(whole, 3) / images
    return found


def measure_answers(folder: Path, *, regions: int = 20_000, per_image: int = 10) -> Numbers:
    """Bytes of a region's answers in Parquet (zstd) and as json lines.

    The words are drawn at random, less often the further down the list, and scores are random, so
    that they compress no better than real ones.
    """
    rng = np.random.default_rng(0)
    names = [f"{word:x} word" for word in rng.integers(16**5, 16**6, _WORDS)]
    parts = {"captions": (0, 0, 0), "captions, tags": (_TAGS, 0, 0)}
    parts["all, whole vocabularies"] = (_TAGS, _ATTRIBUTES, _CATEGORIES)
    found: Numbers = {}
    for title, counts in parts.items():
        made = [_prediction(rng, names, *counts) for _ in range(regions)]
        rows = [
            RowAnswer((640, 480), made[first : first + per_image])
            for first in range(0, regions, per_image)
        ]
        path = folder / "answers.parquet"
        pq.write_table(answer_table(rows), path, compression="zstd")
        lines = sum(len(json.dumps(one.to_dict())) + 1 for one in made)
        found[title] = {"parquet": path.stat().st_size / regions, "jsonl": lines / regions}
    return found


def photo_like_jpeg(size: tuple[int, int]) -> bytes:
    """A JPEG about as large as a photograph of that size: noise, the coarser the stronger."""
    rng, (width, height) = np.random.default_rng(0), size
    total = np.zeros((height, width, 3), np.float32)
    for level in range(8):
        noise = rng.normal(size=(max(height >> level, 2), max(width >> level, 2), 3)) * 30
        small = Image.fromarray(np.clip(noise + 128, 0, 255).astype(np.uint8))
        layer = np.asarray(small.resize(size, Image.Resampling.BICUBIC), np.float32) - 128
        total += layer * min(2.0**level, 32) / 24
    buffer = io.BytesIO()
    pixels = Image.fromarray(np.clip(total + 128, 0, 255).astype(np.uint8))
    pixels.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _boxes(size: tuple[int, int], count: int) -> torch.Tensor:
    """(count, 4) corners, each a third of the image wide."""
    starts = torch.rand(count, 2, generator=torch.Generator().manual_seed(0)) * 0.6
    return torch.cat([starts, starts + 0.33], dim=1) * torch.tensor([*size, *size])


def _prediction(
    rng: np.random.Generator, names: list[str], tags: int, attributes: int, categories: int
) -> RegionPrediction:
    def scored(count: int, known: list[str]) -> tuple[NamedScore, ...]:
        scores = np.sort(rng.random(count, np.float32))[::-1]
        order = rng.permutation(len(known))[:count]
        return tuple((known[word], float(score)) for word, score in zip(order, scores))

    words = np.minimum(rng.zipf(1.3, _CAPTION), _WORDS) - 1
    x1, y1, x2, y2 = (float(value) for value in rng.random(4, np.float32) * 640)
    return RegionPrediction(
        box=(x1, y1, x2, y2),
        caption=" ".join(names[word].split()[0] for word in words),
        caption_score=float(rng.random()),
        tags=scored(tags, names),
        attributes=scored(attributes, names[:attributes]),
        categories=scored(categories, names[-categories:]),
        scales={"caption": tuple(_SCALES)},
    )


def _from_tar(path: Path) -> Iterator[bytes]:
    with tarfile.open(path, "r|") as shard:
        for member in shard:
            file = shard.extractfile(member)
            if file is not None:
                yield file.read()


def _from_parquet(path: Path) -> Iterator[bytes]:
    for batch in pq.ParquetFile(path).iter_batches(batch_size=64):
        yield from batch.column(0).to_pylist()


def _cpu_ms(function: Callable[[], object], repeats: int) -> float:
    function()
    start = time.process_time()
    for _ in range(repeats):
        function()
    return (time.process_time() - start) * 1000 / repeats


def main(folder: Path) -> Numbers:
    """All of it, in a new folder."""
    folder.mkdir(parents=True)
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    return {
        "machine": describe_machine(),
        "images": measure_images(),
        "reading": measure_reading(folder),
        "answers": measure_answers(folder),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1])), indent=2))
