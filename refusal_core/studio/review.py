"""The review page: blind votes on pairs of videos, and packs that are handed on."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr

from refusal_core.errors import InputError
from refusal_core.studio import texts
from refusal_core.studio.form import Form
from refusal_core.studio.jobs import QUICK, Runner, SessionJob, Values, guarded, in_line, session_of
from refusal_core.studio.layout import card, message, parts
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench.review import MAX_ITEMS as MAX_REVIEWED
from refusal_core.workbench.review import (
    Pack,
    Rate,
    Vote,
    blind_order,
    load_pack,
    make_pack,
    review_prompts,
    save_pack,
    tally,
)
from refusal_core.workbench.values import SIDES


@dataclass(frozen=True, slots=True)
class Session:
    """One person's review: the pack, who they are, and how far they are."""

    pack: Pack
    voter: str
    place: int = 0

    @property
    def shown(self) -> tuple[int, bool] | None:
        """The item to judge next and whether A is the original; None when all are judged."""
        order = blind_order(self.pack, self.voter)
        return order[self.place] if self.place < len(order) else None


CHANGED = (
    "review-status", "ballot", "vote-place", "vote-a", "vote-b", "vote-shown", "vote-better", "tally",
    "pack-save",
)  # fmt: skip


def build(runner: Runner, form: Form) -> None:
    """Lay out the page and join it to the form."""
    with card("review-card"):
        gr.HTML(f"<p>{TEXT['review_lead']}</p>", elem_classes="rs-sub")
        with gr.Row(elem_classes="rs-end"):
            gr.Slider(
                2, MAX_REVIEWED, 6, step=2, label=TEXT["review_count"], info=TEXT["review_count_info"],
                elem_id="review-count", scale=2,
            )  # fmt: skip
            gr.Button(TEXT["review_make"], variant="primary", elem_id="review-make", scale=1)
            gr.Button(TEXT["stop"], elem_id="review-stop", scale=0, min_width=90)
        gr.File(label=TEXT["review_open"], file_types=[".zip"], height=150, elem_id="review-open")
        gr.HTML(message("review_none"), elem_id="review-status")
        with gr.Column(visible=False, elem_id="ballot"):
            _ballot()
        gr.HTML("", elem_id="tally")
        gr.DownloadButton(TEXT["pack_save"], interactive=False, elem_id="pack-save")
    _join(runner, form, parts(), gr.State(None))


def _ballot() -> None:
    gr.HTML("", elem_id="vote-place")
    with gr.Row():
        for letter in "AB":
            gr.Video(
                label=letter, interactive=False, autoplay=True, loop=True, buttons=[],
                elem_id=f"vote-{letter.lower()}",
            )  # fmt: skip
    seen, liked = [(TEXT[f"vote_{n}"], n) for n in ("both", "neither")], [(TEXT["vote_same"], "same")]
    gr.Radio([("A", "A"), ("B", "B"), *seen], label=TEXT["vote_shown"], elem_id="vote-shown")
    gr.Radio([("A", "A"), ("B", "B"), *liked], label=TEXT["vote_better"], elem_id="vote-better")
    gr.Button(TEXT["vote_next"], variant="primary", elem_id="vote-next")


def _shown(review: Session, path: Path, part: dict[str, Any]) -> Values:
    """Return what the page shows of a review whose pack lies at a path."""
    button = gr.DownloadButton(value=path, interactive=True)
    kept = {part["tally"]: "", part["pack-save"]: button}  # sealed: a count would tell which side is which
    if review.shown is None:
        kept[part["tally"]] = _tally(review.pack)
        done = message("vote_done", "rs-good")
        return {**kept, part["ballot"]: gr.Column(visible=False), part["review-status"]: done}
    item, a_is_original = review.shown
    sides = SIDES if a_is_original else SIDES[::-1]
    prompt, count = review.pack.items[item].prompt, len(review.pack.items)
    concept = review.pack.concept.replace("-", " ")
    words = texts.VOTE_PLACE.format(place=review.place + 1, count=count, prompt=prompt)
    return {
        **kept,
        part["review-status"]: "",
        part["ballot"]: gr.Column(visible=True),
        part["vote-place"]: f"<p>{escaped(words)}</p>",
        part["vote-a"]: str(review.pack.video(item, sides[0])),
        part["vote-b"]: str(review.pack.video(item, sides[1])),
        part["vote-shown"]: gr.Radio(value=None, label=texts.VOTE_SHOWN.format(concept=concept)),
        part["vote-better"]: None,
    }


def _join(runner: Runner, form: Form, part: dict[str, Any], state: gr.State) -> None:
    workbench, line = runner.workbench, part["review-status"]

    def show(review: Session, owner: str) -> Values:
        path = save_pack(review.pack, workbench.session_folder(owner) / "review-pack.zip")
        return {state: review, **_shown(review, path, part)}

    def start(values: Values, job: SessionJob) -> Iterator[Values]:
        request, seed = form.request(values), form.sampling(values).seed
        prompts = review_prompts(workbench, request, int(values[part["review-count"]]))
        pack = job.call(make_pack, request, prompts, seed, session=job.session)
        yield show(Session(pack, uuid.uuid4().hex[:8]), job.session)

    @guarded
    def open_pack(path: str | None, request: gr.Request) -> Values:
        if path is None:
            return {line: gr.skip()}
        folder = workbench.session_folder(session_of(request)) / f"review-{uuid.uuid4().hex}"
        return show(Session(load_pack(path, folder), uuid.uuid4().hex[:8]), session_of(request))

    @guarded
    def cast(review: Session | None, seen: str | None, liked: str | None, request: gr.Request) -> Values:
        if review is None or review.shown is None or not seen or not liked:
            raise InputError(TEXT["vote_choose"])
        item, a_is_original = review.shown
        vote = Vote(item, review.voter, a_is_original, seen, liked)  # type: ignore[arg-type]
        pack = replace(review.pack, votes=(*review.pack.votes, vote))
        return show(replace(review, pack=pack, place=review.place + 1), session_of(request))

    inputs = {*form.compared, part["review-count"]}
    outputs = [state, *(part[name] for name in CHANGED)]
    runner.on(part["review-make"].click, start, inputs, outputs, in_line(line), show_progress_on=[line])
    runner.stop_on(part["review-stop"])
    part["review-open"].upload(open_pack, part["review-open"], outputs, **QUICK)
    votes = [state, part["vote-shown"], part["vote-better"]]
    part["vote-next"].click(cast, votes, outputs, **QUICK)


def _tally(pack: Pack) -> str:
    result = tally(pack)
    if not result.voters:
        return ""
    words = texts.TALLY.format(
        voters=result.voters,
        before=_percent(result.original_shown),
        after=_percent(result.unlearned_shown),
        better=_percent(result.unlearned_better),
        same=result.same,
    )
    return f"<p class='rs-said'>{escaped(words)}</p>"


def _percent(rate: Rate) -> str:
    if rate.rate is None or rate.low is None or rate.high is None:
        return "none"
    return f"{rate.rate:.0%} [{rate.low:.0%}, {rate.high:.0%}]"
