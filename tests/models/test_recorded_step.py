"""Steps that are recorded once and played again, by a recorder that needs no GPU."""

from __future__ import annotations

import copy
import logging
import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lavis_dynrefer.config import CaptionSearch, GenerationConfig
from lavis_dynrefer.models.llms import build_llm, t5_layers
from lavis_dynrefer.models.llms.recorded_step import RecordedStep
from lavis_dynrefer.models.llms.t5_search import SearchShape, T5Search
from lavis_dynrefer.models.llms.t5_weights import side_by_side

CONFIG = {"vocab_size": 768, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}


class Recorder(TorchDispatchMode):
    """As a CUDA graph: the same operators again, on the very same tensors."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def play(self):
        for func, args, kwargs, result in self.calls:
            again = func(*args, **kwargs)
            for old, new in zip(_list(result), _list(again)):
                if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


def _list(values):
    return values if isinstance(values, (list, tuple)) else [values]


def capture(step):
    step()  # makes the tensors that are kept
    recorder = Recorder()
    with recorder:
        result = step()
    return recorder.play, result


@pytest.fixture(scope="module")
def llm():
    generator = torch.Generator().manual_seed(0)
    llm = build_llm("flan_t5", {"tokenizer": "assets/tiny/tokenizer.json", "config": CONFIG})
    with torch.no_grad():
        for weight in llm.parameters():
            weight.normal_(std=0.35, generator=generator)
        llm.model.lm_head.weight[1] *= 2.5  # sentences then have different lengths
    return llm.eval()


def prompt(rows, places, seed=1):
    mask = torch.ones(rows, places, dtype=torch.long)
    mask[::3, places - 2 :] = 0
    return torch.randn(rows, places, 16, generator=torch.Generator().manual_seed(seed)), mask


def logs(answers):
    """Texts and the logarithms of their scores, which are tiny in random models."""
    return answers[0], [math.log(score) for score in answers[1]]


def sentences(answers):
    """As `logs`, for comparison."""
    texts, scores = logs(answers)
    return texts, pytest.approx(scores, rel=1e-4)


@pytest.fixture
def recording(llm):
    """The same model; its steps are recorded on a CPU."""
    copied = copy.deepcopy(llm)
    copied._search = T5Search(capture, recording="cpu")
    return copied


@pytest.mark.parametrize(
    "options",
    [
        GenerationConfig(num_beams=1, max_new_tokens=9),
        GenerationConfig(num_beams=3, max_new_tokens=9, min_length=4, length_penalty=1.0),
        CaptionSearch(num_beams=3, max_new_tokens=9, num_captions=2),
    ],
    ids=str,
)
def test_a_recorded_step_gives_the_same_sentences(llm, recording, options):
    for rows, places, seed in [(5, 7, 1), (4, 6, 2), (5, 8, 3), (1, 3, 4)]:  # three are one shape
        asked = (*prompt(rows, places, seed), options)
        assert logs(recording.generate(*asked)) == sentences(llm.generate(*asked))
    assert len(recording._search._kept) == 3  # 8, 4 and 1 rows
    assert all(kept._step._play for kept in recording._search._kept.values())


def test_a_step_that_samples_is_not_recorded(recording):
    options = CaptionSearch(num_beams=1, max_new_tokens=9, top_p=0.9)

    assert len(recording.generate(*prompt(3, 7), options)[0]) == 3
    assert not recording._search._kept


def test_new_weights_are_recorded_anew(llm, recording):
    options = GenerationConfig(num_beams=2, max_new_tokens=6)
    asked = (*prompt(2, 5), options)
    before = recording.generate(*asked)
    with torch.no_grad():
        for model in (llm, recording):
            model.model.decoder.block[1].layer[0].SelfAttention.v.weight.mul_(-1)

    found, expected = recording.generate(*asked), llm.generate(*asked)
    with torch.no_grad():
        llm.model.decoder.block[1].layer[0].SelfAttention.v.weight.mul_(-1)
    assert logs(found) == sentences(expected)
    assert logs(found) != sentences(before)


def test_weights_that_move_leave_nothing_behind(recording):
    recording.generate(*prompt(2, 5), GenerationConfig(num_beams=2, max_new_tokens=6))
    assert recording._search._kept

    recording.double()

    assert not recording._search._kept
    assert not recording._search._products


def test_searches_are_kept_within_the_memory(recording, monkeypatch):
    options = GenerationConfig(num_beams=2, max_new_tokens=6)
    recording.generate(*prompt(4, 5), options)
    (kept,) = recording._search._kept.values()
    monkeypatch.setattr(
        "lavis_dynrefer.models.llms.t5_search._kept_bytes", lambda device: 1.6 * kept.size
    )

    recording.generate(*prompt(2, 5), options)
    assert len(recording._search._kept) == 2
    recording.generate(*prompt(1, 5), options)
    assert [one._search.parents.shape[0] for one in recording._search._kept.values()] == [2, 1]

    expected = sentences(recording.generate(*prompt(3, 5), options))
    recording.generate(*prompt(16, 5), options)  # fits by no means: not recorded and not kept
    assert len(recording._search._kept) == 0
    assert logs(recording.generate(*prompt(3, 5), options)) == expected


def test_what_inference_mode_recorded_is_used_outside_of_it(llm, recording):
    options = GenerationConfig(num_beams=2, max_new_tokens=6)
    with torch.inference_mode():
        recording.generate(*prompt(2, 5, 1), options)
    search = recording._search
    prefix, mask = prompt(2, 5, 2)

    with torch.no_grad():  # as on a GPU
        tokens, scores = search(recording.model, prefix, mask, options, torch.float32)

    with torch.no_grad():
        expected = T5Search()(llm.model, prefix, mask, options, torch.float32)
    assert len(search._kept) == 1
    assert torch.equal(tokens, expected[0])
    assert torch.allclose(scores, expected[1])


def test_numbers_that_are_none_stay_with_their_sentence(llm, recording):
    options = GenerationConfig(num_beams=2, max_new_tokens=6)
    recording.generate(prompt(2, 7)[0].fill_(torch.nan), prompt(2, 7)[1], options)

    found = recording.generate(*prompt(2, 5), options)

    assert len(recording._search._kept) == 1
    assert logs(found) == sentences(llm.generate(*prompt(2, 5), options))


@pytest.mark.parametrize("tokens", [1, 2, 3, 4])
def test_a_recording_needs_no_more_tokens_than_are_asked_for(llm, recording, tokens):
    options = GenerationConfig(num_beams=2, max_new_tokens=tokens, length_penalty=1.0)

    found = recording.generate(*prompt(2, 5), options)

    assert logs(found) == sentences(llm.generate(*prompt(2, 5), options))
    assert len(recording._search._kept) == (tokens == 4)


def test_recordings_cast_the_weights_themselves():
    weight, cached = torch.nn.Parameter(torch.ones(2, 2)), []

    def step():
        cached.append(torch.is_autocast_cache_enabled())
        return torch.ones(1, 2) @ weight

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        RecordedStep(step, capture).prepare(lambda: None)
        assert torch.is_autocast_cache_enabled()
    assert set(cached) == {False}


@pytest.mark.parametrize("kind", [torch.cuda.OutOfMemoryError, RuntimeError])
def test_too_little_memory_is_the_business_of_the_caller(llm, kind):
    copied = copy.deepcopy(llm)

    def recorder(step):
        raise kind("CUDA error: out of memory")

    copied._search = T5Search(recorder, recording="cpu")

    for _ in range(2):  # it is tried again
        with pytest.raises(kind, match="out of memory"):
            copied.generate(*prompt(2, 5), GenerationConfig(num_beams=2, max_new_tokens=6))
        assert not copied._search._kept


def wrong(step):
    """A recording that misses what changes from step to step."""
    result = step()
    return lambda: step().mul_(1.5), result


def empty(step):
    """A recording on the wrong stream: torch only warns."""
    return lambda: None, step()


def failing(step):
    raise RuntimeError("operation not permitted when stream is capturing")


@pytest.mark.parametrize(
    ("recorder", "reason"),
    [(wrong, "differs by"), (empty, "differs by nan"), (failing, "not permitted")],
)
def test_a_recording_that_is_wrong_is_not_used(llm, caplog, recorder, reason):
    copied = copy.deepcopy(llm)
    copied._search = T5Search(recorder, recording="cpu")
    options = GenerationConfig(num_beams=2, max_new_tokens=6)

    with caplog.at_level(logging.WARNING):
        answers = [copied.generate(*prompt(rows, 5), options) for rows in (3, 3, 1)]

    expected = sentences(llm.generate(*prompt(3, 5), options))
    assert logs(answers[0]) == expected
    assert logs(answers[1]) == expected
    assert [reason in record.message for record in caplog.records] == [True]


def test_shapes_are_rounded_to_a_few():
    rounded = [SearchShape(rows, 42, 20).rounded().rows for rows in (1, 3, 9, 33, 64, 65)]
    assert rounded == [1, 4, 16, 48, 64, 80]
    assert SearchShape(1, 41, 20).rounded() == SearchShape(1, 48, 24)


def test_a_step_without_recorder_is_the_step():
    total = torch.zeros(1)
    step = RecordedStep(lambda: total.add_(1), None)

    step.prepare(lambda: total.zero_())
    step()

    assert total.item() == 1


def test_weights_put_side_by_side_keep_their_values_and_names():
    layers = [torch.nn.Linear(3, rows, bias=False) for rows in (2, 4)]
    before = [layer.weight.clone() for layer in layers]

    joined = side_by_side([layer.weight for layer in layers])

    assert torch.equal(joined, torch.cat(before))
    assert [torch.equal(layer.weight, old) for layer, old in zip(layers, before)] == [True, True]
    with torch.no_grad():
        layers[1].weight.zero_()
    assert joined[2:].abs().sum() == 0
    again = side_by_side([layer.weight for layer in layers])
    assert again.data_ptr() == joined.data_ptr()


def kernels(layers):
    """Operators of one step that are not views, with T5's norm as one."""
    config = {**CONFIG, "num_layers": layers}
    llm = build_llm("flan_t5", {"tokenizer": "assets/tiny/tokenizer.json", "config": config}).eval()
    recorded = []

    def recorder(step):
        step()
        with Recorder() as recording:
            result = step()
        recorded.extend(recording.calls)
        return step, result

    llm._search = T5Search(recorder, recording="cpu")
    llm.generate(*prompt(2, 5), GenerationConfig(num_beams=2, max_new_tokens=4))
    return sum(
        not func.is_view and func.name() not in ("aten::_unsafe_view", "aten::empty.memory_format")
        for func, *_ in recorded
    )


def test_a_layer_takes_eleven_kernels_beside_its_norms(monkeypatch):
    monkeypatch.setattr(t5_layers, "rms_norm", lambda states, *_: states * 1)
    assert kernels(3) - kernels(2) == 11 + 3
