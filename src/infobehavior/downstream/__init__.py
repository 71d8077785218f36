"""Evaluation of embeddings against hand-made features (section 4.2)."""

from infobehavior.downstream.evaluation import evaluate, metric_lines, summary_lines

__all__ = ["evaluate", "metric_lines", "summary_lines"]
