"""Labels and categories that enough patients share: a rare one could identify a patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

Term = tuple[str, str]


@dataclass(slots=True)
class Sharers:
    """Counts the patients of each term, up to a minimum.

    Attributes:
        minimum: Smallest number of patients that must share a term.
    """

    minimum: int
    _patients: dict[Term, set[str]] = field(default_factory=lambda: defaultdict(set))

    def note(
        self, patient: str, labels: Mapping[str, bool | None], attributes: Mapping[str, float | str | None]
    ) -> None:
        """Add an image with its present labels and its categories."""
        terms = [("", name) for name, value in labels.items() if value]
        terms += [(name, value) for name, value in attributes.items() if isinstance(value, str)]
        for term in terms:
            known = self._patients[term]
            if len(known) < self.minimum:
                known.add(patient)

    def note_values(self, patient: str, attribute: str, values: Iterable[str]) -> None:
        """Add an image with several values of one attribute, such as the numbers of its mask."""
        for value in values:
            known = self._patients[attribute, value]
            if len(known) < self.minimum:
                known.add(patient)

    def is_rare(self, attribute: str, value: str) -> bool:
        """Return whether too few patients share a value."""
        return self._few(attribute, value)

    def rare_labels(self, labels: Iterable[str], named: Collection[str]) -> list[str]:
        """Return labels that too few patients share and that are not requested by name."""
        return [name for name in labels if name not in named and self._few("", name)]

    def rare_categories(self, named: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
        """Return, by attribute, categories that too few patients share and that are not requested by name."""
        rare: dict[str, list[str]] = defaultdict(list)
        for attribute, value in self._patients:
            if attribute and value not in named.get(attribute, ()) and self._few(attribute, value):
                rare[attribute].append(value)
        return {name: sorted(values) for name, values in rare.items()}

    def total_of(self, attribute: str) -> int:
        """Return the number of categories of an attribute that occurred."""
        return sum(name == attribute for name, _ in self._patients)

    def _few(self, attribute: str, value: str) -> bool:
        return len(self._patients.get((attribute, value), ())) < self.minimum
