from __future__ import annotations

import dataclasses
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants

import medphantom as mp
from medphantom.cohorts.preprocess import Window
from medphantom.cohorts.store import Cohort
from medphantom.conditioning.plan import plan_counts, plan_prompts
from medphantom.conditioning.prompt import Prompt
from medphantom.core.errors import BundleError, InputError, PromptError
from medphantom.core.folders import DIGEST_FILE, file_digest, pixel_digest
from medphantom.flows.cli.main import main
from medphantom.generation import GeneratedImages, Generator
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.config import SamplerConfig
from medphantom.generators.facts import BundleFacts, whole_digest
from tests.generators.tiny import REPORTS, SIDE

STEPS = {"steps": 3, "device": "cpu"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def disc() -> np.ndarray:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    return ((rows - 8) ** 2 + (columns - 6) ** 2 < 16).astype(np.uint8)


# ---- the same images as the command line's ----


def test_an_image_is_that_of_the_command_line_bit_for_bit(generator: Generator, folder: Path, tmp_path: Path) -> None:
    command = ["generate", str(folder), "--out", str(tmp_path / "out"), "--count", "bright=5", "--count", "dark=2"]
    assert main([*command, "--seed", "7", "--set", "sampler.steps=3", "--set", "sampler.device=cpu"]) == 0
    made = Cohort.open(tmp_path / "out")
    pixels, seeds = np.stack(made.pixels(made.rows())), [int(seed) for seed in made.manifest["seed"]]
    drawn = generator(labels={"bright": True}, n=5, seed=7, sampler=STEPS)
    assert drawn.images.dtype == np.float32
    assert np.array_equal(drawn.images, pixels[:5])
    assert list(drawn.seeds) == seeds[:5]
    alone = generator(labels={"dark": True}, seeds=seeds[-1:], sampler=STEPS)  # in other company, or in none
    assert np.array_equal(alone.images, pixels[-1:])
    assert not np.array_equal(drawn.images[0], drawn.images[1])


def test_everything_that_a_prompt_says_is_drawn(generator: Generator, tmp_path: Path) -> None:
    requested = {"labels": {"bright": True}, "attributes": {"age": 40.0, "sex": "F"}, "text": REPORTS[True][0]}
    made = generator(**requested, mask=disc(), n=2, seed=1, sampler=STEPS)
    prompt = Prompt(**requested, mask=pixel_digest(disc()))
    assert made.prompts == (prompt, prompt)
    plan = plan_prompts([prompt] * 2, 1, masks={pixel_digest(disc()): disc()})
    stored = mp.generate(generator.bundle, plan, tmp_path / "out", sampler=STEPS)
    assert np.array_equal(made.images, np.stack(stored.pixels([0, 1])))
    for part in requested:
        less = generator(**{name: value for name, value in requested.items() if name != part}, mask=disc(), n=2, seed=1,
                         sampler=STEPS)  # fmt: skip
        assert not np.array_equal(less.images, made.images), part
    assert not np.array_equal(generator(**requested, n=2, seed=1, sampler=STEPS).images, made.images)


def test_a_plan_is_drawn_in_memory_and_in_a_folder(generator: Generator, tmp_path: Path) -> None:
    plan = plan_counts(generator.schema, {"bright": 3, "dark": 3}, seed=0)
    calls: list[int] = []
    made = generator.draw(
        plan, sampler=SamplerConfig(**STEPS), progress=lambda done, total, what="": calls.append(done)
    )
    stored = generator.generate(plan, tmp_path / "out", sampler=STEPS)
    assert np.array_equal(made.images, np.stack(stored.pixels(stored.rows())))
    assert calls == [4, 6]
    assert len(made) == 6
    late = plan_prompts([Prompt()] * 4 + [Prompt(labels={"unknown": True})], 0)
    with pytest.raises(PromptError, match="label 'unknown'"):
        generator.draw(late, sampler=STEPS, progress=lambda done, total, what="": calls.append(done))
    assert calls == [4, 6]  # refused before anything was drawn


def test_numbers_of_numpy_are_numbers(generator: Generator) -> None:
    plain = generator(labels={"bright": True}, attributes={"age": 40.0}, mask=disc(), sampler=STEPS)
    given = {"labels": {"bright": np.bool_(True)}, "attributes": {"age": np.float32(40)}}
    assert np.array_equal(generator(**given, mask=disc() == 1, sampler=STEPS).images, plain.images)


# ---- what it says of itself ----


def test_a_generator_says_what_it_knows(generator: Generator) -> None:
    assert generator.labels == ("bright", "dark")
    assert [spec.name for spec in generator.attributes] == ["age", "sex"]
    assert generator.size == (SIDE, SIDE)
    assert generator.privacy.formal == "no formal guarantee"
    assert generator.schema.mask is not None
    assert "16x16" in repr(generator)
    assert generator.intended_use


def test_pictures_are_those_values_in_eight_bits(generator: Generator) -> None:
    made = generator(labels={"bright": True}, n=2, sampler=STEPS)
    assert made.value_range == (0.0, 255.0)
    assert [picture.size for picture in made.pil] == [(SIDE, SIDE)] * 2
    assert np.array_equal(np.asarray(made.pil[1]), np.rint(made.images[1]).astype(np.uint8))
    assert made.network.shape == (2, 1, SIDE, SIDE)
    assert np.allclose(made.network[:, 0], made.images / 127.5 - 1, atol=1e-6)
    window = Window(low=-1000, high=1000)
    ct = made.preprocess.model_copy(update={"intensity": window, "stored_dtype": "int16"})
    values = np.array([[[-1000, 0], [1000, 2000]]], dtype=np.int16)
    shown = GeneratedImages(values, made.prompts[:1], made.seeds[:1], ct)
    assert shown.value_range == (-1000.0, 1000.0)
    assert np.asarray(shown.pil[0]).tolist() == [[0, 128], [255, 255]]
    colour = made.preprocess.model_copy(update={"channels": 3})
    rgb = dataclasses.replace(made, images=np.zeros((1, SIDE, SIDE, 3), np.uint8), preprocess=colour)
    assert rgb.pil[0].mode == "RGB"
    assert rgb.network.shape == (1, 3, SIDE, SIDE)
    volume = dataclasses.replace(made, preprocess=made.preprocess.model_copy(update={"size": (8, 8, 8)}))
    with pytest.raises(InputError, match="volumes are no pictures; choose a slice"):
        _ = volume.pil


# ---- what is refused ----


def test_a_prompt_outside_the_vocabulary_is_refused(generator: Generator) -> None:
    with pytest.raises(PromptError, match="label 'brihgt' is unknown to this generator; did you mean 'bright'"):
        generator(labels={"brihgt": True})
    with pytest.raises(PromptError, match="attribute 'agee' is unknown to this generator; did you mean 'age'"):
        generator(attributes={"agee": 60})
    with pytest.raises(PromptError, match="age must be within"):
        generator(attributes={"age": 600})
    with pytest.raises(PromptError, match="are mutually exclusive"):
        generator(labels={"bright": True, "dark": True})
    with pytest.raises(InputError, match=r"labels\['bright'\] must be true or false, got str"):
        generator(labels={"bright": "very"})  # type: ignore[dict-item]
    with pytest.raises(PromptError, match="a mask holds whole numbers, got float64"):
        generator(mask=np.zeros((SIDE, SIDE)))
    with pytest.raises(PromptError, match="a mask has the shape 8x8, but this generator draws 16x16"):
        generator(mask=np.zeros((8, 8), np.uint8))


def test_numbers_out_of_range_are_refused(generator: Generator) -> None:
    with pytest.raises(InputError, match=r"seeds\[0\] must be ≥ 0, got -1"):
        generator(seeds=[-1])
    with pytest.raises(InputError, match="the plan contains no images"):
        generator(seeds=[])
    with pytest.raises(InputError, match=r"steps must be ≥ 1, got 0"):
        generator(sampler={"steps": 0})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": 0}, "n must be ≥ 1, got 0"),
        ({"n": 2.5}, "n must be a whole number, got float"),
        ({"n": "2"}, "n must be a whole number, got str"),
        ({"seed": -1}, "seed must be ≥ 0, got -1"),
        ({"seed": 1.5}, "seed must be a whole number, got float"),
        ({"seed": 2**63}, "seed must be < 9223372036854775808, got 9223372036854775808"),
        ({"seeds": [1.7]}, r"seeds\[0\] must be a whole number, got float"),
        ({"seeds": "12"}, "seeds must be a list, got str"),
        ({"seeds": [1], "n": 5}, "seeds and n or seed are mutually exclusive"),
        ({"seeds": [1], "seed": 5}, "seeds and n or seed are mutually exclusive"),
        ({"attributes": {"age": float("nan")}}, r"attributes\['age'\] must be finite, got nan"),
        ({"labels": ["bright"]}, "labels must be a mapping, got list"),
        ({"sampler": [1]}, "sampler must be a mapping or a SamplerConfig, got list"),
        ({"text": 5}, "text must be text, got int"),
    ],
)
def test_values_that_are_no_arguments_are_one_line(
    generator: Generator, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        generator(**arguments)


def test_seeds_may_be_numbers_of_numpy(generator: Generator) -> None:
    plain = generator(seeds=[7, 8], sampler={"steps": 2})
    assert (generator(seeds=np.array([7, 8]), n=np.int64(2), sampler={"steps": 2}).images == plain.images).all()


@pytest.mark.parametrize("nothing", [None, "", 3])
def test_no_folder_is_no_generator(nothing: Any) -> None:
    with pytest.raises(InputError, match=r"source (is empty|must be a path, got)"):
        Generator.from_pretrained(nothing)


# ---- folders ----


def files(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): file_digest(file) for file in folder.rglob("*") if file.is_file()}


def test_saving_copies_the_published_folder(generator: Generator, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    shutil.copytree(folder, tmp_path / "source" / "bundle")
    loaded = Generator.from_pretrained(tmp_path / "source" / "bundle")
    (tmp_path / "source" / "bundle" / "note.txt").write_text("lies in the folder, and is not part of the bundle")
    loaded.save_pretrained(tmp_path / "copy")
    assert files(tmp_path / "copy") == files(folder)
    assert Generator.from_pretrained(tmp_path / "copy").bundle == generator.bundle
    with pytest.raises(InputError, match="exists already"):
        loaded.save_pretrained(tmp_path / "copy")
    weights = tmp_path / "source" / "bundle" / "denoiser" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(BundleError, match="has changed since it was read"):
        loaded.save_pretrained(tmp_path / "other")
    assert not (tmp_path / "other").exists()
    Generator(generator.bundle).save_pretrained(tmp_path / "written")  # never was on disk
    assert GeneratorBundle.load(tmp_path / "written") == generator.bundle


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuses every connection, and fails when one was tried: libraries swallow what a refusal raises."""
    tried: list[object] = []

    def refuse(*what: object, **_: object) -> None:
        tried.append(what)
        raise OSError("no network here")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert not tried


@pytest.mark.usefixtures("no_network")
def test_a_folder_asks_no_hub_even_for_its_base(folder: Path, tmp_path: Path) -> None:
    assert Generator.from_pretrained(str(folder)).size == (SIDE, SIDE)
    changed = tmp_path / "tuned"
    shutil.copytree(folder, changed)
    facts = json.loads((changed / "bundle.json").read_text())
    tuning = {"method": "lora"}
    facts["base"] = {
        "kind": "stable_diffusion",
        "source": "owner/base",
        "digest": "0",
        "tuning": tuning,
        "needed": True,
    }
    (changed / "bundle.json").write_text(json.dumps(facts))
    digest = json.loads((changed / DIGEST_FILE).read_text())
    digest["files"]["bundle.json"] = file_digest(changed / "bundle.json")
    training = json.loads((changed / "training.json").read_text())
    digest["digest"] = whole_digest(BundleFacts.model_validate(facts), training, digest["networks"])
    (changed / DIGEST_FILE).write_text(json.dumps(digest))
    with pytest.raises(InputError, match="a folder asks no hub: download the base first, with hf download owner/base"):
        Generator.from_pretrained(changed)


@pytest.mark.usefixtures("no_network")
def test_what_is_no_bundle_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="nowhere is not a folder; check the path, or give a hub id"):
        Generator.from_pretrained("nowhere")
    shutil.copytree(folder, tmp_path / "pickled")
    (tmp_path / "pickled" / "model.bin").write_bytes(b"")
    with pytest.raises(BundleError, match="may contain pickled objects"):
        Generator.from_pretrained(tmp_path / "pickled")


# ---- the hub ----


@pytest.fixture
def hub(folder: Path, tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A hub that holds the bundle as owner/bundle, beside code and pickles; and the requests to it."""
    root = tmp_path / "repository"
    shutil.copytree(folder, root)
    (root / "model.py").write_text("raise SystemExit('the code of somebody else ran')")
    (root / "model.bin").write_bytes(b"a pickle")
    requested: list[str] = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            requested.append(self.path)
            held = [file for file in root.rglob("*") if file.is_file()]
            if self.path.startswith("/api/models/owner/bundle/revision/"):
                siblings = [{"rfilename": str(file.relative_to(root))} for file in held]
                found: object = {
                    "id": "owner/bundle",
                    "sha": COMMIT,
                    "siblings": siblings,
                    "private": False,
                    "tags": [],
                }
                return self._answer(json.dumps(found).encode(), "application/json")
            if self.path.startswith(f"/api/models/owner/bundle/tree/{COMMIT}"):
                found = [
                    {"type": "file", "path": str(f.relative_to(root)), "size": f.stat().st_size, "oid": file_digest(f)}
                    for f in held
                ]
                return self._answer(json.dumps(found).encode(), "application/json")
            before, _, name = self.path.partition(f"/resolve/{COMMIT}/")
            if before == "/owner/bundle" and (root / name).is_file():
                return self._answer((root / name).read_bytes(), "application/octet-stream")
            return self.send_error(404)

        def _answer(self, content: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{hash(content) & (2**63 - 1):x}"')
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", requested
    server.shutdown()
    server.server_close()


def test_a_bundle_comes_from_the_hub_without_code_or_pickles(
    hub: tuple[str, list[str]], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, requested = hub
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    generator = Generator.from_pretrained("owner/bundle", cache_dir=tmp_path / "cache")
    generator.save_pretrained(tmp_path / "copy")
    assert files(tmp_path / "copy") == files(folder)
    assert any(path.endswith("denoiser/model.safetensors") for path in requested)
    assert not [path for path in requested if path.endswith((".py", ".bin"))]
    with pytest.raises(InputError, match="owner/another is no folder, and cannot be had from the hub; check path"):
        Generator.from_pretrained("owner/another", cache_dir=tmp_path / "cache")
    requested.clear()
    snapshot = tmp_path / "cache" / "models--owner--bundle" / "snapshots" / COMMIT
    (snapshot / "bundle.json").unlink()
    (snapshot / "bundle.json").symlink_to(folder / "bundle.json")  # which is not in the cache
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BundleError, match="names a file outside the bundle"):
        Generator.from_pretrained("owner/bundle", revision=COMMIT, cache_dir=tmp_path / "cache")


# ---- light ----

LIGHT = """
import sys
import medphantom as mp
heavy = ("torch", "monai", "diffusers", "transformers", "torchmetrics", "prefect", "sklearn", "numpy", "polars")
assert {"Generator", "Cohort", "metrics"} <= set(dir(mp)) & set(mp.__all__)
print([name for name in heavy if name in sys.modules])
mp.Cohort
print([name for name in heavy[:6] if name in sys.modules])
"""


def test_importing_it_loads_nothing_until_a_name_is_used() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "[]"]
    assert all(getattr(mp, name) for name in mp.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'generatr'"):
        mp.generatr  # noqa: B018
