"""The review page: blind votes on pairs of videos, and packs that are handed on."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import gradio as gr

from refusal_core.errors import Cancelled, InputError
from refusal_core.studio import gpu, texts
from refusal_core.studio.form import Form, Values
from refusal_core.studio.frame import card, message, status
from refusal_core.studio.jobs import MODEL_QUEUE, QUICK, Stops, session_of, shown, stop_button
from refusal_core.studio.texts import TEXT, escaped
from refusal_core.workbench import (
    MAX_REVIEWED,
    Pack,
    Rate,
    Vote,
    Workbench,
    blind_order,
    load_pack,
    make_pack,
    review_prompts,
    save_pack,
    tally,
)


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


@dataclass(frozen=True, slots=True)
class Page:
    """The components of the page."""

    count: gr.Slider
    make: gr.Button
    stop: gr.Button
    opened: gr.File
    line: gr.HTML
    ballot: gr.Column
    place: gr.HTML
    left: gr.Video
    right: gr.Video
    what: gr.Radio
    better: gr.Radio
    vote: gr.Button
    result: gr.HTML
    save: gr.DownloadButton
    state: gr.State

    @property
    def outputs(self) -> list[Any]:
        """What a handler may change."""
        return [
            self.line, self.ballot, self.place, self.left, self.right, self.what, self.better, self.result,
            self.save, self.state,
        ]  # fmt: skip


def build(workbench: Workbench, form: Form, stops: Stops) -> None:
    """Lay out the page and join it to the form."""
    with card("review-card"):
        gr.HTML(f"<p>{TEXT['review_lead']}</p>", elem_classes="rs-sub")
        with gr.Row(elem_classes="rs-end"):
            count = gr.Slider(
                2, MAX_REVIEWED, 6, step=2, label=TEXT["review_count"], info=TEXT["review_count_info"],
                elem_id="review-count", scale=2,
            )  # fmt: skip
            make = gr.Button(TEXT["review_make"], variant="primary", elem_id="review-make", scale=1)
            stop = gr.Button(TEXT["stop"], elem_id="review-stop", scale=0, min_width=90)
        opened = gr.File(label=TEXT["review_open"], file_types=[".zip"], height=150, elem_id="review-open")
        line = gr.HTML(message("review_none"), elem_id="review-status")
        with gr.Column(visible=False, elem_id="ballot") as ballot:
            paper = _ballot()
        result = gr.HTML("", elem_id="tally")
        save = gr.DownloadButton(TEXT["pack_save"], interactive=False, elem_id="pack-save")
    page = Page(count, make, stop, opened, line, ballot, *paper, result, save, gr.State(None))
    _join_make(workbench, form, stops, page)
    _join_votes(workbench, page)
    stop_button(stop, stops)


def _ballot() -> tuple[Any, ...]:
    place = gr.HTML("", elem_id="vote-place")
    with gr.Row():
        left, right = _pane("A"), _pane("B")
    what = gr.Radio(
        [("A", "A"), ("B", "B"), (TEXT["vote_both"], "both"), (TEXT["vote_neither"], "neither")],
        label=TEXT["vote_shown"], elem_id="vote-shown",
    )  # fmt: skip
    better = gr.Radio(
        [("A", "A"), ("B", "B"), (TEXT["vote_same"], "same")],
        label=TEXT["vote_better"],
        elem_id="vote-better",
    )
    return (
        place,
        left,
        right,
        what,
        better,
        gr.Button(TEXT["vote_next"], variant="primary", elem_id="vote-next"),
    )


def _shown(workbench: Workbench, page: Page, session: Session, request: gr.Request) -> Values:
    """Return what the page shows of a review."""
    path = save_pack(session.pack, workbench.session_folder(session_of(request)) / "review-pack.zip")
    button = gr.DownloadButton(value=path, interactive=True)
    found = {page.state: session, page.result: _tally(session.pack), page.save: button}
    if session.shown is None:
        return {**found, page.ballot: gr.Column(visible=False), page.line: message("vote_done", "rs-good")}
    item, a_is_original = session.shown
    sides = ("original", "unlearned") if a_is_original else ("unlearned", "original")
    words = texts.VOTE_PLACE.format(
        place=session.place + 1, count=len(session.pack.items), prompt=session.pack.items[item].prompt
    )
    return {
        **found,
        page.line: "",
        page.ballot: gr.Column(visible=True),
        page.place: f"<p>{escaped(words)}</p>",
        page.left: str(session.pack.video(item, sides[0])),
        page.right: str(session.pack.video(item, sides[1])),
        page.what: None,
        page.better: None,
    }


def _join_make(workbench: Workbench, form: Form, stops: Stops, page: Page) -> None:
    def start(
        values: Values,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio finds it by its default
    ) -> Iterator[Values]:
        try:
            tell = stops.telling(request, progress)
            yield {page.line: status("working", "working")}
            edit = form.request(values)
            prompts = review_prompts(workbench, edit, int(values[page.count]))
            seed = int(values[form.three.seed] or 0)
            told = {"progress": tell, "session": session_of(request)}
            pack = gpu.call(make_pack, workbench, edit, prompts, seed, **told)
            yield _shown(workbench, page, Session(pack, uuid.uuid4().hex[:8]), request)
        except Cancelled:
            yield {page.line: status("stopped", "stopped")}
        except Exception as e:
            yield {page.line: status("failed", "failed")}
            raise shown(e) from e

    inputs = {*form.inputs, page.count, form.three.seed}
    page.make.click(start, inputs, page.outputs, show_progress_on=[page.line], **MODEL_QUEUE)


def _join_votes(workbench: Workbench, page: Page) -> None:
    def open_pack(path: str | None, request: gr.Request) -> Values:
        if path is None:
            return {page.line: gr.skip()}
        try:
            folder = workbench.session_folder(session_of(request)) / f"review-{uuid.uuid4().hex}"
            session = Session(load_pack(path, folder), uuid.uuid4().hex[:8])
            return _shown(workbench, page, session, request)
        except Exception as e:
            raise shown(e) from e

    def cast(session: Session | None, seen: str | None, liked: str | None, request: gr.Request) -> Values:
        try:
            if session is None or session.shown is None or not seen or not liked:
                raise InputError(TEXT["vote_choose"])
            item, a_is_original = session.shown
            paper = Vote(item, session.voter, a_is_original, seen, liked)  # type: ignore[arg-type]
            pack = replace(session.pack, votes=(*session.pack.votes, paper))
            return _shown(workbench, page, replace(session, pack=pack, place=session.place + 1), request)
        except Exception as e:
            raise shown(e) from e

    page.opened.upload(open_pack, page.opened, page.outputs, **QUICK)
    page.vote.click(cast, [page.state, page.what, page.better], page.outputs, **QUICK)


def _pane(letter: str) -> gr.Video:
    return gr.Video(
        label=letter,
        interactive=False,
        autoplay=True,
        loop=True,
        buttons=[],
        elem_id=f"vote-{letter.lower()}",
    )


def _tally(pack: Pack) -> str:
    found = tally(pack)
    if not found.voters:
        return ""
    words = texts.TALLY.format(
        voters=found.voters,
        before=_percent(found.original_shown),
        after=_percent(found.unlearned_shown),
        better=_percent(found.unlearned_better),
        same=found.same,
    )
    return f"<p class='rs-said'>{escaped(words)}</p>"


def _percent(rate: Rate) -> str:
    if rate.rate is None or rate.low is None or rate.high is None:
        return "none"
    return f"{rate.rate:.0%} [{rate.low:.0%}, {rate.high:.0%}]"
