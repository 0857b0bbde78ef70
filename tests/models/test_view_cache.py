"""Features of a frozen ViT kept on disk."""

from __future__ import annotations

import copy

import pytest
import torch

from lavis_dynrefer.config import VisionConfig
from lavis_dynrefer.errors import InputError
from lavis_dynrefer.models.backbone import Backbone
from lavis_dynrefer.models.vision.view_cache import ViewCache


@pytest.fixture(scope="module")
def backbone(smallest_config):
    torch.manual_seed(0)
    return Backbone(VisionConfig(**smallest_config["vision"])).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def views():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator)


def test_kept_features_are_those_of_the_encoder(tmp_path, backbone, views):
    cache, other = ViewCache(tmp_path), ViewCache(tmp_path)  # of two processes
    expected = backbone(views)

    first = cache.encode(backbone, views[[0, 1, 0]])
    second = other.encode(backbone, views)

    torch.testing.assert_close(first, expected[[0, 1, 0]], atol=1e-6, rtol=0)
    torch.testing.assert_close(second, expected, atol=1e-6, rtol=0)
    assert torch.equal(second[:2], first[:2])
    assert (cache.found, cache.encoded) == (0, 2)
    assert (other.found, other.encoded) == (2, 2)
    size = backbone.bytes_of_a_view
    assert 4 * size < cache.bytes_kept() < 4 * (size + 200)


def test_another_encoder_or_format_never_gets_them(tmp_path, backbone, views):
    changed = copy.deepcopy(backbone)
    changed.norm.bias.data += 1
    ViewCache(tmp_path).encode(backbone, views)
    cache = ViewCache(tmp_path)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        in_bf16 = cache.encode(backbone, views)
    with_other_weights = ViewCache(tmp_path).encode(changed, views)

    assert (cache.found, cache.encoded) == (0, 4)
    assert not torch.equal(in_bf16, backbone(views))
    torch.testing.assert_close(with_other_weights, backbone(views) + 1)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_file_is_written_again(tmp_path, backbone, views, caplog):
    before = ViewCache(tmp_path).encode(backbone, views[:1])
    (path,) = tmp_path.rglob("*.npy")
    path.write_bytes(path.read_bytes()[:500])

    cache = ViewCache(tmp_path)

    torch.testing.assert_close(cache.encode(backbone, views[:1]), before)
    assert cache.encoded == 1
    assert "is encoded again" in caplog.text
    assert ViewCache(tmp_path).bytes_kept() > backbone.bytes_of_a_view


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("x", encoding="utf-8")

    with pytest.raises(InputError, match=r"run\.feature_cache: .*file.inside cannot be made"):
        ViewCache(tmp_path / "file" / "inside")
