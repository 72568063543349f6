"""The look: one calm theme and the only style sheet."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

from refusal_core.studio import player

FONT = ["Inter", "system-ui", "-apple-system", "Segoe UI", "sans-serif"]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "monospace"]


LOOK = {  # in light and in dark; contrasts meet WCAG AA
    "body_background_fill": ("*neutral_50", "*neutral_950"),
    "block_background_fill": ("white", "*neutral_900"),
    "block_label_background_fill": ("transparent", "transparent"),
    "block_info_text_color": ("*neutral_600", "*neutral_300"),
    "body_text_color_subdued": ("*neutral_600", "*neutral_300"),
    "button_primary_background_fill": ("*primary_700", "*primary_700"),
    "button_primary_background_fill_hover": ("*primary_800", "*primary_600"),
    "button_secondary_background_fill": ("white", "*neutral_800"),
    "button_secondary_border_color": ("*neutral_300", "*neutral_600"),
    "input_background_fill": ("white", "*neutral_800"),
    "input_border_color": ("*neutral_300", "*neutral_600"),
    "input_border_width": ("1px", "1px"),
    "slider_color": ("*primary_600", "*primary_500"),
}


def theme() -> gr.themes.Base:
    """Return teal on slate."""
    base = gr.themes.Base(
        primary_hue="teal", secondary_hue="amber", neutral_hue="slate", font=FONT, font_mono=MONO,
        radius_size="md",
    )  # fmt: skip
    both = {name: light for name, (light, _) in LOOK.items()}
    both |= {f"{name}_dark": dark for name, (_, dark) in LOOK.items()}
    return base.set(
        block_border_width="0px", block_shadow="none", block_title_text_weight="600",
        button_primary_text_color="white", button_border_width="1px", **both,
    )  # fmt: skip


def css() -> str:
    """Return the only style sheet, the player's part of it last."""
    return (Path(__file__).parent / "studio.css").read_text(encoding="utf-8") + player.STYLE
