"""Settings are written down once: whatever shows, reads or sends one is made from its field."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from refusal_core.concepts import Concept, PromptPair
from refusal_core.errors import InputError
from refusal_core.recipe import EditRequest, Recipe, changed, plain_request, read_request
from refusal_core.settings import STEPS, SamplingSettings, knobs, recipe_knobs, values_of, with_values

ROOT = Path(__file__).resolve().parents[1]
PAIRS = (PromptPair("a b", "a", Path("b.png"), None), PromptPair("c b", "c"))
RECIPE = Recipe(Concept("b", PAIRS, ("d", "e")))


def test_every_setting_has_a_name_of_its_own_a_help_and_a_label() -> None:
    names = [knob.name for knob in recipe_knobs()]
    assert len(names) == len(set(names))
    assert "sites" in names and "kinds" not in names, "the user's word"
    for step in (*STEPS, SamplingSettings):
        for knob in knobs(step):
            assert knob.help.endswith(".") and knob.label, knob
            knob.check(knob.default)
    assert {knob.name: knob.symbol for knob in recipe_knobs() if knob.symbol} == {
        "rank": "k",
        "alpha": "α",
        "strength": "λ",
    }


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("rank", "4", 4),
        ("rank", 4.0, 4),
        ("strength", 1, 1.0),
        ("strength", " 0.5 ", 0.5),
        ("sites", "text, cross-attention", ("text", "cross-attention")),
        ("sites", ["text"], ("text",)),
        ("layers", "0-2,5", (0, 1, 2, 5)),
        ("layers", "all", None),
        ("layers", [3], (3,)),
        ("edit_sites", "", None),
        ("relative", "no", False),
        ("center", True, True),
        ("method", "cpca", "cpca"),
    ],
)
def test_a_named_value_reaches_the_recipe_from_text_json_or_a_form(
    name: str, value: object, read: object
) -> None:
    made = changed(RECIPE, {name: value})
    assert made.values()[name] == read
    assert type(made.values()[name]) is type(read)
    assert {k: v for k, v in made.values().items() if k != name} == {
        k: v for k, v in RECIPE.values().items() if k != name
    }


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("rank", 0, "rank is 0; it must lie from 1 to 128."),
        ("rank", 1.5, "rank must be a whole number from 1 to 128, not 1.5."),
        ("rank", "many", "rank must be a whole number from 1 to 128, not 'many'."),
        ("rank", True, "rank must be a whole number from 1 to 128, not True."),
        ("rank", None, "rank must be a whole number from 1 to 128, not None."),
        ("strength", float("nan"), "strength must be a number from 0 to 2, not nan."),
        ("method", "magic", "method 'magic' is not known; choose one of whitened, cpca, pca, rv, retained"),
        ("sites", "text,nose", "site 'nose' is not known; choose one of text-entry, text, cross-attention"),
        ("sites", "", "sites is empty; choose at least one of text-entry, text"),
        ("sites", 3, "sites is empty; choose at least one of text-entry, text"),
        ("layers", "3-1", "Layers '3-1' run backwards; write the smaller number first."),
        ("layers", "7", "Layer 7 does not exist; this model has layers 0-3."),
        ("edit_layers", [4], "Layer 4 does not exist; this model has layers 0-3."),
        ("layers", "0-9999999999", "Layer 9999999999 does not exist; this model has layers 0-9999."),
        ("layers", [1, 1], "layers must be numbers from 0, each once, not (1, 1)."),
        ("relative", "maybe", "relative must be yes or no, not 'maybe'."),
        ("ranks", 1, "'ranks' is no setting; choose one of sites, layers, pool"),
    ],
)
def test_a_wrong_value_gets_one_sentence(name: str, value: object, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        changed(RECIPE, {name: value}, layer_count=4)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_sampling_is_read_the_same_way() -> None:
    made = with_values(SamplingSettings(), {"steps": "8", "negative_prompt": "", "image": "a.png", "rank": 2})
    assert made == SamplingSettings(steps=8, image=Path("a.png"))
    assert values_of(made)["steps"] == 8
    with pytest.raises(InputError, match="frames is 401; it must lie from 1 to 400"):
        with_values(made, {"frames": 401})


def test_a_request_survives_json_whole() -> None:
    recipe = changed(RECIPE, {"rank": 3, "sites": "text,text-entry", "layers": "1-2", "edit_layers": "1"})
    request = EditRequest("toyworld", "fire", recipe, (RECIPE,))
    plain = json.loads(json.dumps(plain_request(request)))
    assert read_request(plain) == request
    plain["recipe"]["subspace"]["rank"] = "3"
    with pytest.raises(
        InputError, match=r"The request cannot be read at recipe\.subspace\.rank: input should"
    ):
        read_request(plain)
    plain["recipe"]["subspace"]["rank"] = 999
    with pytest.raises(InputError, match="rank is 999; it must lie from 1 to 128"):
        read_request(plain)
    with pytest.raises(InputError, match="The request cannot be read at model: field required"):
        read_request({})


PROBE = """
import json, sys
sys.path.insert(0, ".")
import refusal_core, refusal_core.cli as cli
from typer.main import get_command
options = {o for p in get_command(cli.app).commands["edit"].params for o in p.opts}
from refusal_core import recipe
reached = {}
def build(model, made, **_):
    reached.update(made.values())
    raise SystemExit(0)
recipe.build = build
try:
    cli.main(["edit", "--twist", "7", "--out", "x.safetensors"])
except SystemExit:
    pass
from refusal_core.studio.build import build_app
from refusal_core.workbench.workbench import Workbench
bench = Workbench("toyworld")
app = build_app(bench)
api = app.get_api_info()["named_endpoints"]["/edit"]["parameters"]
config = app.get_config_file()
form = [c["props"] for c in config["components"] if c["props"].get("elem_id") == "twist"]
bench.close()
print(json.dumps({
    "home": refusal_core.__file__, "option": "--twist" in options, "recipe": reached.get("twist"),
    "form": [(p["label"], p["minimum"], p["maximum"], p["value"]) for p in form],
    "api": [p["parameter_name"] for p in api if p["parameter_name"] == "twist"],
}))
"""


def test_a_knob_added_to_a_copy_is_in_form_command_line_and_api_without_another_line(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "refusal_core", tmp_path / "refusal_core", ignore=shutil.ignore_patterns("__pycache__")
    )
    for name in ("presets", "assets"):
        (tmp_path / name).symlink_to(ROOT / name)
    file = tmp_path / "refusal_core" / "settings.py"
    text, here = file.read_text(encoding="utf-8"), "    rank: int = Knob("
    assert text.count(here) == 1
    knob = '    twist: int = Knob("How far it is turned.", 0, 9).at(3)\n'
    file.write_text(text.replace(here, knob + here), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": "", "GRADIO_ANALYTICS_ENABLED": "False"}
    environment["REFUSAL_STUDIO_DATA"] = str(tmp_path / "data")
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen.pop("home").startswith(str(tmp_path)), "the copy is what was run"
    assert seen == {"option": True, "recipe": 7, "form": [["Twist", 0, 9, 3]], "api": ["twist"]}
