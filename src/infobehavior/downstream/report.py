"""The HTML report of an evaluation: one file that needs no other host, and equal bytes for equal inputs."""

from collections.abc import Sequence
from typing import Any

import jinja2
import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.offline import get_plotlyjs

from infobehavior.downstream.charts import (
    COLORS,
    FEATURE_TITLES,
    ReportContent,
    classifier_title,
    feature_importances,
    importance_chart,
    legends,
    map_chart,
    map_rows,
    precision_recall_chart,
    training_chart,
)
from infobehavior.downstream.classifiers import CLASSIFIERS

METRIC_TITLES = {
    "auc": "AUC",
    "average_precision": "Average precision",
    "recall_at_precision_95": "Recall at 95 % precision",
    "recall_at_precision_50": "Recall at 50 % precision",
    "f1": "F1",
    "nmi": "NMI",
}


def report_page(content: ReportContent) -> str:
    """The report of an evaluation, as HTML."""
    log = content.training_log
    mapped = map_rows(content.positive, content.definition["seed"])
    importances = feature_importances(content)
    charts = {
        "training": chart_html(training_chart(log), "training") if log else None,
        "precision_recall": chart_html(precision_recall_chart(content), "precision-recall"),
        "map": chart_html(map_chart(content), "map"),
        "importance": chart_html(importance_chart(importances), "importance"),
    }
    page: str = (
        page_environment("infobehavior.downstream")
        .get_template("report.html.jinja")
        .render(
            definition=content.definition,
            sentences=headline(content),
            rows=content.rows,
            best=_best_values(content.rows),
            feature_titles=FEATURE_TITLES,
            colors=COLORS,
            metric_titles=METRIC_TITLES,
            classifier_titles={name: classifier.title for name, classifier in CLASSIFIERS.items()},
            num_entities=len(content.positive),
            num_positives=int(content.positive.sum()),
            num_mapped=len(mapped),
            num_mapped_positive=int(content.positive[mapped].sum()),
            importances=importances,
            legends=legends(content, log),
            last_training=log[-1] if log else None,
            charts=charts,
            plotly_script=get_plotlyjs(),
        )
    )
    return page


def page_environment(package: str) -> jinja2.Environment:
    """Templates of a package, and what all pages have."""
    return jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package, "."), jinja2.PackageLoader("infobehavior.downstream", ".")]
        ),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def headline(content: ReportContent) -> list[str]:
    """The result in plain words: each feature set with its best classifier, and how the folds compare."""
    best = {features: _best_classifier(content, features) for features in FEATURE_TITLES}
    manual = content.cross_validated["manual", best["manual"]].values("auc")
    learnt = content.cross_validated["infobehavior", best["infobehavior"]].values("auc")
    both = content.cross_validated["both", best["both"]].values("auc")
    verdict = (
        f"Alone, the representation {_compared(learnt, manual, 'beat')} the manual features: "
        f"AUC {learnt.mean():.3f} ({classifier_title(best['infobehavior'])}) against {manual.mean():.3f} "
        f"({classifier_title(best['manual'])}), and it is ahead in {_ahead(learnt, manual)}."
    )
    together = (
        f"Added to the manual features, it {_compared(both, manual, 'improve')} them: "
        f"AUC {both.mean():.3f} ({classifier_title(best['both'])}), and both together are ahead in "
        f"{_ahead(both, manual)}."
    )
    return [verdict, together]


def _best_classifier(content: ReportContent, features: str) -> str:
    return max(CLASSIFIERS, key=lambda name: content.cross_validated[features, name].values("auc").mean())


def _compared(here: NDArray[np.float64], there: NDArray[np.float64], verb: str) -> str:
    """Better on average only counts as better if at least half of the folds say so, and without "only just" if it is
    more than the folds' own disagreement about it.
    """
    difference = here - there
    margin = difference.std(ddof=1) / np.sqrt(len(difference))
    if difference.mean() <= 0:
        return f"does not {verb}"
    if (difference > 0).mean() < 0.5:
        return f"does not reliably {verb}"
    return f"{verb}s" if difference.mean() > 2 * margin else f"only just {verb}s"


def _ahead(here: NDArray[np.float64], there: NDArray[np.float64]) -> str:
    return f"{int((here > there).sum())} of {len(here)} folds"


def _best_values(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    return {metric: max(row[metric] for row in rows) for metric in METRIC_TITLES}


def chart_html(figure: go.Figure, name: str) -> str:
    """A chart as a part of a page that has plotly's script."""
    config = {"responsive": True, "displayModeBar": False, "displaylogo": False}
    html = figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=f"chart-{name}", config=config, default_width="100%"
    )
    return str(html)
