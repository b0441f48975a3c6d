"""Encoder-decoder language models of ``transformers``: loading, batches, writing.

Axes: row (text of a batch), token (of the source), label (token of the target), V words
of the model. Packages of the extra ``text`` are imported when they are used.
"""

import copy
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sciseq.errors import InputError, InputTypeError, MissingDependencyError
from sciseq.training import generator_for

__all__ = ["TextBatches", "TextModel", "load_text_model", "nucleus_choice"]

_IGNORED = -100  # the label that losses of transformers leave out


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise MissingDependencyError(
            "writing summaries needs the package transformers, which is not installed",
            hint='Install it with pip install "sciseq[text]", or set model=None for '
            "summaries made of sentences of the document.",
        ) from error


@dataclass(frozen=True)
class TextModel:
    """An encoder-decoder and its tokenizer.

    Parameters
    ----------
    network : transformers.PreTrainedModel
        In evaluation mode.
    tokenizer : transformers.PreTrainedTokenizerBase
        Its tokenizer.
    """

    network: Any
    tokenizer: Any

    @property
    def max_positions(self) -> int | None:
        """Most tokens that the encoder reads, where the model has such a limit."""
        limit = getattr(self.network.config, "max_position_embeddings", None)
        return None if limit is None else int(limit)

    def n_tokens(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of texts, without those that begin and end a source."""
        encoded = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return [len(one) for one in encoded]

    def encode(
        self, texts: Sequence[str], max_length: int, *, is_target: bool = False
    ) -> list[list[int]]:
        """Return the tokens of texts, of which what is longer is cut."""
        kind = "text_target" if is_target else "text"
        encoded = self.tokenizer(
            **{kind: list(texts)}, truncation=True, max_length=max_length
        )
        return [list(one) for one in encoded["input_ids"]]

    def write(
        self,
        sources: Sequence[str],
        *,
        max_source: int,
        max_length: int,
        batch_size: int,
        top_p: float | None,
        seed: int,
    ) -> list[str]:
        """Write a text for each source.

        Parameters
        ----------
        sources : sequence of str
            What the encoder reads.
        max_source : int
            Tokens read of a source.
        max_length : int
            Most tokens written.
        batch_size : int
            Sources at once; the result does not depend on it beyond rounding.
        top_p : float or None
            Probability that the sampled words have together; None takes the most
            probable word each time.
        seed : int
            Of the samples. Every source has a generator of its own, named by its text.

        Returns
        -------
        list of str
            Texts in the order of the sources.
        """
        encoded = self.encode(sources, max_source)
        # Sources of like length together, so that little is padded.
        order = sorted(range(len(sources)), key=lambda row: len(encoded[row]))
        written = [""] * len(sources)
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            generators = [generator_for(seed, "summary", sources[row]) for row in rows]
            tokens = self._generate(
                [encoded[row] for row in rows], max_length, top_p, generators
            )
            texts = self.tokenizer.batch_decode(tokens, skip_special_tokens=True)
            for row, text in zip(rows, texts, strict=True):
                written[row] = text.strip()
        return written

    def _generate(
        self,
        encoded: list[list[int]],
        max_length: int,
        top_p: float | None,
        generators: list[torch.Generator],
    ) -> Tensor:
        device = self.network.device
        tokens, mask = _padded(encoded, self.tokenizer.pad_token_id, device)
        processors = []
        if top_p is not None:

            def choose(_: Tensor, scores: Tensor) -> Tensor:
                # One number per step and row, from the row's own generator: neither
                # the batch nor torch's global random state matters.
                uniform = torch.cat(
                    [torch.rand(1, generator=one, dtype=torch.float64)
                     for one in generators]
                ).to(scores.device)  # fmt: skip
                chosen = nucleus_choice(scores, uniform, top_p).unsqueeze(1)
                only = torch.full_like(scores, -torch.inf)
                return only.scatter_(1, chosen, 0.0)

            processors.append(choose)
        with torch.no_grad():
            written: Tensor = self.network.generate(
                input_ids=tokens,
                attention_mask=mask,
                max_new_tokens=max_length,
                do_sample=False,
                num_beams=1,
                logits_processor=processors,
            )
        return written

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the summed cross-entropy of the labels, and their number."""
        count = (batch["labels"] != _IGNORED).sum()
        total: Tensor = self.network(**batch).loss * count
        return total, count


def load_text_model(model: Any, tokenizer: Any = None) -> TextModel:
    """Return an encoder-decoder and its tokenizer.

    Parameters
    ----------
    model : str, path or transformers.PreTrainedModel
        Name or folder that ``transformers`` loads, or a model.
    tokenizer : str, path or tokenizer, optional
        By default the one beside ``model``; needed when that is no name or path.

    Returns
    -------
    TextModel
        In evaluation mode, and frozen. Layers can be exchanged without any effect on a
        ``model`` that was given; the memory of the weights is shared with it, unless
        they are of less than 32 bits: such weights are widened, to be trained.

    Raises
    ------
    MissingDependencyError
        When ``transformers`` is not installed.
    InputTypeError
        When a model comes without tokenizer.
    InputError
        When the model is no encoder-decoder.
    """
    package = _transformers()
    is_named = isinstance(model, str | os.PathLike)
    if tokenizer is None and not is_named:
        raise InputTypeError(
            f"model is a {type(model).__name__} and tokenizer is None",
            where="tokenizer",
            hint="Give the tokenizer of the model, or both by name.",
        )
    if is_named:
        network = package.AutoModelForSeq2SeqLM.from_pretrained(os.fspath(model))
    else:
        network = model
    config = getattr(network, "config", None)
    if not getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"{type(network).__name__} is no encoder-decoder of transformers",
            where="model",
            hint="Take a model such as BART, PEGASUS or T5.",
        )
    network = _private_copy(network)
    if network.dtype in (torch.float16, torch.bfloat16):
        network = network.float()
    named = model if tokenizer is None else tokenizer
    if isinstance(named, str | os.PathLike):
        named = package.AutoTokenizer.from_pretrained(os.fspath(named))
    return TextModel(network.eval(), named)


def _private_copy(network: Any) -> Any:
    """Copy the structure of a network; the memory of its weights is shared."""
    shared: dict[int, Any] = {
        id(one): nn.Parameter(one.detach(), requires_grad=False)
        for one in network.parameters()
    }
    return copy.deepcopy(network, shared)


class TextBatches:
    """Sources and targets as tokens; any set can be gathered and padded.

    Parameters
    ----------
    sources, targets : sequence of lists of int
        Tokens.
    pad : int
        Token that fills up sources.
    device : torch.device
        Where batches are made.

    Examples
    --------
    >>> made = TextBatches([[5], [6, 7]], [[8, 9], [8]], 1, torch.device("cpu"))
    >>> batch = made.gather(torch.tensor([0, 1]))
    >>> batch["input_ids"].tolist(), batch["labels"].tolist()
    ([[5, 1], [6, 7]], [[8, 9], [8, -100]])
    """

    def __init__(
        self,
        sources: Sequence[list[int]],
        targets: Sequence[list[int]],
        pad: int,
        device: torch.device,
    ) -> None:
        self._sources = sources
        self._targets = targets
        self._pad = pad
        self._device = device

    @property
    def n_items(self) -> int:
        """Number of pairs."""
        return len(self._sources)

    def gather(self, indices: Tensor) -> dict[str, Tensor]:
        """Return the arguments of the model for some pairs."""
        rows = indices.tolist()
        sources = [self._sources[row] for row in rows]
        tokens, mask = _padded(sources, self._pad, self._device)
        targets = [self._targets[row] for row in rows]
        labels, _ = _padded(targets, _IGNORED, self._device)
        return {"input_ids": tokens, "attention_mask": mask, "labels": labels}


def nucleus_choice(scores: Tensor, uniform: Tensor, top_p: float) -> Tensor:
    r"""Sample from the most probable words (nucleus, or top-p, sampling).

    The words are sorted by probability, and those are kept before which less than
    ``top_p`` has come together; of these one is drawn by inversion.

    Parameters
    ----------
    scores : Tensor, shape (row, V)
        Logits; minus infinity: not allowed.
    uniform : Tensor, shape (row,)
        One number in [0, 1) per row.
    top_p : float
        Probability in (0, 1].

    Returns
    -------
    Tensor of int64, shape (row,)
        Words.

    Notes
    -----
    Probabilities are float64: in float32 the tail is cut off where sums round.
    Holtzman et al., arXiv:1904.09751.

    Examples
    --------
    >>> scores = torch.tensor([[0.2, 0.5, 0.3]]).log().expand(4, 3)
    >>> nucleus_choice(scores, torch.tensor([0.0, 0.6, 0.7, 0.99]), 0.7).tolist()
    [1, 1, 2, 2]
    """
    probabilities, words = (
        scores.double().softmax(-1).sort(dim=-1, descending=True, stable=True)
    )
    reached = probabilities.cumsum(-1)
    kept = reached - probabilities < top_p
    kept[..., 0] = True
    mass = reached.where(kept, 0.0).amax(-1, keepdim=True)
    place = (reached <= uniform.double().unsqueeze(-1) * mass).sum(-1, keepdim=True)
    last = kept.sum(-1, keepdim=True) - 1  # rounding may step over the end
    return words.gather(-1, torch.minimum(place, last)).squeeze(-1)


def _padded(
    rows: Sequence[list[int]], filler: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    longest = max(map(len, rows))
    values = torch.full((len(rows), longest), filler, dtype=torch.int64)
    mask = torch.zeros((len(rows), longest), dtype=torch.int64)
    for place, row in enumerate(rows):
        values[place, : len(row)] = torch.tensor(row, dtype=torch.int64)
        mask[place, : len(row)] = 1
    return values.to(device), mask.to(device)
