"""`generate` and `extract_features`: LAVIS's calls give what `predict` gives."""

from __future__ import annotations

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image, ImageDraw

from lavis_dynrefer.config import CaptionSearch
from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.weights.places import model_config
from lavis_dynrefer.views.view_processor import ViewProcessor
from lavis_dynrefer.vocab.prompts import attribute_prompts, category_prompt

BOXES = [[20, 20, 60, 70], [90, 30, 140, 100]]
# What `predict` asks the embedded model for.
PUBLISHED = {"num_beams": 2, "max_length": 20, "length_penalty": 0.0}


@pytest.fixture(scope="module")
def model():
    return DynRefer.from_config(model_config("tiny").model).eval()


@pytest.fixture(scope="module")
def processor():
    return ViewProcessor.from_config(model_config("tiny").preprocess.vis_processor.eval)


@pytest.fixture(scope="module")
def image():
    image = Image.new("RGB", (160, 120), (30, 90, 30))
    draw = ImageDraw.Draw(image)
    draw.rectangle(BOXES[0], fill=(200, 30, 30))
    draw.ellipse(BOXES[1], fill=(20, 30, 200))
    return image


@pytest.fixture(scope="module")
def sample(processor, image):
    return processor(image, BOXES)


def captions(model, sample, **generation):
    answers = model.predict(sample, tasks=["caption"], generation=generation or None)
    return [answer.caption for answer in answers]


def test_an_image_without_boxes_has_one_caption(model, processor, image):
    samples = {"image": processor(image).unsqueeze(0).to(torch.device("cpu"))}

    (caption,) = model.generate(samples)

    assert caption
    assert model.predict(samples)[0].box == (0, 0, 160, 120)


def test_captions_are_those_of_predict(model, sample):
    assert model.generate({"image": sample}, **PUBLISHED) == captions(model, sample)


def test_one_beam_takes_the_best_token_each_time(model, sample):
    found = model.generate(sample, num_beams=1, max_length=7)

    assert found == captions(
        model, sample, num_beams=1, max_new_tokens=7, length_penalty=1.0, repetition_penalty=1.0
    )


def test_several_captions_of_a_region_follow_each_other_best_first(model, sample):
    three = model.generate(sample, num_captions=3, num_beams=4)

    assert three[::3] == model.generate(sample, num_beams=4)
    assert len(three) == 6
    assert len(set(three[:3])) == 3


@pytest.mark.parametrize("beams", [2, 5])
def test_several_captions_are_those_of_generate_in_transformers(model, sample, beams):
    with model.answering(sample) as (answerer, part), torch.no_grad():
        queries = answerer.queries_of(part, answerer.encode(part), ["caption"])["caption"]
        embeddings, mask = model.captioning.prompt(queries, ["|"] * 2)
        t5 = model.captioning.llm
        tokens = t5.model.generate(
            inputs_embeds=embeddings,
            attention_mask=mask,
            num_beams=beams,
            num_return_sequences=2,
            max_new_tokens=20,
            length_penalty=0.0,
        )
    expected = t5.tokenizer.batch_decode(tokens, skip_special_tokens=True)

    found = model.generate(
        sample, num_beams=beams, max_length=20, num_captions=2, length_penalty=0.0
    )

    assert found == [text.strip() for text in expected]


def test_sampling_follows_torchs_generator(model, sample):
    def sampled():
        torch.manual_seed(3)
        return model.generate(sample, use_nucleus_sampling=True, num_captions=4, top_p=0.95)

    first = sampled()

    assert first == sampled()
    assert len(first) == 8
    assert len(set(first)) > 2


def test_sampling_from_the_likeliest_token_alone_is_greedy(model, sample):
    found = model.generate(sample, use_nucleus_sampling=True, top_p=0.0, num_captions=2)

    greedy = model.generate(sample, num_beams=1)
    assert found == [greedy[0]] * 2 + [greedy[1]] * 2


def test_categories_are_scored_by_the_similarity(model, sample):
    names = list(model.categories)
    texts = [category_prompt(name) for name in names]

    features = model.extract_features({"image": sample, "text_input": texts})

    for row, answer in enumerate(model.predict(sample, tasks=["categories"])):
        scores = dict(answer.categories)
        expected = torch.tensor([scores[name] for name in names])
        torch.testing.assert_close(features.similarity[row], expected)
    again = model.contrast.decoder.classify(features.multimodal_embeds)
    torch.testing.assert_close(again, features.similarity)


def test_attributes_are_scored_by_the_best_of_their_prompts(model, sample):
    word = model.attributes[0]

    features = model.extract_features(
        {"image": sample, "text_input": attribute_prompts(word)}, task="attributes"
    )

    answers = model.predict(sample, tasks=["attributes"], attributes=[word])
    expected = torch.tensor([answer.attributes[0][1] for answer in answers])
    torch.testing.assert_close(features.similarity.sigmoid().amax(dim=1), expected)


def test_features_have_the_shapes_of_their_docstring(model, sample):
    texts = ["a dog", "a red boat", "snow"]

    both = model.extract_features({"image": sample, "text_input": texts})
    image = model.extract_features({"image": sample}, mode="image")
    text = model.extract_features({"text_input": "a dog"}, mode="text")

    assert both.multimodal_embeds.shape == (2, 3, 96)
    torch.testing.assert_close(both.multimodal_embeds.norm(dim=-1), torch.ones(2, 3))
    assert torch.equal(image.image_embeds, both.image_embeds)
    assert image.image_embeds.shape == (2, 8, 128)
    assert image.text_embeds is None
    torch.testing.assert_close(text.text_embeds, both.text_embeds[:1])
    assert not image.image_embeds.is_inference()  # may be trained on


def test_training_goes_on_after_an_answer(model, sample):
    model.train()
    try:
        model.generate(sample, max_length=2)
        assert model.training
    finally:
        model.eval()


WHOLE = OmegaConf.load(DynRefer.default_config_path()).model


@pytest.mark.parametrize("section", [WHOLE, {"finetuned": WHOLE.finetuned}], ids=["all", "part"])
def test_files_of_a_section_are_loaded_again(model, section):
    weight = model.tagging.decoder.classifier.weight
    before = weight.detach().clone()
    with torch.no_grad():
        weight.zero_()

    model.load_checkpoint_from_config(OmegaConf.create(section))

    assert torch.equal(model.tagging.decoder.classifier.weight, before)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top_p": 0.5}, "generate: top_p plays no part with use_nucleus_sampling=False"),
        ({"temperature": 2}, "temperature plays no part"),
        ({"use_nucleus_sampling": True, "num_beams": 3}, "num_beams plays no part with .*=True"),
        ({"use_nucleus_sampling": True, "length_penalty": 2.0}, "length_penalty plays no part"),
        ({"num_captions": 6}, r"generate\.num_captions: expected at most num_beams, 5, got 6"),
        ({"max_length": 0}, r"generate\.max_length: expected at least 1, got 0"),
    ],
)
def test_arguments_that_cannot_be_followed_are_refused(model, sample, arguments, message):
    with pytest.raises(ValueError, match=message):
        model.generate(sample, **arguments)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda model, sample: model.generate({"image": sample, "prompt": "a"}), "controls="),
        (lambda model, sample: model.extract_features({"image": sample}), "'text_input'.*None"),
        (lambda model, sample: model.extract_features(sample, "both"), "mode: unknown 'both'"),
        (
            lambda model, sample: model.extract_features(sample, "image").image_embeds_proj,
            "by a decoder, not by a product",
        ),
        (lambda model, sample: model({"image": sample, "text_input": ["a"]}), "are missing"),
    ],
)
def test_what_means_something_else_here_is_refused(model, sample, action, message):
    with pytest.raises(ValueError, match=message):
        action(model, sample)


@pytest.mark.parametrize("call", ["predict", "generate"])
def test_views_of_another_size_are_refused_before_they_are_encoded(model, image, call):
    other = ViewProcessor.from_config(
        OmegaConf.create({"policy": "fixed", "scales": [0, 0.5, 1], "image_size": 32})
    )(image)

    with pytest.raises(
        ValueError, match=r"got 3 views of 32 x 32 .* takes 2 of 64 x 64.*num_views.*image_size"
    ):
        getattr(model, call)(other)


def test_a_language_model_of_ones_own_that_cannot_sample_says_so(model, sample, monkeypatch):
    monkeypatch.setattr(type(model.captioning.llm), "can_sample", False)

    assert len(model.generate(sample)) == 2
    with pytest.raises(ValueError, match="FlanT5 neither samples nor"):
        model.generate(sample, num_captions=2)


def test_a_prediction_has_one_caption(model, sample):
    with pytest.raises(ValueError, match="one caption; `generate` gives several"):
        model.predict(sample, tasks=["caption"], generation=CaptionSearch(num_captions=2))
