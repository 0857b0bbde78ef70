"""The golden folder, the model built from it, and a summary of the largest differences."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from golden_folder import OWN, build, expand_views, read_arrays, read_json, read_tensors

from tests.conftest import reason_to_skip

WORST = pytest.StashKey()
CHANGED = pytest.StashKey()


def pytest_configure(config):
    config.stash[WORST] = {}
    config.stash[CHANGED] = []


def pytest_generate_tests(metafunc):
    """One test for each case in the folder: `CASES` of a module is argument -> folder -> values."""
    folder = Path(metafunc.config.getoption("--golden") or OWN)
    for argument, cases in getattr(metafunc.module, "CASES", {}).items():
        if argument in metafunc.fixturenames:
            try:
                values = cases(folder) if folder.is_dir() else []
            except pytest.skip.Exception:  # raised by `Recorded`
                values = []
            reason = None if folder != OWN else reason_to_skip("parity")
            if reason is not None:
                values = [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
                metafunc.parametrize(argument, values)
                continue
            metafunc.parametrize(argument, sorted(values))  # the same order in every worker


def pytest_terminal_summary(terminalreporter, config):
    if not config.stash[WORST]:
        return
    terminalreporter.section("largest difference to the official code")
    for stage, (difference, tolerance) in config.stash[WORST].items():
        terminalreporter.write_line(f"{stage:<40} {difference:9.2e}   allowed {tolerance:.0e}")
    if config.stash[CHANGED]:
        terminalreporter.section("answers that change with the number format")
    for line in config.stash[CHANGED]:
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def golden_dir(request) -> Path:
    """The folder that --golden names, or the one of the reference material."""
    given = request.config.getoption("--golden")
    folder = Path(given) if given else request.getfixturevalue("parity")
    if not (folder / "outputs.json").is_file():
        pytest.fail(f"--golden {folder}: no outputs.json; expected the layout of its README")
    return folder


@pytest.fixture(scope="session")
def close(request):
    """Assert that two tensors agree, and record their largest difference."""

    def compare(stage, ours, theirs, *, atol):
        ours, theirs = torch.as_tensor(ours).double(), torch.as_tensor(theirs).double()
        assert ours.shape == theirs.shape
        difference = (ours - theirs).abs().max().item()
        request.config.stash[WORST][stage] = (difference, atol)
        assert difference <= atol, f"{stage}: differs by {difference:.2e}, allowed {atol:.0e}"

    return compare


@pytest.fixture(scope="session")
def changed(request) -> list[str]:
    """Lines for the summary about answers that are not those of float32."""
    return request.config.stash[CHANGED]


@pytest.fixture(scope="session")
def numbers(golden_dir):
    """outputs.json: texts, captions, scores."""
    return read_json(golden_dir / "outputs.json")


@pytest.fixture(scope="session")
def tensors(golden_dir):
    """outputs.safetensors.xz: stage tensors."""
    return read_tensors(golden_dir / "outputs.safetensors.xz")


@pytest.fixture(scope="session")
def weights(golden_dir):
    """Random weights under their official names."""
    return read_tensors(golden_dir / "state_dict.safetensors.xz")


@pytest.fixture(scope="session")
def inputs(golden_dir, model):
    """Normalised views (B, V, 3, S, S) and region boxes (B, V, 4)."""
    arrays = read_arrays(golden_dir / "inputs.npz")
    views = expand_views(arrays["cells"], model.backbone.mean, model.backbone.std)
    return views, torch.from_numpy(arrays["cascade_region_bboxes"])


@pytest.fixture(scope="session")
def model(golden_dir, weights):
    """The model in eval mode."""
    return build(golden_dir, weights).eval()


@pytest.fixture(scope="session")
def stages(model, inputs):
    """Output of every stage for the golden views, under the names of the official modules."""
    seen = {}
    hooks = [
        module.register_forward_hook(
            lambda _module, _args, out, name=name: seen.__setitem__(name, out)
        )
        for name, module in {
            "visual_encoder": model.backbone.vit,
            "ln_vision": model.backbone,
            "cvem_align": model.region_encoder.align,
            "cvem_mlp": model.region_encoder.fusion,
            "Qformer.bert": model.qformer,
        }.items()
    ]
    views, boxes = inputs
    with torch.no_grad():
        features = model.encode_views(views, boxes)
        queries = model.region_queries(features)
        seen["_roi_align"] = features.maps.flatten(0, 1)
        seen["tag_logits"] = model.tagging(model.embed_texts(model.tagging.tags), queries)
        seen["t5_proj"] = model.captioning.prefix.projection(queries)
    for hook in hooks:
        hook.remove()
    return seen
