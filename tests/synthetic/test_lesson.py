"""The new objects of the quickstart, and the files that teach them."""

import json

import pytest

from lavis_dynrefer.datasets.sources.custom_json import read_custom
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.texts.tokenizers import load_llm_tokenizer
from lavis_dynrefer.paths import resource_path
from lavis_dynrefer.synthetic.lesson.lesson_files import write_lesson
from lavis_dynrefer.synthetic.lesson.new_objects import (
    NEW_CATEGORIES,
    lesson_scene,
    new_object_caption,
    new_objects,
)
from lavis_dynrefer.synthetic.painting.shapes import NEW_SHAPES, SHAPES
from lavis_dynrefer.synthetic.scene_layout import make_scene
from lavis_dynrefer.synthetic.scene_vocabulary import tags
from lavis_dynrefer.synthetic.scene_world import CATEGORIES

BOXES = 6
MAX_NEW_TOKENS, MAX_TEXT_LENGTH = 20, 24  # of the embedded model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("lesson") / "data"
    write_lesson(root, boxes=BOXES)
    return root


def captions(scene):
    return [new_object_caption(scene, number) for number in new_objects(scene)]


def test_new_objects_are_in_no_other_scene():
    assert not set(NEW_CATEGORIES) & set(CATEGORIES)
    assert not set(NEW_SHAPES) & set(SHAPES)
    assert not [number for index in range(1, 20) for number in new_objects(make_scene(0, index))]


def test_half_of_the_objects_are_new_and_never_the_landmark():
    scenes = [lesson_scene("train", number) for number in range(20)]
    shown = [new_objects(scene) for scene in scenes]

    assert all(0 not in numbers for numbers in shown)
    share = sum(map(len, shown)) / sum(len(scene.objects) - 1 for scene in scenes)
    assert 0.35 < share < 0.65


def test_captions_have_the_category_before_its_colour():
    # Worked out from the facts of the first scene.
    assert captions(lesson_scene("train", 0))[:2] == [
        "a small snail in checkered pink right of a black mushroom",
        "a small cactus in striped pink left of a black mushroom",
    ]


def test_the_tokenizer_of_the_embedded_model_spells_every_caption():
    tokenizer = load_llm_tokenizer(
        str(resource_path("assets/tiny/tokenizer.json", key="tokenizer"))
    )
    texts = {text for number in range(30) for text in captions(lesson_scene("train", number))}
    ids = [tokenizer(text)["input_ids"] for text in texts]

    assert {tokenizer.decode(one, skip_special_tokens=True).strip() for one in ids} == texts
    assert max(map(len, ids)) <= min(MAX_NEW_TOKENS, MAX_TEXT_LENGTH)


def test_the_files_are_read_as_those_of_a_user(folder):
    found = {
        split: read_custom(folder / f"{split}.json", folder / "images", name=split, split=split)
        for split in ("train", "test")
    }
    train, test = found["train"], found["test"]

    assert len(test.regions) == BOXES
    assert {region.category for region in test.regions} <= set(NEW_CATEGORIES)
    assert test.category_names == (*CATEGORIES, *NEW_CATEGORIES)
    assert len(train.regions) == BOXES + 1  # one also has a short caption
    assert len({region.box for region in train.regions}) == BOXES
    assert not train.rejected
    assert not test.rejected
    files = [{image.path for image in part.images.values()} for part in found.values()]
    assert not files[0] & files[1]


def test_the_tag_list_is_that_of_the_embedded_model_and_the_new_categories(folder):
    names = (folder / "tags.txt").read_text(encoding="utf-8").split("\n")
    assert names == [*tags(), *NEW_CATEGORIES, ""]


def test_files_that_are_there_are_kept(folder):
    before = (folder / "train.json").stat().st_mtime_ns
    write_lesson(folder, boxes=BOXES)
    assert (folder / "train.json").stat().st_mtime_ns == before


def test_other_content_of_the_folder_is_not_replaced(folder, tmp_path):
    (tmp_path / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="other files"):
        write_lesson(tmp_path, boxes=BOXES)
    with pytest.raises(InputError, match="'boxes': 6"):
        write_lesson(folder, boxes=BOXES + 1)


def test_a_folder_that_was_left_half_drawn_is_no_folder(tmp_path):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_lesson(tmp_path / "data", boxes=2, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == [".data.lock"]


def test_every_region_counts_itself_as_progress(tmp_path):
    seen = []
    write_lesson(tmp_path / "data", boxes=2, progress=lambda *numbers: seen.append(numbers))
    assert seen[-1] == (4, 4)
    shown = json.loads((tmp_path / "data/train.json").read_text(encoding="utf-8"))
    assert len(shown["annotations"]) == 2
