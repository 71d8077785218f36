"""Shapes and types of tensors are checked at each call while tests run: import this before the package."""

from collections.abc import Callable
from typing import Any

import jaxtyping
from beartype import beartype
from beartype.roar import BeartypeDecorHintPep673Exception

CHECKED_MODULES = [
    "infobehavior.data.batches",
    "infobehavior.model",
    "infobehavior.pretext",
    "infobehavior.pretraining.masking",
    "infobehavior.pretraining.processes",
    "infobehavior.pretraining.share",
]


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check arguments and result, unless they speak of `Self`, which beartype only understands in a whole class."""
    try:
        return beartype(function)
    except BeartypeDecorHintPep673Exception:
        return function


jaxtyping.install_import_hook(CHECKED_MODULES, "shape_checks.checked")
