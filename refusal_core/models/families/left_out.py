"""Pipelines of diffusers that make videos and belong to no family here, each with the reason."""

from __future__ import annotations

_GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "it starts from a video, which prompt pairs do not have; load its weights with the text to video"
        " pipeline of the same model, save_pretrained, and give that folder.",
        (
            "AnimateDiffVideoToVideoPipeline",
            "CogVideoXVideoToVideoPipeline",
            "SkyReelsV2DiffusionForcingVideoToVideoPipeline",
            "VideoToVideoSDPipeline",
            "WanVideoToVideoPipeline",
        ),
    ),
    (
        "it needs more than a prompt and an image (a video to edit, poses, masks, a camera or a face), which"
        " prompt pairs do not have.",
        (
            "AnimateDiffControlNetPipeline",
            "AnimateDiffSparseControlNetPipeline",
            "AnimateDiffVideoToVideoControlNetPipeline",
            "CogVideoXFunControlPipeline",
            "ConsisIDPipeline",
            "EasyAnimateControlPipeline",
            "EasyAnimateInpaintPipeline",
            "LucyEditPipeline",
            "SanaWMPipeline",
            "WanAnimatePipeline",
        ),
    ),
    (
        "it runs only with the package cosmos_guardrail, whose models judge every prompt and video"
        " themselves.",
        (
            "Cosmos2TextToImagePipeline",
            "Cosmos2VideoToWorldPipeline",
            "Cosmos2_5_PredictBasePipeline",
            "Cosmos2_5_TransferPipeline",
            "CosmosTextToWorldPipeline",
            "CosmosVideoToWorldPipeline",
        ),
    ),
    (
        "its text passes through connectors that mix learned tokens in, and its audio stream would keep the"
        " concept; both need their own study.",
        (
            "LTX2ConditionPipeline",
            "LTX2DFRPipeline",
            "LTX2DFRTemporalRefinePipeline",
            "LTX2HDRPipeline",
            "LTX2ImageToVideoPipeline",
            "LTX2InContextPipeline",
            "LTX2Pipeline",
        ),
    ),
    (
        "it makes sound together with the video, and the sound would keep the concept.",
        ("Cosmos3OmniPipeline", "Kandinsky6TI2VAPipeline"),
    ),
    (
        "it refines or decodes what another pipeline has made; edit that one.",
        (
            "Kandinsky6SRPipeline",
            "LTX2LatentUpsamplePipeline",
            "LTX2VideoDiffusionDecodePipeline",
            "LTXLatentUpsamplePipeline",
        ),
    ),
    (
        "it makes a video piece by piece, each from those before, so that a step of it does not see all"
        " frames.",
        (
            "AnyFlowFARPipeline",
            "HeliosPipeline",
            "HeliosPyramidPipeline",
            "HunyuanVideoFramepackPipeline",
            "LTXI2VLongMultiPromptPipeline",
        ),
    ),
    (
        "its denoiser is of a class of its own, which was not tried yet.",
        ("AnyFlowPipeline", "ChronoEditPipeline", "MotifVideoImage2VideoPipeline", "MotifVideoPipeline"),
    ),
    (
        "its image to video form was not tried yet; its text to video form is supported.",
        ("HunyuanVideo15ImageToVideoPipeline", "Kandinsky5I2VPipeline"),
    ),
    (
        "its text encoder reads the image together with the prompt, so that no row of the text is the prompt"
        " alone.",
        ("HunyuanVideoImageToVideoPipeline",),
    ),
    (
        "it tells its denoiser places in place of the number of frames; load the weights of LTX 0.9.5 and"
        " later with LTXPipeline, save_pretrained, and give that folder.",
        ("LTXConditionPipeline",),
    ),
    (
        "a pooled text enters its denoiser beside the blocks, which was not tried yet.",
        ("AnimateDiffSDXLPipeline",),
    ),
    (
        "its guidance adds a pass with perturbed attention; load its weights with AnimateDiffPipeline.",
        ("AnimateDiffPAGPipeline",),
    ),
    ("it was not tried, and diffusers no longer maintains it.", ("PIAPipeline",)),
    (
        "it draws its frames with an image model and has no video network.",
        ("TextToVideoZeroPipeline", "TextToVideoZeroSDXLPipeline"),
    ),
    ("it takes no text, so there is no prompt pair to compare.", ("StableVideoDiffusionPipeline",)),
    ("its clip_skip fails with transformers 5.", ("I2VGenXLPipeline",)),
)

LEFT_OUT: dict[str, str] = {kind: why for why, kinds in _GROUPS for kind in kinds}
