"""The charts of the report: training, precision and recall, map, importances; each readable on light and dark pages."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import precision_recall_curve
from sklearn.preprocessing import StandardScaler

from infobehavior.downstream.classifiers import CLASSIFIERS, Part, train_gbdt
from infobehavior.downstream.cross_validation import CrossValidated
from infobehavior.downstream.manual_features import as_matrix
from infobehavior.errors import InputError

FEATURE_TITLES = {"manual": "Manual features", "infobehavior": "Representation", "both": "Both"}
# Each has a contrast of at least 3:1 with the light and with the dark page.
COLORS = {"manual": "#c2700a", "infobehavior": "#0e8a8a", "both": "#8457e6"}
TASK_COLORS = ("#0e8a8a", "#c2700a", "#8457e6", "#c0487a", "#5b8a1f", "#3d7fd6")
DASHES = {"lr": "dot", "gbdt": "solid", "mlp": "dash"}
CLASS_STYLES = {"negative_class": (COLORS["infobehavior"], "circle"), "positive_class": (COLORS["manual"], "diamond")}
GRID = "rgba(128, 128, 128, 0.35)"
MAP_POINTS = 2000
CURVE_POINTS = 300
NUM_IMPORTANT = 20


@dataclass(frozen=True)
class ReportContent:
    """What the report shows.

    Attributes:
        rows: the content of ``metrics.json``.
        cross_validated: by feature set and classifier.
        positive: True for the positive class, one per window.
        vectors: the embeddings, one row a window.
        manual: the hand-made features, one row a window.
        definition: where the figures come from.
        training_log: rows of the model's training log; none if the embeddings came without it.
    """

    rows: list[dict[str, Any]]
    cross_validated: dict[tuple[str, str], CrossValidated]
    positive: NDArray[np.bool_]
    vectors: NDArray[np.float32]
    manual: pa.Table
    definition: dict[str, Any]
    training_log: list[dict[str, float]]


@dataclass(frozen=True)
class Importance:
    """How much LightGBM uses a manual feature.

    Attributes:
        name: the feature, with its place if it is about one.
        meaning: in words.
        share: of the total gain.
    """

    name: str
    meaning: str
    share: float


@dataclass(frozen=True)
class LegendEntry:
    """A line or point of a chart: its colour, how it is drawn (solid, dot, dash, circle, diamond), what it is."""

    color: str
    style: str
    text: str


def classifier_title(classifier: str) -> str:
    """A classifier's name for people."""
    return CLASSIFIERS[classifier].title


def read_training_log(path: Path) -> list[dict[str, float]]:
    """Read a training log: a JSON object a line, with `step`, `loss` and one key a task; empty without a file."""
    if not path.exists():
        return []
    try:
        log = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return [{key: float(value) for key, value in row.items()} for row in log if "step" in row]
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); embed again") from None


def training_chart(log: Sequence[dict[str, float]]) -> go.Figure:
    """The loss and its tasks by step; of a long log the means of consecutive steps."""
    figure = empty_figure("training step", "loss")
    for position, name in enumerate(_losses(log)):
        points = [(row["step"], row[name]) for row in log if name in row]
        steps, losses = np.array(points).T
        line = {"color": _task_color(position), "width": 2}
        figure.add_scatter(x=_binned(steps), y=_binned(losses), name=name, mode="lines", line=line)
    return figure


def _binned(values: NDArray[np.float64]) -> list[float]:
    parts = np.array_split(values, min(CURVE_POINTS, len(values)))
    return [round(float(part.mean()), 5) for part in parts]


def precision_recall_chart(content: ReportContent) -> go.Figure:
    """A curve for each feature set and classifier, from the pooled predictions of all test folds."""
    figure = empty_figure("recall", "precision")
    for (features, classifier), found in content.cross_validated.items():
        recalls, precisions = precision_by_recall(content.positive, found.scores)
        figure.add_scatter(
            x=recalls.round(4).tolist(),
            y=precisions.round(4).tolist(),
            name=f"{FEATURE_TITLES[features]}, {classifier_title(classifier)}",
            mode="lines",
            line={"color": COLORS[features], "dash": DASHES[classifier], "width": 2},
        )
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(range=[0, 1.02])
    return figure


def precision_by_recall(
    positive: NDArray[np.bool_], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The curve by rising recall, with the best precision of each; evenly thinned where positives are many."""
    precisions, recalls, _ = precision_recall_curve(positive, scores)
    # The last point (precision 1, recall 0) is of no threshold.
    distinct, group = np.unique(recalls[:-1], return_inverse=True)
    best = np.zeros(len(distinct))
    np.maximum.at(best, group, precisions[:-1])
    kept = np.unique(np.linspace(0, len(distinct) - 1, CURVE_POINTS).astype(int))
    return distinct[kept], best[kept]


def map_rows(positive: NDArray[np.bool_], seed: int) -> NDArray[np.intp]:
    """The windows on the map: all positive ones (half the places at most) and a sample of the others."""
    random = np.random.default_rng(seed)
    positives, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
    places = max(MAP_POINTS // 2, MAP_POINTS - len(negatives))
    positives = random.permutation(positives)[:places]
    negatives = random.permutation(negatives)[: MAP_POINTS - len(positives)]
    return np.sort(np.concatenate([positives, negatives]))


def map_chart(content: ReportContent) -> go.Figure:
    """The embeddings in two dimensions: PCA, then t-SNE."""
    rows = map_rows(content.positive, content.definition["seed"])
    places = _two_dimensions(content.vectors[rows].astype(np.float64), content.definition["seed"])
    figure = empty_figure("", "")
    for key, (color, symbol) in CLASS_STYLES.items():
        shown = places[content.positive[rows] == (key == "positive_class")]
        figure.add_scatter(
            x=shown[:, 0].round(2).tolist(),
            y=shown[:, 1].round(2).tolist(),
            name=_class_title(content, key),
            mode="markers",
            marker={"color": color, "symbol": symbol, "size": 5, "opacity": 0.8},
            hoverinfo="name",
        )
    figure.update_xaxes(showticklabels=False, showgrid=False)
    figure.update_yaxes(showticklabels=False, showgrid=False)
    return figure


def _two_dimensions(vectors: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    standardised = StandardScaler().fit_transform(vectors)
    if (standardised == standardised[0]).all():  # neither PCA nor t-SNE has a place for points that are all the same
        return np.zeros((len(vectors), 2))
    dimensions = min(50, *standardised.shape)
    reduced = PCA(dimensions, svd_solver="full").fit_transform(standardised)
    perplexity = min(30.0, (len(reduced) - 1) / 3)
    # "random": the default start, PCA's first two columns, doesn't exist for an embedding of one dimension.
    start = "pca" if dimensions > 1 else "random"
    tsne = TSNE(init=start, perplexity=perplexity, max_iter=500, random_state=seed)
    return np.asarray(tsne.fit_transform(reduced), dtype=np.float64)


def feature_importances(content: ReportContent) -> list[Importance]:
    """Which manual features LightGBM uses, on all windows: the 20 with most gain."""
    num_trees = int(np.median(content.cross_validated["manual", "gbdt"].settings))
    weights = np.where(content.positive, float(content.definition["oversample"]), 1.0)
    data = Part(as_matrix(content.manual), content.positive, weights)
    gain = train_gbdt(data, num_trees, content.definition["seed"]).feature_importance("gain")
    order = np.argsort(-gain, kind="stable")[:NUM_IMPORTANT]
    total = gain.sum() or 1.0
    return [_importance(content.manual.schema.field(int(column)), gain[column] / total) for column in order]


def _importance(field: pa.Field, share: float) -> Importance:
    about = {key.decode(): value.decode() for key, value in field.metadata.items()}
    name = f"{field.name} ({about['place']})" if "place" in about else field.name
    return Importance(name, about["meaning"], float(share))


def importance_chart(importances: Sequence[Importance]) -> go.Figure:
    """The most important feature on top."""
    upwards = importances[::-1]
    figure = empty_figure("share of the total gain", "")
    figure.add_bar(
        x=[round(feature.share, 5) for feature in upwards],
        y=[feature.name for feature in upwards],
        orientation="h",
        marker={"color": COLORS["manual"]},
    )
    figure.update_layout(height=560)
    figure.update_yaxes(automargin=True, showgrid=False)
    figure.update_xaxes(tickformat=".0%")
    return figure


def legends(content: ReportContent, log: Sequence[dict[str, float]]) -> dict[str, list[LegendEntry]]:
    """Legends as text of the page: those of the charts cover the curves on a telephone."""
    features = [LegendEntry(COLORS[name], "solid", title) for name, title in FEATURE_TITLES.items()]
    classifiers = [LegendEntry("currentColor", DASHES[name], classifier_title(name)) for name in CLASSIFIERS]
    tasks = [LegendEntry(_task_color(i), "solid", name) for i, name in enumerate(_losses(log))]
    classes = [LegendEntry(*CLASS_STYLES[key], _class_title(content, key)) for key in CLASS_STYLES]
    return {"precision_recall": features + classifiers, "map": classes, "training": tasks, "importance": []}


def _losses(log: Sequence[dict[str, float]]) -> list[str]:
    return [name for name in (log[0] if log else {}) if name not in ("step", "learning_rate")]


def _task_color(position: int) -> str:
    return TASK_COLORS[position % len(TASK_COLORS)]


def _class_title(content: ReportContent, key: str) -> str:
    return f"{content.definition['label']} = {content.definition[key]}"


def empty_figure(x_title: str, y_title: str) -> go.Figure:
    """An empty chart that is readable on a light and on a dark page."""
    figure = go.Figure()
    figure.update_layout(
        template="none",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#808080"},
        margin={"l": 48, "r": 8, "t": 8, "b": 48},
        showlegend=False,
        height=420,
        dragmode=False,
    )
    figure.update_xaxes(title=x_title, gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title=y_title, gridcolor=GRID, zeroline=False)
    return figure
