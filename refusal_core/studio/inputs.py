"""The page as Gradio's server sees it: inputs are read strictly, and a guard stands in front of it."""

from __future__ import annotations

import logging
import re
from typing import Any

import gradio as gr

from refusal_core.studio import texts
from refusal_core.studio.guard import ADDRESS, lifespan
from refusal_core.workbench.workbench import Workbench

logger = logging.getLogger(__name__)


class Studio(gr.Blocks):
    """Blocks whose inputs must come as the form sends them; whatever else a program sends gets a sentence."""

    def __init__(self, workbench: Workbench, **named: Any) -> None:
        super().__init__(**named)
        self._workbench = workbench

    def launch(self, *arguments: Any, **named: Any) -> Any:
        """Serve the page, always behind the guard."""
        around = {"lifespan": lifespan(self._workbench.purge, self._workbench.close)}
        return super().launch(
            *arguments, app_kwargs={**(named.pop("app_kwargs", None) or {}), **around}, **named
        )

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *more: Any, **named: Any) -> Any:
        """Read a handler's inputs. Gradio would fetch a file that is named by an address."""
        try:
            if _names_an_address(inputs):
                raise gr.Error(texts.BY_UPLOAD, duration=None, print_exception=False)
            return await super().preprocess_data(block_fn, inputs, *more, **named)
        except gr.Error:
            raise
        except Exception as e:
            logger.info("inputs were refused", exc_info=e)
            raise gr.Error(texts.NOT_READABLE, duration=None, print_exception=False) from e


def _names_an_address(value: Any) -> bool:
    """Return whether a file among the inputs is an address instead of an upload."""
    if isinstance(value, dict):
        path = value.get("path")
        return (isinstance(path, str) and re.match(ADDRESS, path) is not None) or any(
            _names_an_address(inner) for inner in value.values()
        )
    return isinstance(value, list) and any(_names_an_address(inner) for inner in value)
