"""The three classifiers of 4.2.2. All that is chosen is chosen on a held-out part of the training fold.

Each classifier has two steps. `choose` trains on one part, picks its setting by the log loss on another part (a
proper score, steadier than a rank where positives are few) and returns the held-out scores of the winner.
`fit` trains with that setting on whatever it is given.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

Scores = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""A trained classifier: features in, probabilities of the positive class out."""

LR_STRENGTHS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 1.0, 10.0)
GBDT_MOST_TREES = 600
GBDT_PATIENCE = 40
MLP_PENALTIES = (0.01, 1.0)
MLP_MOST_EPOCHS = 60
MLP_PATIENCE = 5


@dataclass(frozen=True)
class Part:
    """Some rows of a data set.

    Attributes:
        features: one row an entity.
        positive: True for the positive class.
        weights: in how many copies each row counts.
    """

    features: NDArray[np.float64]
    positive: NDArray[np.bool_]
    weights: NDArray[np.float64]

    def rows(self, index: NDArray[np.intp]) -> "Part":
        """The rows of these positions."""
        return Part(self.features[index], self.positive[index], self.weights[index])

    def loss(self, scores: NDArray[np.float64]) -> float:
        """Log loss of probabilities, by weight."""
        return float(log_loss(self.positive, scores, sample_weight=self.weights, labels=[False, True]))


@dataclass(frozen=True)
class Choice:
    """What was picked on the held-out part, and the scores that it gave there.

    Attributes:
        setting: C of LR, the number of trees of GBDT, (penalty, epochs) of the MLP.
        held_out_scores: probabilities on the held-out part.
        loss: log loss there.
    """

    setting: Any
    held_out_scores: NDArray[np.float64]
    loss: float


@dataclass(frozen=True)
class Classifier:
    """One kind of classifier.

    Attributes:
        title: its name for people.
        choose: (training part, held-out part, seed) -> choice.
        fit: (training part, setting, seed) -> trained classifier.
    """

    title: str
    choose: Callable[[Part, Part, int], Choice]
    fit: Callable[[Part, Any, int], Scores]


def _choose_lr(train: Part, held_out: Part, seed: int) -> Choice:
    choices = []
    for strength in LR_STRENGTHS:
        scores = _fit_lr(train, strength, seed)(held_out.features)
        choices.append(Choice(strength, scores, held_out.loss(scores)))
    return min(choices, key=lambda choice: choice.loss)


def _fit_lr(train: Part, strength: float, seed: int) -> Scores:
    """`strength` is scikit-learn's C, the inverse of the L2 penalty."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000, random_state=seed))
    model.fit(train.features, train.positive, logisticregression__sample_weight=train.weights)
    return _probabilities(model)


def _probabilities(model: Pipeline) -> Scores:
    return lambda features: model.predict_proba(features)[:, 1]


def _choose_gbdt(train: Part, held_out: Part, seed: int) -> Choice:
    data = _dataset(train)
    booster = lightgbm.train(
        _gbdt_settings(seed),
        data,
        GBDT_MOST_TREES,
        valid_sets=[_dataset(held_out, data)],
        callbacks=[lightgbm.early_stopping(GBDT_PATIENCE, verbose=False)],
    )
    scores = np.asarray(booster.predict(held_out.features, num_iteration=booster.best_iteration))
    return Choice(booster.best_iteration, scores, held_out.loss(scores))


def _fit_gbdt(train: Part, num_trees: int, seed: int) -> Scores:
    booster = train_gbdt(train, num_trees, seed)
    return lambda features: np.asarray(booster.predict(features))


def train_gbdt(train: Part, num_trees: int, seed: int) -> lightgbm.Booster:
    """Train LightGBM, on one thread: two that wait for each other on a busy machine take five times as long."""
    return lightgbm.train(_gbdt_settings(seed), _dataset(train), num_trees)


def _dataset(part: Part, reference: lightgbm.Dataset | None = None) -> lightgbm.Dataset:
    return lightgbm.Dataset(
        part.features, part.positive.astype(np.float64), weight=part.weights, reference=reference, free_raw_data=False
    )


def _gbdt_settings(seed: int) -> dict[str, Any]:
    return {
        "objective": "binary",
        "learning_rate": 0.05,
        "num_leaves": 15,
        "min_data_in_leaf": 10,
        "feature_fraction": 0.3,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "lambda_l2": 1.0,
        "seed": seed,
        "deterministic": True,
        "force_row_wise": True,
        "num_threads": 1,
        "verbosity": -1,
    }


def _choose_mlp(train: Part, held_out: Part, seed: int) -> Choice:
    choices = [_stopped_mlp(train, held_out, penalty, seed) for penalty in MLP_PENALTIES]
    return min(choices, key=lambda choice: choice.loss)


def _stopped_mlp(train: Part, held_out: Part, penalty: float, seed: int) -> Choice:
    """Train until the held-out loss hasn't fallen for some epochs; the best epoch is the choice."""
    mlp = _Mlp(train, penalty, seed)
    best: Choice | None = None
    for epoch in range(1, MLP_MOST_EPOCHS + 1):
        mlp.train_epoch()
        scores = mlp.scores(held_out.features)
        loss = held_out.loss(scores)
        if best is None or loss < best.loss:
            best = Choice((penalty, epoch), scores, loss)
        elif epoch - best.setting[1] >= MLP_PATIENCE:
            break
    assert best is not None
    return best


def _fit_mlp(train: Part, setting: tuple[float, int], seed: int) -> Scores:
    penalty, epochs = setting
    mlp = _Mlp(train, penalty, seed)
    for _ in range(epochs):
        mlp.train_epoch()
    return mlp.scores


class _Mlp:
    """scikit-learn's MLP, epoch by epoch: its own early stopping holds out rows without regard to groups."""

    def __init__(self, train: Part, penalty: float, seed: int) -> None:
        self._scaler = StandardScaler().fit(train.features)
        self._train = train
        self._features = self._scaler.transform(train.features)
        # Some 32 steps an epoch, whatever the size: epochs are what is chosen, and must be fine enough.
        batch_size = int(np.clip(len(train.positive) // 32, 8, 256))
        self._model = MLPClassifier(
            (64,),
            alpha=penalty,
            learning_rate_init=5e-4,
            batch_size=min(batch_size, len(train.positive)),
            random_state=seed,
        )

    def train_epoch(self) -> None:
        """Show each training row once."""
        self._model.partial_fit(
            self._features, self._train.positive, sample_weight=self._train.weights, classes=[False, True]
        )

    def scores(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probabilities of the positive class."""
        return np.asarray(self._model.predict_proba(self._scaler.transform(features))[:, 1])


CLASSIFIERS = {
    "lr": Classifier("Logistic regression", _choose_lr, _fit_lr),
    "gbdt": Classifier("LightGBM", _choose_gbdt, _fit_gbdt),
    "mlp": Classifier("MLP", _choose_mlp, _fit_mlp),
}
"""The classifiers by their key in ``metrics.json``."""
