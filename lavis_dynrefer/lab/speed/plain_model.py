"""The plain path that speed is compared with: what the released code does, with our weights.

LAVIS's vision transformer, Q-Former and BERT layers compute attention as softmax(Q K^T) V; texts
are projected for every batch; Hugging Face's `generate` writes the captions, 20 regions at a time;
Hugging Face's T5 computes the loss. Alignment and fusion are those of our model, because the
operator of the released code exists for CUDA only.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial

import lavis  # noqa: F401  first, for threads
import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from lavis.models.eva_vit import VisionTransformer
from torch import Tensor, nn

from lavis_dynrefer.config import GenerationConfig, VisionConfig
from lavis_dynrefer.lab.benchmarks.counting import Reads
from lavis_dynrefer.models.decoders.tagging import multi_hot
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.losses import asymmetric_loss, sigmoid_contrastive_loss
from lavis_dynrefer.models.precision import without_autocast
from lavis_dynrefer.models.region_encoder import ViewFeatures

CHUNK = 20  # regions; the released code's split_size


class PlainModel:
    """Computes as the released code does.

    Args:
        model: ours; its weights are shared, but for those of the ViT on a GPU, which the released
            code stores in float16.
        vision: numbers of its ViT.
    """

    def __init__(self, model: DynRefer, vision: VisionConfig) -> None:
        self.model = model
        self.on_gpu = model.device.type != "cpu"
        self.vit = _lavis_vit(model.backbone.vit, vision)
        if self.on_gpu:
            self.vit.apply(_store_in_half)

    def _autocast(self, dtype: torch.dtype) -> AbstractContextManager[object]:
        """The released code's formats exist on GPUs only."""
        return torch.autocast(self.model.device.type, dtype) if self.on_gpu else nullcontext()

    def tokens(self, views: Tensor) -> Tensor:
        """Normed tokens (B, V, N, C) of views (B, V, 3, S, S)."""
        backbone = self.model.backbone
        pixels = rearrange(views, "b v c h w -> (b v) c h w")
        pixels = (pixels.float() * (1 / 255) - backbone.mean) / backbone.std
        with torch.no_grad(), self._autocast(torch.float16):
            tokens = self.vit(pixels)
        with without_autocast(tokens.device):
            return rearrange(backbone.norm(tokens.float()), "(b v) n c -> b v n c", b=len(views))

    def regions(self, tokens: Tensor, boxes: Tensor) -> Tensor:
        """Region tokens (B, N, C)."""
        features: ViewFeatures = self.model.region_encoder.pool(tokens, boxes)
        return self.model.region_encoder(features)

    def queries(self, regions: Tensor) -> Tensor:
        """Queries (B, Q, D)."""
        qformer = self.model.qformer
        queries = qformer.query_tokens.expand(len(regions), -1, -1)
        return qformer.bert.encoder(
            qformer.bert.embeddings(query_embeds=queries),
            encoder_hidden_states=regions,
            query_length=queries.shape[1],
        ).last_hidden_state

    def tags(self, texts: Tensor, queries: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self._decode(self.model.tagging.decoder, texts, queries)

    def contrast(self, texts: Tensor, queries: Tensor) -> Tensor:
        """Logits (B, K)."""
        return self._decode(self.model.contrast.decoder, texts, queries)

    def _decode(self, decoder: nn.Module, texts: Tensor, queries: Tensor) -> Tensor:
        with self._autocast(torch.bfloat16):
            states = repeat(decoder.text_proj(texts), "k w -> b k w", b=len(queries))
            vision = decoder.vision_proj(queries)
            for layer in decoder.layers:
                seen = layer.crossattention(states, encoder_hidden_states=vision)[0]
                states = layer.output(layer.intermediate(seen), seen)
        with without_autocast(queries.device):
            states = states.float()
            if decoder.normalise:
                states = F.normalize(states, dim=-1)
            return decoder.classifier(states).squeeze(-1)

    def captions(
        self,
        queries: Tensor,
        controls: list[str],
        options: GenerationConfig,
        *,
        cached: bool = False,
    ) -> tuple[list[str], list[float]]:
        """Captions of B regions and the probability of each.

        Without a cache of keys and values: LAVIS's T5, which the released code uses, does not know
        the name under which transformers 4.26 hands it over, and computes all tokens anew.
        """
        llm = self.model.captioning.llm
        prefix, mask = self.model.captioning.prompt(queries, controls)
        with self._autocast(torch.bfloat16):
            found = llm.model.generate(
                inputs_embeds=prefix,
                attention_mask=mask,
                do_sample=False,
                num_beams=options.num_beams,
                max_new_tokens=options.max_new_tokens,
                min_length=options.min_length,
                repetition_penalty=options.repetition_penalty,
                length_penalty=options.length_penalty,
                num_return_sequences=1,
                return_dict_in_generate=True,
                output_scores=True,
                use_cache=cached,
            )
        texts = llm.tokenizer.batch_decode(found.sequences, skip_special_tokens=True)
        return [text.strip() for text in texts], found.sequences_scores.exp().tolist()

    def loss(self, samples: dict[str, object], tag_texts: Tensor) -> Tensor:
        """The loss of a training step, from embeddings (K, E) of the tag list."""
        model, weights = self.model, self.model.losses
        queries = self.queries(self.regions(self.tokens(samples["views"]), samples["boxes"]))
        tag = asymmetric_loss(
            self.tags(tag_texts, queries),
            multi_hot(samples["tags"], len(tag_texts)).to(queries.device),
            gamma_negative=weights.gamma_negative,
            gamma_positive=weights.gamma_positive,
            clip=weights.clip,
        )
        texts = model.embed_texts(samples["captions"], keep=False)
        similarities = self.contrast(texts, queries).T, self.contrast(texts, queries)
        scale, bias = model.contrast.log_scale, model.contrast.bias
        halves = [
            sigmoid_contrastive_loss(one, log_scale=scale, bias=bias, first_column=0)
            for one in similarities
        ]
        caption = self._caption_loss(queries, samples["controls"], samples["captions"])
        return (
            weights.caption_weight * caption
            + weights.tag_weight * tag
            + weights.contrast_weight * sum(halves) / 2
        )

    def _caption_loss(self, queries: Tensor, controls: list[str], captions: list[str]) -> Tensor:
        llm, length = self.model.captioning.llm, self.model.captioning.max_text_length
        prefix, mask = self.model.captioning.prompt(queries, controls)
        target = llm.tokenizer(
            captions, padding=True, truncation=True, max_length=length, return_tensors="pt"
        ).to(prefix.device)
        padding = target.input_ids == llm.tokenizer.pad_token_id
        with self._autocast(torch.bfloat16):
            return llm.model(
                inputs_embeds=prefix,
                attention_mask=mask,
                decoder_attention_mask=target.attention_mask,
                labels=target.input_ids.masked_fill(padding, -100),
                return_dict=True,
            ).loss


def in_chunks(rows: int) -> list[slice]:
    """The released code answers 20 regions at a time."""
    return [slice(start, start + CHUNK) for start in range(0, rows, CHUNK)]


def _lavis_vit(ours: nn.Module, config: VisionConfig) -> nn.Module:
    """LAVIS's vision transformer over the weights of ours."""
    with torch.device("meta"), Reads():
        vit = VisionTransformer(
            img_size=config.image_size,
            patch_size=config.patch_size,
            embed_dim=config.width,
            depth=config.depth,
            num_heads=config.heads,
            mlp_ratio=config.mlp_ratio,
            qkv_bias=True,
            use_mean_pooling=False,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
    vit.head = nn.Identity()
    vit.load_state_dict(ours.state_dict(), assign=True)
    return vit.eval().requires_grad_(False)


def _store_in_half(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        module.half()
