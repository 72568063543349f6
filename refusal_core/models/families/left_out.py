"""Pipelines of diffusers that make videos and belong to no family here, each with the reason."""

from __future__ import annotations

# The reason, and the classes without "Pipeline" at their end.
_GROUPS: dict[str, str] = {
    (
        "it starts from a video, which prompt pairs do not have; load its weights with the text to video "
        "pipeline of the same model, save_pretrained, and give that folder."
    ): (
        "AnimateDiffVideoToVideo CogVideoXVideoToVideo SkyReelsV2DiffusionForcingVideoToVideo "
        "VideoToVideoSD WanVideoToVideo"
    ),
    (
        "it needs more than a prompt and an image (a video to edit, poses, masks, a camera or a face), "
        "which prompt pairs do not have."
    ): (
        "AnimateDiffControlNet AnimateDiffSparseControlNet AnimateDiffVideoToVideoControlNet "
        "CogVideoXFunControl ConsisID EasyAnimateControl EasyAnimateInpaint LucyEdit SanaWM WanAnimate"
    ),
    (
        "it runs only with the package cosmos_guardrail, whose models judge every prompt and video "
        "themselves."
    ): (
        "Cosmos2TextToImage Cosmos2VideoToWorld Cosmos2_5_PredictBase Cosmos2_5_Transfer "
        "CosmosTextToWorld CosmosVideoToWorld"
    ),
    (
        "it needs a video to follow, which prompt pairs do not have; load its weights with LTX2Pipeline, "
        "save_pretrained, and give that folder."
    ): "LTX2HDR LTX2InContext",
    (
        "it is one pass of several that a program puts together, with single frames beside the video; load "
        "its weights with LTX2Pipeline, save_pretrained, and give that folder."
    ): "LTX2DFR LTX2DFRTemporalRefine",
    (
        "its prompt has no encoder and no batch: text, picture and sound are one packed sequence of varying "
        "length, which the record of a family cannot say yet; and it starts only with the package "
        "cosmos_guardrail (pip install cosmos_guardrail) or with enable_safety_checker=False. It was read, "
        "not run."
    ): "Cosmos3Omni",
    "it refines or decodes what another pipeline has made; edit that one.": (
        "Kandinsky6SR LTX2LatentUpsample LTX2VideoDiffusionDecode LTXLatentUpsample"
    ),
    (
        "it makes a video piece by piece, and its blocks keep the keys of earlier pieces in a cache that "
        "calls change, so that no call can be repeated with another prompt. It was read, not run."
    ): "AnyFlowFAR",
    (
        "it draws each piece at several sizes in turn, with a list of steps in place of their number; the "
        "pieces of HeliosPipeline are supported. It was read, not run."
    ): "HeliosPyramid",
    (
        "it makes a video piece by piece; rows of earlier pieces lie before the video and the text behind it "
        "in one block, which no layout of ours says yet. It was read, not run."
    ): "HunyuanVideoFramepack",
    (
        "it blends overlapping windows, each with a part of the prompt as its own, while a pair has one "
        "prompt for the whole video. It was read, not run."
    ): "LTXI2VLongMultiPrompt",
    "its guidance adds a pass with perturbed attention; load its weights with AnimateDiffPipeline.": (
        "AnimateDiffPAG"
    ),
    "it was not tried, and diffusers no longer maintains it.": "PIA",
    "it draws its frames with an image model and has no video network.": (
        "TextToVideoZero TextToVideoZeroSDXL"
    ),
    "it takes no text, so there is no prompt pair to compare.": "StableVideoDiffusion",
    "its clip_skip fails with transformers 5.": "I2VGenXL",
}

LEFT_OUT: dict[str, str] = {
    f"{kind}Pipeline": why for why, kinds in _GROUPS.items() for kind in kinds.split()
}
