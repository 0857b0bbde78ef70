"""Model numbers that do not fit together, found without a model."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

import lavis_dynrefer  # noqa: F401  registers with LAVIS
from lavis_dynrefer.paths import config_path
from lavis_dynrefer.training.checks.model_checks import check_model

TINY = OmegaConf.to_container(OmegaConf.load(config_path("models/dynrefer_tiny.yaml")).model)


def errors(change):
    model = OmegaConf.merge(TINY, OmegaConf.from_dotlist([change]))
    return [finding.text for finding in check_model(OmegaConf.to_container(model))]


def test_the_tiny_model_is_in_order():
    assert errors("arch=dynrefer") == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("vision.heads=3", "model.vision.width: expected a multiple of heads 3, got 128"),
        ("qformer.heads=3", "model.qformer.width: expected a multiple of heads 3, got 128"),
        ("text.width=3", "model.text.width: expected a multiple of heads 4, got 3"),
        ("tagging.decoder.heads=7", "model.tagging.decoder.width: expected a multiple of heads 7"),
        ("contrast.decoder.heads=7", "model.contrast.decoder.width: expected a multiple of heads"),
        ("vision.patch_size=7", "model.vision.image_size: expected a multiple of patch_size 7"),
        ("region.offset_groups=3", "expected a multiple of region.offset_groups 3, got 128"),
        ("qformer.num_queries=0", "model.qformer.num_queries: expected at least 1, got 0"),
        ("vision.width=-128", "model.vision.width: expected at least 1, got -128"),
        ("vision.mlp_ratio=0.0", "model.vision.mlp_ratio: expected a number above 0, got 0.0"),
        ("losses.clip=.nan", "model.losses.clip: expected a finite number, got nan"),
        ("text.context_length=1", "model.text.context_length: expected at least 3, got 1"),
        ("captioning.llm_options.tokenizer=3", "llm_options.tokenizer: expected str, got 3"),
        ("pretrained.parts=[1]", "model.pretrained.parts: expected a path or a URL, got 1"),
    ],
)
def test_numbers_that_cannot_be_built_are_named(change, complaint):
    (found,) = errors(change)

    assert complaint in found


@pytest.mark.parametrize("change", ["region.sampling_ratio=0", "trainable=[]", "trainable=['']"])
def test_odd_values_that_work_are_let_be(change):
    assert errors(change) == []
