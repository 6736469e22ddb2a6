"""``bases``: networks from which a generator can be fine-tuned, those that ship here and public ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medphantom.core.arguments import checked
from medphantom.core.extras import Extra, absent
from medphantom.flows.process.facts import memory_bytes
from medphantom.generators.facts import read_facts
from medphantom.generators.lineage import Lineage
from medphantom.shipped import PREFIX, SHIPPED, source_path

Patients = Literal["none", "unknown"]

BYTES_PER_MB = 1e6
FLOAT32_BYTES = 4
OWN_LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class BaseEntry:
    """A base that a recipe may name in ``generator.init_from``.

    Attributes:
        source: What the recipe names: ``base:NAME``, or a hub id.
        ships: Whether the weights are part of the installation.
        licence: Licence of the weights.
        size_bytes: Size of the weights as they are stored, in bytes; of a public base, in float32.
        reads: What its conditions are: labels, attributes, text.
        saw: What it was trained on.
        patients: Whether it learned from patients: ``none``, or ``unknown`` to this program.
        obstacle: Why this machine cannot fine-tune it as it is, and what to do; ``None`` if nothing is known to be
            in the way.
    """

    source: str
    ships: bool
    licence: str
    size_bytes: int
    reads: str
    saw: str
    patients: Patients
    obstacle: str | None = None

    def line(self) -> str:
        """Return the entry as one line for the console."""
        place = "ships" if self.ships else "hub id"
        learned = "learned from no patient" if self.patients == "none" else "whose images it saw is not declared"
        can = "runs here" if self.obstacle is None else f"does not run here: {self.obstacle}"
        size = f"{self.size_bytes / BYTES_PER_MB:,.0f} MB"
        return f"{self.source}  ({place}, {size}, {self.licence})  {self.saw}; {learned}; reads {self.reads}; {can}"


@dataclass(frozen=True)
class _Public:
    """A public pipeline in diffusers' layout: facts of its model card."""

    source: str
    licence: str
    weights: int
    saw: str


# Licences and training data as the model cards state them; numbers of weights of U-Net, autoencoder and text encoder.
PUBLIC = (
    _Public(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "CreativeML OpenRAIL-M",
        860_000_000 + 84_000_000 + 123_000_000,
        "pictures and captions from the web (LAION), 512 pixels",
    ),
    _Public(
        "stabilityai/stable-diffusion-2-1-base",
        "CreativeML OpenRAIL++-M",
        866_000_000 + 84_000_000 + 340_000_000,
        "pictures and captions from the web (LAION), 512 pixels",
    ),
)
"""Public bases that any hub id of the same classes may stand beside."""

CONTENTS = {
    "generic": "textures, shapes, slices and radiographs, all procedural or simulated, 64 pixels",
    "radiograph": "simulated chest radiographs with findings, devices, age, sex and view, 64 pixels",
}


@checked
def bases(*, shipped: bool = False) -> list[BaseEntry]:
    """List the bases that a recipe may name: those that ship, then public ones of the hub.

    Args:
        shipped: Whether to list only those that ship.

    Returns:
        Entries, shipped ones first. What a public base is comes from its model card; its weights are not looked for.

    Raises:
        BundleError: A shipped base is damaged.

    Example:
        >>> bases()[0].source
        'base:generic'
    """
    return [*(_shipped(name) for name in SHIPPED), *(_public(entry) for entry in PUBLIC if not shipped)]


def _shipped(name: str) -> BaseEntry:
    folder = source_path(PREFIX + name)
    facts, _ = read_facts(folder)
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    kinds = (("labels", facts.conditions.labels), ("attributes", facts.conditions.attributes))
    reads = " and ".join(what for what, known in kinds if known) or "nothing"
    patients: Patients = "none" if facts.lineage == Lineage() else "unknown"
    return BaseEntry(PREFIX + name, True, OWN_LICENCE, size, reads, CONTENTS[name], patients)


def _public(entry: _Public) -> BaseEntry:
    size = entry.weights * FLOAT32_BYTES
    return BaseEntry(entry.source, False, entry.licence, size, "text", entry.saw, "unknown", _obstacle(size))


def _obstacle(size: int, extra: Extra = "pretrained") -> str | None:
    if absent(extra):
        return f"pip install 'medphantom[{extra}]' first"
    total, _ = memory_bytes()
    if total and size > total:
        return f"its weights take {size / 1e9:.1f} GB, the machine has {total / 1e9:.1f} GB"
    return None
