"""InfoBehavior's encoder, whole (Figure 2): minutes, spans, sequence; and its folder on disk."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Self

import safetensors
import safetensors.torch
import torch
from jaxtyping import Bool, Float, Int
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, field_validator
from torch import Tensor, nn

from infobehavior.artefacts import (
    DEFINITION_FILE,
    definition_hash,
    read_json,
    refuse_unwritable,
    write_bytes,
    write_json,
)
from infobehavior.data.batches import Tokenizer, WindowBatch
from infobehavior.data.minutes import MinuteTable
from infobehavior.data.schema import known_zone
from infobehavior.data.store import MinuteStore
from infobehavior.data.vocabulary import Vocabulary
from infobehavior.data.windows import SpanGrid
from infobehavior.errors import InputError
from infobehavior.model.config import EncoderConfig
from infobehavior.model.float32_products import of_rows
from infobehavior.model.minute_embedding import MinuteEmbedding
from infobehavior.model.readouts import Readout, Readouts
from infobehavior.model.reproducible import DEFAULT_THREADS
from infobehavior.model.span_cnn import SpanCNN
from infobehavior.model.transformer import NUM_STATISTICS, BidirectionalTransformer, run_reduce, span_statistics

CONFIG_FILE = "config.json"
FORMAT = 1
MAX_THREADS = 4_096
NUM_MEANS = {"max": 0, "max_and_mean": 1, "max_and_means": 4}
"""Means of a span, beside its strongest windows."""
OWN_FILE = re.compile(r"weights-[0-9a-f]{16}\.safetensors|vocabulary-[0-9a-f]{16}\.json")


@dataclass(frozen=True)
class Representations:
    """What the encoder makes of a batch.

    Attributes:
        global_repr: `g`, the output at [CLS], of each window.
        local_repr: `l_i`, the output at each span that is wanted; the local representation where it was masked.
        span_repr: `s_i`, the CNN's output of each span.
    """

    global_repr: Float[Tensor, "windows model_dim"]
    local_repr: Float[Tensor, "wanted model_dim"]
    span_repr: Float[Tensor, "spans model_dim"]

    def float(self) -> "Representations":
        """In float32, whatever they were computed in."""
        return Representations(self.global_repr.float(), self.local_repr.float(), self.span_repr.float())


class ModelCard(BaseModel):
    """What `config.json` says; it names the other files of the folder with their hashes, and is written last."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    format: int
    model_id: str
    minutes_hash: str
    vocabulary_hash: str
    vocabulary_file: str
    weights_sha256: str
    weights_file: str
    time_zone: Annotated[str, AfterValidator(known_zone)]
    encoder: EncoderConfig
    readouts: tuple[Readout, ...] = ()
    pretraining: dict[str, Any]

    @field_validator("pretraining")
    @classmethod
    def _has_what_is_read_of_it(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Most is for the record alone."""
        until, config = value.get("trained_until"), value.get("config", {})
        if until is not None and (not isinstance(until, str) or datetime.fromisoformat(until).tzinfo is None):
            raise ValueError(f"trained_until should be a moment with its zone and is {until!r}")
        threads = config.get("num_threads", DEFAULT_THREADS) if isinstance(config, dict) else None
        if not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
            raise ValueError(f"config.num_threads should be a number from 1 to {MAX_THREADS:,} and is {threads!r}")
        return value


class InfoBehavior(nn.Module):
    """Encodes windows of minutes.

    Args:
        config: the encoder's shape.
        vocabulary: the known tokens.
        time_zone: IANA name of the zone in which time points are told.
        readouts: the domain-related tasks that it is trained with.

    Attributes:
        pretraining: how it was trained, for the record; empty if it wasn't.
    """

    def __init__(
        self,
        config: EncoderConfig,
        vocabulary: Vocabulary,
        time_zone: str = "UTC",
        readouts: Sequence[Readout] = (),
    ) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = vocabulary
        self.time_zone = time_zone
        self.pretraining: dict[str, Any] = {}
        self.grid = SpanGrid(*config.scaled_span, config.window_minutes, config.span_origin)
        self.minute_embedding = MinuteEmbedding(
            vocabulary.num_behavior_tokens, vocabulary.num_location_tokens, config.time_point, config.minute_dim
        )
        self.span_cnn = SpanCNN(config.minute_dim, config.kernel_sizes, config.num_feature_maps)
        span_dim = config.num_feature_maps * len(config.kernel_sizes)
        self.span_projection = nn.Identity() if span_dim == config.model_dim else nn.Linear(span_dim, config.model_dim)
        num_means = NUM_MEANS[config.span_pooling]
        self.span_mean = nn.Linear(num_means * config.minute_dim + 1, config.model_dim) if num_means else None
        self.transformer = BidirectionalTransformer(
            self.grid.num_spans,
            config.model_dim,
            config.num_layers,
            config.num_heads,
            config.feedforward_dim,
            config.dropout,
            config.cls_input,
        )
        self.readouts = Readouts(readouts, config.model_dim)

    def forward(
        self,
        batch: WindowBatch,
        masked: Bool[Tensor, " spans"] | None = None,
        wanted: Bool[Tensor, " spans"] | None = None,
    ) -> Representations:
        """Encode windows.

        Args:
            batch: the windows.
            masked: which spans the Transformer must not see; by default none.
            wanted: of which spans the local representation is wanted; by default of all. What isn't wanted isn't
                computed.
        """
        span_repr = self.represent_spans(batch)
        global_repr, local_repr = self.transformer(
            span_repr, batch.span_index, batch.window_lengths, batch.span_lengths, masked, wanted
        )
        return Representations(global_repr, local_repr, span_repr)

    def represent_spans(self, batch: WindowBatch) -> Float[Tensor, "spans model_dim"]:
        """`s_i` of each span, which depends on the span's minutes alone."""
        parts = self.minute_embedding.parts(batch)
        minutes = self.minute_embedding.total(parts)
        span_repr: Tensor = self.span_cnn(minutes, batch.span_lengths)
        if isinstance(self.span_projection, nn.Linear):
            span_repr = of_rows(self.span_projection, span_repr)
        if self.span_mean is not None:
            log_minutes = torch.log1p(batch.span_lengths.to(minutes.dtype))
            averaged = parts if self.config.span_pooling == "max_and_means" else (minutes,)
            means = [run_reduce(part, "mean", batch.span_lengths) for part in averaged]
            span_repr = span_repr + of_rows(self.span_mean, torch.cat([*means, log_minutes[:, None]], dim=1))
        return span_repr

    def embed(
        self,
        span_repr: Float[Tensor, "spans model_dim"],
        span_index: Int[Tensor, " spans"],
        window_lengths: Int[Tensor, " windows"],
        span_lengths: Int[Tensor, " spans"],
    ) -> Float[Tensor, "windows embedding_dim"]:
        """The embeddings of windows; see `EncoderConfig.pooling`.

        Args:
            span_repr: spans of all windows, one window after the other.
            span_index: place of each span in its window.
            window_lengths: spans of each window.
            span_lengths: minutes of each span.
        """
        no_span = torch.zeros(len(span_index), dtype=torch.bool, device=span_repr.device)
        global_repr: Tensor = self.transformer(span_repr, span_index, window_lengths, span_lengths, wanted=no_span)[0]
        if self.config.pooling == "cls":
            return global_repr
        believed: Tensor = self.readouts(global_repr)
        if self.config.pooling == "readouts":
            return believed
        parts = [global_repr, believed]
        if self.config.pooling == "cls_readouts_and_spans":
            parts.append(span_statistics(span_repr, window_lengths))
        return torch.cat(parts, dim=1)

    @property
    def embedding_dim(self) -> int:
        """Size of a window's embedding."""
        of_cls = 0 if self.config.pooling == "readouts" else self.config.model_dim
        of_spans = NUM_STATISTICS * self.config.model_dim if self.config.pooling == "cls_readouts_and_spans" else 0
        return of_cls + (0 if self.config.pooling == "cls" else self.readouts.dim) + of_spans

    def tokenizer(self, store: MinuteStore) -> Tokenizer:
        """What turns windows of a store into this model's batches."""
        return Tokenizer(
            store,
            self.vocabulary,
            self.grid,
            time_zone=self.time_zone,
            time_point=self.config.time_point,
            behavior_rows=self.config.behavior_rows,
        )

    def check_minutes(self, minutes: MinuteTable) -> None:
        """Refuse minutes of another definition than the ones that the model was trained on.

        Raises:
            InputError: the two definitions differ.
        """
        if minutes.hash != self.vocabulary.minutes_hash:
            raise InputError(
                f"the model was trained on minutes of schema {self.vocabulary.minutes_hash}, but {minutes.path} has "
                f"schema {minutes.hash}; aggregate the events with the model's schema, or pre-train on these minutes"
            )

    @property
    def num_threads(self) -> int:
        """Threads that it was trained with, and embeds with: the last digits of products depend on them."""
        return int(self.pretraining.get("config", {}).get("num_threads", DEFAULT_THREADS))

    @property
    def model_id(self) -> str:
        """Names the model: a hash of its configuration, vocabulary and weights."""
        weights = hashlib.sha256()
        for name, tensor in sorted(self._weights().items()):
            weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.numpy().tobytes())
        return definition_hash([self.config.definition(), self.vocabulary.hash, self.time_zone, weights.hexdigest()])

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the model as safetensors and JSON; a folder that holds an older model changes in one step.

        Raises:
            InputError: the folder has a `config.json` that isn't a model's.
        """
        folder = Path(folder)
        check_model_folder(folder)
        weights = safetensors.torch.save(self._weights())
        weights_sha256 = hashlib.sha256(weights).hexdigest()
        weights_file = f"weights-{weights_sha256[:16]}.safetensors"
        vocabulary_file = f"vocabulary-{self.vocabulary.hash}.json"
        write_bytes(folder / weights_file, weights)
        self.vocabulary.save(folder / vocabulary_file)
        card = ModelCard(
            kind="model",
            format=FORMAT,
            model_id=self.model_id,
            minutes_hash=self.vocabulary.minutes_hash,
            vocabulary_hash=self.vocabulary.hash,
            vocabulary_file=vocabulary_file,
            weights_sha256=weights_sha256,
            weights_file=weights_file,
            time_zone=self.time_zone,
            encoder=self.config,
            readouts=self.readouts.readouts,
            pretraining=self.pretraining,
        )
        write_json(folder / CONFIG_FILE, card.model_dump(mode="json"))
        _remove_others(folder, {weights_file, vocabulary_file})

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read what `save_pretrained` wrote.

        Raises:
            InputError: the folder holds no model, or a damaged one.
        """
        folder = Path(folder)
        card = _read_card(folder)
        vocabulary = _read_vocabulary(folder / card.vocabulary_file, card)
        model = cls(card.encoder, vocabulary, card.time_zone, card.readouts)
        model.pretraining = card.pretraining
        model.load_state_dict(_read_weights(folder / card.weights_file, card, model.state_dict()), strict=True)
        if model.model_id != card.model_id:
            raise InputError(f"{folder / CONFIG_FILE} was edited: it describes another model than {card.model_id}")
        return model.eval()

    def _weights(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}


def check_model_folder(folder: Path) -> None:
    """Refuse to write a model where something else is.

    Raises:
        InputError: `folder` can't be written, holds minutes or embeddings, or has a `config.json` that isn't a
            model's.
    """
    refuse_unwritable(folder, "a model")
    if (folder / DEFINITION_FILE).exists():
        raise InputError(f"can't write a model to {folder}: it holds something else; give a folder of its own")
    if (folder / CONFIG_FILE).exists():
        _read_card(folder)


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Remove the weights and vocabularies that older models, or saves that were killed, left."""
    for path in folder.iterdir():
        if OWN_FILE.fullmatch(path.name) and path.name not in kept:
            path.unlink()


def _read_card(folder: Path) -> ModelCard:
    content = read_json(folder / CONFIG_FILE, "a model")
    try:
        card = ModelCard.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise InputError(f"{folder / CONFIG_FILE} is not a model's: {faults}") from None
    if card.kind != "model" or card.format != FORMAT:
        raise InputError(f"{folder} holds a {card.kind} of format {card.format}; expected a model of format {FORMAT}")
    for name in (card.weights_file, card.vocabulary_file):
        if Path(name).name != name or name in ("", ".."):
            raise InputError(f"{folder / CONFIG_FILE} names a file outside its folder: {name}")
    return card


def _read_vocabulary(path: Path, card: ModelCard) -> Vocabulary:
    try:
        vocabulary = Vocabulary.load(path)
    except ValidationError:
        raise InputError(f"{path} is damaged: it is not a vocabulary") from None
    if vocabulary.hash != card.vocabulary_hash or vocabulary.minutes_hash != card.minutes_hash:
        raise InputError(
            f"{path} has hash {vocabulary.hash}, but {CONFIG_FILE} beside it asks for {card.vocabulary_hash}: "
            "the files are of two different models"
        )
    return vocabulary


def _read_weights(path: Path, card: ModelCard, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{path.parent} is not whole: it has no {path.name}") from None
    if hashlib.sha256(content).hexdigest() != card.weights_sha256:
        raise InputError(f"{path} is damaged: its SHA-256 is not the one in {CONFIG_FILE} beside it")
    try:
        weights = safetensors.torch.load(content)
    except safetensors.SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file: {error}") from None
    for name in sorted(expected.keys() | weights.keys()):
        want, got = _shape(expected, name), _shape(weights, name)
        if want != got:
            raise InputError(f"{path}: weight {name} should be {want} and is {got}")
    return weights


def _shape(weights: dict[str, Tensor], name: str) -> str:
    return f"of shape {tuple(weights[name].shape)}" if name in weights else "absent"
