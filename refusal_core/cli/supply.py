"""``licences`` lists what the project stands on; ``sbom`` writes the same as a CycloneDX file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

RequirementsOption = Annotated[
    list[Path] | None,
    typer.Option("--requirements", "-r", help="A requirements file, or several; default the app's."),
]


def licences(requirements: RequirementsOption = None) -> None:
    """List name, version and licence of every installed package that the requirements bring."""
    from collections import Counter

    from rich.console import Console
    from rich.table import Table

    from refusal_core.supply import installed, read_requirements

    found = installed(read_requirements(requirements or ()))
    table = Table("package", "version", "licence", "kind", box=None)
    for p in found.packages:
        kind = "" if p.kind == "permissive" else p.kind
        carried = f" (carries {', '.join(p.carries)})" if p.carries else ""
        table.add_row(p.name, p.version, p.licence or "none stated", kind + carried)
    console = Console(width=160, highlight=False, markup=False)
    console.print(table)
    counts = Counter(p.kind for p in found.packages)
    console.print(
        f"{len(found.packages)} packages: " + ", ".join(f"{n} {kind}" for kind, n in counts.items())
    )
    look = [p.name for p in found.packages if p.kind not in ("permissive", "weak copyleft")]
    console.print("To look at: " + (", ".join(look) or "none"))
    if found.missing:
        console.print("Required and not installed here: " + ", ".join(found.missing))


def sbom(
    out: Annotated[Path, typer.Option("--out", help="The JSON file to write.")],
    requirements: RequirementsOption = None,
) -> None:
    """Write the bill of materials of the installed packages as CycloneDX 1.6 JSON."""
    from refusal_core.files import write_json
    from refusal_core.supply import bill_of_materials, installed, read_requirements

    found = installed(read_requirements(requirements or ()))
    print(write_json(out, bill_of_materials(found)))
    if found.missing:
        print("Left out, as not installed here: " + ", ".join(found.missing))
