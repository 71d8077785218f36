import re
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest

from infobehavior.downstream.charts import (
    ReportContent,
    feature_importances,
    map_chart,
    map_rows,
    precision_recall_chart,
    read_training_log,
)
from infobehavior.downstream.cross_validation import CrossValidated
from infobehavior.downstream.report import headline
from infobehavior.errors import InputError


class Page(HTMLParser):
    """The tags of a page, and its text outside scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self.inside = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if self.inside and self.inside[-1] == tag:
            self.inside.pop()

    def handle_data(self, data):
        if not self.inside:
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="session")
def page(evaluated):
    return Page((evaluated / "report.html").read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_elsewhere(page):
    for _, attributes in page.tags:
        assert not {"src", "href", "srcset", "data"} & set(attributes)


def test_the_plotly_script_is_there_once(evaluated):
    text = (evaluated / "report.html").read_text(encoding="utf-8")
    assert len(re.findall(r"plotly\.js v\d", text)) == 1


def test_headings_language_and_names_for_charts(page):
    assert ("html", {"lang": "en"}) in page.tags
    assert [tag for tag, _ in page.tags if re.fullmatch(r"h\d", tag)] == ["h1", *["h2"] * 6]
    charts = [attributes for _, attributes in page.tags if attributes.get("role") == "img"]
    assert len(charts) == 4
    assert all(len(attributes["aria-label"]) > 40 for attributes in charts)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)


def test_the_page_says_what_was_measured(page):
    assert "58 windows of 20 days, 15 of them positive (bot = 1, 25.9 %)" in page.text
    assert re.search(
        r"Alone, the representation (does not (reliably )?beat|(only just )?beats) the manual features", page.text
    )
    for words in ("0123456789abcdef", "Labels without an embedding 4", "Groups person", "Steps of pre-training 8"):
        assert words in page.text
    assert page.text.count("±") == 54


def content(manual, learnt, both):
    """A report on given AUCs by fold; only logistic regression is any good."""
    folds = {"manual": manual, "infobehavior": learnt, "both": both}
    found = {
        (features, classifier): CrossValidated(
            [{"auc": auc if classifier == "lr" else 0.1} for auc in folds[features]], np.zeros(1), []
        )
        for features in folds
        for classifier in ("lr", "gbdt", "mlp")
    }
    return ReportContent([], found, np.zeros(1, bool), np.zeros((1, 1)), pa.table({}), {}, [])


@pytest.mark.parametrize(
    ("learnt", "words"),
    [
        ([0.7, 0.7, 0.7], "the representation does not beat the manual features: AUC 0.700"),
        ([0.9, 0.91, 0.9], "the representation beats the manual features: AUC 0.903"),
        ([0.99, 0.81, 0.7], "the representation only just beats the manual features: AUC 0.833"),
        ([0.99, 0.79, 0.7], "the representation does not reliably beat the manual features: AUC 0.827"),
        ([0.8, 0.8, 0.8], "the representation does not beat the manual features"),
    ],
)
def test_the_headline_is_what_the_folds_say(learnt, words):
    sentences = headline(content([0.8, 0.8, 0.8], learnt, [0.8, 0.9, 0.7]))
    assert words in sentences[0]
    ahead = sum(auc > 0.8 for auc in learnt)
    assert f"ahead in {ahead} of 3 folds" in sentences[0]
    assert "it does not improve them" in sentences[1]


def test_labels_with_markup_stay_text():
    positive = np.arange(20) < 10
    definition = {"label": "<b>", "positive_class": "</script>", "negative_class": "'\"&", "seed": 0}
    vectors = np.random.default_rng(0).normal(size=(20, 4))
    chart = map_chart(ReportContent([], {}, positive, vectors, pa.table({}), definition, []))
    assert chart.to_html(full_html=False, include_plotlyjs=False).count("</script>") == 1


def test_embeddings_that_are_all_equal_are_one_place_on_the_map():
    definition = {"label": "bot", "positive_class": "1", "negative_class": "0", "seed": 0}
    chart = map_chart(ReportContent([], {}, np.arange(20) < 5, np.full((20, 4), 0.5), pa.table({}), definition, []))
    assert {place for points in chart.data for place in (*points.x, *points.y)} == {0.0}


def test_the_curve_has_each_recall_with_its_best_precision():
    positive = np.array([True, False, True, False])
    found = {("both", "lr"): CrossValidated([], np.array([0.9, 0.8, 0.7, 0.1]), [])}
    report = ReportContent([], found, positive, np.zeros((4, 1)), pa.table({}), {}, [])
    (curve,) = precision_recall_chart(report).data
    assert (curve.x, curve.y) == ((0.5, 1.0), (1.0, pytest.approx(2 / 3, abs=1e-4)))


@pytest.mark.parametrize(("num_positives", "shown"), [(10, 10), (999, 999), (4000, 1000), (5500, 1500)])
def test_the_map_has_at_most_2000_windows(num_positives, shown):
    positive = np.random.default_rng(0).permutation(6000) < num_positives
    rows = map_rows(positive, seed=0)
    assert len(rows) == len(set(rows.tolist())) == 2000
    assert positive[rows].sum() == shown


def test_the_map_of_few_windows_has_all():
    assert map_rows(np.arange(50) < 20, seed=0).tolist() == list(range(50))


def test_importances_name_the_feature_that_decides():
    random = np.random.default_rng(0)
    positive = random.random(200) < 0.5
    fields = [
        pa.field("noise", pa.float64(), metadata={"meaning": "nothing"}),
        pa.field("place_share_01", pa.float64(), metadata={"meaning": "share of minutes at JFK", "place": "JFK"}),
    ]
    manual = pa.table([random.normal(size=200), positive.astype(float)], schema=pa.schema(fields))
    found = {("manual", "gbdt"): CrossValidated([], np.zeros(1), [5, 7, 9])}
    settings = {"oversample": 4, "seed": 0}
    best, *_ = feature_importances(ReportContent([], found, positive, np.zeros((1, 1)), manual, settings, []))
    assert (best.name, best.meaning) == ("place_share_01 (JFK)", "share of minutes at JFK")
    assert best.share > 0.9


def test_a_missing_training_log_is_empty_and_a_damaged_one_is_an_error(tmp_path):
    assert read_training_log(tmp_path / "none.jsonl") == []
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.5}\n{"step": 2, "lo')
    with pytest.raises(InputError, match=r"log.jsonl is damaged .*embed again"):
        read_training_log(tmp_path / "log.jsonl")
