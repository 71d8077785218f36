import math
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from infobehavior.errors import InputError
from infobehavior.fusion.config import Group
from infobehavior.fusion.features import FEATURES
from infobehavior.fusion.text import NGRAMS, SENTENCE_DIM, SentenceText, TfidfText

TEXTS = ["red chair", "red table", "blue chair", "lucky poker", "lucky chips", "red chair"]


def ngrams_of(text):
    """Of the characters of each word, which stands between spaces."""
    found = []
    for word in text.lower().split():
        padded = f" {word} "
        for length in range(NGRAMS[0], NGRAMS[1] + 1):
            if len(padded) <= length:
                found.append(padded)  # a short word is taken once, as a whole
                break
            found += [padded[first : first + length] for first in range(len(padded) - length + 1)]
    return Counter(found)


def plain_tfidf(texts, known):
    """One vector a text: 1 + ln(count), times 1 + ln((1 + texts) / (1 + texts with it)), of length 1."""
    num_with = {ngram: sum(ngram in ngrams_of(text) for text in TEXTS) for ngram in known}
    vectors = []
    for text in texts:
        counts = ngrams_of(text)
        vector = [
            (1 + math.log(counts[ngram])) * (1 + math.log((1 + len(TEXTS)) / (1 + num_with[ngram])))
            if counts[ngram]
            else 0.0
            for ngram in known
        ]
        length = math.sqrt(sum(value**2 for value in vector)) or 1
        vectors.append([value / length for value in vector])
    return np.array(vectors)


def test_ngrams_are_those_of_two_texts():
    counts = Counter(ngram for text in TEXTS for ngram in ngrams_of(text))
    known = TfidfText.fit(TEXTS, 3, 0).ngrams
    expected = {ngram for ngram in counts if sum(ngram in ngrams_of(text) for text in TEXTS) >= 2}
    assert set(known) == expected
    assert list(known) == sorted(known)


def test_vectors_are_those_of_plain_loops():
    text = TfidfText.fit(TEXTS, 3, 0)
    asked = ["a red red chair", "poker", "nothing of it is known? zzz"]
    expected = plain_tfidf(asked, text.ngrams) @ text.components.T
    assert text.transform(asked) == pytest.approx(expected, abs=1e-5)


def test_components_are_the_largest_singular_vectors():
    text = TfidfText.fit(TEXTS, 2, 0)
    _, _, vectors = np.linalg.svd(plain_tfidf(TEXTS, text.ngrams))
    for found, expected in zip(text.components, vectors, strict=False):
        assert abs(found @ expected) == pytest.approx(1, abs=1e-4)


def test_a_vector_does_not_depend_on_the_other_texts():
    text = TfidfText.fit(TEXTS, 3, 0)
    together = text.transform(TEXTS)
    assert np.array_equal(together, np.concatenate([text.transform([one]) for one in TEXTS]))


def test_few_ngrams_have_few_dimensions():
    assert len(TfidfText.fit(TEXTS, 64, 0).components) == len(TEXTS)
    assert TfidfText.fit(["a", "a"], 64, 0).transform(["a", "b"]) == pytest.approx(np.array([[1, 0], [0, 0]]), abs=1e-6)


def group(encoder="tfidf"):
    return Group(kind="text", columns=("x",), encoder=encoder)


def texts(*values):
    return pa.table({"x": pa.array(values, pa.string())})


def test_texts_that_are_all_equal():
    array = FEATURES["text"].fit(texts("red chair", "red chair", None), group(), "g", 0).transform(texts("red"), "g")
    assert np.isfinite(array.values).all()


def test_one_text_is_enough():
    features = FEATURES["text"].fit(texts("red chair"), group(), "g", 0)
    assert features.transform(texts("red chair"), "g").values.any()


@pytest.mark.parametrize(
    ("values", "what"),
    [((None, None), "text"), (("", "  "), "text"), (("red", "blue"), "piece of text that two rows share")],
)
def test_texts_of_which_nothing_is_known(values, what):
    with pytest.raises(InputError, match=f"group g has no {what} in any of 2 training rows; remove the group"):
        FEATURES["text"].fit(texts(*values), group(), "g", 0)


def test_the_mean_square_of_training_values_is_one():
    features = FEATURES["text"].fit(texts(*TEXTS), group(), "g", 0)
    assert np.mean(features.transform(texts(*TEXTS), "g").values ** 2) == pytest.approx(1, abs=1e-5)


def test_sentences_have_vectors_of_length_one():
    pytest.importorskip("wordllama")
    vectors = SentenceText().transform(["a red chair", "a crimson seat", "the quarterly tax report", ""])
    assert vectors.shape == (4, SENTENCE_DIM)
    assert np.linalg.norm(vectors, axis=1)[:3] == pytest.approx(1, abs=1e-5)
    assert np.isfinite(vectors).all()
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


def test_sentences_do_not_depend_on_each_other():
    pytest.importorskip("wordllama")
    encoder = SentenceText()
    together = encoder.transform(["a red chair", "chair", "a very much longer sentence about some chairs"])
    assert encoder.transform(["a red chair"])[0] == pytest.approx(together[0], abs=1e-6)


def test_without_the_package_of_sentences(monkeypatch):
    monkeypatch.setitem(sys.modules, "wordllama", None)
    with pytest.raises(InputError, match=r"needs the extra `sentences`: pip install 'infobehavior\[sentences\]'"):
        FEATURES["text"].fit(texts(*TEXTS), group("wordllama"), "g", 0)
