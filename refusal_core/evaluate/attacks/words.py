"""Attacks through the text encoder: words before a prompt, and a word that is learned."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from refusal_core.evaluate.attacks.embeddings import videos_from
from refusal_core.evaluate.attacks.task import WITH_GRADIENT, Descent, Effort, Reached, Task
from refusal_core.models.conditioning import TEXT
from refusal_core.models.words import reading, vocabulary
from refusal_core.sampling import generate_batch

TOKENS = 5
PREFIX_RATE, PREFIX_DECAY = 1.0, 0.1  # rates are in spreads of the vocabulary
INVERSION_RATE = 0.1


def prefix_attack(task: Task, effort: Effort) -> Reached:
    """Search words that, typed before each prompt, bring the concept back (after UnlearnDiffAtk and P4D).

    A gradient is taken at whole words and followed between them, as Wen et al. (2023) do; what is tried at a
    checkpoint is text that anybody can type.
    """
    table, words = vocabulary(task.model)
    known = normalize(table.float())
    prompts = reading(task.model, task.prompts, TOKENS, before=True)
    generator = torch.Generator().manual_seed(effort.seed)
    first = torch.randint(len(table), (len(task.prompts), TOKENS), generator=generator)
    rate = PREFIX_RATE * float(table.std())
    descent = Descent([table[first].float()], rate, effort, PREFIX_DECAY)
    (moved,) = descent.tensors

    def nearest() -> Tensor:
        return (normalize(moved.detach()) @ known.T).argmax(-1)

    def loss(step: int) -> Tensor:
        typed = table[nearest()].float() + moved - moved.detach()
        return task.loss(step, **{TEXT: prompts.read(typed)})

    saved = descent.run(loss, len(task.states))
    chosen = [[words[i] for i in row] for row in nearest().tolist()]
    texts = [" ".join([*row, prompt]) for row, prompt in zip(chosen, task.prompts, strict=True)]
    videos = partial(generate_batch, task.model, texts, task.seeds, cut=True)
    return Reached(task.paid + WITH_GRADIENT * effort.steps, videos, saved)


def inversion_attack(task: Task, effort: Effort) -> Reached:
    """Learn a word of five tokens from examples, and say it behind each prompt (after CCE and PROBE).

    What it costs is paid once; other prompts than the attacked ones are the examples.
    """
    table, _ = vocabulary(task.model)
    lessons = [reading(task.model, e.prompts, TOKENS, before=False) for e in task.examples]
    prompts = reading(task.model, task.prompts, TOKENS, before=False)
    generator = torch.Generator().manual_seed(effort.seed)
    first = torch.randint(len(table), (TOKENS,), generator=generator)
    descent = Descent([table[first].float()], INVERSION_RATE * float(table.std()), effort)
    (moved,) = descent.tensors
    steps_each = len(task.states)

    def loss(choice: int) -> Tensor:
        lesson, step = divmod(choice, steps_each)
        return task.examples[lesson].loss(step, **{TEXT: lessons[lesson].read(moved)})

    count = len(task.examples[0].prompts)
    paid = sum(example.paid * len(example.prompts) for example in task.examples)
    saved = descent.run(loss, len(task.examples) * steps_each)
    with torch.no_grad():
        embeddings = prompts.read(moved)
    forwards = paid + WITH_GRADIENT * count * effort.steps
    return Reached(forwards, partial(videos_from, task, embeddings), saved)
