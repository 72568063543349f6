"""Every sentence of the app, in one place."""

from __future__ import annotations

TITLE = "Refusal Studio"
LEAD = "Remove a concept from a text-to-video model by editing a few weights. No training."

STEP_CONCEPT = "Concept"
STEP_EDIT = "Edit"
STEP_COMPARE = "Compare"

PRESET = "Preset"
PRESET_INFO = "Pairs, neutral prompts and settings to start from."
PAIRS = "Prompt pairs: equal but for the concept"
UNSAFE, SAFE = "Unsafe prompt", "Safe prompt"
ADD_PAIR, REMOVE_PAIR, LOAD_PRESET = "Add pair", "Remove last", "Load preset again"
PAIRS_GOOD = "{count} pairs, all usable."

METHOD = "Method"
METHODS = {
    "whitened": "Whitened",
    "cpca": "cPCA (paper)",
    "pca": "PCA",
    "rv": "Refusal vector",
}
METHOD_INFO = {
    "whitened": "Blind to ordinary variation: removes the concept and leaves most else. Start here.",
    "cpca": "The paper's: directions that vary in the pairs and not in neutral prompts.",
    "pca": "The refusal vector, kept to the directions in which the pairs vary.",
    "rv": "The plain mean difference between unsafe and safe.",
}
SITES = "Kinds of sites"
SITES_INFO = "Which linear layers are edited. The text sites act most directly."
LAYER_FROM, LAYER_TO = "First layer", "Last layer"
RANK, STRENGTH = "Rank (k)", "Strength (λ)"
ANCHOR = "Anchor"
ANCHORS = {"zero": "Zero (paper)", "mean": "Ordinary mean"}
ANCHOR_INFO = "Where the component is moved to. The mean also shifts a bias, which no LoRA carries."
ESTIMATE = "Show separation by layer"
PLOT = "Separation on held-out pairs, by layer: d', the distance of unsafe and safe in units of their spread."
PLOT_BAR = "{kind}, layer {layer}: d' {value:.2f}"
PLOT_EMPTY = "Press “Show separation by layer” to see where unsafe and safe prompts can be told apart."
KEPT_HEADERS = ["Site", "AUC", "d'", "Kept share", "Rank used"]
DETAILS = "Figures of every site"

PROMPT = "Prompt"
PROMPT_INFO = "Both videos are made from this prompt, on the same noise."
SEED = "Seed"
RUN, STOP = "Compare", "Stop"
ORIGINAL, UNLEARNED = "Original", "Unlearned"
REVEAL = "Show the original clip (it is blurred until you ask)"
SAVE_EDIT = "Edit file"
SAVE_BOTH = "Side-by-side video"
WORDS = "Words this model knows"
WORDS_INFO = "The bundled model draws one object over a background. Any other word is unknown to it."

IDLE = "Press Compare to make both videos."
QUEUED = "Working: reading the model, then the original, then the unlearned video."
ORIGINAL_READY = "The original is ready. Making the unlearned video."
DONE = "Done. Same prompt, same seed; only the weights differ."
STOPPED = "Stopped. Nothing was changed."
FAILED = "That did not work. See the message, then try again."
STALE = "Settings changed since this result: press Compare again."
UNEXPECTED = (
    "Something unexpected happened (report number {number}). The model is unchanged; please try again."
)
NOT_YET = "no video yet"

SAFETY = (
    "An edit makes a concept rarer; it guarantees nothing. Figures, limits and the method are in the README."
)
