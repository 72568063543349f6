"""The look: one calm theme and the only style sheet."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from refusal_core.studio import player

FONT = ["Inter", "system-ui", "-apple-system", "Segoe UI", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "monospace"]


def theme() -> gr.themes.Base:
    """Return teal on slate; contrasts meet WCAG AA in light and dark."""
    return gr.themes.Base(
        primary_hue="teal",
        secondary_hue="amber",
        neutral_hue="slate",
        font=FONT,
        font_mono=MONO,
        radius_size="md",
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        block_border_width="0px",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_title_text_weight="600",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_primary_text_color="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_600",
        button_border_width="1px",
        input_background_fill="white",
        input_background_fill_dark="*neutral_800",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_600",
        input_border_width="1px",
        input_border_width_dark="1px",
        slider_color="*primary_600",
        slider_color_dark="*primary_500",
    )


def css() -> str:
    """Return the only style sheet, the player's part of it last."""
    return (Path(__file__).parent / "studio.css").read_text(encoding="utf-8") + player.STYLE
