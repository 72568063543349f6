"""The language model that reads prompts: all-MiniLM-L6-v2, frozen, from the data files of a package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from refusal_core.models.packaged import MINILM, package_folder

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedTokenizerBase

TEXT_LENGTH = 40  # tokens; captions have up to 30
TEXT_WIDTH = 384


def load_encoder() -> tuple[PreTrainedTokenizerBase, BertModel]:
    """Return tokenizer and encoder, frozen, in float32.

    Raises:
        ModelError: see ``package_folder``.
    """
    from transformers import AutoTokenizer, BertModel

    folder = package_folder(MINILM)
    encoder = BertModel.from_pretrained(
        folder, torch_dtype=torch.float32, use_safetensors=True, trust_remote_code=False
    )
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return tokenizer, encoder.eval().requires_grad_(False)


@torch.no_grad()
def embed(
    tokenizer: PreTrainedTokenizerBase, encoder: BertModel, captions: list[str], length: int = TEXT_LENGTH
) -> Tensor:
    """Return text embeddings [B, length, TEXT_WIDTH], padded with zeros as WanPipeline does."""
    tokens = tokenizer(captions, padding=True, max_length=length, truncation=True, return_tensors="pt")
    hidden = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    hidden = hidden * tokens.attention_mask[..., None]
    return torch.nn.functional.pad(hidden, (0, 0, 0, length - hidden.shape[1]))
