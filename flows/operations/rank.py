"""``rank``: interventions by how much they change the output of a classifier."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medphantom.cohorts.store import Cohort
from medphantom.core.arguments import checked
from medphantom.core.folders import write_json
from medphantom.core.progress import Progress
from medphantom.flows.operations.places import Folder, opened, refuse_file
from medphantom.flows.process.progress import watcher
from medphantom.flows.recipes.recipe_file import section

if TYPE_CHECKING:
    from medphantom.quality.counterfactual.ranking import RankConfig, Ranking


@checked
def rank(
    classifier: Folder | Callable[[Any], Any],
    pairs: Sequence[Cohort | Folder],
    output: str | int,
    *,
    cohort: Cohort | Folder | None = None,
    names: Sequence[str] = (),
    config: Mapping[str, Any] | RankConfig | None = None,
    out: Folder | None = None,
    progress: Progress | None = None,
) -> Ranking:
    """Rank interventions by how much the output of a classifier changes from factual to counterfactual images.

    Args:
        classifier: TorchScript or ONNX file, which is a program and runs with your rights, or a function of images
            ``(N, C, *size)`` float32 that returns ``(N,)`` or ``(N, K)``.
        pairs: Cohorts of pairs, one per intervention.
        output: Name or index (from 0) of the output.
        cohort: Real cohort that the pairs edit, for the change that the method makes by itself.
        names: Names of the outputs, in order.
        config: Fields of :class:`medphantom.quality.counterfactual.ranking.RankConfig`, e.g.
            ``{"takes": {"size": [224, 224]}}``.
        out: JSON file to write.
        progress: Called with the number of images.

    Raises:
        InputError: A file, output or pairs that cannot be used, ``out`` exists, or the classifier is an ONNX file and
            onnxruntime is not installed.
    """
    from medphantom.quality.counterfactual.ranking import RankConfig as Config
    from medphantom.quality.counterfactual.ranking import rank_interventions
    from medphantom.quality.networks.outside_classifier import OutsideClassifier, load_classifier, require_packages

    if out is not None:
        refuse_file(Path(out))
    chosen = section(Config, config, "rank")
    if isinstance(classifier, str | Path):
        require_packages(Path(classifier))
    given = [opened(one) for one in pairs]
    real = None if cohort is None else opened(cohort)
    if isinstance(classifier, str | Path):
        outside = load_classifier(Path(classifier), names)
    else:
        outside = OutsideClassifier(classifier, tuple(names))
    ranking = rank_interventions(
        outside,
        given,
        str(output),
        chosen,
        real=real,
        progress=progress or watcher().stage("rank"),
    )
    if out is not None:
        write_json(Path(out), ranking.model_dump(mode="json"))
    return ranking
