"""A process that makes its share of a job: its one argument, as JSON. Started by ``sharing`` alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from refusal_core.errors import RefusalError
from refusal_core.evaluate.evaluation import Evaluation
from refusal_core.evaluate.reproduction import Reproduction
from refusal_core.evaluate.setup import Share, SharedJob
from refusal_core.evaluate.sharing import make_share, one_thread_if_small
from refusal_core.evaluate.sweep import Sweep
from refusal_core.progress import silent

JOBS: dict[str, type[SharedJob[Any]]] = {kind.__name__: kind for kind in (Evaluation, Reproduction, Sweep)}


def main(order: str) -> None:
    """Do what the first process ordered; a known failure is one sentence on stderr and exit code 2."""
    plain = json.loads(order)
    try:
        job: SharedJob[Any] = TypeAdapter(JOBS[plain["job"]]).validate_python(plain["settings"])
        with one_thread_if_small(job):
            make_share(job, Path(plain["folder"]), Share(plain["rank"], plain["workers"]), silent)
    except RefusalError as e:
        print(e, file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main(sys.argv[1])
