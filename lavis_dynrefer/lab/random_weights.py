"""Random files in the layout of the published ones, of any size, to rehearse with.

python -m lavis_dynrefer.lab.random_weights FOLDER            18 GB, as the full model
python -m lavis_dynrefer.lab.random_weights FOLDER --depth 2  two layers of each part

Values are too small to overflow and too random to mean anything.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lavis_dynrefer.config import CaptioningConfig, DynReferConfig, TaggingConfig
from lavis_dynrefer.models.weights.checkpoint import to_official
from lavis_dynrefer.models.weights.lean_building import without_values
from lavis_dynrefer.models.weights.places import files_of, model_section
from lavis_dynrefer.models.weights.tensor_writing import TensorPlan, write_tensors

TAG_COUNT = 4_585  # of the Recognize Anything Model
FLAN_T5_XL: dict[str, int] = model_section("flant5xl")["captioning"]["llm_options"]["config"]
Shapes = Mapping[str, tuple[int, ...]]


class RandomFiles:
    """Writes the files of one model.

    Args:
        folder: for all files; created.
        config: the model's numbers; `captioning.llm_options` holds `config`, the sizes of T5.
        seed: of the values.
    """

    def __init__(self, folder: Path, config: DynReferConfig, *, seed: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._config = config
        self._seed = seed
        self._shapes, self._trained = _shapes_of(config)

    def write(self) -> dict[str, Path]:
        """Write every file; returns the paths by the names of the parts."""
        return {
            "eva_vit": self.eva_vit(),
            "blip2": self.blip2(),
            "eva_clip_text": self.eva_clip(),
            "flan_t5": self.flan_t5(),
            "tags": self.tags(),
            "dynrefer": self.dynrefer(),
        }

    def eva_vit(self) -> Path:
        """eva_vit_g.pth: float16, with the last block, norm and head that nothing uses."""
        shapes = self._of("visual_encoder.")
        depth, width = self._config.vision.depth, self._config.vision.width
        for name in [name for name in shapes if name.startswith("blocks.0.")]:
            shapes[name.replace(".0.", f".{depth}.", 1)] = shapes[name]
        shapes |= {"norm.weight": (width,), "norm.bias": (width,)}
        shapes |= {"head.weight": (1024, width), "head.bias": (1024,)}
        return self._save("eva_vit_g.pth", self._tensors(shapes, torch.float16))

    def eva_clip(self) -> Path:
        """eva_clip_psz14.pt: float16, of both towers."""
        shapes = {f"text.{name}": shape for name, shape in self._of("text_encoder.").items()}
        visual = {f"visual.{name}": shape for name, shape in self._of("visual_encoder.").items()}
        shapes |= {"logit_scale": (), "text.logit_scale": (), **visual}
        return self._save("eva_clip_psz14.pt", self._tensors(shapes, torch.float16))

    def blip2(self) -> Path:
        """blip2_pretrained_flant5xl.pth: of stage 2, with words that nothing uses."""
        former = self._config.qformer
        shapes = dict(self._of("Qformer.bert."))
        shapes["embeddings.word_embeddings.weight"] = (30_523, former.width)
        shapes["embeddings.position_embeddings.weight"] = (512, former.width)
        shapes = {f"Qformer.bert.{name}": shape for name, shape in shapes.items()}
        for prefix in ("query_tokens", "ln_vision.", "t5_proj."):
            shapes |= {prefix + name: shape for name, shape in self._of(prefix).items()}
        tensors = self._tensors(shapes, torch.float32)
        tensors["Qformer.bert.embeddings.position_ids"] = torch.arange(512)[None]
        return self._save("blip2_pretrained_flant5xl.pth", {"model": tensors})

    def flan_t5(self) -> Path:
        """flan-t5-xl: float32 in two .safetensors shards, with config and tokenizer."""
        folder = self._folder / "flan-t5-xl"
        folder.mkdir(exist_ok=True)
        shapes = self._of("t5_model.")
        names = sorted(name for name in shapes if "embed_tokens" not in name)
        cut = sum(name.startswith("decoder.block.0.") for name in names)
        places = {}
        for number, part in enumerate((names[cut:], names[:cut]), start=1):
            file = f"model-{number:05}-of-00002.safetensors"
            plans = {name: TensorPlan(shapes[name], torch.float32) for name in part}
            read = self._value_of(shapes, torch.float32)
            write_tensors(folder / file, plans, read, {"format": "pt"})
            places.update(dict.fromkeys(part, file))
        size = sum(TensorPlan(shapes[name], torch.float32).size for name in names)
        index = {"metadata": {"total_size": size}, "weight_map": places}
        _write_json(folder / "model.safetensors.index.json", index)
        settings = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
        settings |= {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
        settings |= {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}
        _write_json(
            folder / "config.json", {**self._config.captioning.llm_options["config"], **settings}
        )
        _write_tokenizer(folder, self._config.captioning.llm_options["tokenizer"])
        return folder

    def tags(self) -> Path:
        """Words of the right number."""
        path = self._folder / "ram_tag_list.txt"
        path.write_text(
            "".join(f"thing {number}\n" for number in range(TAG_COUNT)), encoding="utf-8"
        )
        return path

    def dynrefer(self) -> Path:
        """dynrefer.pth: what is trained, under the official names, with the state of AdamW."""
        shapes = {name: shape for name, shape in self._shapes.items() if name in self._trained}
        model = self._tensors(shapes, torch.float32)
        words = self._tensors(
            {"shared.weight": self._of("t5_model.")["shared.weight"]}, torch.bfloat16
        )["shared.weight"]
        for stack in ("encoder", "decoder"):  # as released: frozen, and saved all the same
            model[f"t5_model.{stack}.embed_tokens.weight"] = words
        state = {
            number: {
                "step": torch.tensor(1.0),
                "exp_avg": torch.zeros(shape),
                "exp_avg_sq": torch.zeros(shape),
            }
            for number, shape in enumerate(shapes.values())
        }
        groups = [{"lr": 1e-5, "params": list(range(len(state)))}]
        content = {"model": model, "optimizer": {"state": state, "param_groups": groups}}
        return self._save("dynrefer.pth", {**content, "epoch": 0})

    def _of(self, prefix: str) -> dict[str, tuple[int, ...]]:
        """Official names and shapes of a part, without its prefix."""
        return {
            name[len(prefix) :]: shape
            for name, shape in self._shapes.items()
            if name.startswith(prefix)
        }

    def _value_of(self, shapes: Shapes, dtype: torch.dtype) -> Callable[[str], Tensor]:
        """What draws a tensor by its name: the same in every file."""

        def value(name: str) -> Tensor:
            shape = shapes[name]
            random = torch.Generator().manual_seed(self._seed + zlib.crc32(name.encode()))
            if len(shape) < 2:  # norms near 1, biases near 0
                scale = torch.rand(shape, generator=random) * 0.02
                return (scale + name.endswith("weight")).to(dtype)
            # A block of random rows, repeated: quick, and files do not shrink.
            rows = torch.randn(min(shape[0], 64), *shape[1:], generator=random)
            rows *= 0.5 * float(rows[0].numel()) ** -0.5
            repeats = (-(-shape[0] // len(rows)), *(1 for _ in shape[1:]))
            return rows.repeat(repeats)[: shape[0]].to(dtype).contiguous()

        return value

    def _tensors(self, shapes: Shapes, dtype: torch.dtype) -> dict[str, Tensor]:
        value = self._value_of(shapes, dtype)
        return {name: value(name) for name in shapes}

    def _save(self, name: str, content: object) -> Path:
        torch.save(content, self._folder / name)
        return self._folder / name


def _shapes_of(config: DynReferConfig) -> tuple[dict[str, tuple[int, ...]], set[str]]:
    """Official names of all tensors with their shapes, and the names of those that are trained."""
    # Imported here: it needs LAVIS.
    from lavis_dynrefer.models.dynrefer import DynRefer
    from lavis_dynrefer.models.model_parts import build_parts

    with without_values():
        model = DynRefer(**build_parts(config), trainable=config.trainable)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    shapes = {name: tuple(value.shape) for name, value in to_official(model.state_dict()).items()}
    return shapes, set(to_official(trained))


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _write_tokenizer(folder: Path, source: str) -> None:
    """A tokenizer of Hugging Face, from a folder or a tokenizer.json."""
    from lavis_dynrefer.models.texts.tokenizers import load_llm_tokenizer

    load_llm_tokenizer(source).save_pretrained(folder)


def full_size(
    depth: int | None = None, tokenizer: str = "assets/tiny/tokenizer.json"
) -> DynReferConfig:
    """The numbers of the released model.

    Args:
        depth: layers of ViT and T5; None: as released.
        tokenizer: folder or tokenizer.json of T5; the shipped one has few words.
    """
    sizes = FLAN_T5_XL if depth is None else {**FLAN_T5_XL, "num_layers": depth}
    llm = {"config": sizes, "tokenizer": tokenizer, "dtype": "bfloat16"}
    config = DynReferConfig(
        tagging=TaggingConfig(vocabulary="vocab/data/synthetic_tags.txt"),
        captioning=CaptioningConfig(llm_options=llm),
    )
    return config if depth is None else replace(config, vision=replace(config.vision, depth=depth))


def main() -> None:
    """Write the files and print the variables that name them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--depth", type=int, help="layers of ViT and T5; default: as released")
    parser.add_argument(
        "--tokenizer",
        default="assets/tiny/tokenizer.json",
        help="of T5: a folder of Hugging Face or a tokenizer.json",
    )
    arguments = parser.parse_args()
    paths = RandomFiles(arguments.folder, full_size(arguments.depth, arguments.tokenizer)).write()
    published = files_of(model_section("flant5xl")).published
    for part, path in paths.items():
        print(f"export {published[part].variable}={path.resolve()}")


if __name__ == "__main__":
    main()
