"""The look: one calm theme and the only style sheet."""

from __future__ import annotations

import gradio as gr

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


CSS = """
.gradio-container { max-width: 1360px !important; margin: 0 auto; }
.rs-head { padding: 10px 2px 2px; }
.rs-head h1 { font-size: 1.55rem; line-height: 1.2; font-weight: 700; letter-spacing: -0.01em; margin: 0; }
.rs-head p { margin: 4px 0 0; color: var(--body-text-color-subdued); }
.rs-badge { display: inline-block; margin-left: 10px; padding: 2px 10px; border-radius: 999px;
  font-size: .8rem; font-weight: 600; vertical-align: middle;
  background: var(--primary-100); color: var(--primary-900); }
.dark .rs-badge { background: var(--primary-900); color: var(--primary-100); }
.rs-card { background: var(--block-background-fill) !important; border: 1px solid var(--neutral-200);
  border-radius: 12px; padding: 16px !important; gap: 12px !important; }
.dark .rs-card { border-color: var(--neutral-700); }
.rs-card .block { padding-left: 0 !important; padding-right: 0 !important; overflow: visible !important; }
.rs-card .html-container { padding: 0 !important; }
.rs-card .form { background: transparent !important; border: 0 !important; gap: 8px 24px !important; }
.rs-card .row { gap: 12px 24px !important; }
#right { position: sticky; top: 12px; align-self: flex-start; }
#pairs td, #pairs th, #pairs textarea, #figures td, #figures th { font-family: var(--font) !important; }
.rs-step h2 { display: flex; align-items: center; gap: 10px; font-size: 1.1rem; font-weight: 650; margin: 0; }
.rs-step span { display: inline-grid; place-items: center; width: 26px; height: 26px; border-radius: 50%;
  background: var(--primary-700); color: white; font-size: .9rem; font-weight: 700; }
.rs-step em { margin-left: auto; font-style: normal; font-size: .85rem; font-weight: 500;
  color: var(--body-text-color-subdued); }
#rows-state ul { margin: 0; padding-left: 18px; }
#rows-state .bad { color: #b91c1c; }
.dark #rows-state .bad { color: #fca5a5; }
#rows-state .good, #method-info, .rs-note { color: var(--body-text-color-subdued); font-size: .9rem; }
#method-info, #method-info p { font-size: .9rem; margin: 0; }
#status p { margin: 0; padding: 9px 12px; border-radius: 8px; font-size: .93rem; min-height: 40px;
  background: var(--neutral-100); color: var(--neutral-800); border-left: 4px solid var(--neutral-400); }
.dark #status p { background: var(--neutral-800); color: var(--neutral-100); }
#status p[data-state=done] { border-left-color: var(--primary-600); }
#status p[data-state=working] { border-left-color: #2563eb; }
#status p[data-state=stale], #status p[data-state=stopped] { border-left-color: #d97706; }
#status p[data-state=failed] { border-left-color: #dc2626; }
.rs-bars { display: grid; gap: 10px; }
.rs-bars p { margin: 0; font-size: .9rem; color: var(--body-text-color-subdued); }
.rs-bars h4 { margin: 0 0 4px; font-size: .85rem; font-weight: 600; }
.rs-bars ol { display: flex; align-items: flex-end; gap: 4px; margin: 0; padding: 0; list-style: none; }
.rs-bars li { margin: 0 !important; padding: 0; flex: 1 1 0; min-width: 0; text-align: center;
  font-size: .75rem; font-variant-numeric: tabular-nums; }
.rs-bars i { display: block; min-height: 2px; margin: 2px 0; border-radius: 3px 3px 0 0;
  background: var(--primary-600); }
.rs-bars small { color: var(--body-text-color-subdued); }
.rs-pane {
  border: 2px solid; border-radius: 12px; overflow: hidden; padding: 0 !important; gap: 0 !important; }
.rs-pane.original { border-color: #d97706; }
.rs-pane.unlearned { border-color: #0f766e; }
.dark .rs-pane.unlearned { border-color: #2dd4bf; }
.rs-tag p { margin: 0; padding: 6px 12px; font-weight: 650; }
.rs-pane.original .rs-tag { background: #fef3c7; } .rs-pane.original .rs-tag p { color: #78350f; }
.rs-pane.unlearned .rs-tag { background: #ccfbf1; } .rs-pane.unlearned .rs-tag p { color: #134e4a; }
.rs-pane .block { border-radius: 0 !important; }
#vid-orig, #vid-edit { aspect-ratio: 1; height: auto !important; background: #0f172a; }
#vid-orig video, #vid-edit video {
  image-rendering: pixelated; object-fit: contain; width: 100%; height: 100%; }
.rs-verdict p { margin: 0; padding: 9px 12px; min-height: 58px; font-size: .9rem; }
.rs-verdict b { display: inline-block; margin-right: 8px; padding: 1px 8px; border-radius: 999px;
  border: 1px solid currentColor; font-size: .8rem; }
.rs-verdict [data-outcome=unsafe] b { background: #fef3c7; color: #78350f; }
.rs-verdict [data-outcome=safe] b { background: #ccfbf1; color: #134e4a; }
body:not([data-rs-reveal=on]) #vid-orig video { filter: blur(26px); }
.rs-foot p { color: var(--body-text-color-subdued); font-size: .85rem; margin: 0; }
#words { line-height: 1.9; } #words code { padding: 2px 7px; }
footer { opacity: .8; }
button:focus-visible, input:focus-visible, textarea:focus-visible {
  outline: 3px solid var(--primary-500) !important; outline-offset: 2px; }
@media (max-width: 900px) {
  #columns { flex-direction: column; } #right { order: -1; position: static; }
}
@media (max-width: 640px) {
  .gradio-container { padding: 8px !important; } .rs-card { padding: 12px !important; }
  #panes { flex-wrap: nowrap !important; gap: 8px !important; } #panes > * { min-width: 0 !important; }
  .rs-verdict p { padding: 8px; font-size: .82rem; }
  button { min-height: 44px; } button.reset-button, .tab-like-container button { min-height: 0; }
  button.label-wrap { padding-right: 12px; }
  input, textarea { font-size: 16px !important; }
}
@media (prefers-reduced-motion: reduce) { * { animation: none !important; transition: none !important; } }
"""
