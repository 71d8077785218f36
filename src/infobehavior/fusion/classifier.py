"""The fused classifier with scikit-learn's interface: groups of columns in, probabilities out."""

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Set
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import train_test_split
from sklearn.utils.validation import check_is_fitted
from threadpoolctl import threadpool_limits

from infobehavior.errors import InputError, one_line
from infobehavior.fusion.calibration import Calibration, calibrate
from infobehavior.fusion.config import Group, Network, groups_without_columns
from infobehavior.fusion.features import FEATURES, GroupArray, GroupFeatures
from infobehavior.fusion.gbdt import train_gbdt
from infobehavior.fusion.missing import GroupCounts
from infobehavior.fusion.network import FusionNetwork
from infobehavior.fusion.parts import Mask, Parts, numbered, split_by_entity
from infobehavior.fusion.training import Labelled, Trained, logits, train
from infobehavior.model.reproducible import reproducible

VALIDATION_SHARE = 0.2
NUM_SHOWN = 20
MOST = 10**76
"""The largest whole numbers that Arrow's decimals can hold have as many digits."""


class FusionClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A network over groups of columns, with dynamic masking (4.4.2), calibrated on a part that it isn't trained on.

    Groups may be missing at prediction: a vector that is null, numbers or categories that are all null, an empty text;
    or none of a group's columns is there.

    Args:
        groups: `Group`, or a dictionary of its fields, by name; columns of a data frame by name, of a matrix by number.
        network: the network and its training; by default `Network()`.
        gbdt: train LightGBM on the same groups beside it, see `gbdt_proba`.

    Attributes:
        classes_: the negative class, then the positive one.
        features_: how each group becomes an array.
        network_: the trained network.
        calibration_: of its logits.
        losses_: of training and validation part, by epoch.
        num_training_: examples that were learnt from; the others were for validation.
        counts_: what of each group was missing in all of these; it isn't kept on disk.

    Example:
        >>> frame = pa.table({"price": [1.0, 2.0, 8.0, 9.0] * 10, "risky": [0, 0, 1, 1] * 10})
        >>> groups = {"listing": Group(kind="numbers", columns=("price",))}
        >>> model = FusionClassifier(groups, Network(max_epochs=50)).fit(frame, frame["risky"])
        >>> model.predict(pa.table({"price": [1.5, 8.5]})).tolist()
        [0, 1]
    """

    def __init__(
        self, groups: Mapping[str, Group | dict[str, Any]], network: Network | None = None, gbdt: bool = False
    ) -> None:
        self.groups = groups
        self.network = network
        self.gbdt = gbdt

    def fit(self, X: Any, y: Any, *, is_validation: Any = None, entity: Any = None) -> Self:
        """Learn from examples; a part of them is for validation.

        Args:
            X: a data frame of pandas or polars, an Arrow table or a matrix.
            y: two classes; of sorted ones the last is positive.
            is_validation: True for examples of the validation part; by default a fifth of each class, by the seed.
            entity: the account behind each row, or null; all rows of an account are then in the same part.

        Raises:
            InputError: a column is missing or holds something else than its group's kind, `y` hasn't two classes, or a
                part lacks one.
        """
        tables = split_groups(X, self.checked_groups())
        answers = _answers(y, len(next(iter(tables.values()))))
        self.classes_ = _classes(answers)
        if len(self.classes_) != 2:
            shown = ", ".join(repr(name) for name in self.classes_[:5].tolist())
            raise InputError(f"y has {len(self.classes_)} classes ({shown}); expected two")
        positive = answers == self.classes_[1]
        return self.fit_tables(tables, positive, self._parts(positive, is_validation, entity))

    def fit_tables(self, tables: Mapping[str, pa.Table], positive: Mask, parts: Parts) -> Self:
        """Learn from tables of columns, one a group; see `fit`."""
        _check_parts(positive, parts)
        groups, config = self.checked_groups(), self.network or Network()
        if not hasattr(self, "classes_"):
            self.classes_ = np.array([False, True])
        with threadpool_limits(config.num_threads):
            training = rows_of(tables, parts.training)
            self.features_: dict[str, GroupFeatures] = {
                name: FEATURES[group.kind].fit(training[name], group, name, config.seed)
                for name, group in groups.items()
            }
            arrays = self.arrays(tables)
            self.counts_ = self.counted(arrays, tables)
            weights = np.where(positive, _positive_weight(config, positive[parts.training]), 1.0)
            learnt, held_out = (
                Labelled({name: array.rows(rows) for name, array in arrays.items()}, positive[rows], weights[rows])
                for rows in (parts.training, parts.validation)
            )
            with reproducible(config.num_threads):
                self._keep(train(self.features_, groups, config, learnt, held_out))
                scores = logits(self.network_, held_out.arrays)
            self.calibration_: Calibration = calibrate(config.calibration, scores, held_out.positive)
            self.__dict__.pop("gbdt_", None)  # of an earlier fit
            if self.gbdt:
                self.gbdt_ = train_gbdt(self.num_codes, learnt, held_out, config)
        self.num_training_ = int(parts.training.sum())
        return self

    def _keep(self, trained: Trained) -> None:
        if not np.isfinite(trained.losses).all():
            raise InputError("the training went astray, the loss is no longer a number: lower network.learning_rate")
        self.network_: FusionNetwork = trained.network
        self.losses_ = trained.losses
        self.best_epoch_ = trained.best_epoch

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Calibrated probabilities of both classes, (rows, 2).

        Raises:
            InputError: a part of a group's columns is missing, all groups are, or a column holds something else than
                its group's kind.
        """
        check_is_fitted(self)
        probability = self.probability(split_groups(X, self.checked_groups(), may_lack_groups=True))
        return np.column_stack([1 - probability, probability])

    def predict(self, X: Any) -> NDArray[Any]:
        """The likelier class; for a threshold that serves a purpose see `operating_point`."""
        probability = self.predict_proba(X)[:, 1]
        return np.asarray(self.classes_[(probability >= 0.5).astype(int)])

    def probability(self, tables: Mapping[str, pa.Table], without: str | None = None) -> NDArray[np.float64]:
        """Of the positive class, from tables of columns; as if the group `without` were missing."""
        return self.probability_of(self.arrays(tables, without))

    def probability_of(self, arrays: Mapping[str, GroupArray]) -> NDArray[np.float64]:
        """Of the positive class, from arrays."""
        config = self.network or Network()
        with threadpool_limits(config.num_threads), reproducible(config.num_threads):
            return self.calibration_(logits(self.network_, arrays))

    def gbdt_probability_of(self, arrays: Mapping[str, GroupArray]) -> NDArray[np.float64]:
        """Of the positive class, by LightGBM."""
        return self.gbdt_.probability(arrays)

    def arrays(self, tables: Mapping[str, pa.Table], without: str | None = None) -> dict[str, GroupArray]:
        """The groups as arrays; one that has no table, and the group `without`, are missing in all rows."""
        num_rows = next(iter(tables.values())).num_rows
        made = {
            name: self.features_[name].transform(tables[name], name)
            if name in tables
            else self.features_[name].missing(num_rows)
            for name in self.checked_groups()
        }
        return masked(made, without) if without else made

    def counted(self, arrays: Mapping[str, GroupArray], tables: Mapping[str, pa.Table]) -> dict[str, GroupCounts]:
        """What of each group is missing in arrays, and in the tables that they were made of."""
        return {name: self.features_[name].counted(array, tables.get(name), name) for name, array in arrays.items()}

    @property
    def num_codes(self) -> dict[str, tuple[int, ...]]:
        """Of each group of categories, how many codes its columns have."""
        return {name: features.num_codes for name, features in self.features_.items() if features.num_codes}

    def checked_groups(self) -> dict[str, Group]:
        if not self.groups:
            raise InputError("no groups are given; expected at least one, by name")
        return {name: Group.model_validate(group) for name, group in sorted(self.groups.items())}

    def _parts(self, positive: Mask, is_validation: Any, entity: Any) -> Parts:
        seed = (self.network or Network()).seed
        if is_validation is not None and entity is not None:
            raise InputError("is_validation and entity are given; expected one of them")
        if entity is not None:
            _refuse_masked(entity, "entity is", "give entity.tolist(), where None stands for no account")
            names = _as_array(np.asarray(entity, dtype=object), "entity")
            if len(names) != len(positive):
                raise InputError(f"entity has {len(names)} rows; expected {len(positive)}, as y")
            return split_by_entity(numbered(names.cast(pa.string())), positive, VALIDATION_SHARE, seed)
        if is_validation is not None:
            _refuse_masked(is_validation, "is_validation is", "give is_validation.filled(False)")
            try:
                chosen = np.asarray(is_validation, dtype=np.bool_)
            except (TypeError, ValueError) as error:
                raise InputError(f"is_validation can't be read: {one_line(error)}; give True or False a row") from None
            if chosen.shape != positive.shape:
                raise InputError(f"is_validation has shape {chosen.shape}; expected {positive.shape}, as y")
            return Parts(~chosen, chosen)
        return _stratified(positive, seed)

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` was called."""
        return hasattr(self, "network_")


def rows_of(tables: Mapping[str, pa.Table], rows: Mask) -> dict[str, pa.Table]:
    """Some rows of the columns of each group."""
    return {name: table.filter(pa.array(rows)) for name, table in tables.items()}


def masked(arrays: Mapping[str, GroupArray], name: str) -> dict[str, GroupArray]:
    """The arrays as if a group were missing in all rows."""
    there = arrays[name]
    return {**arrays, name: GroupArray(there.values, np.zeros_like(there.is_there))}


def split_groups(rows: Any, groups: Mapping[str, Group], *, may_lack_groups: bool = False) -> dict[str, pa.Table]:
    """The columns of each group, of a data frame, an Arrow table or a matrix.

    Args:
        rows: of which.
        groups: by name.
        may_lack_groups: whether to leave out groups none of whose columns is there, with a warning.

    Raises:
        InputError: a column isn't there, or a group is to be joined from a table.
    """
    rows = _as_rows(rows)
    there = _column_names(rows)
    absent = groups_without_columns(groups, there) if may_lack_groups else []
    if absent and len(absent) < len(groups):
        warnings.warn(f"no column of {', '.join(absent)} is there; all rows count as without", stacklevel=3)
        groups = {name: group for name, group in groups.items() if name not in absent}
    for name, group in groups.items():
        if group.table is not None:
            raise InputError(f"group {name} is joined from {group.table}, which `infobehavior fuse` does; give columns")
        if missing := [column for column in group.columns if column not in there]:
            shown = ", ".join(there[:NUM_SHOWN])
            raise InputError(f"there is no column {missing[0]!r} for group {name}; there are {shown}")
    wanted = {column for group in groups.values() for column in group.columns}
    counts = Counter(there)
    if twice := sorted(name for name in wanted if counts[name] > 1):
        raise InputError(f"there are {counts[twice[0]]} columns {twice[0]!r}; expected one: rename or remove others")
    table = _as_table(rows, wanted)
    return {name: table.select(list(group.columns)) for name, group in groups.items()}


def _as_rows(rows: Any) -> Any:
    """A data frame of polars as an Arrow table, others as they are.

    Raises:
        InputError: nobody can take a column out of it.
    """
    if issparse(rows):
        raise InputError("the given rows are a sparse matrix; expected a table or a dense matrix: give rows.toarray()")
    advice = "give rows.astype(float).filled(np.nan), where NaN stands for what is missing"
    _refuse_masked(rows, "the given rows are", advice)
    if isinstance(rows, pa.Table) or hasattr(rows, "iloc") or not hasattr(type(rows), "columns"):
        return rows
    table = rows.to_arrow() if hasattr(rows, "to_arrow") else None
    if not isinstance(table, pa.Table):
        raise InputError(
            f"the given rows are a {type(rows).__name__}; expected a data frame, an Arrow table or a matrix"
        )
    return table


def _refuse_masked(values: Any, what: str, advice: str) -> None:
    """Numpy makes an array of it that shows what the mask hides."""
    if isinstance(values, np.ma.MaskedArray):
        raise InputError(f"{what} a masked array, whose mask would be lost: {advice}")


def _column_names(rows: Any) -> list[str]:
    if isinstance(rows, pa.Table):
        return list(rows.column_names)
    if hasattr(rows, "columns"):
        return [str(name) for name in rows.columns]
    shape = np.shape(rows)
    if len(shape) != 2:
        raise InputError(f"the given rows have shape {shape}; expected a table or a matrix")
    return [str(place) for place in range(shape[1])]


def _as_table(rows: Any, wanted: Set[str]) -> pa.Table:
    """The wanted columns; the others of a data frame may hold what has no type."""
    if isinstance(rows, pa.Table):
        return rows
    column = rows.iloc.__getitem__ if hasattr(rows, "iloc") else np.asarray(rows).__getitem__
    places = [(place, name) for place, name in enumerate(_column_names(rows)) if name in wanted]
    return pa.table({name: _as_array(column((slice(None), place)), name) for place, name in places})


def _as_array(column: Any, name: str) -> pa.Array:
    try:
        return pa.array(column, from_pandas=True)
    except OverflowError:
        return _as_digits(column, name)
    except pa.ArrowException as error:
        raise InputError(f"column {name!r} can't be read: {one_line(error)}; give it one type") from None


def _as_digits(column: Any, name: str) -> pa.Array:
    """Whole numbers of more than 64 bits, such as ids, as text, as all ids and categories are in the end."""
    values = [None if _is_null(value) else value for value in column]
    if not all(value is None or _is_whole(value) for value in values):
        raise InputError(
            f"column {name!r} has whole numbers of more than 64 bits, in lists, beside other values, or of more than "
            "76 digits; give ids as text, and numbers as floats"
        )
    return pa.array([None if value is None else str(value) for value in values], pa.string())


def _is_whole(value: Any) -> bool:
    """Whether it is a whole number, of no more digits than a column of decimals can have."""
    is_number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return is_number and -MOST < value < MOST


def _answers(y: Any, num_rows: int) -> NDArray[Any]:
    _refuse_masked(y, "y is", "leave the rows out that it masks")
    answers = np.asarray(y)
    if answers.shape != (num_rows,):
        raise InputError(f"y has shape {answers.shape}; expected ({num_rows},), an answer a row")
    if isinstance(y, list | tuple) and answers.dtype.kind == "U" and not all(isinstance(answer, str) for answer in y):
        answers = np.asarray(y, dtype=object)  # beside texts, numpy makes texts of numbers and NaN
    if answers.dtype == object:
        if any(isinstance(answer, np.datetime64 | np.timedelta64) for answer in answers):
            raise InputError("y has times; expected two answers, such as 0 and 1")
        answers = np.fromiter((_plain(answer) for answer in answers), dtype=object, count=num_rows)
    num_null = sum(map(_is_null, answers.tolist()))
    if num_null:
        raise InputError(f"y has {num_null} of {num_rows} answers that are null; leave these rows out")
    return answers


def _plain(value: Any) -> Any:
    """A scalar of numpy as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _is_null(value: Any) -> bool:
    """True for None, NaN, NaT and pandas' NA, which aren't equal to themselves."""
    return value is None or _plain(value == value) is not True


def _classes(answers: NDArray[Any]) -> NDArray[Any]:
    """The distinct answers, in their order."""
    try:
        return np.unique(answers)
    except TypeError:
        kinds = ", ".join(sorted({type(answer).__name__ for answer in answers.tolist()}))
        raise InputError(f"y has answers of several types ({kinds}); give them one") from None


def _stratified(positive: Mask, seed: int) -> Parts:
    """A fifth of each class for validation; of a class with 3 examples or more that is one at least."""
    chosen = np.zeros(len(positive), np.bool_)
    if min(positive.sum(), (~positive).sum()) >= 2:  # as train_test_split needs
        wanted = max(2, math.ceil(VALIDATION_SHARE * len(positive)))
        _, rows = train_test_split(np.arange(len(positive)), test_size=wanted, random_state=seed, stratify=positive)
        chosen[rows] = True
    if len(np.unique(positive[chosen])) < 2:
        raise InputError(
            f"{int(positive.sum())} of {len(positive)} examples are positive: a fifth of each class, which is for "
            "validation, would have one class only; give 3 of each class or more, or say is_validation"
        )
    return Parts(~chosen, chosen)


def _check_parts(positive: Mask, parts: Parts) -> None:
    for what, rows in (("training", parts.training), ("validation", parts.validation)):
        num_positives, num_rows = int(positive[rows].sum()), int(rows.sum())
        if num_positives in (0, num_rows):
            missing = "negative" if num_positives else "positive"
            raise InputError(
                f"the {what} part has {num_rows} examples and no {missing} one; give more examples, or choose the part "
                "for validation in another way"
            )


def _positive_weight(config: Network, positive: Mask) -> float:
    if config.positive_weight == "balanced":
        return float((~positive).sum() / positive.sum())
    return config.positive_weight
