"""The table of families. A new family is one entry in one of the files here."""

from __future__ import annotations

from refusal_core.models.families.cross_attention import CROSS_ATTENTION
from refusal_core.models.families.joint_attention import JOINT_ATTENTION
from refusal_core.models.families.unets import UNETS
from refusal_core.models.families.wan import WAN
from refusal_core.models.family import Family

FAMILIES: tuple[Family, ...] = (*UNETS, *WAN, *CROSS_ATTENTION, *JOINT_ATTENTION)

LEFT_OUT: dict[str, str] = {
    "LTX2Pipeline": "its text passes through connectors that mix learned tokens in, and its audio stream"
    " would keep the concept; both need their own study.",
    "LTXConditionPipeline": "it tells its denoiser places in place of the number of frames; load the weights"
    " of LTX 0.9.5 and later with LTXPipeline, save_pretrained, and give that folder.",
    "CosmosTextToWorldPipeline": "it runs only with the package cosmos_guardrail, whose models judge every"
    " prompt and video themselves.",
    "StableVideoDiffusionPipeline": "it takes no text, so there is no prompt pair to compare.",
    "I2VGenXLPipeline": "its clip_skip fails with transformers 5.",
}
