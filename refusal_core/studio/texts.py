"""Every sentence of the app, in English."""

from __future__ import annotations

import html

TITLE = "Refusal Studio"

# What the page says as it stands.
TEXT = {
    "lead": "Remove a concept from a text-to-video model by editing a few weights. No training.",
    "tab_workbench": "Workbench",
    "tab_sweep": "Sweep",
    "tab_evaluate": "Evaluate",
    "tab_review": "Review",
    "tab_export": "Export",
    "tab_history": "History",
    "cards": "Ready examples, each one click away. Left with the concept, right without it.",
    "example_first": "An example that is ready: one prompt, one seed, a few weights changed. Press Compare "
    "to make your own.",
    "example_shown": "A ready example. Press Compare to make it yourself, or change the prompt.",
    "check_more": "Look further: more seeds, and what else changed",
    "step_concept": "Concept",
    "model": "Model",
    "model_info": "Bundled models are there at once; or a hub id, or a folder with a diffusers pipeline.",
    "model_look": "What does it need?",
    "model_load": "Load model",
    "preset": "Preset",
    "pairs": "Prompt pairs, equal but for the concept",
    "add_pair": "Add pair",
    "remove_pair": "Remove last",
    "load_preset": "Load preset again",
    "undo_preset": "Undo: my pairs back",
    "phrase": "Write pairs from a phrase",
    "phrase_label": "The concept, as it is said in a sentence",
    "phrase_info": "Such as: on fire, holding a cigarette, in the style of Vexel.",
    "phrase_kind": "What it is",
    "kind_state": "A state of something",
    "kind_object": "An object",
    "kind_person": "A person or character",
    "kind_action": "An action",
    "kind_style": "A style",
    "phrase_write": "Write the pairs",
    "paste": "Paste pairs",
    "paste_label": "Rows of unsafe and safe prompt",
    "paste_info": "Separated by a tab, as from a spreadsheet, or by a comma.",
    "paste_add": "Add these rows",
    "images": "Images of the pairs",
    "images_unsafe": "Unsafe images, one a pair, in the order of the rows",
    "images_safe": "Safe images, one a pair, in the order of the rows",
    "also": "Erase other concepts too",
    "also_info": "All at once, in any order; each with its own strength.",
    "also_strength": "Strength of each",
    "also_strength_info": "Numbers in the order chosen, with commas between; 1 where there is none.",
    "cosines": "How alike are they?",
    "step_edit": "Edit",
    "method_whitened": "Whitened (ours)",
    "method_cpca": "cPCA (paper)",
    "method_pca": "PCA",
    "method_rv": "Refusal vector",
    "method_retained": "Retained",
    "method_null-space": "Null space",
    "method_switch": "Switch",
    "method_placebo": "Placebo",
    "about_whitened": "Blind to ordinary variation: removes the concept and leaves most else. Start here.",
    "about_cpca": "The paper's: directions that vary in the pairs and not in ordinary prompts. To compare "
    "with it.",
    "about_pca": "The refusal vector, kept to the directions in which the pairs vary.",
    "about_rv": "The plain mean difference between unsafe and safe. The simplest.",
    "about_retained": "The pairs' directions; the space of ordinary activations passes exactly.",
    "about_null-space": "Whitened, and exactly nothing on the space of ordinary activations.",
    "about_switch": "Writes the pairs' safe side, or a phrase of yours, where the concept was.",
    "about_placebo": "A control: a random direction of the same size. An edit has to do better than it.",
    "first-layer": "First layer",
    "last-layer": "Last layer",
    "anchor_zero": "Zero (paper)",
    "anchor_mean": "Ordinary mean (μ)",
    "expert": "Expert: method, sites, layers, spectrum, map",
    "more": "More settings",
    "trajectory_shared": "Shared noise: only the text differs",
    "trajectory_own": "Own: each prompt denoises alone (paper)",
    "spectrum": "Spectrum",
    "spectrum_lead": "Eigenvalues, largest first, on a log scale; filled ones are removed. Dots: the share "
    "of r held so far.",
    "spectrum_none": "Nothing of the concept has reached this site.",
    "spectrum_wait": "These activations have not been read yet.",
    "spectrum_read": "Read the activations",
    "map": "Separation",
    "map_lead": "How well unsafe and safe can be told apart on pairs left out (d'). Click picks a place.",
    "map_none": "Map all kinds of sites and layers to see where the concept can be told apart.",
    "map_make": "Map sites and layers",
    "figures": "Figures of every site",
    "step_compare": "Compare",
    "step_compare_note": "same prompt, same noise",
    "prompt": "Prompt",
    "start_image": "Image to start from",
    "run": "Compare",
    "stop": "Stop",
    "original": "Original",
    "unlearned": "Unlearned",
    "save_both": "Side-by-side video",
    "save_edit": "Edit file",
    "save_link": "Copy link",
    "link": "The link: whoever opens it has this form; nothing runs by itself",
    "link_failed": "The link cannot be opened.",
    "open": "Open a video of ours or its recipe",
    "open_file": "A video, or its recipe.json",
    "opened": "The form is as it made the video.",
    "opened_file": "The form is filled from the file: press Compare to make the videos.",
    "opened_link": "The form is filled by the link: press Compare to make the videos.",
    "no_video": "no video yet",
    "shown": "concept shown",
    "not_shown": "concept not shown",
    "not_judged": "not judged",
    "words": "Words this model knows",
    "words_info": "The bundled model draws one object over a background. Any other word is unknown to it.",
    "seeds": "More seeds",
    "seeds_info": "The same prompt on so many seeds.",
    "seeds_run": "Compare seeds",
    "others": "What else changed?",
    "others_info": "Ordinary prompts that were not used to make the edit, original and unlearned.",
    "others_run": "Try ordinary prompts",
    "idle": "Press Compare to make both videos.",
    "queued": "Working: reading the model, then the original, then the unlearned video.",
    "original_ready": "The original is ready. Making the unlearned video.",
    "both_ready": "Both videos are ready. Saving the edit.",
    "done": "Done. Same prompt, same seed; only the weights differ.",
    "stopped": "Stopped. Nothing was changed.",
    "failed": "That did not work. See the message, then try again.",
    "stale": "Settings changed since this result: press Compare again.",
    "working": "Working.",
    "state_ready": "ready",
    "state_stale": "changed",
    "changed": "changed since the result",
    "state_working": "running",
    "state_done": "done",
    "state_failed": "needs a look",
    "sweep_lead": "Two settings against each other, on the prompt and seed of the workbench. Click a cell to "
    "load it.",
    "axis_rows": "Down",
    "axis_columns": "Across",
    "axis_values": "Values",
    "axis_info": "1,2,4, or 0-1.5 [4] for four values, or 1-8 (+2) in steps.",
    "sweep_run": "Run the sweep",
    "sweep_none": "Choose two settings and run the sweep: each cell shows the unlearned video.",
    "sweep_loaded": "Loaded into the workbench:",
    "evaluate_lead": "Many prompts and seeds, judged; your edit beside other methods. Prompts never used to "
    "make it.",
    "suite": "Suite",
    "suite_toyworld": "Concept, paraphrase, neutral, other concepts",
    "suite_adversarial": "Adversarial: damaged words, attacked embeddings",
    "videos": "Videos a group",
    "videos_info": "Few videos give wide intervals.",
    "methods": "Compare with",
    "evaluate_run": "Evaluate this edit",
    "evaluate_none": "Run a suite: what it comes to is said here as videos are judged.",
    "evaluate_table": "Figures of every method and group of prompts",
    "evaluate_empty": "The table fills as videos are judged.",
    "report_html": "Report (HTML)",
    "report_json": "Report (JSON)",
    "review_lead": "Blind votes: you do not see which video is the original. Hand the pack on, others vote "
    "in their own app. Counts stay sealed until the last vote; videos are blurred until you ask to see them.",
    "review_count": "Pairs",
    "review_count_info": "Half with the concept, half ordinary.",
    "review_make": "Make a review pack",
    "review_open": "Open a pack",
    "review_none": "Make a pack from the workbench's edit, or open one that was sent to you.",
    "vote_shown": "Which one shows what shall be erased?",
    "vote_better": "Which one looks better?",
    "vote_both": "both",
    "vote_neither": "neither",
    "vote_same": "no difference",
    "vote_next": "Vote and next",
    "vote_done": "All pairs are judged. Download the pack to hand your votes on.",
    "vote_choose": "Answer both questions first.",
    "pack_save": "Download the pack with the votes",
    "export_lead": "Take the workbench's edit with you.",
    "form": "Form",
    "form_edit": "Edit file: some kB, for Refusal Studio",
    "form_lora": "LoRA for diffusers",
    "form_comfyui": "LoRA for ComfyUI",
    "form_weights": "Whole edited pipeline (zip)",
    "export_run": "Export",
    "export_file": "Download",
    "export_second": "Download the second expert's",
    "snippet": "How to use it",
    "card": "Model card",
    "hub": "Send to the Hugging Face hub",
    "hub_name": "owner/name",
    "hub_push": "Send edit and card",
    "hub_login": "Log in on the Space to send under your own name. Elsewhere use the command line: push.",
    "export_none": "Export the edit to see how it is used.",
    "history_lead": "Your comparisons in this browser, for a week. Nobody else sees them.",
    "history_none": "Nothing here yet. Press Compare in the workbench.",
    "history_load": "Load into the workbench",
    "history_left": "Show on the left",
    "history_right": "Show on the right",
    "history_delete": "Delete",
    "history_clear": "Delete all",
    "history_chosen": "Choose a run above.",
    "safety": "An edit makes a concept rarer; it guarantees nothing. Figures, limits and method are in the "
    "README.",
    "finished": "Done.",
}

# Sentences with something to fill in.
PAIRS_GOOD = "{count} pairs, all usable."
ROW = "Row {row}: {sentence}"
UNEXPECTED = (
    "Something unexpected happened (report number {number}). The model is unchanged; please try again."
)
BY_UPLOAD = "Files are taken by upload only, not from an address."
NOT_READABLE = "The inputs are not of the kind that is asked for here; nothing was run."
QUALITY = "SSIM {ssim:.3f}, PSNR {psnr:.1f} dB against the original"
SPECTRUM_AT = "{site}: k {used} of {available} available hold {share:.0%} of r"
MAP_CELL = "{kind}, layer {layer}: d' {value:.2f}"
MODEL_NEEDS = "{title}: about {gigabytes:.1f} GB of weights in {dtype}; {free:.1f} GB are free."
MODEL_READY = "{title} is ready: layers 0-{last}."
TALLY = (
    "{voters} voter(s). Concept shown: original {before}, unlearned {after}. "
    "Unlearned looks better in {better} of the votes that found a difference; {same} found none."
)
VOTE_SHOWN = "Which one shows '{concept}'?"
VOTE_PLACE = "Pair {place} of {count}: {prompt}"
LEFT_OUT = "Not in the form: {parts}; the command line has all: compare --recipe FILE."
SWEEP_AXES = "{rows} down, {columns} across"
OUTCOME = "Concept shown where it is asked for: this edit {after}, original {before}"
OUTCOME_PLACEBO = ", placebo {placebo}"
OUTCOME_KEPT = "; ordinary prompts kept: {kept}"
SHOWN_OF = "{shown} of {judged}"
NOT_JUDGED = " ({count} not judged)"
SENT = "Sent to {address}"
FIGURES_HEAD = ["Site", "AUC", "d'", "Kept share", "Rank used"]
PAIRS_HEAD = ["Unsafe prompt", "Safe prompt"]


def escaped(text: str) -> str:
    """Return text of a user or the core, safe inside HTML."""
    return html.escape(text, quote=True)
