"""The bases that ship: whole, small, of nobody, and refused when they are not the ones that were published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import medphantom as mp
from medphantom import shipped
from medphantom.core.errors import BundleError, InputError
from medphantom.flows.operations.verify import verify
from medphantom.generators.base import open_base
from medphantom.generators.facts import read_description
from medphantom.generators.lineage import Lineage
from medphantom.shipped import CARD_FILE, DIGESTS, PREFIX, SHIPPED, source_path

LARGEST_BYTES = 12e6

bases = pytest.mark.parametrize("name", SHIPPED)


@bases
def test_it_is_the_one_that_was_published_and_learned_from_nobody(name: str) -> None:
    found = read_description(PREFIX + name)
    assert found.digest == DIGESTS[name]
    assert found.facts.lineage == Lineage()
    assert found.facts.base is None
    assert found.training["recipe"]["init_from"] in {None, "base:generic"}  # no folder of whoever made it
    assert verify(PREFIX + name) == [f"{source_path(PREFIX + name)}: bundle as published, digest {DIGESTS[name][:12]}"]


@bases
def test_its_card_says_what_it_saw_and_what_it_cannot(name: str) -> None:
    card = (source_path(PREFIX + name) / CARD_FILE).read_text("utf-8")
    for part in ("## What it saw", "## What it cannot do", "Apache-2.0", "No patient"):
        assert part in card
    for entry in mp.bases(shipped=True):
        assert entry.source in {PREFIX + known for known in SHIPPED}


def test_all_of_them_are_small() -> None:
    files = [file for name in SHIPPED for file in source_path(PREFIX + name).rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= LARGEST_BYTES


@bases
def test_it_draws_images_as_it_is(name: str) -> None:
    generator = mp.Generator.from_pretrained(PREFIX + name)
    images = generator(labels={generator.labels[0]: True}, n=2, seed=3, sampler={"steps": 6}).network
    assert images.shape == (2, 1, 64, 64)
    assert np.isfinite(images).all()
    assert images.std(axis=(1, 2, 3)).min() > 0.1  # pictures, not grey


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the shipped bases, in their place."""
    for name in SHIPPED:
        shutil.copytree(source_path(PREFIX + name), tmp_path / "installed" / name)
    monkeypatch.setattr(shipped, "_HERE", tmp_path / "installed")
    return tmp_path / "installed"


def test_another_bundle_in_its_place_is_refused_wherever_it_is_named(
    installed: Path, tmp_path: Path, one_line: Callable[..., str]
) -> None:
    shutil.rmtree(installed / "radiograph")
    shutil.copytree(installed / "generic", installed / "radiograph")
    said = "base:radiograph is not the base that ships with this version"
    for name in ("base:radiograph", str(installed / "radiograph")):
        for use in (open_base, mp.Generator.from_pretrained, mp.open_bundle):
            with pytest.raises(BundleError, match=said):
                use(name)
        assert said in one_line("verify", name)
        assert said in one_line("generate", name, "--out", tmp_path / "x", "--count", "cells=1")
    assert said in one_line("bases")
    shutil.move(installed / "radiograph", tmp_path / "elsewhere")
    (installed / "radiograph").symlink_to(tmp_path / "elsewhere")
    assert said in one_line("verify", "base:radiograph")
    assert said in one_line("bases")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("file", [CARD_FILE, "denoiser/model.safetensors", "training.json", "more.txt"])
def test_a_changed_file_is_seen(installed: Path, file: str, one_line: Callable[..., str]) -> None:
    assert len(mp.bases(shipped=True)) == len(SHIPPED)
    place = installed / "generic" / file
    place.write_bytes((place.read_bytes() if place.exists() else b"") + b" ")
    assert "base:generic does not have the files that ship" in one_line("bases", "--shipped")
    assert "base:generic" in (said := one_line("verify", "base:generic")) or str(installed) in said
    for use in (open_base, mp.Generator.from_pretrained, mp.open_bundle):
        with pytest.raises(BundleError):
            use("base:generic")


def test_a_name_that_is_none_is_refused_everywhere(tmp_path: Path, one_line: Callable[..., str]) -> None:
    said = "there is no base 'generik'; did you mean generic?"
    with pytest.raises(InputError, match="there is no base 'generik'"):
        mp.Generator.from_pretrained("base:generik")
    assert one_line("verify", "base:generik").endswith(said)
    assert one_line("generate", "base:generik", "--out", tmp_path / "x", "--count", "cells=1").endswith(said)
    (tmp_path / "recipe.yaml").write_text(
        json.dumps({"cohort": {"simulate": {"patients": 3}}, "generator": {"init_from": "base:generik"}})
    )
    assert said in one_line("run", tmp_path / "recipe.yaml", "--no-prefect", "--out", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_public_ones_are_listed_with_what_they_need() -> None:
    public = [entry for entry in mp.bases() if not entry.ships]
    assert public
    for entry in public:
        assert entry.licence
        assert "/" in entry.source
        assert entry.size_bytes > 1e9
        assert entry.patients == "unknown"
        assert entry.source in entry.line()
