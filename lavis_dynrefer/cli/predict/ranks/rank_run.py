"""`dynrefer predict` as one of several processes that torchrun or srun has started.

Rank 0 opens the output, says which images are left, and joins the answers. Each process, rank 0
too, answers every N-th of these images into a file of its own. What is left of processes that died
is joined by the next run, of any number of processes.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from lavis_dynrefer.cli.model_arguments import check_model
from lavis_dynrefer.cli.predict.output_folder import join_parts, open_log
from lavis_dynrefer.cli.predict.output_target import OutputTarget
from lavis_dynrefer.cli.predict.predict_job import PredictJob
from lavis_dynrefer.cli.predict.predict_report import note_lines
from lavis_dynrefer.cli.predict.predict_run import PredictRun, still_to_do
from lavis_dynrefer.cli.predict.ranks.rank_folder import (
    CURE,
    DONE,
    FAILED,
    RankError,
    RankFolder,
    RefusedError,
)
from lavis_dynrefer.cli.predict.ranks.rank_variables import Rank
from lavis_dynrefer.cli.stopping import exit_code
from lavis_dynrefer.cores import available_cores
from lavis_dynrefer.errors import (
    EXIT_BAD_INPUT,
    EXIT_DEVICE_LOST,
    DynReferError,
    InputError,
    text_for_user,
)
from lavis_dynrefer.formats import ROWS, ResultLog
from lavis_dynrefer.models.device_errors import device_loss

EXIT_RANK_LOST = 5
_OTHERS_FIRST = 5.0  # seconds in which torchrun ends this process, where all fail alike


def run_as_rank(arguments: argparse.Namespace, target: OutputTarget, own: Rank) -> int:
    """Do the part of one process; returns its exit code.

    Raises:
        DynReferError: in rank 0 only; the others tell their own.
    """
    if own.rank == 0:
        return _run(arguments, target, own)
    try:
        return _run(arguments, target, own)
    except KeyboardInterrupt as stop:
        return exit_code(stop)
    except DynReferError as error:
        if arguments.debug:
            raise
        time.sleep(_OTHERS_FIRST)
        note_lines(f"error: rank {own.rank} on {socket.gethostname()}: {error}")
        return EXIT_BAD_INPUT


def _run(arguments: argparse.Namespace, target: OutputTarget, own: Rank) -> int:
    if target.path is None:
        raise InputError(
            f"{own.world} processes need --output, with a folder or file that all of them see"
        )
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    arguments.device = own.device(arguments.device, gpus)
    if own.threads is None:
        torch.set_num_threads(available_cores())
    job = PredictJob.of(arguments, target)
    with target.folder() as folder:
        ranks = RankFolder(folder, own, job.identity(), arguments.rank_timeout)
        if own.rank == 0:
            return _as_first(job, ranks, folder)
        return _as_other(job, ranks, folder)


def _as_first(job: PredictJob, ranks: RankFolder, folder: Path) -> int:
    if not folder.exists():  # it is not made for a model that cannot be loaded
        check_model(job.arguments)
    with open_log(folder, job.settings, resume=job.arguments.resume) as log:
        try:
            with ranks.beating():
                ranks.gather()
                to_do = still_to_do(job.images, log, job.find)
                places = [place for place, name in enumerate(job.images) if name in to_do]
                others = [name for name in log.names() if name not in job.images]
                ranks.start(to_do=places, others=others)
                run = _start(job, ranks, folder, places, others)
                _answer(run, job, ranks, folder, places)
                states = ranks.wait_for_others()
        except (KeyboardInterrupt, RankError, RuntimeError) as error:
            return _broken_off(error, ranks, job)
        finally:
            ranks.close()
        parts = ranks.parts(states)
        for part, state in zip(parts, states.values()):
            _check_part(part, state)
        join_parts(log, [ranks.part, *parts])
        log.compact(job.images)
        written = job.target.write(log)
        failures = [run.failures, *(state["failures"] for state in states.values())]
        all_failures = {name: reason for one in failures for name, reason in one.items()}
        run.failures = {name: all_failures[name] for name in job.images if name in all_failures}
        run.failures.update(all_failures)  # of images of earlier calls, that cannot be drawn
        ranks.remove()
        code = job.report(run, log, written)
    job.target.clean()
    job.tell_rest(run)
    return code


def _as_other(job: PredictJob, ranks: RankFolder, folder: Path) -> int:
    try:
        ranks.find_rank_0()
        with ranks.beating():
            plan = ranks.follow()
            run = _start(job, ranks, folder, plan["to_do"], plan["others"])
            _answer(run, job, ranks, folder, plan["to_do"])
        ranks.update(state=DONE, failures=run.failures)
    except RefusedError:  # rank 0 says why
        return EXIT_RANK_LOST
    except RankError:
        raise
    except BaseException as error:
        return _broken_off(error, ranks, job)
    finally:
        ranks.close()
    return 0


def _start(
    job: PredictJob, ranks: RankFolder, folder: Path, to_do: list[int], others: list[str]
) -> PredictRun:
    own = ranks.own
    run = job.run(ResultLog(ranks.part), folder, others)
    run.shown_as = f"images of rank 0 of {own.world}" if own.rank == 0 else ""
    ranks.count(answered=0, of=len(to_do[own.rank :: own.world]))
    run.on_image = lambda name: ranks.count(answered=len(run.log))
    return run


def _answer(
    run: PredictRun, job: PredictJob, ranks: RankFolder, folder: Path, to_do: list[int]
) -> None:
    """Answer this process's share, and draw its share of what was answered earlier."""
    own, names = ranks.own, list(job.images)
    share = [names[place] for place in to_do[own.rank :: own.world]]
    with redirect_stdout(sys.stderr):  # libraries print
        run.answer({name: job.images[name] for name in share})
        if run.folders():
            new = {names[place] for place in to_do}
            earlier = islice(ResultLog(folder / ROWS), own.rank, None, own.world)
            run.complete(row for row in earlier if row.image not in new)


def _check_part(part: Path, state: Mapping[str, Any]) -> None:
    """Refuse a file of answers that this machine sees in part only, as NFS can show it."""
    seen = len(ResultLog(part))
    if seen != state["answered"]:
        raise RankError(
            f"{part} holds answers about {seen:,} images, but {state['machine']} has written "
            f"{state['answered']:,}. {CURE}"
        )


def _broken_off(error: BaseException, ranks: RankFolder, job: PredictJob) -> int:
    """Say how far the work has come; returns the exit code.

    Raises:
        BaseException: `error`, if it is a bug.
    """
    own = ranks.own
    if isinstance(error, KeyboardInterrupt):
        if ranks.is_lowest():  # else another process tells it
            note_lines(f"stopped: {ranks.progress()}\n{CURE}")
        return exit_code(error)
    if isinstance(error, RankError):
        note_lines(f"error: {error}")
        return EXIT_RANK_LOST
    loss = device_loss(error) if isinstance(error, RuntimeError) else None
    text = str(loss) if loss else text_for_user(error)
    if own.rank > 0:
        ranks.update(state=FAILED, problem=text or f"{type(error).__name__}: {error}")
    if text is None or job.arguments.debug:
        raise error
    note_lines(f"error: rank {own.rank} on {socket.gethostname()}: {text}\n{CURE}")
    return EXIT_DEVICE_LOST if loss else EXIT_BAD_INPUT
