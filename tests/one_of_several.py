"""What each of several processes of a training does in the tests of them; run by `torchrun` as a script."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

import shape_checks  # noqa: F401  (before the package is imported)
from infobehavior.cli import main
from infobehavior.errors import InputError
from infobehavior.model.reproducible import reproducible
from infobehavior.pretraining.config import PretrainConfig
from infobehavior.pretraining.pretrain import pretrain
from infobehavior.pretraining.processes import Part, Processes, joined
from infobehavior.pretraining.training import Training, prepare_training

NUM_STEPS = 3


def learn(minutes: Path, config: PretrainConfig, as_of: Path | None = None, processes: Processes | None = None):
    """Losses and gradients of some steps, all from the first weights; and what the training knows of its minutes."""
    found = {}
    with reproducible(1):
        training = prepare_training(minutes, config, None, as_of, processes)
        training.model.train()
        for step in range(NUM_STEPS):
            months = training.encode(training.read(step))
            losses = {name: task(months) for name, task in training.tasks.items()}
            for parameter in training.modules.parameters():
                parameter.grad = None
            torch.stack(list(losses.values())).sum().backward()
            training.processes.sum_gradients(training.modules.parameters())
            found |= {f"{step} loss of {name}": loss.detach() for name, loss in losses.items()}
            found |= {f"{step} gradient of {name}": gradient for name, gradient in _gradients(training)}
    same = ("first_minute", "last_minute", "num_minutes", "num_entities_with_pairs", "as_of_sha256")
    known = [training.model.vocabulary.hash, *(training.record[name] for name in same)]
    return found, {"known": json.dumps(known), "key": training.key}


def _gradients(training: Training):
    for name, parameter in training.modules.named_parameters():
        if parameter.grad is not None:
            yield name, parameter.grad.clone()


def _work(jobs) -> None:
    """Do all jobs in one process group; the first process writes what came out."""
    with joined("cpu") as processes:
        for i, (minutes, config, as_of) in enumerate(jobs["learn"]):
            found, about = learn(minutes, PretrainConfig.model_validate_json(config), as_of, processes)
            if processes.is_first:
                safetensors.torch.save_file(found, f"{jobs['out']}/{i}.safetensors", about)
        for minutes, config, out in jobs["train"]:
            pretrain(minutes, out, config=PretrainConfig.model_validate_json(config))
        shared = processes.gather(_share(processes))
        if processes.is_first:
            Path(f"{jobs['out']}/shared.json").write_text(json.dumps(shared))


def _share(processes: Processes):
    """What a process gets when all share, each as many rows as its rank."""
    rank, size = processes.rank, processes.size
    own = torch.full((rank, 2), float(rank), requires_grad=True)
    place = torch.arange(rank) * size + rank
    whole = processes.whole(own, Part(place, size * size))
    (whole * torch.arange(size * size)[:, None]).sum().backward()
    unused, used_by_last = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    if rank == size - 1:
        used_by_last.grad = torch.full((2,), 5.0)
    processes.sum_gradients([unused, used_by_last])
    rows, first = processes.concatenate(np.full((rank, 2), rank))
    processes.agree("the same", otherwise="never")
    try:
        processes.agree(rank, otherwise="they differ")
    except InputError as error:
        said = str(error)
    return {
        "whole": whole.tolist(),
        "gradient": own.grad.tolist(),
        "sums": [None if one.grad is None else one.grad.tolist() for one in (unused, used_by_last)],
        "rows": rows.tolist(),
        "first": first,
        "said": said,
        "total": processes.total(rank),
    }


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    if "command" in order:
        exec(order["sabotage"].get(os.environ["RANK"], ""))
        sys.exit(main(order["command"]))
    _work(order)
