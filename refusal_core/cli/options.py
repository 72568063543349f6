"""Options made from values: a command takes settings as dataclasses, and each of their knobs is an option."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from refusal_core.errors import InputError
from refusal_core.models.load_settings import LoadSettings
from refusal_core.progress import Progress, silent
from refusal_core.settings import STEPS, Knob, PhraseKind, knobs, recipe_knobs, with_values

if TYPE_CHECKING:
    from refusal_core.concepts import Preset
    from refusal_core.models.model import Model
    from refusal_core.recipe import Recipe

MODEL = Knob("A bundled model such as toyworld, a diffusers folder, or a hub id.")
PRESET = Knob("A preset's name, or a path to its JSON file.")
PRESETS = Knob("Names with commas between, a path, or all of the toy world.")
Json = Annotated[Path | None, typer.Option("--json", help="Also write the table's figures to this file.")]


@dataclass(frozen=True, slots=True)
class Changes:
    """What options change in the recipe that a preset recommends, by the names of the settings' knobs."""

    values: Mapping[str, object] = field(default_factory=dict)
    given: frozenset[str] = frozenset()  # every option of the command that was given, of whatever step


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """The model."""

    model: str = MODEL.at("toyworld")
    guess: bool = Knob("Look for the structure of an unknown pipeline, and ask whether it is right.").at(
        False
    )

    def load(self, settings: LoadSettings, progress: Progress = silent) -> Model:
        """Load the model; a guessed structure is shown and must be confirmed."""
        from refusal_core.models.load import load_model

        return load_model(
            self.model, replace(settings, accept_guess=_confirm if self.guess else None), progress=progress
        )


@dataclass(frozen=True, slots=True)
class ConceptOptions:
    """What is removed."""

    preset: str = PRESET.at("fire")
    pairs: Path | None = Knob("Prompt pairs of your own (JSON, CSV, TSV), instead of the preset's.").at(None)
    concept: str | None = Knob("In place of a preset: a phrase, such as 'on fire'; pairs are made of it.").at(
        None
    )
    kind: PhraseKind = Knob("What the phrase of --concept is: decides how sentences say it.").at("state")

    def recipe(self, model: Model, changes: Changes) -> tuple[Preset, Recipe]:
        """Return the preset, and its recipe for a model with what the options change."""
        from refusal_core.concepts import load_neutral, load_preset
        from refusal_core.recipe import changed, preset_recipe

        preset = self._of_phrase(model, changes) or load_preset(self.preset, model.name)
        values, named = dict(changes.values), Path(str(changes.values.get("neutral", "")))
        if named.suffix:  # a file, not a list's name
            del values["neutral"]
            preset = replace(preset, concept=replace(preset.concept, neutral=load_neutral(named)))
        recipe = changed(preset_recipe(preset, model), values, model.block_count)
        if self.pairs is not None:
            from refusal_core.workbench.pairs import read_pairs

            recipe = replace(recipe, concept=replace(recipe.concept, pairs=read_pairs(self.pairs)))
        return preset, recipe

    def _of_phrase(self, model: Model, changes: Changes) -> Preset | None:
        """Return a preset made from the phrase that is given, None where none is."""
        if self.concept is None:
            if "kind" in changes.given:
                raise InputError("--kind says what the phrase of --concept is; give both, or leave it out.")
            return None
        if other := sorted(changes.given & {"pairs", "preset"}):
            raise InputError(f"Give --concept or --{other[0]}, not both.")
        from refusal_core.workbench.phrasing import phrase_preset

        return phrase_preset(self.concept, self.kind, model.name)


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """What is written."""

    json: Path | None = Knob("Also write the report here; of several, a folder.").at(None)
    html: Path | None = Knob("Also write one page with tables, plots, frames, recipes.").at(None)
    work: Path | None = Knob("Readings are kept here: a stopped run goes on.").at(None)
    workers: int | None = Knob("Processes; default: as many as help.", 1, 64).at(None)


def _confirm(description: str) -> bool:
    return typer.confirm(f"\n{description}\nIs this right?", err=True)


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command for typer that has an option for every knob of its dataclass parameters.

    What is not given keeps the setting's default. A value that cannot be raises InputError when the command
    runs: one sentence, the same one as everywhere.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    values: dict[str, type[Any]] = {}
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        if is_dataclass(kind) and isinstance(kind, type):
            values[parameter.name] = kind
            parameters += _options(kind)
        else:
            parameters.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))

    def run(**given: Any) -> None:  # as typer calls it
        every = frozenset(name for name, value in given.items() if value is not None)
        for name, kind in values.items():
            mine = {knob.name: given.pop(knob.name) for knob in _knobs(kind)}
            said = {key: value for key, value in mine.items() if value is not None}
            for knob in _knobs(kind):
                if knob.input == "text" and said.get(knob.name, "x").strip() == "":
                    what = knob.name.replace("_", " ")
                    raise InputError(f"The {what} is empty; write a {what}, or leave the option out.")
            given[name] = Changes(said, every) if kind is Changes else with_values(kind(), said)
        command(**given)

    run.__name__, run.__doc__, run.__annotations__ = command.__name__, command.__doc__, {}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return run


def _knobs(kind: type[Any]) -> tuple[Knob, ...]:
    return recipe_knobs() if kind is Changes else knobs(kind)


def _options(kind: type[Any]) -> list[inspect.Parameter]:
    if kind is not Changes:
        return [_option(knob, _title(kind), knob.default) for knob in knobs(kind)]
    titles = {step: f"{_title(step)} (default: the preset's)" for step in STEPS}
    return [_option(knob, titles[step], None) for step in STEPS for knob in knobs(step)]


def _title(kind: type[Any]) -> str:
    """Return the first sentence on a class, which heads its options."""
    return (kind.__doc__ or "").partition(".")[0]


def _option(knob: Knob, panel: str, default: object) -> inspect.Parameter:
    """Return a parameter that typer makes an option of; None where it is not given."""
    name = f"--{knob.name.replace('_', '-')}"
    names = f"{name}/--no-{name[2:]}" if knob.input == "yes-no" and knob.default is not False else name
    span = "" if knob.low is None else f"{knob.low} to {knob.high}"
    shown = "" if default is None or isinstance(default, bool) else f"default {default}"
    facts = "; ".join(filter(None, (knob.symbol, span, ", ".join(knob.choices), shown)))
    text = f"{knob.help} ({facts})" if facts else knob.help
    option = typer.Option(names, help=text, rich_help_panel=panel, show_default=False)
    taken = bool if knob.input == "yes-no" else str
    hint = Annotated[taken | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(knob.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hint)
