"""Pictures for the report: preprocessed images as small PNGs embedded in the page."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from medphantom.cohorts.preprocess import Preprocess, network_images
from medphantom.cohorts.records import ATTRIBUTE_PREFIX, LABEL_PREFIX
from medphantom.cohorts.scale import Reading, reading_of
from medphantom.cohorts.store import Cohort
from medphantom.core.records import Array
from medphantom.quality.report.selection import NONE_PRESENT, LabelRows, choose
from medphantom.quality.results.quality_report import NearestPair

DRAWN_SIDE = 128  # small pictures are drawn at a whole multiple of their size, up to about this side
BUDGET_BYTES = 3_500_000
PAIRS = 12
PAIR_SIDE = 160
IMAGES_PER_BATCH = {2: 64, 3: 4}  # by spatial axes
PLANS = ((8, None), (4, None), (8, 128), (4, 128), (4, 64), (2, 64), (2, 32))  # pictures per label, longest side


@dataclass(frozen=True)
class Picture:
    """One image as shown on the page.

    Attributes:
        uri: ``data:`` URI of a PNG.
        width: width on the page in CSS pixels.
        height: height on the page in CSS pixels.
        alt: alternative text for screen readers.
        caption: alternative text with the details of the enlarged view.
        sharp: whether the picture is enlarged, so that its pixels stay square.
    """

    uri: str
    width: int
    height: int
    alt: str
    caption: str
    sharp: bool


@dataclass(frozen=True)
class LabelPictures:
    """Real and synthetic pictures of one label."""

    title: str
    real: tuple[Picture, ...]
    synthetic: tuple[Picture, ...]
    total_real: int
    total_synthetic: int


@dataclass(frozen=True)
class PairPictures:
    """A synthetic image with the most similar training and holdout images."""

    pair: NearestPair
    synthetic: Picture
    train: Picture
    holdout: Picture


@dataclass(frozen=True)
class Grids:
    """All grids of one edition.

    Attributes:
        labels: pictures of each label.
        per_label: largest number of pictures per label.
        left_out: number of labels that did not fit the page.
        shrunk_to: longest side of reduced pictures, else ``None``.
    """

    labels: tuple[LabelPictures, ...]
    per_label: int
    left_out: int
    shrunk_to: int | None


class Drawer:
    """Draws preprocessed images of a cohort, each of which is read and encoded once.

    Args:
        cohort: cohort with the rows.
        preprocess: preprocessing of images for networks.
    """

    def __init__(self, cohort: Cohort, preprocess: Preprocess) -> None:
        self.cohort = cohort
        self._preprocess = preprocess
        self._pictures: dict[int, Array] = {}
        self._uris: dict[tuple[int, float], str] = {}

    def bytes_of(self, rows: Sequence[int], longest_side: int | None) -> int:
        """Total size of the data URIs of the rows in bytes; the rows are read together, which is faster."""
        for row, picture in drawn(self.cohort, sorted(set(rows) - set(self._pictures)), self._preprocess):
            self._pictures[row] = picture
        return sum(len(self._uri(row, longest_side)) for row in rows)

    def picture(self, row: int, longest_side: int | None, alt: str, caption: str) -> Picture:
        """The picture of one row, reduced if a side exceeds ``longest_side``."""
        self.bytes_of([row], longest_side)
        height, width = self._pictures[row].shape[:2]
        scale = max(DRAWN_SIDE // max(self._preprocess.size), self._factor(longest_side))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        return Picture(self._uri(row, longest_side), *size, alt, caption, sharp=scale > 1)

    def marks(self, rows: Sequence[int], longest_side: int | None) -> dict[int, bytes]:
        """Digest of the drawn pixels of each row."""
        self.bytes_of(rows, longest_side)
        return {row: mark(shrink(self._pictures[row], self._factor(longest_side))) for row in rows}

    def every_mark(self, longest_side: int | None) -> frozenset[bytes]:
        """Digests of the drawn pixels of all rows, without keeping the pictures."""
        every = drawn(self.cohort, range(len(self.cohort)), self._preprocess)
        return frozenset(mark(shrink(picture, self._factor(longest_side))) for _, picture in every)

    def _factor(self, longest_side: int | None) -> float:
        return 1.0 if longest_side is None else min(1.0, longest_side / max(self._preprocess.size))

    def _uri(self, row: int, longest_side: int | None) -> str:
        key = row, self._factor(longest_side)
        if key not in self._uris:
            self._uris[key] = png_uri(shrink(self._pictures[row], key[1]))
        return self._uris[key]


def drawn(cohort: Cohort, rows: Sequence[int], preprocess: Preprocess) -> Iterator[tuple[int, Array]]:
    """Rows with their pictures, read in batches."""
    size = IMAGES_PER_BATCH[len(preprocess.size)]
    for start in range(0, len(rows), size):
        batch = rows[start : start + size]
        for row, image in zip(batch, network_images(cohort, batch, preprocess), strict=True):
            yield row, flatten(image)


def mark(picture: Array) -> bytes:
    """Digest of the pixels of a picture."""
    return hashlib.sha256(f"{picture.shape}".encode() + picture.tobytes()).digest()


def flatten(image: Array) -> Array:
    """One picture of a network image.

    Args:
        image: float ``(C, H, W)`` or ``(C, D, H, W)`` in -1…1.

    Returns:
        uint8 ``(H, W)``, or ``(H, W, 3)`` in colour. A volume becomes its three middle slices side by side, at right
        angles to its first, second and third axis.
    """
    grey = np.rint((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8)
    if len(grey) == 3 and bool(np.array_equal(grey[0], grey[1]) and np.array_equal(grey[0], grey[2])):
        grey = grey[:1]
    laid = laid_out(grey)
    result: Array = laid[0] if len(laid) == 1 else np.moveaxis(laid, 0, -1)
    return result


def laid_out(image: Array) -> Array:
    """An image ``(C, H, W)`` unchanged, or the middle slices of a volume ``(C, D, H, W)``, separated by zeros."""
    if image.ndim != 4:
        return image
    depth, height, width = image.shape[1:]
    slices = [image[:, depth // 2], image[:, :, height // 2], image[:, :, :, width // 2]]
    tallest = max(part.shape[1] for part in slices)
    padded = [np.pad(part, ((0, 0), (0, tallest - part.shape[1]), (0, 1))) for part in slices]
    return np.concatenate(padded, axis=2)[:, :, :-1]


def shrink(picture: Array, factor: float) -> Array:
    """The picture with its sides multiplied by a factor of at most one."""
    if factor >= 1:
        return picture
    height, width = picture.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def png_uri(picture: Array) -> str:
    """A ``data:`` URI of an 8-bit picture; equal pixels give equal bytes."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="PNG", compress_level=9)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


@dataclass(frozen=True)
class _Layout:
    """The rows that a page shows, their number per label and their size."""

    chosen: list[LabelRows]
    per_label: int
    longest_side: int | None
    left_out: int

    @property
    def synthetic_rows(self) -> list[int]:
        """All synthetic rows that are shown."""
        return [row for label in self.chosen for row in label.synthetic]


def draw_grids(
    real: Cohort,
    synthetic: Cohort,
    preprocess: Preprocess,
    *,
    with_real: bool,
    hidden: frozenset[int] = frozenset(),
    budget_bytes: int = BUDGET_BYTES,
    reading: Reading | None = None,
) -> Grids:
    """Real and synthetic pictures per label, as many and as large as the budget of the page allows.

    Without real images, no picture equals that of a real image of any split: a synthetic image that would be drawn
    with the same pixels is skipped.

    Args:
        real: real cohort whose ``test`` images are shown next to the synthetic images.
        synthetic: synthetic cohort that was scored.
        preprocess: preprocessing of images for networks.
        with_real: whether real images may be drawn.
        hidden: synthetic rows that must not be shown.
        budget_bytes: largest total size of all data URIs in bytes.
        reading: how the values of the synthetic images were read; ``None`` to determine it.
    """
    reading = reading or reading_of(synthetic, preprocess, reference=real)
    made = Drawer(synthetic, reading.of(preprocess))
    taken = Drawer(real, preprocess)
    layout = _layout(made, taken, with_real=with_real, hidden=hidden, budget_bytes=budget_bytes)
    real_marks: dict[int | None, frozenset[bytes]] = {}
    while not with_real and layout.synthetic_rows:
        side = layout.longest_side
        if side not in real_marks:
            real_marks[side] = taken.every_mark(side)
        marks = made.marks(layout.synthetic_rows, side)
        repeats = {row for row, mark_ in marks.items() if mark_ in real_marks[side]}
        if not repeats:
            break
        hidden |= repeats
        layout = _layout(made, taken, with_real=False, hidden=hidden, budget_bytes=budget_bytes)
    longest_side = layout.longest_side
    labels = tuple(
        LabelPictures(
            label.title,
            tuple(_real_picture(taken, row, longest_side, label.title) for row in label.real) if with_real else (),
            tuple(_synthetic_picture(made, row, longest_side, label.title) for row in label.synthetic),
            label.total_real,
            label.total_synthetic,
        )
        for label in layout.chosen
    )
    shrunk = longest_side if longest_side is not None and max(preprocess.size) > longest_side else None
    return Grids(labels, layout.per_label, layout.left_out, shrunk)


def _layout(made: Drawer, taken: Drawer, *, with_real: bool, hidden: frozenset[int], budget_bytes: int) -> _Layout:
    """The first of :data:`PLANS` that the budget allows, else the last."""
    for per_label, longest_side in PLANS:
        chosen, left_out = choose(taken.cohort, made.cohort, per_label=per_label, hidden=hidden)
        layout = _Layout(chosen, per_label, longest_side, left_out)
        total_bytes = made.bytes_of(layout.synthetic_rows, longest_side)
        if with_real:
            total_bytes += taken.bytes_of([row for label in chosen for row in label.real], longest_side)
        if total_bytes <= budget_bytes:
            break
    return layout


def draw_pairs(
    pairs: Sequence[NearestPair],
    real: Cohort,
    synthetic: Cohort,
    preprocess: Preprocess,
    reading: Reading | None = None,
) -> tuple[PairPictures, ...]:
    """The first :data:`PAIRS` pairs as pictures.

    Args:
        pairs: nearest pairs, most similar first.
        real: cohort of the train and holdout rows.
        synthetic: cohort of the synthetic rows.
        preprocess: preprocessing of images for networks.
        reading: how the values of the synthetic images were read; ``None`` to determine it.
    """
    shown = list(pairs[:PAIRS])
    reading = reading or reading_of(synthetic, preprocess, reference=real)
    made = Drawer(synthetic, reading.of(preprocess))
    taken = Drawer(real, preprocess)
    made.bytes_of([pair.synthetic_row for pair in shown], PAIR_SIDE)
    taken.bytes_of([row for pair in shown for row in (pair.train_row, pair.holdout_row)], PAIR_SIDE)
    return tuple(
        PairPictures(
            pair,
            _synthetic_picture(made, pair.synthetic_row, PAIR_SIDE, described(synthetic, pair.synthetic_row)),
            _real_picture(taken, pair.train_row, PAIR_SIDE, f"training patient, {described(real, pair.train_row)}"),
            _real_picture(taken, pair.holdout_row, PAIR_SIDE, f"holdout patient, {described(real, pair.holdout_row)}"),
        )
        for pair in shown
    )


def _synthetic_picture(drawer: Drawer, row: int, longest_side: int | None, title: str) -> Picture:
    """A synthetic image with its prompt as the caption."""
    seed = drawer.cohort.manifest["seed"][row]
    seeded = "" if seed is None else f", seed {seed}"
    caption = f"Synthetic image, row {row}{seeded}. {described(drawer.cohort, row)}"
    return drawer.picture(row, longest_side, f"Synthetic image: {title}", caption)


def _real_picture(drawer: Drawer, row: int, longest_side: int | None, title: str) -> Picture:
    image_id = drawer.cohort.manifest["image_id"][row]
    caption = f"Real image {image_id}. {described(drawer.cohort, row)}"
    return drawer.picture(row, longest_side, f"Real image: {title}", caption)


def described(cohort: Cohort, row: int) -> str:
    """Labels and attributes of one row in words."""
    observed = cohort.manifest.row(row, named=True)
    present = [name for name in cohort.schema.labels if observed[LABEL_PREFIX + name]]
    known = any(observed[LABEL_PREFIX + name] is not None for name in cohort.schema.labels)
    parts = [", ".join(present) or (NONE_PRESENT if known else "")]
    for spec in cohort.schema.attributes:
        value = observed[ATTRIBUTE_PREFIX + spec.name]
        if value is not None:
            shown = f"{value:g}" if isinstance(value, float) else value
            parts.append(f"{spec.name} {shown}{' ' + spec.unit if spec.unit else ''}")
    return "; ".join(part for part in parts if part)
