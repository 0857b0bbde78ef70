"""Several processes train as one does that holds the batches of all: our model, and our runner.

Our model not exactly as with one joined batch, because the released losses are not means over
regions: what each process sees of the others carries no gradient, and gradients are averaged over
processes.
"""

from __future__ import annotations

import functools
import math
import shutil
import signal
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel
from toy_plugin import at_batch, logged, make_runner, model_weight, step_runner

from lavis_dynrefer.models.dynrefer import DynRefer
from lavis_dynrefer.models.gather_rows import gather_rows
from lavis_dynrefer.models.losses import sigmoid_contrastive_loss
from lavis_dynrefer.training import checkpoints
from lavis_dynrefer.training.loop.stop_signals import TrainingStopped
from lavis_dynrefer.training.process_group import (
    OtherRankError,
    gather_on_main_process,
    on_main_process,
)
from lavis_dynrefer.training.run_failures import is_first_to_say

STEPS = 3
SHARES = {2: [[0, 1, 2], [3, 4]], 4: [[0], [1, 2], [3], [4]]}  # regions of each process


def share(batch, rows):
    """Some regions of a batch."""
    return {
        key: values[rows] if isinstance(values, torch.Tensor) else [values[row] for row in rows]
        for key, values in batch.items()
    }


def make_model(config):
    torch.manual_seed(0)
    model = DynRefer.from_config(config).train()
    for module in model.modules():  # no dropout: processes draw different numbers
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):  # attention of T5
            module.dropout = 0.0
    return model


def train(model, losses_of):
    """Losses and gradients of each step, and the weights after the last."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3)
    losses, gradients = [], []
    for _ in range(STEPS):
        found = losses_of(model)
        losses.append({name: value.item() for name, value in found.items()})
        found["loss"].backward()
        gradients.append([weight.grad.clone() for weight in trained])
        optimizer.step()
        optimizer.zero_grad()
    weights = {name: value.detach() for name, value in model.named_parameters()}
    return {"losses": losses, "gradients": gradients, "weights": weights}


def losses_of_all(model, batch, shares):
    """Mean over processes of the losses, in one process."""
    shards = [share(batch, rows) for rows in shares]
    queries = [
        model.region_queries(model.encode_views(shard["views"], shard["boxes"])) for shard in shards
    ]
    texts = [model.embed_texts(shard["captions"], keep=False) for shard in shards]
    found = []
    for rank, shard in enumerate(shards):
        losses = model.losses_of(queries[rank], shard["captions"], shard["tags"], shard["controls"])
        # `losses_of` knows no other processes: the contrast again, with the regions of all.
        seen = [
            torch.cat(
                [rows if other == rank else rows.detach() for other, rows in enumerate(parts)]
            )
            for parts in (texts, queries)
        ]
        start = sum(len(rows) for rows in shares[:rank])
        contrast = model.contrast
        halves = [
            sigmoid_contrastive_loss(
                logits, log_scale=contrast.log_scale, bias=contrast.bias, first_column=start
            )
            for logits in (
                contrast.decoder(texts[rank], seen[1]).T,
                contrast.decoder(seen[0], queries[rank]),
            )
        ]
        weight = model.losses.contrast_weight
        rest = losses["loss"] - losses["loss_contrast"]
        losses["loss_contrast"] = weight * sum(halves) / 2
        losses["loss"] = rest + losses["loss_contrast"]
        found.append(losses)
    return {name: sum(one[name] for one in found) / len(found) for name in found[0]}


def gathered(rank, counts):
    """What `gather_rows` returns here, and the gradient of its sum of squares."""
    start = 10.0 * rank
    rows = (start + torch.arange(2.0 * counts[rank])).reshape(-1, 2).requires_grad_()
    (everyone, doubled), first = gather_rows(rows, 2 * rows.detach()[:, :1])
    everyone.square().sum().backward()
    return everyone.detach(), doubled, first, rows.grad


def fails():
    raise OSError("no space left on device")


TOY = {"sizes": {"train": 30}, "accum_grad_iters": 2}


def without_dropout(runner):
    runner.unwrap_dist_model(runner.model).dropout.p = 0.0
    return runner


def train_by_steps(rank, folder):
    """Two processes count exchanged gradients; are stopped in one of them, resumed; meet a nan."""
    whole = without_dropout(step_runner(folder / "whole", **TOY))
    exchanged = []

    def count(state, bucket):
        exchanged.append(bucket.index())
        return allreduce_hook(state, bucket)

    whole.model.register_comm_hook(None, count)
    whole.train()
    stopped = without_dropout(step_runner(folder / "stopped", **TOY))
    if rank == 1:
        at_batch(stopped, 6, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(TrainingStopped) as stop:
        stopped.train()
    path = folder / "stopped" / "job" / "checkpoint_last.pth"
    if rank == 0:
        shutil.copy(path, folder / "middle.pth")
    resumed = without_dropout(step_runner(folder / "stopped", **TOY))
    resumed.train()
    broken = step_runner(folder / "nan", **TOY)
    broken.datasets["toy_points"]["train"].points[4] = math.nan
    with pytest.raises(ValueError, match=r"finite|nan") as error:
        broken.train()
    return {
        "exchanged": len(exchanged),
        "weights": [
            model_weight(run.unwrap_dist_model(run.model)) for run in (whole, stopped, resumed)
        ],
        "code": stop.value.code,
        "nan": str(error.value),
    }


def run_toys(rank, folder):
    """Two processes train, resume and evaluate."""
    options = {"model": {"num_unused": 3}, "find_unused_parameters": True}
    runner = make_runner(folder, **options)
    metrics = runner.train()["test"]
    weight = model_weight(runner.unwrap_dist_model(runner.model))
    if rank == 1:
        checkpoints.find_resumed = lambda *arguments: None  # as a disk that shows files late
    resumed = make_runner(folder, "resumed", resume_ckpt_path="auto", max_epoch=3, **options)
    assert resumed._resume_path == folder / "job" / "checkpoint_last.pth"
    resumed.train()
    options = {"sizes": {"val": 1}, "test_splits": [], "model": {"frozen": True}}
    small = make_runner(folder, "eval", evaluate=True, **options).train()["val"]
    report = {"metrics": metrics, "weight": weight, "small": small, "start": resumed.start_epoch}
    return {**report, **train_by_steps(rank, folder)}


def one_process(rank, world, folder, config, batch):
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=Path(folder, "rendezvous").as_uri(),
        rank=rank,
        world_size=world,
        timeout=timedelta(minutes=10),
    )
    model = make_model(config)
    wrapped = DistributedDataParallel(model)
    shard = share(batch, SHARES[world][rank])
    outcome = train(model, lambda _: wrapped(shard))
    outcome["rows"] = [gathered(rank, counts) for counts in ([2, 1, 3, 2], [0, 2, 0, 1])]
    outcome["items"] = gather_on_main_process({"rank": rank})
    outcome["shared"] = [on_main_process(lambda: rank), on_main_process(lambda: rank, share=False)]
    with pytest.raises(Exception, match=r"no space left|rank 0 has failed") as error:
        on_main_process(fails)
    outcome["error"] = error.type
    outcome["says"] = [is_first_to_say(text) for text in ("of all", f"of rank {rank}")]
    if world == 2:
        outcome["toys"] = run_toys(rank, Path(folder))
    torch.save(outcome, f"{folder}/rank{rank}.pth")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, smallest_config, region_batch):
    """(number of processes) -> the folder they worked in, and what each found."""

    @functools.lru_cache
    def outcomes_of(world):
        folder = tmp_path_factory.mktemp("ranks")
        arguments = (world, str(folder), smallest_config, region_batch)
        multiprocessing.spawn(one_process, args=arguments, nprocs=world)
        files = [folder / f"rank{rank}.pth" for rank in range(world)]
        return folder, [torch.load(file, weights_only=False) for file in files]

    return outcomes_of


@pytest.fixture(
    scope="module", params=[2, pytest.param(4, marks=pytest.mark.slow)], ids="{} processes".format
)
def ranks(request, outcomes):
    """What each process found."""
    return outcomes(request.param)[1]


@pytest.fixture(scope="module")
def reports(outcomes):
    """The folder of the runs of two processes, and what each reported."""
    folder, found = outcomes(2)
    return folder, *(one["toys"] for one in found)


def test_training_is_that_of_one_process_with_the_batches_of_all(
    ranks, smallest_config, region_batch
):
    shares = SHARES[len(ranks)]
    alone = train(
        make_model(smallest_config), lambda model: losses_of_all(model, region_batch, shares)
    )

    for step in range(STEPS):
        for name, expected in alone["losses"][step].items():
            mean = sum(rank["losses"][step][name] for rank in ranks) / len(ranks)
            assert mean == pytest.approx(expected, rel=1e-5)
        for rank in ranks:
            torch.testing.assert_close(
                rank["gradients"][step], alone["gradients"][step], rtol=1e-3, atol=2e-5
            )
    for rank in ranks:
        torch.testing.assert_close(rank["weights"], alone["weights"], rtol=1e-4, atol=1e-4)
    for name, weight in ranks[0]["weights"].items():
        assert all(torch.equal(weight, rank["weights"][name]) for rank in ranks), name


@pytest.mark.parametrize(("case", "counts"), [(0, [2, 1, 3, 2]), (1, [0, 2, 0, 1])])
def test_rows_of_all_processes_are_joined_in_rank_order(ranks, case, counts):
    counts = counts[: len(ranks)]
    blocks = [10.0 * rank + torch.arange(2.0 * count) for rank, count in enumerate(counts)]
    expected = torch.cat(blocks).reshape(-1, 2)
    for rank, outcome in enumerate(ranks):
        everyone, doubled, start, gradient = outcome["rows"][case]
        assert torch.equal(everyone, expected)
        assert torch.equal(doubled, 2 * expected[:, :1])
        assert start == sum(counts[:rank])
        assert torch.equal(gradient, 2 * blocks[rank].reshape(-1, 2))  # of own rows only


def test_rank_0_gathers_decides_and_passes_its_errors_on(ranks):
    first, *others = ranks
    assert first["items"] == [{"rank": rank} for rank in range(len(ranks))]
    assert all(rank["items"] is None for rank in others)
    assert first["shared"] == [0, 0]
    assert all(rank["shared"] == [0, None] for rank in others)
    assert first["error"] is OSError
    assert all(rank["error"] is OtherRankError for rank in others)


def test_what_several_ranks_find_is_said_once(ranks):
    assert sum(rank["says"][0] for rank in ranks) == 1
    assert all(rank["says"][1] for rank in ranks)


# ---- our runner


def test_two_processes_evaluate_every_sample_once(reports):
    _, first, _ = reports
    assert first["metrics"]["indices"] == list(range(7))


def test_two_processes_measure_what_one_process_measures(reports, tmp_path):
    folder, first, _ = reports
    path = str(folder / "job" / "checkpoint_best.pth")
    model = {"num_unused": 3}
    alone = make_runner(tmp_path, evaluate=True, load_ckpt_path=path, model=model).train()
    # the same numbers in other batches
    assert alone["test"]["agg_metrics"] == pytest.approx(first["metrics"]["agg_metrics"], rel=1e-6)


def test_two_processes_hold_the_same_weights(reports):
    _, first, second = reports
    assert first["weight"] == second["weight"]


def test_two_processes_share_the_training_samples(reports):
    folder, _, _ = reports
    (seen, _) = logged(folder / "job", "train_seen")
    assert len(set(seen)) == 3  # one full batch of the five samples this process gets


def test_two_processes_evaluate_a_single_sample_with_a_frozen_model(reports):
    _, first, _ = reports
    assert first["small"]["indices"] == [0]


def test_two_processes_resume_from_the_checkpoint_that_rank_0_finds(reports):
    _, first, second = reports
    assert (first["start"], second["start"]) == (2, 2)


def test_two_processes_train_as_one_with_their_joined_batches(reports, tmp_path):
    _, first, second = reports
    alone = without_dropout(step_runner(tmp_path, batch_size_train=6, **TOY))
    alone.train()
    assert first["weights"][0] == second["weights"][0]
    assert first["weights"][0] == pytest.approx(model_weight(alone.model), rel=1e-4)


def test_accumulated_gradients_are_exchanged_once(reports):
    _, first, _ = reports
    assert first["exchanged"] == 3 * 3  # of 5 batches in pairs, and 3 epochs


def test_a_signal_to_one_process_stops_both_at_the_same_step(reports, tmp_path):
    folder, first, second = reports
    assert (first["code"], second["code"]) == (143, 143)
    middle = torch.load(folder / "middle.pth")
    assert (middle["epoch"], middle["progress"]["step"]) == (0, 2)
    assert middle["progress"]["totals"]["loss"][1] == 4  # batches of both
    assert first["weights"][1] == second["weights"][1] != first["weights"][0]
    assert first["weights"][2] == first["weights"][0]
    losses = [logged(folder / job / "job", "train_loss") for job in ("whole", "stopped")]
    assert losses[0] == losses[1]
    # One process may take over, with a batch as large as theirs.
    path = str(folder / "middle.pth")
    alone = step_runner(tmp_path, batch_size_train=6, resume_ckpt_path=path, **TOY)
    without_dropout(alone).train()
    assert model_weight(alone.model) == pytest.approx(first["weights"][0], rel=1e-4)


def test_a_loss_that_is_nan_in_one_process_stops_both(reports):
    folder, *both = reports
    texts = sorted(report["nan"] for report in both)
    assert "the loss is nan at epoch 0" in texts[0]
    assert "the loss of another process is not finite at epoch 0" in texts[1]
    assert len(list((folder / "nan" / "job").glob("failed_step_rank*.pth"))) == 2
