"""The text encoder as a function of its tokens' embeddings: gradients that reach the words of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from refusal_core.errors import InputError, ModelError
from refusal_core.hooks import watch_calls
from refusal_core.models.conditioning import TEXT, check_conditioning
from refusal_core.models.gradients import frozen
from refusal_core.models.model import Model
from refusal_core.models.recording import first_call

PLACE = "a"  # a word of one token that every vocabulary has; it holds the place of what is searched for


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """Prompts as the pipeline read them, with places whose token embeddings may be others."""

    encoder: nn.Module
    table: nn.Embedding  # of its tokens
    arguments: dict[str, Any]  # of its call
    places: Tensor  # [B, T] bool
    embeddings: Tensor  # [B, T', H], what the denoiser was given
    valid: Tensor  # [B, T', 1]: the rows of it that are the encoder's output, not padding

    def read(self, words: Tensor) -> Tensor:
        """Return what the denoiser is given with other words in the places.

        Args:
            words: token embeddings [B, n, E], or [n, E] for all prompts alike.
        """

        def put(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
            given = words.expand(len(output), *words.shape[-2:]).flatten(0, 1)
            return output.index_put(tuple(self.places.nonzero().T), given.to(output))

        handle = self.table.register_forward_hook(put)
        try:
            with frozen(self.encoder):
                hidden = _output(self.encoder(**self.arguments))
        finally:
            handle.remove()
        return _as_long(hidden, self.embeddings).where(self.valid, self.embeddings)


def reading(
    model: Model,
    prompts: Sequence[str],
    count: int,
    *,
    before: bool,
) -> Reading:
    """Return prompts with ``count`` further tokens before or behind them, yet to be chosen.

    Args:
        model: one whose denoiser takes one tensor of text embeddings.
        prompts: to which the tokens are added.
        count: of the tokens.
        before: whether the tokens come first.

    Raises:
        InputError: prompt and tokens are longer than the model reads.
        ModelError: the text encoder's output does not reach the denoiser as it is, or is made otherwise.
    """
    check_conditioning(model, "The attack")
    extra = " ".join([PLACE] * count)
    texts = [f"{extra} {prompt}" if before else f"{prompt} {extra}" for prompt in prompts]
    encoder, calls = model.pipeline.text_encoder, []
    outputs: list[Tensor] = []
    handle = encoder.register_forward_hook(lambda _m, _i, output: outputs.append(_output(output).clone()))
    try:
        with watch_calls((encoder,), lambda _, arguments: calls.append(arguments)):
            embeddings = first_call(model, texts)[TEXT]
    finally:
        handle.remove()
    with torch.no_grad():
        arguments = {n: a.clone() if torch.is_tensor(a) else a for n, a in calls[0].items()}
        hidden = _as_long(outputs[0].clone(), embeddings)
    valid = (hidden == embeddings).all(-1, keepdim=True)
    places = _places(arguments["input_ids"], model.tokens([PLACE])[0], model.tokens([""])[0], count, before)
    rows = torch.zeros_like(valid[..., 0])
    rows[:, : places.shape[1]] = places[:, : rows.shape[1]]
    if not bool(valid[..., 0][rows].all()):
        raise ModelError(
            f"The attack on words needs the encoder's own output; {model.family.title} changes it."
        )
    return Reading(encoder, _table(model), arguments, places, embeddings, valid)


def _table(model: Model) -> nn.Embedding:
    """Return what the text encoder looks tokens up in: it may hold another, tied to it or not."""
    encoder, ids = model.pipeline.text_encoder, torch.tensor([model.tokens([PLACE])[0]])
    used: list[nn.Embedding] = []

    def note(module: nn.Module, inputs: tuple[Any, ...], _output: Any) -> None:
        if isinstance(module, nn.Embedding) and torch.equal(inputs[0].cpu(), ids):
            used.append(module)

    handles = [m.register_forward_hook(note) for m in encoder.modules() if isinstance(m, nn.Embedding)]
    try:
        with torch.no_grad():
            encoder(ids.to(encoder.device))
    finally:
        for handle in handles:
            handle.remove()
    if not used:
        raise ModelError(f"The attack on words finds no table of tokens in the text encoder of {model.name}.")
    return used[0]


def _output(result: Any) -> Tensor:
    """Return the hidden states of an encoder's result."""
    return result[0] if not torch.is_tensor(result) else result


def _as_long(hidden: Tensor, like: Tensor) -> Tensor:
    """Return hidden states cut or padded with zeros to as many rows as others have."""
    rows = like.shape[1]
    return torch.nn.functional.pad(hidden[:, :rows], (0, 0, 0, max(0, rows - hidden.shape[1]))).to(like)


def _places(ids: Tensor, place: list[int], empty: list[int], count: int, before: bool) -> Tensor:
    """Return [B, T] bool: where the run of place holders is, the first or the last one of a prompt."""
    (token,) = [t for t in place if t not in empty] or place[:1]
    runs = (ids == token).unfold(1, count, 1).all(-1).int()  # [B, T - count + 1]
    if not bool(runs.any(1).all()):
        raise InputError(
            f"A prompt leaves no room for {count} more tokens; shorten it, or choose --long skip."
        )
    starts = runs.argmax(1) if before else runs.shape[1] - 1 - runs.flip(1).argmax(1)
    where = torch.zeros_like(ids, dtype=torch.bool)
    where.scatter_(1, starts[:, None] + torch.arange(count, device=ids.device), True)
    return where


def vocabulary(model: Model) -> tuple[Tensor, list[str]]:
    """Return the embeddings [V, E] of the words that anybody can type, and the words.

    A word is a token whose text alone is read as this token: no sign of its own, no part of a word.
    """
    tokenizer = model.tokenizer
    table = _table(model).weight.detach()
    special = set(tokenizer.all_special_ids)
    texts = [tokenizer.decode([i]).strip() for i in range(len(table))]
    around = len(model.tokens([""])[0])
    read = model.tokens([text or "." for text in texts])
    chosen = [
        i
        for i, (text, ids) in enumerate(zip(texts, read, strict=True))
        if text and i not in special and len(ids) == around + 1 and i in ids
    ]
    return table[chosen], [texts[i] for i in chosen]
