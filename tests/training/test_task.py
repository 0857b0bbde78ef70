"""The LAVIS task by itself."""

from __future__ import annotations

import re
import time

import pytest
import torch

from lavis_dynrefer.training.task import DynReferTask, TaskOptions


class Losses(torch.nn.Module):
    """A model of one weight whose loss is that weight times the batch's factor."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, samples):
        return {"loss": self.weight * samples["factor"]}


class Steady:
    """A schedule that leaves the learning rate alone."""

    def step(self, cur_epoch, cur_step):
        del cur_epoch, cur_step


def train(batches, options=None, accum_grad_iters=1, slow=0.0):
    model = Losses()

    def loader():
        for factor in batches:
            time.sleep(slow)
            yield {"factor": torch.tensor(float(factor))}

    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    stats = DynReferTask(options or TaskOptions())._train_inner_loop(
        epoch=0,
        iters_per_epoch=len(batches),
        model=model,
        data_loader=loader(),
        optimizer=optimizer,
        lr_scheduler=Steady(),
        accum_grad_iters=accum_grad_iters,
    )
    return model.weight.item(), stats


def test_every_batch_makes_a_step():
    assert train([1, 1])[0] == pytest.approx(0.0)  # 1 - .5 - .5


def test_the_log_tells_how_long_batches_were_waited_for(caplog, capsys):
    train([1, 1], slow=0.05)
    waited = re.findall(r"data: (\d+\.\d+)", capsys.readouterr().out + caplog.text)
    assert waited
    assert float(waited[0]) >= 0.05


def test_accumulated_losses_are_averaged():
    assert train([2, 4], accum_grad_iters=2)[0] == pytest.approx(1 - 0.5 * 3)


def test_batches_left_over_are_not_lost():
    # two batches make one step of the mean, the third a step of its half
    assert train([2, 2, 2], accum_grad_iters=2)[0] == pytest.approx(1 - 0.5 * 2 - 0.5 * 1)


def test_gradients_are_clipped_to_their_norm():
    assert train([10], TaskOptions(max_grad_norm=1.0))[0] == pytest.approx(0.5)


def test_losses_are_averaged_over_the_epoch():
    assert float(train([1, 3])[1]["loss"]) == pytest.approx((1 * 1 + 0.5 * 3) / 2)


def test_a_loss_that_is_not_a_number_stops_training():
    with pytest.raises(ValueError, match="the loss is nan at epoch 0, step 1"):
        train([1, float("nan")])


def test_half_precision_on_a_cpu_is_refused():
    with pytest.raises(ValueError, match=r"needs run\.amp_dtype: bf16"):
        train([1], TaskOptions(amp=True, amp_dtype="fp16"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol_mode": "lenient"}, "expected strict or official, got 'lenient'"),
        ({"amp_dtype": "fp8"}, "expected fp16 or bf16, got 'fp8'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DynReferTask(TaskOptions(**options))


def test_a_process_without_samples_answers_nothing():
    assert DynReferTask().evaluation(model=None, data_loader=[], cuda_enabled=False) == []


def test_a_run_changes_only_the_beam_search_settings_it_names(smallest_model):
    task = DynReferTask(TaskOptions(generation={"num_beams": 5}))
    own = smallest_model.caption_config.generation
    changed = task._generation(smallest_model)
    assert changed.num_beams == 5
    assert changed.repetition_penalty == own.repetition_penalty
    assert changed.max_new_tokens == own.max_new_tokens
