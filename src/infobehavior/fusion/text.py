"""Texts as vectors: character n-grams by TF-IDF, reduced by a singular value decomposition; or a sentence encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

from infobehavior.errors import InputError

Floats = NDArray[np.float32]

NGRAMS = (2, 4)
"""Of characters inside words: a word that is rewritten by a letter or two keeps most of them."""
MOST_NGRAMS = 50_000
LEAST_TEXTS = 2
"""An n-gram that fewer texts have isn't known."""
TEXTS_AT_A_TIME = 8_192
SENTENCE_DIM = 256


@dataclass(frozen=True)
class TfidfText:
    """Character n-grams of texts, weighted by TF-IDF, in a few dimensions.

    Attributes:
        ngrams: the known ones, sorted.
        idf: weight of each.
        components: (dimensions, n-grams) of the truncated singular value decomposition.
    """

    ngrams: tuple[str, ...]
    idf: NDArray[np.float64]
    components: Floats

    @classmethod
    def fit(cls, texts: Sequence[str], dim: int, seed: int) -> Self:
        """Learn n-grams and dimensions from texts; of few n-grams there are fewer dimensions."""
        vectorizer = _vectorizer(min_df=min(LEAST_TEXTS, max(1, len(texts))), max_features=MOST_NGRAMS)
        try:
            weighted = vectorizer.fit_transform(texts)
        except ValueError:  # no text has an n-gram
            return cls((), np.zeros(0), np.zeros((0, 0), np.float32))
        dim = min(dim, *weighted.shape)
        with np.errstate(invalid="ignore"):  # it divides by the variance, which is 0 where all texts are equal
            svd = TruncatedSVD(dim, random_state=seed).fit(weighted)
        ngrams = tuple(vectorizer.get_feature_names_out().tolist())
        return cls(ngrams, vectorizer.idf_, svd.components_.astype(np.float32))

    def transform(self, texts: Sequence[str]) -> Floats:
        """(texts, dimensions)."""
        if not self.ngrams or not texts:
            return np.zeros((len(texts), len(self.components)), np.float32)
        vectorizer = _vectorizer(vocabulary={ngram: place for place, ngram in enumerate(self.ngrams)})
        vectorizer.idf_ = self.idf
        return np.asarray(vectorizer.transform(texts) @ self.components.T.astype(np.float64), dtype=np.float32)


def _vectorizer(**options: Any) -> TfidfVectorizer:
    return TfidfVectorizer(analyzer="char_wb", ngram_range=NGRAMS, sublinear_tf=True, **options)


class SentenceText:
    """WordLlama's sentence embeddings, 256 dimensions; the package carries its weights, nothing is fetched."""

    def __init__(self) -> None:
        try:
            import wordllama
        except ImportError:
            raise InputError(
                "encoder = \"wordllama\" needs the extra `sentences`: pip install 'infobehavior[sentences]'"
            ) from None
        # It looks for its own tokenizer in a folder that it takes for a cache.
        own = Path(wordllama.__file__).parent
        self._model = wordllama.WordLlama.load(cache_dir=own, disable_download=True)

    def transform(self, texts: Sequence[str]) -> Floats:
        """(texts, 256)."""
        parts = [
            self._model.embed(list(texts[first : first + TEXTS_AT_A_TIME]), norm=False)
            for first in range(0, len(texts), TEXTS_AT_A_TIME)
        ]
        vectors: Floats = np.concatenate([np.zeros((0, SENTENCE_DIM), np.float32), *parts]).astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
