"""Verbs about counterfactual pairs: generate them, and rank interventions by them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from medphantom.core.errors import InputError

if TYPE_CHECKING:
    from medphantom.quality.counterfactual.ranking import RankedIntervention


def counterfactual(
    bundle: Annotated[Path, typer.Argument(help="Bundle, from medphantom train.")],
    cohort: Annotated[Path, typer.Argument(help="Real cohort, from medphantom ingest.")],
    *,
    out: Annotated[Path, typer.Option("--out", help="Cohort of pairs to make; as private as its source.")],
    change: Annotated[
        list[str],
        typer.Option("--set", metavar="NAME=VALUE", help="e.g. effusion=absent, age=70 or age=20:80; may be repeated."),
    ],
    split: Annotated[str, typer.Option(help="Whose images: train, val, holdout or test.")] = "test",
    limit: Annotated[int | None, typer.Option(help="At most so many images.")] = None,
    method: Annotated[str, typer.Option(help="inversion, sdedit or latent_drifting.")] = "inversion",
    guidance: Annotated[float | None, typer.Option(help="How much of the difference is applied; 1: as it is.")] = None,
    locality: Annotated[
        float | None, typer.Option(help="Leave alone what the change concerns less, 0 (nothing) to 0.5.")
    ] = None,
    strength: Annotated[float | None, typer.Option(help="How far back, 0 to 1 (pure noise).")] = None,
    steps: Annotated[int | None, typer.Option(help="Steps of the path.")] = None,
    drift: Annotated[float | None, typer.Option(help="Drift per step, of latent_drifting.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of values drawn from a range, and of the noise of sdedit.")] = None,
) -> None:
    """Draw patients' images as they would be, had a finding or an attribute been another."""
    from medphantom.cohorts.pairs import ROLES
    from medphantom.flows.operations.counterfactual import counterfactual as edited
    from medphantom.flows.process.progress import watching

    given = {
        "method": method,
        "guidance": guidance,
        "locality": locality,
        "strength": strength,
        "steps": steps,
        "drift": drift,
        "seed": seed,
    }
    tree = {name: value for name, value in given.items() if value is not None}
    with watching():
        made = edited(bundle, cohort, change, out, split=split, limit=limit, method=tree)
    typer.echo(f"{len(made) // len(ROLES)} pairs: {out}   edits of real patients: keep them private")


def rank(
    classifier: Annotated[Path, typer.Argument(help="TorchScript file, or ONNX file where it ends with .onnx.")],
    pairs: Annotated[list[Path], typer.Argument(help="Cohorts of pairs, one per intervention.")],
    *,
    output: Annotated[str, typer.Option("--output", metavar="NAME|INDEX", help="Which output; they count from 0.")],
    cohort: Annotated[Path | None, typer.Option(help="Real cohort, for what the method does by itself.")] = None,
    names: Annotated[str, typer.Option(help="Names of the outputs, in order: effusion,nodule")] = "",
    size: Annotated[int | None, typer.Option(help="Side of what the classifier takes, in pixels.")] = None,
    channels: Annotated[int | None, typer.Option(help="1 or 3.")] = None,
    value_range: Annotated[
        str, typer.Option("--range", metavar="LOW,HIGH", help="Its values of black, white.")
    ] = "0,1",
    threshold: Annotated[float, typer.Option(help="Output from which on it says yes.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Of bootstrap and permutations.")] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON file to write.")] = None,
) -> None:
    """Rank interventions by how much they change the output of a classifier of yours.

    TorchScript and ONNX files are programs: ranking runs them with your rights, so give only one that you trust.
    """
    from medphantom.flows.operations.rank import rank as ranked
    from medphantom.flows.process.progress import watching

    low, high = _ends(value_range)
    takes = {"size": None if size is None else [size], "channels": channels, "low": low, "high": high}
    with watching():
        ranking = ranked(
            classifier,
            pairs,
            output,
            cohort=cohort,
            names=[name.strip() for name in names.split(",") if name.strip()],
            config={"threshold": threshold, "seed": seed, "takes": takes},
            out=out,
        )
    for place, found in enumerate(ranking.interventions, start=1):
        typer.echo(f"{place}. {_line(found)}")
    for remark in ranking.remarks:
        typer.echo(f"note: {remark}")


def _ends(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        low, high = 0.0, 0.0
    if not low < high:
        raise InputError(f"--range must be LOW,HIGH, got {text!r}", "e.g. 0,1 or -1,1")
    return low, high


def _line(found: RankedIntervention) -> str:
    """Format one entry of the ranking."""
    from medphantom.flows.operations.summaries import estimate_line

    change, flipped = (
        " ".join(estimate_line(estimate.model_copy(update={"label": None}), "without action").split())
        for estimate in (found.change, found.flipped)
    )
    p = "" if found.p is None else f"; p {found.p:.3g}, Holm {found.p_holm:.3g}"
    return f"{found.intervention}: {change}{p}; {flipped}; {found.total_pairs} images, {found.total_patients} patients"
