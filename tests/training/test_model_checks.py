"""Numbers of a model that cannot be built, found without building it."""

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


def test_the_tiny_model_is_valid():
    assert errors("arch=dynrefer") == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("vision.heads=3", "model.vision.width: expected a multiple of heads 3, got 128"),
        ("qformer.heads=3", "model.qformer.width: expected a multiple of heads 3, got 128"),
        ("tagging.decoder.heads=7", "model.tagging.decoder.width: expected a multiple of heads 7"),
        ("vision.patch_size=7", "model.vision.image_size: expected a multiple of patch_size 7"),
        ("region.offset_groups=3", "expected a multiple of region.offset_groups 3, got 128"),
        ("vision.mlp_ratio=0.0", "model.vision.mlp_ratio: expected more than 0, got 0.0"),
        ("vision.mlp_ratio=1e9", "model.vision.mlp_ratio: expected at most 100, got 1000000000.0"),
        ("losses.clip=.nan", "model.losses.clip: expected a finite number, got nan"),
        ("captioning.llm_options.tokenizer=3", "llm_options.tokenizer: expected a string, got 3"),
        (
            "captioning.llm_options.config.d_model=0",
            "llm_options.config.d_model: expected at least 1",
        ),
        ("pretrained.parts=[1]", "model.pretrained.parts[0]: expected a string, got 1"),
        ("pretrained.eva=x", "model.pretrained: unknown ['eva']; did you mean eva_vit?"),
        ("load_finetuned=yes please", "model.load_finetuned: expected true or false"),
    ],
)
def test_numbers_that_cannot_be_built_are_named(change, complaint):
    (found,) = errors(change)

    assert complaint in found


@pytest.mark.parametrize("change", ["region.sampling_ratio=0", "trainable=[]", "trainable=['']"])
def test_unusual_values_that_work_are_accepted(change):
    assert errors(change) == []
