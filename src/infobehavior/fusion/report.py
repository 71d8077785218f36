"""The HTML report of a fused classifier: one file that needs no other host, and equal bytes for equal inputs."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from infobehavior.downstream.charts import COLORS, LegendEntry, empty_figure, precision_by_recall
from infobehavior.downstream.report import chart_html, page_environment
from infobehavior.fusion.joining import age_lines
from infobehavior.fusion.model_folder import FusedModel

TITLES = {"fusion": "Fusion network", "gbdt": "LightGBM"}
CLASSIFIER_COLORS = {"fusion": COLORS["infobehavior"], "gbdt": COLORS["manual"]}
DASHES = {"fusion": "solid", "gbdt": "dash"}


@dataclass(frozen=True)
class ReportContent:
    """What the report shows.

    Attributes:
        rows: metrics of the network and of LightGBM.
        without: metrics of the network as if a group were missing, by group.
        definition: of what, on what.
        scores: probabilities, by classifier.
        positive: True for the positive class.
        fused: the model.
    """

    rows: list[dict[str, Any]]
    without: dict[str, dict[str, float | None]]
    definition: dict[str, Any]
    scores: dict[str, NDArray[np.float64]]
    positive: NDArray[np.bool_]
    fused: FusedModel


def fusion_report_page(content: ReportContent) -> str:
    """The report of an evaluation, as HTML."""
    first = content.rows[0]
    recalls = {
        name: f"Recall at {name.rpartition('_')[2]} % precision"
        for name in first
        if name.startswith("recall_at_precision") and not name.endswith("_interval")
    }
    page = page_environment("infobehavior.fusion").get_template("report.html.jinja")
    rendered: str = page.render(
        definition=content.definition,
        rows=content.rows,
        without=content.without,
        sentences=[*(sentence(row) for row in content.rows), *content.definition["warnings"]],
        recalls=recalls,
        titles=TITLES,
        colors=CLASSIFIER_COLORS,
        legend=[LegendEntry(CLASSIFIER_COLORS[name], DASHES[name], title) for name, title in TITLES.items()],
        charts={
            "precision_recall": chart_html(precision_recall_chart(content), "precision-recall"),
            "reliability": chart_html(reliability_chart(content), "reliability"),
        },
        age_lines=age_lines(content.definition["ages"], content.definition["trained_ages"]),
        groups=content.fused.config.groups,
        network=content.fused.config.network,
        training=content.fused.report,
        plotly_script=get_plotlyjs(),
    )
    return rendered


def sentence(row: dict[str, Any]) -> str:
    """What a classifier does at its operating point, in plain words."""
    title = TITLES[row["classifier"]]
    if not row["is_met"]:
        return f"{title}: what was required ({row['rule']}) wasn't reached in training, so it flags nothing."
    if not row["num_flagged"]:
        return f"{title} flags nothing at its threshold of {row['threshold']:.4g}."
    precision, recall = (
        f"{100 * row[name]:.1f} % ({100 * row[f'{name}_interval'][0]:.1f} to {100 * row[f'{name}_interval'][1]:.1f})"
        for name in ("precision", "recall")
    )
    return (
        f"{title}: of its {row['num_flagged']:,} alarms {precision} are right, and it finds {recall} of the "
        f"{row['num_positives']:,} positives."
    )


def precision_recall_chart(content: ReportContent) -> go.Figure:
    """A curve for each classifier, with its operating point."""
    figure = empty_figure("recall", "precision")
    for row in content.rows:
        name = row["classifier"]
        recalls, precisions = precision_by_recall(content.positive, content.scores[name])
        line = {"color": CLASSIFIER_COLORS[name], "dash": DASHES[name], "width": 2}
        figure.add_scatter(
            x=recalls.round(4).tolist(), y=precisions.round(4).tolist(), name=TITLES[name], mode="lines", line=line
        )
        if row["num_flagged"]:
            marker = {"color": CLASSIFIER_COLORS[name], "size": 11, "symbol": "diamond"}
            point = {"x": [round(row["recall"], 4)], "y": [round(row["precision"], 4)]}
            figure.add_scatter(**point, name=f"{TITLES[name]}, operating point", mode="markers", marker=marker)
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(range=[0, 1.02])
    return figure


def reliability_chart(content: ReportContent) -> go.Figure:
    """The share of positives by probability, and what it would be if probabilities were right."""
    figure = empty_figure("probability", "share of positives")
    figure.add_scatter(
        x=[0, 1], y=[0, 1], name="as told", mode="lines", line={"color": "#808080", "dash": "dot", "width": 1}
    )
    for row in content.rows:
        name = row["classifier"]
        figure.add_scatter(
            x=[round(one["probability"], 4) for one in row["reliability"]],
            y=[round(one["share"], 4) for one in row["reliability"]],
            name=TITLES[name],
            mode="lines+markers",
            line={"color": CLASSIFIER_COLORS[name], "dash": DASHES[name], "width": 2},
        )
    return figure
