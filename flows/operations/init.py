"""``init``: a recipe to start from, filled with what a source holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from medphantom.core.arguments import Text, checked
from medphantom.flows.operations.places import Folder
from medphantom.flows.process.progress import watcher
from medphantom.flows.recipes.starter import write_starter


@checked
def init(
    file: Folder = "recipe.yaml",
    *,
    source: Text = "images",
    name: Text | None = None,
    folders: Text | None = None,
    table: Text | None = None,
    quick: bool = False,
    ask: Callable[[str, Sequence[str]], str] | None = None,
) -> list[str]:
    """Look at a source and write a commented recipe to start from.

    Args:
        file: Recipe to write.
        source: Folder of the images, as the recipe will name it: relative to the recipe.
        name: Name of the run; by default that of the file.
        folders: What folders are: ``classes``, ``patients``, ``classes/patients`` or ``ignore``.
        table: Table of labels, where several would do.
        quick: Write a recipe that shows pictures within minutes: few steps and images, which are not the best.
        ask: Answers what the source does not say; without it such a line is left to be confirmed.

    Returns:
        What has to be confirmed in the recipe before it runs.

    Raises:
        InputError: The file exists.
        RecipeError: Name or source cannot stand in a recipe.
    """
    place = Path(file)
    options = {key: value for key, value in (("folders", folders), ("table", table)) if value is not None}
    return write_starter(
        place,
        source=source,
        name=name or place.stem,
        options=options,
        ask=ask,
        quick=quick,
        progress=watcher().stage("init"),
    )
