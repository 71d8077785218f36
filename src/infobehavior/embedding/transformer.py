"""A scikit-learn transformer: entities with moments in, a matrix of embeddings out."""

from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from infobehavior.data.minutes import open_minutes
from infobehavior.data.moments import as_moments, distinct_moments
from infobehavior.embedding.encode import embed_moments
from infobehavior.errors import InputError
from infobehavior.model.infobehavior import InfoBehavior


class BehaviorTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embeds (entity_id, as_of) rows, so that it can stand at the head of a `Pipeline`.

    Nothing is learnt in `fit`: the model was pre-trained without labels. A row whose window has no events
    becomes a row of zeros.

    Args:
        minutes: folder of minutes.
        model: folder of a model.
    """

    def __init__(self, minutes: str | Path, model: str | Path) -> None:
        self.minutes = minutes
        self.model = model

    def fit(self, X: Any, y: Any = None) -> Self:
        """Open the minutes and the model, and check that they belong together.

        Raises:
            InputError: they don't, or can't be read.
        """
        self.minutes_ = open_minutes(self.minutes)
        self.model_ = InfoBehavior.from_pretrained(self.model)
        self.model_.check_minutes(self.minutes_)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Embed rows.

        Args:
            X: a data frame with columns `entity_id` and `as_of`, or anything with two columns in that order.

        Returns:
            float32 (rows, embedding_dim), in the order of the rows.

        Raises:
            InputError: the rows have other columns, or an entity or a moment is null or can't be read.
            sklearn.exceptions.NotFittedError: `fit` was not called.
        """
        check_is_fitted(self)
        entity_id, as_of = as_moments(*_columns(X), self.minutes_)
        moments = distinct_moments(entity_id, as_of)
        none = np.zeros((0, self.model_.embedding_dim), dtype=np.float32)
        shards = embed_moments(self.minutes_, self.model_, moments)
        embedded = np.concatenate([none, *(shard.embedding for shard in shards)])
        place = {pair: i for i, pair in enumerate(zip(moments.entity_id.tolist(), moments.as_of.tolist(), strict=True))}
        return embedded[[place[pair] for pair in zip(entity_id.tolist(), as_of.tolist(), strict=True)]]

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names of the columns of the matrix."""
        check_is_fitted(self)
        return np.array([f"infobehavior_{i}" for i in range(self.model_.embedding_dim)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` was called."""
        return hasattr(self, "model_")


def _columns(rows: Any) -> tuple[list[Any], list[Any]]:
    """Entities and moments of a data frame, or of an array of two columns.

    Raises:
        InputError: there are no such columns.
    """
    if hasattr(rows, "columns"):
        there = list(rows.columns)
        if missing := [name for name in ("entity_id", "as_of") if name not in there]:
            raise InputError(f"the given rows have no column {' and '.join(missing)}; they have {there}")
        return list(rows["entity_id"]), list(rows["as_of"])
    array = np.asarray(rows, dtype=object)
    if array.ndim != 2 or array.shape[1] != 2:
        raise InputError(f"the given rows have shape {array.shape}; expected two columns, entity_id and as_of")
    return array[:, 0].tolist(), array[:, 1].tolist()
