"""Comparison of several assessments: which scores are comparable, and which differ significantly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from medphantom.core.errors import ArtifactError, InputError
from medphantom.core.folders import json_digest, read_json, write_json
from medphantom.core.guard import parse_model
from medphantom.core.records import Frozen
from medphantom.quality.report.glossary import is_reconstruction
from medphantom.quality.report.write import PublishedReport
from medphantom.quality.results.quality_report import QualityReport, Verdict
from medphantom.quality.stats.estimate import Estimate

Part = Literal["fidelity", "agreement", "utility", "membership"]
ANY_SIZE = frozenset({"kernel", "frechet_infinite", "ms_ssim", "clip_score", "text_match"})
"""Scores whose expectation does not depend on the number of images."""


class ComparedRun(Frozen):
    """One run, shown as a column.

    Attributes:
        name: unique display name of the run.
        created: time of the assessment, ISO 8601.
        verdict: verdict of the privacy gate.
        reasons: reasons for the verdict.
        privacy: formal guarantee in words.
        images: number of synthetic images.
        real_digest: digest of the real cohort.
        synthetic_digest: digest of the synthetic cohort.
        warnings: warnings of the run's own report.
    """

    name: str
    created: str
    verdict: Verdict
    reasons: tuple[str, ...]
    privacy: str
    images: int
    real_digest: str
    synthetic_digest: str
    warnings: tuple[str, ...]


class ComparedEstimates(Frozen):
    """One row: the same estimand and network, against the same patients, at the same sample size.

    Attributes:
        part: section of the report to which the score belongs.
        name: name of the score; of utility, the training set; of membership, the attack.
        network: feature network that computed the score.
        network_digest: digest of its weights, the same for all runs in the row.
        label: label to which the score is restricted; ``None`` for all images.
        estimates: estimate of each run; ``None`` if a run has no comparable one.
        apart: pairs of runs, as column numbers, whose intervals do not overlap.
    """

    part: Part
    name: str
    network: str | None = None
    network_digest: str | None = None
    label: str | None = None
    estimates: tuple[Estimate | None, ...]
    apart: tuple[tuple[int, int], ...] = ()


class Comparison(Frozen):
    """A comparison of runs.

    Attributes:
        runs: compared runs, in the order of the columns.
        scores: compared scores, in the order of the rows.
        warnings: limits of the comparison.
    """

    format_version: Literal[1] = 1
    runs: tuple[ComparedRun, ...]
    scores: tuple[ComparedEstimates, ...]
    warnings: tuple[str, ...] = ()

    def find(
        self, name: str, *, network: str | None = None, label: str | None = None, part: Part = "fidelity"
    ) -> ComparedEstimates:
        """The first row of a score.

        Raises:
            KeyError: the comparison has no such score.
        """
        for score in self.scores:
            if (score.name, score.network, score.label, score.part) == (name, network, label, part):
                return score
        raise KeyError((name, network, label, part))

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """Read :meth:`save`.

        Raises:
            ArtifactError: the file is missing, damaged or of another format version.
        """
        return parse_model(
            cls, read_json(path), path, ArtifactError, "is not a comparison of this version; compare again"
        )


class _Key(Frozen):
    part: Part
    name: str
    network: str | None
    network_digest: str | None
    label: str | None
    real_digest: str
    sizes: tuple[int | None, int | None] | None


def compare(reports: dict[str, PublishedReport]) -> Comparison:
    """Compare assessments.

    Scores never share a row if they come from different networks or different patients, or if they are distances that
    depend on the sample size and were computed at different sizes.

    Args:
        reports: reports by name, in the order of the columns.

    Raises:
        InputError: there are fewer than two reports.
    """
    if len(reports) < 2:
        raise InputError("a comparison needs at least two runs", "give two or more")
    names = list(reports)
    table: dict[_Key, dict[str, Estimate]] = {}
    for name, report in reports.items():
        for key, estimate in _rows(report.quality):
            table.setdefault(key, {})[name] = estimate
    scores = []
    for key, found in table.items():
        estimates = tuple(found.get(name) for name in names)
        fields = key.model_dump(exclude={"real_digest", "sizes"})
        scores.append(ComparedEstimates(**fields, estimates=estimates, apart=tuple(_apart(estimates))))
    return Comparison(
        runs=tuple(_run(name, report) for name, report in reports.items()),
        scores=tuple(scores),
        warnings=tuple(_warnings(list(reports.values()), list(table))),
    )


def _run(name: str, report: PublishedReport) -> ComparedRun:
    quality = report.quality
    return ComparedRun(
        name=name,
        created=report.facts.created,
        verdict=quality.verdict,
        reasons=quality.verdict_reasons,
        privacy=report.facts.privacy,
        images=quality.synthetic_count,
        real_digest=quality.real_digest,
        synthetic_digest=quality.synthetic_digest,
        warnings=quality.warnings,
    )


def _rows(quality: QualityReport) -> Iterator[tuple[_Key, Estimate]]:
    """Scores with a value, each with the key that comparable scores share."""
    digests: dict[str, list[str]] = {}
    for network in quality.networks:
        digests.setdefault(network.name, []).append(network.digest)
    parts: list[tuple[Part, str, Estimate]] = [
        ("fidelity", estimate.name, estimate) for estimate in quality.estimates if not is_reconstruction(estimate.name)
    ]
    if quality.agreement is not None:
        parts += [("agreement", estimate.name, estimate) for estimate in quality.agreement.per_label]
    parts += [("utility", score.arm.kind, score.estimate) for score in quality.utility]
    if quality.membership is not None:
        parts += [("membership", attack.attack, attack.auroc) for attack in quality.membership.results]
    for part, name, estimate in parts:
        if estimate.value is None:
            continue
        scorer = estimate.network
        known = digests.get(scorer or "")
        digest = estimate.network_digest if known is None else json_digest(sorted(known))
        sized = part == "fidelity" and scorer is not None and estimate.name not in ANY_SIZE
        yield (
            _Key(
                part=part,
                name=name,
                network=scorer,
                network_digest=digest,
                label=estimate.label,
                real_digest=quality.real_digest,
                sizes=(estimate.n_synthetic, estimate.n_real) if sized else None,
            ),
            estimate,
        )


def _apart(estimates: Sequence[Estimate | None]) -> Iterator[tuple[int, int]]:
    for first, one in enumerate(estimates):
        for second in range(first + 1, len(estimates)):
            other = estimates[second]
            if one is None or other is None or one.interval is None or other.interval is None:
                continue
            if one.interval[1] < other.interval[0] or other.interval[1] < one.interval[0]:
                yield first, second


def _warnings(reports: Sequence[PublishedReport], keys: Sequence[_Key]) -> Iterator[str]:
    if len({report.quality.real_digest for report in reports}) > 1:
        yield (
            "the runs were scored against different real cohorts: their scores are in separate rows, and differences "
            "may be due to the patients"
        )
    networks: dict[str, set[str | None]] = {}
    sizes: dict[tuple[str, str | None, str | None], set[tuple[int | None, int | None] | None]] = {}
    for key in keys:
        if key.network is not None:
            networks.setdefault(key.network, set()).add(key.network_digest)
            sizes.setdefault((key.name, key.network, key.label), set()).add(key.sizes)
    for network, found in networks.items():
        if len(found) > 1:
            yield f"{network} is not the same network in every run: its scores are in separate rows"
    if any(len(found) > 1 for found in sizes.values()) and len(networks) == sum(map(len, networks.values())):
        yield (
            "some distances were computed at different sample sizes and are in separate rows: compare kernel or "
            "frechet_infinite, whose expectations do not depend on the sample size"
        )
