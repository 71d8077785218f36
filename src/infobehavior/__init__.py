"""Self-supervised representations of accounts from ultra-long behavior logs.

Each public name is loaded when it is first used, so that importing the package costs nothing: torch comes in
with `pretrain`, `embed` and `InfoBehavior`, scikit-learn with `evaluate`, `BehaviorTransformer` and fusion.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infobehavior.data.aggregation import aggregate
    from infobehavior.data.inspection import inspect
    from infobehavior.data.schema import Schema, read_schema
    from infobehavior.downstream.evaluation import evaluate
    from infobehavior.embedding.alignment import align
    from infobehavior.embedding.delta import publish
    from infobehavior.embedding.embed import embed
    from infobehavior.embedding.transformer import BehaviorTransformer
    from infobehavior.errors import InputError
    from infobehavior.fusion.classifier import FusionClassifier
    from infobehavior.fusion.classifier_folder import load_classifier, save_classifier
    from infobehavior.fusion.evaluation import fuse_evaluate
    from infobehavior.fusion.fuse import fuse_predict, fuse_train
    from infobehavior.model.infobehavior import InfoBehavior
    from infobehavior.nightly.daily import daily
    from infobehavior.pretraining.config import PretrainConfig
    from infobehavior.pretraining.pretrain import pretrain

__version__ = "0.1.0"

__all__ = [
    "BehaviorTransformer",
    "FusionClassifier",
    "InfoBehavior",
    "InputError",
    "PretrainConfig",
    "Schema",
    "aggregate",
    "align",
    "daily",
    "embed",
    "evaluate",
    "fuse_evaluate",
    "fuse_predict",
    "fuse_train",
    "inspect",
    "load_classifier",
    "pretrain",
    "publish",
    "read_schema",
    "save_classifier",
]

_HOMES = {
    "BehaviorTransformer": "infobehavior.embedding.transformer",
    "FusionClassifier": "infobehavior.fusion.classifier",
    "InfoBehavior": "infobehavior.model.infobehavior",
    "InputError": "infobehavior.errors",
    "PretrainConfig": "infobehavior.pretraining.config",
    "Schema": "infobehavior.data.schema",
    "aggregate": "infobehavior.data.aggregation",
    "align": "infobehavior.embedding.alignment",
    "daily": "infobehavior.nightly.daily",
    "embed": "infobehavior.embedding.embed",
    "evaluate": "infobehavior.downstream.evaluation",
    "fuse_evaluate": "infobehavior.fusion.evaluation",
    "fuse_predict": "infobehavior.fusion.fuse",
    "fuse_train": "infobehavior.fusion.fuse",
    "inspect": "infobehavior.data.inspection",
    "load_classifier": "infobehavior.fusion.classifier_folder",
    "pretrain": "infobehavior.pretraining.pretrain",
    "publish": "infobehavior.embedding.delta",
    "read_schema": "infobehavior.data.schema",
    "save_classifier": "infobehavior.fusion.classifier_folder",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'infobehavior' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
