"""Changes of a preset, one at a time: what each setting of `recommended` is worth. Validation part only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infobehavior.pretraining.config import TWO_CORES, PretrainConfig, preset


@dataclass(frozen=True)
class Recipe:
    """How ours learns.

    Attributes:
        preset: name of what it starts from.
        encoder: fields of the encoder that differ.
        training: other fields that differ.
        without_tasks: domain-related tasks that are left out.
        times: factor of the seconds of training.
    """

    preset: str
    encoder: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    without_tasks: tuple[str, ...] = ()
    times: float = 1

    def config(self, window_days: int) -> PretrainConfig:
        """The configuration for windows of so many days."""
        values = preset(self.preset).model_dump()
        values["domain_task"] = [line for line in values["domain_task"] if line not in self.without_tasks]
        encoder = {**values["encoder"], "window_days": window_days, **self.encoder}
        return PretrainConfig.model_validate({**values, **self.training, "encoder": encoder})


LATER_TASKS = tuple(line for line in preset("recommended").domain_task if line not in TWO_CORES["domain_task"])

TRIALS: dict[str, Recipe] = {
    f"trial: {what}": recipe
    for what, recipe in {
        "a fourth of the time": Recipe("recommended", times=0.25),
        "four times the time": Recipe("recommended", times=4),
        "spans of six hours": Recipe("recommended", {"span_scale": "fixed"}),
        "several lengths": Recipe("recommended", training={"lengths": "several"}),
        "the latest pairs": Recipe("recommended", training={"pairs": "latest"}),
        "pairs at ends of days": Recipe("recommended", training={"pairs": "any_day"}),
        "batches of 64": Recipe("recommended", training={"batch_size": 64}),
        "batches of 32": Recipe("recommended", training={"batch_size": 32}),
        "one mean of a span": Recipe("recommended", {"span_pooling": "max_and_mean"}),
        "a summary in [CLS]": Recipe("recommended", {"cls_input": "summary"}),
        "no statistics in the embedding": Recipe("recommended", {"pooling": "cls_and_readouts"}),
        "learned [CLS]": Recipe("recommended", {"cls_input": "learned"}),
        "maxima of spans only": Recipe("recommended", {"span_pooling": "max"}),
        "time points of the day": Recipe("recommended", {"time_point": "minute_of_day"}),
        "tasks of two-cores": Recipe("recommended", without_tasks=LATER_TASKS),
        "no coarse task": Recipe("recommended", training={"coarse_task": False}),
        "no fine task": Recipe("recommended", training={"fine_task": False}),
        "no contrastive task": Recipe("recommended", training={"coarse_task": False, "fine_task": False}),
        "temperature 0.05": Recipe("recommended", training={"temperature": 0.05}),
        "dropout 0.1": Recipe("recommended", {"dropout": 0.1}),
        "learning rate 0.002": Recipe("recommended", training={"learning_rate": 2e-3}),
    }.items()
}
"""By the names of contestants."""
