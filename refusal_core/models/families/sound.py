"""Transformers that make the picture and its sound together, in two streams that read the text each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from refusal_core.models.families.family import (
    CARD,
    Blocks,
    Defaults,
    Family,
    Sites,
    cross_attention_sites,
    published,
)

_SOUND: Sites = {
    "sound-text": ("audio_attn2.to_k", "audio_attn2.to_v"),
    "sound": ("audio_attn1.to_out.0", "audio_attn2.to_out.0", "audio_ff.net.0.proj", "audio_ff.net.2"),
}
# One pass of the prompt alone: no empty prompt, no pass with blocks left out, none with the streams apart.
_ALONE: dict[str, Any] = {
    f"{stream}{name}": value
    for stream in ("", "audio_")
    for name, value in (("guidance_scale", 1.0), ("stg_scale", 0.0), ("modality_scale", 1.0))
}

_KANDINSKY6: Sites = {
    "text": ("cross_attention.to_key", "cross_attention.to_value"),
    "cross-attention": ("cross_attention.out_layer",),
    "feed-forward": ("feed_forward.net.0.proj",),
    "feed-forward-out": ("feed_forward.net.2",),
    "self-attention": ("self_attention.out_layer",),
}
_CONNECTORS = (
    "The connectors before its streams are left as they are: all that a stream reads of them are its keys and"
    " values."
)

_LTX2 = Family(
    name="ltx2",
    title="LTX-2, picture and sound",
    pipelines=("LTX2Pipeline", "LTX2ImageToVideoPipeline"),
    blocks=(
        Blocks(
            ("transformer_blocks.*",),
            cross_attention_sites("attn2", "ff"),
            text_modulated_by="cross_attn_mod",
        ),
        Blocks(
            ("transformer_blocks.*",),
            _SOUND,
            "sound",
            text_modulated_by="audio_cross_attn_mod",
            own_count=True,
        ),
    ),
    entry=("caption_projection.linear_1", "audio_caption_projection.linear_1"),
    default_kinds=("text", "sound-text"),
    text_arguments=(
        "encoder_hidden_states",
        "encoder_attention_mask",
        "audio_encoder_hidden_states",
        "audio_encoder_attention_mask",
    ),
    latents="packed",
    registers=True,
    sound_rate="vocoder.config.output_sampling_rate",
    defaults=Defaults(121, 512, 768, 24.0, 30, 3.0, 1024),
    size_multiple=32,
    arguments={"image_crf": 0},  # else a first image is compressed and read again, by a package of its own
    unguided=_ALONE,
    comfyui={
        r"transformer_blocks\.(.+)": r"transformer_blocks.\1",
        r"((?:audio_)?caption_projection)\.(.+)": r"\1.\2",
    },
    checkpoints=(published("Lightricks/LTX-2", "LTX2VideoTransformer3DModel", CARD, rope_type="split"),),
    note=_CONNECTORS,
)

SOUND: tuple[Family, ...] = (
    _LTX2,
    replace(
        _LTX2,
        name="ltx2-condition",
        title="LTX-2 with conditions, from text alone",
        pipelines=("LTX2ConditionPipeline",),
        batches=False,  # it draws a whole batch from the first generator
        checkpoints=(),
        note=f"{_CONNECTORS} The conditions, images at places in time, are not handed over.",
    ),
    Family(
        name="kandinsky6",
        title="Kandinsky 6, picture and sound",
        pipelines=("Kandinsky6TI2VAPipeline",),
        blocks=(
            Blocks(("visual_transformer_blocks.*.video_dec_block",), _KANDINSKY6, text="text-stream"),
            Blocks(
                ("visual_transformer_blocks.*.audio_dec_block",),
                {
                    "sound-text": _KANDINSKY6["text"],
                    "sound": tuple(
                        path for kind, own in _KANDINSKY6.items() if kind != "text" for path in own
                    ),
                },
                "sound",
                text="text-stream",
                own_count=True,
            ),
        ),
        entry=("video_text_embeddings.in_layer", "audio_text_embeddings.in_layer"),
        default_kinds=("text", "sound-text"),
        text_arguments=("encoder_hidden_states", "encoder_attention_mask", "pooled_projections"),
        latents="BFHWC",
        guidance="passes",
        defaults=Defaults(121, 512, 768, 24.0, 50, 5.0, 1024),
        templated=True,
        image_optional=True,
        sound_rate="audio_sample_rate",
        lora="model",
        note="The pooled text that steers all blocks at once is left as it is.",
    ),
)
