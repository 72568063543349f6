"""Tiny random pipelines of the real diffusers classes, built without any download.

They show that every step works on each family's own code; their videos are noise.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from refusal_core.models.tiny import cross_attention, joint_attention
from refusal_core.models.tiny.parts import Tiny

SEED = 0

BUILDERS: dict[str, Callable[[], Tiny]] = {
    "unet3d": cross_attention.unet3d,
    "animatediff": cross_attention.animatediff,
    "wan": cross_attention.wan,
    "wan-2.2": cross_attention.wan22,
    "wan-i2v": cross_attention.wan_i2v,
    "wan-2.1-i2v": cross_attention.wan_i2v_clip,
    "wan-2.2-i2v": cross_attention.wan22_i2v,
    "wan-vace": cross_attention.wan_vace,
    "skyreels-v2": cross_attention.skyreels,
    "skyreels-v2-df": cross_attention.skyreels_forcing,
    "skyreels-v2-df-i2v": cross_attention.skyreels_forcing_i2v,
    "skyreels-v2-i2v": cross_attention.skyreels_i2v,
    "ltx": cross_attention.ltx,
    "ltx-i2v": cross_attention.ltx_i2v,
    "latte": cross_attention.latte,
    "allegro": cross_attention.allegro,
    "kandinsky5": cross_attention.kandinsky,
    "sana-video": cross_attention.sana,
    "sana-i2v": cross_attention.sana_i2v,
    "hunyuan": joint_attention.hunyuan,
    "hunyuan-skyreels-i2v": joint_attention.hunyuan_skyreels,
    "hunyuan-1.5": joint_attention.hunyuan15,
    "cogvideox": joint_attention.cogvideox,
    "cogvideox-1.5": joint_attention.cogvideox15,
    "cogvideox-i2v": joint_attention.cogvideox_i2v,
    "mochi": joint_attention.mochi,
    "easyanimate": joint_attention.easyanimate,
}


def build(name: str) -> Tiny:
    """Return a tiny pipeline with the same random weights each time; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        tiny = BUILDERS[name]()
        for _, module in tiny.pipeline.components.items():
            if isinstance(module, torch.nn.Module):
                _shake(module.eval())
    return prepare(tiny)


def _shake(module: torch.nn.Module) -> None:
    """Give weights that start at zero a value: an untrained gate would hide what lies behind it."""
    for parameter in module.parameters():
        if parameter.ndim > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)


def prepare(tiny: Tiny) -> Tiny:
    """Set what diffusers does not save with a pipeline, and return it."""
    pipeline, kind = tiny.pipeline, type(tiny.pipeline).__name__
    if kind == "AllegroPipeline":
        pipeline.vae.enable_tiling()  # it decodes no other way
    if kind.startswith("LTX"):
        pipeline.vae.use_framewise_encoding = pipeline.vae.use_framewise_decoding = False
    if kind.startswith(("HunyuanVideo15", "Kandinsky5")):
        pipeline.prompt_template_encode_start_idx = 0  # the published template's length, not ours
    if kind.startswith("Kandinsky5"):
        pipeline.prompt_template = "{}"
    if kind.startswith("HunyuanVideo15"):
        pipeline.tokenizer_max_length = pipeline.tokenizer_2_max_length = 16
        pipeline.vision_num_semantic_tokens = 4
    return tiny
