import pytest

from lavis_dynrefer.metrics.category_metrics import evaluate_categories
from lavis_dynrefer.structures import RegionPrediction, RegionRecord, RegionSet, Rejection

BOX = (0.0, 0.0, 10.0, 10.0)


def region(region_id, category, iscrowd=False):
    return RegionRecord(region_id, 1, BOX, category=category, iscrowd=iscrowd)


def answer(**scores):
    return RegionPrediction(BOX, categories=tuple(scores.items()))


def test_missing_and_rejected_regions_count_as_wrong():
    rejection = Rejection("empty_box", "no area", 1, region(4, "dog"))
    given = RegionSet(
        "coco", "val", {}, [region(1, "dog"), region(2, "dog"), region(3, "cat")], [rejection]
    )

    report = evaluate_categories(
        given, {1: answer(cat=-2.0, dog=-1.0), 2: answer(cat=3.0, dog=1.0)}
    )

    assert report.metrics == {"acc": 25.0, "acc_official": 25.0}
    assert report.counts == {"images": 1, "regions": 4, "missing": 2, "rejected": 1, "crowds": 0}


@pytest.mark.parametrize(("mode", "primary"), [("strict", "acc"), ("official", "acc_official")])
def test_only_the_official_number_counts_crowds(mode, primary):
    given = RegionSet("coco", "val", {}, [region(1, "dog"), region(2, "dog", iscrowd=True)])

    report = evaluate_categories(
        given, {1: answer(dog=1.0), 2: answer(cat=1.0, dog=0.0)}, mode=mode
    )

    assert report.metrics == {"acc": 100.0, "acc_official": 50.0}
    assert report.primary == primary


def test_a_set_of_crowds_has_only_the_official_number():
    given = RegionSet("coco", "val", {}, [region(1, "dog", iscrowd=True)])

    report = evaluate_categories(given, {1: answer(dog=1.0)})

    assert report.metrics == {"acc_official": 100.0}
    assert report.primary == "acc_official"


def test_rejects_a_prediction_with_another_vocabulary():
    given = RegionSet("coco", "val", {}, [region(1, "dog")])

    with pytest.raises(ValueError, match="region 1: its category 'dog' is not among the 1 scored"):
        evaluate_categories(given, {1: answer(Dog=1.0)})
