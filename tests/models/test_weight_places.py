"""Where the files of a model are: named, told, kept, fetched, or missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from weight_site import serve_weights

from lavis_dynrefer.errors import InputError, MissingFileError
from lavis_dynrefer.models.weights.fetching import kept_parts, transfer
from lavis_dynrefer.models.weights.fetching.part_registry import (
    register,
    registered,
    unregister,
)
from lavis_dynrefer.models.weights.places import (
    AUTO,
    KEYS,
    MissingPartsError,
    fetch_parts,
    files_of,
    locate,
    model_section,
    resolve_files,
)
from lavis_dynrefer.paths import config_path

TAGS = b"dog\ncat\n"


@pytest.fixture
def site(monkeypatch, tmp_path):
    """A server; the cache of this test, and no files of other programs."""
    monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0))
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in transfer.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with serve_weights() as server:
        yield server


@pytest.fixture
def section(site, tmp_path):
    """A model section that leaves a ViT and the tags to us."""
    vit = {"cls_token": torch.zeros(1, 1, 4), "head.weight": torch.zeros(3, 4)}
    save_file(vit, tmp_path / "vit.safetensors")
    at = site.put("/models/vit.pth", (tmp_path / "vit.safetensors").read_bytes())[
        : -len("/vit.pth")
    ]
    site.put("/models/vit.safetensors", (tmp_path / "vit.safetensors").read_bytes())
    site.put("/models/tags.txt", TAGS)
    return {
        "model_type": "mine",
        "pretrained": {"eva_vit": AUTO, "blip2": None},
        "tagging": {"vocabulary": AUTO},
        "published": {
            "eva_vit": {
                "variable": "EVA_VIT_G",
                "kept": "eva.safetensors",
                "about": 100,
                "at": at,
                "files": [{"name": "vit.safetensors", "about": 100}],
            },
            "tags": {
                "variable": "DYNREFER_TAGS",
                "kept": "tags.txt",
                "at": at,
                "files": [{"name": "tags.txt", "size": len(TAGS)}],
            },
            "dynrefer": {"variable": "DYNREFER_CHECKPOINT", "page": "https://example.org/where"},
        },
    }


def published(section, name):
    return files_of(section).published[name]


def cached(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache" / "weights").iterdir())


def test_parts_are_fetched_reduced_and_found_again_without_a_network(
    site, section, tmp_path, monkeypatch
):
    resolved = resolve_files(section)

    folder = tmp_path / "cache" / "weights"
    assert resolved["pretrained"] == {"eva_vit": str(folder / "eva.safetensors"), "blip2": None}
    assert list(load_file(folder / "eva.safetensors")) == ["cls_token"]
    assert (folder / "tags.txt").read_bytes() == TAGS
    assert [name for name in cached(tmp_path) if not name.startswith(".")] == [
        *("eva.safetensors", "eva.safetensors.json", "tags.txt", "tags.txt.json")
    ]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_files(section) == resolved
    assert len(site.asked) == 2


def test_all_that_is_missing_is_told_at_once_and_nothing_is_fetched(site, section, tmp_path):
    wanted = {**section, "load_finetuned": True, "finetuned": AUTO}

    with pytest.raises(MissingPartsError) as error:
        resolve_files(wanted)

    text = str(error.value)
    assert f"eva_vit: about 0.00 MB at {site.address}/models/vit.safetensors" in text
    assert "name your own file by EVA_VIT_G or model.pretrained.eva_vit" in text
    assert "dynrefer: it has no direct address, https://example.org/where links to it" in text
    assert "`dynrefer download mine` fetches eva_vit, tags" in text
    assert "`dynrefer weights set PART FILE --model mine`" in text
    assert site.asked == []
    assert not (tmp_path / "cache").exists()


def test_offline_lists_what_is_missing_without_a_request(site, section, monkeypatch):
    monkeypatch.setenv("DYNREFER_OFFLINE", "1")

    with pytest.raises(MissingPartsError, match="not while DYNREFER_OFFLINE is set"):
        resolve_files(section)
    assert site.asked == []


def test_what_was_told_comes_before_what_was_downloaded(section, tmp_path):
    resolve_files(section)
    mine = tmp_path / "mine.txt"
    mine.write_bytes(b"bird\n")
    register("mine", "tags", mine)
    register("other", "tags", tmp_path / "others.txt")

    assert resolve_files(section)["tagging"]["vocabulary"] == str(mine)
    mine.unlink()
    with pytest.raises(MissingPartsError, match=r"tags: .*mine\.txt does not exist any more"):
        resolve_files(section)  # a file of the user is not replaced in silence
    assert unregister("mine", "tags")
    assert not unregister("mine", "tags")
    assert resolve_files(section)["tagging"]["vocabulary"] != str(mine)
    assert registered("other") == {"tags": tmp_path / "others.txt"}


def test_a_name_in_the_section_is_left_alone(site):
    section = {"tagging": {"vocabulary": "x.txt"}, "finetuned": "y.pth", "load_finetuned": True}

    assert resolve_files(section) == section
    assert site.asked == []


def test_parts_are_random_only_on_request(site, section):
    wanted = {**section, "load_finetuned": True, "finetuned": AUTO, "random_parts": True}

    resolved = resolve_files(wanted)

    assert resolved["pretrained"]["eva_vit"] is None
    assert (resolved["load_finetuned"], resolved["finetuned"]) == (False, None)
    assert [path for path, _ in site.asked] == ["/models/tags.txt"]  # no random words


def test_a_training_that_starts_anew_needs_no_checkpoint(section):
    resolved = resolve_files({**section, "load_finetuned": False, "finetuned": AUTO})

    assert (resolved["load_finetuned"], resolved["finetuned"]) == (False, None)


def test_a_wrong_file_is_neither_kept_nor_continued(site, section, tmp_path):
    site.put("/models/vit.safetensors", b"no tensors")

    with pytest.raises(
        InputError, match=rf"eva_vit, from {site.address}/models: .*vit\.safetensors"
    ):
        resolve_files(section)
    assert not any(name.startswith("eva") for name in cached(tmp_path))


def test_a_conversion_that_was_broken_off_needs_no_second_download(site, section, tmp_path):
    part = published(section, "eva_vit")
    folder = tmp_path / "kept"
    kept_parts.fetch("eva_vit", part, folder, kept_parts.FetchOptions(keep_original=True))
    (folder / "eva.safetensors.json").unlink()  # the record comes last
    assert kept_parts.find_kept(folder, part) is None

    (folder / "eva.safetensors.original" / "vit.safetensors.sha256").write_bytes(b"")  # killed
    (folder / ".converting-eva.safetensors").mkdir()
    (folder / ".converting-eva.safetensors" / "half").touch()

    kept_parts.fetch("eva_vit", part, folder)

    assert len(site.asked) == 1
    assert kept_parts.find_kept(folder, part) == folder / "eva.safetensors"
    assert sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") == [
        *("eva.safetensors", "eva.safetensors.json")
    ]


@pytest.mark.parametrize(
    "spoil", ["cut", "removed", "another place", "{", "null", '{"from": 1, "files": {}}']
)
def test_what_is_not_whole_is_not_taken(section, tmp_path, spoil):
    part, kept = published(section, "tags"), tmp_path / "tags.txt"
    fetch_parts({"tags": part}, tmp_path)
    if spoil == "cut":
        kept.write_bytes(TAGS[:3])
    elif spoil == "removed":
        kept.unlink()
    elif spoil == "another place":
        section["published"]["tags"]["at"] += "/v2"
        part = published(section, "tags")
    else:
        (tmp_path / "tags.txt.json").write_text(spoil, encoding="utf-8")

    assert kept_parts.find_kept(tmp_path, part) is None


def test_a_flipped_byte_is_found_by_its_checksum(section, tmp_path):
    part = published(section, "tags")
    fetch_parts({"tags": part}, tmp_path)
    assert kept_parts.damaged_files(tmp_path, part) == []
    (tmp_path / "tags.txt").write_bytes(b"dog\ncap\n")

    assert kept_parts.find_kept(tmp_path, part) is not None
    assert kept_parts.damaged_files(tmp_path, part) == [str(tmp_path / "tags.txt")]


def test_too_small_a_disk_is_told_before_anything_is_asked(site, section, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    with pytest.raises(InputError, match=r"eva_vit, tags: .* are needed in .*; make space, or"):
        resolve_files(section)
    assert site.asked == []


def test_a_file_that_lavis_has_downloaded_is_taken(site, section, tmp_path):
    place = section["published"]["eva_vit"]
    there = tmp_path / "torch" / "hub" / "checkpoints"
    there.mkdir(parents=True)
    torch.save({"cls_token": torch.ones(1, 1, 4)}, there / "vit.pth")
    size = (there / "vit.pth").stat().st_size
    place["files"] = [{"name": "vit.pth", "size": size + 1}]
    assert not kept_parts.is_local(published(section, "eva_vit"))  # another one of that name
    place["files"] = [{"name": "vit.pth", "size": size}]

    path = resolve_files(section)["pretrained"]["eva_vit"]

    assert float(load_file(path)["cls_token"].sum()) == 4
    assert (there / "vit.pth").exists()
    assert [path for path, _ in site.asked] == ["/models/tags.txt"]


def test_of_two_processes_one_downloads(site, section, tmp_path):
    site.put("/models/vit.safetensors", site.files["/models/vit.safetensors"], ("slow", 0.002))
    (tmp_path / "section.json").write_text(json.dumps(section), encoding="utf-8")
    code = (
        "import json, sys; from lavis_dynrefer.models.weights.places import resolve_files\n"
        "section = json.load(open(sys.argv[1], encoding='utf-8'))\n"
        "print(resolve_files(section)['tagging']['vocabulary'])"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "section.json")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")
    while not site.asked and child.poll() is None:
        time.sleep(0.01)

    answer = resolve_files(section)["tagging"]["vocabulary"]

    assert child.communicate()[0].strip() == answer
    assert sorted(path for path, _ in site.asked) == ["/models/tags.txt", "/models/vit.safetensors"]


@pytest.mark.parametrize("kind", ["a file", "no rights"])
def test_a_folder_that_cannot_be_written_to_is_named(site, section, tmp_path, kind):
    folder = tmp_path / "cache" / "weights"
    folder.parent.mkdir()
    if kind == "a file":
        folder.touch()
    elif os.name == "nt" or os.geteuid() == 0:
        pytest.skip("needs a folder without rights")
    else:
        folder.parent.chmod(0o500)

    with pytest.raises(InputError, match=r"cannot write to .*weights: .*; choose another folder"):
        resolve_files(section)
    assert site.asked == []


def test_a_failed_download_is_told_with_its_part(site, section):
    site.put("/models/vit.safetensors", b"weights", 404)

    with pytest.raises(MissingFileError, match=r"eva_vit: .*404.*or name your own .* EVA_VIT_G or"):
        resolve_files(section)


def test_weights_are_downloaded_once_for_all_threads(site):
    site.put("/a/vit.pth", b"weights")
    site.put("/b/vit.pth", b"weights")
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: locate(f"{site.address}/a/vit.pth", key="k"), range(8)))

    assert len(set(found)) == 1
    assert found[0].read_bytes() == b"weights"
    assert len(site.asked) == 1
    assert locate(f"{site.address}/b/vit.pth", key="k") != found[0]  # another file of that name


def test_failed_download_is_named(site):
    url = f"{site.address}/nothing.pth"
    with pytest.raises(MissingFileError, match=rf"^k: cannot download {url}.*404.*name the file$"):
        locate(url, key="k")


def test_cache_that_cannot_be_created_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DYNREFER_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(MissingFileError, match=r"cannot create the cache .*; set DYNREFER_CACHE"):
        locate("http://127.0.0.1:1/vit.pth", key="k")


@pytest.mark.parametrize("model", ["flant5xl", "vicuna7b"])
def test_the_full_models_say_where_each_part_is(model):
    text = OmegaConf.load(config_path(f"models/dynrefer_{model}.yaml")).model
    raw = OmegaConf.to_container(text, resolve=False)
    files = files_of(model_section(model))

    assert files.model_type == model
    for name, part in files.published.items():
        value = raw
        for step in KEYS[name].split("."):
            value = value[step]
        assert value == f"${{oc.env:{part.variable},auto}}"
        assert part.page or (part.kept and part.about and all(item.bytes for item in part.files))
