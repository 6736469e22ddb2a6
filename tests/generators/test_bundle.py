from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from monai.networks.nets import AutoencoderKL, DiffusionModelUNet
from safetensors.torch import load_file, save_file

from medphantom.core.errors import BundleError
from medphantom.core.folders import file_digest
from medphantom.generators.bundle import GeneratorBundle
from medphantom.generators.facts import NO_GUARANTEE, read_facts


@pytest.fixture
def copy(bundle_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_folder, tmp_path / "copy"))


def forge(folder: Path, name: str) -> None:
    """Put the digest of a changed file into the digest file, as someone with bad intent would."""
    listed = json.loads((folder / "digest.json").read_text())
    listed["files"][name] = file_digest(folder / name)
    (folder / "digest.json").write_text(json.dumps(listed))


def test_what_is_saved_and_loaded_is_equal(bundle: GeneratorBundle, tmp_path: Path) -> None:
    bundle.save(tmp_path / "again")
    again = GeneratorBundle.load(tmp_path / "again")
    assert again == bundle
    assert again.facts == bundle.facts
    assert again.training == bundle.training
    assert read_facts(tmp_path / "again") == (bundle.facts, bundle.digest)
    for ours, theirs in zip(again.denoiser.parameters(), bundle.denoiser.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_another_weight_or_fact_or_curve_is_another_bundle(bundle_folder: Path) -> None:
    digests = {GeneratorBundle.load(bundle_folder).digest}
    changed = GeneratorBundle.load(bundle_folder)
    facts = changed.facts.model_copy(update={"intended_use": "another"})
    digests.add(GeneratorBundle(facts, changed.autoencoder, changed.denoiser, changed.training).digest)
    digests.add(GeneratorBundle(changed.facts, changed.autoencoder, changed.denoiser, {}).digest)
    with torch.no_grad():
        changed.denoiser.conditioning["to_time"].bias[0] += 1e-3
    digests.add(GeneratorBundle(changed.facts, changed.autoencoder, changed.denoiser, changed.training).digest)
    assert len(digests) == 4


def test_a_bundle_says_what_it_is_for_and_promises_nothing(bundle: GeneratorBundle) -> None:
    assert bundle.facts.privacy.formal == NO_GUARANTEE == "no formal guarantee"
    assert "Not for diagnosis" in bundle.facts.intended_use
    assert bundle.facts.training_images == 60
    assert len(bundle.facts.training_digest) == 64


def test_folder_holds_safetensors_and_json_only(bundle_folder: Path) -> None:
    files = {str(path.relative_to(bundle_folder)) for path in bundle_folder.rglob("*") if path.is_file()}
    networks = ("autoencoder", "denoiser", "conditioning")
    expected = {f"{name}/{file}" for name in networks for file in ("config.json", "model.safetensors")}
    assert files == expected | {"bundle.json", "training.json", "digest.json"}


@pytest.mark.parametrize(("name", "network"), [("autoencoder", AutoencoderKL), ("denoiser", DiffusionModelUNet)])
def test_networks_are_in_monais_own_layout(bundle_folder: Path, name: str, network: type[torch.nn.Module]) -> None:
    config = json.loads((bundle_folder / name / "config.json").read_text())
    assert config.pop("_class_name") == network.__name__
    network(**config).load_state_dict(load_file(bundle_folder / name / "model.safetensors"))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "name", ["bundle.json", "training.json", "denoiser/model.safetensors", "autoencoder/config.json"]
)
@pytest.mark.parametrize("damage", [_truncate, _flip_bit, Path.unlink], ids=["truncated", "altered", "missing"])
def test_damage_is_named_in_one_line(copy: Path, name: str, damage: Callable[[Path], None]) -> None:
    damage(copy / name)
    with pytest.raises(BundleError, match=rf"{name} is (missing|truncated or was altered); fetch or create") as caught:
        GeneratorBundle.load(copy)
    assert "\n" not in str(caught.value)


def test_an_unfinished_folder_is_refused(copy: Path) -> None:
    (copy / "digest.json").unlink()
    with pytest.raises(BundleError, match="never published"):
        GeneratorBundle.load(copy)
    with pytest.raises(BundleError, match="is not a folder"):
        GeneratorBundle.load(copy / "nowhere")


def test_another_format_version_is_refused(copy: Path) -> None:
    facts = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps({**facts, "format_version": 1}))
    forge(copy, "bundle.json")
    with pytest.raises(BundleError, match=r"bundle\.json has format version 1, expected 2; create the bundle again"):
        GeneratorBundle.load(copy)


class _Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("a pickle was loaded",)


@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", "weights.PKL", "arrays.npz"])
def test_pickles_are_refused_unread(copy: Path, name: str) -> None:
    (copy / "denoiser" / name).write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(
        BundleError, match=r"may contain pickled objects.*; a bundle contains safetensors and JSON only"
    ):
        GeneratorBundle.load(copy)


@pytest.mark.parametrize("content", [pickle.dumps(_Bomb()), b"", b"\xff" * 64, b"\x08\0\0\0\0\0\0\0{broken}"])
def test_weights_that_are_no_safetensors_are_refused_even_with_a_forged_digest(copy: Path, content: bytes) -> None:
    (copy / "denoiser" / "model.safetensors").write_bytes(content)
    forge(copy, "denoiser/model.safetensors")
    with pytest.raises(
        BundleError, match=r"denoiser/model.safetensors is not a safetensors file; pickled weights are never"
    ):
        GeneratorBundle.load(copy)


@pytest.mark.parametrize("name", ["bundle.json", "training.json"])
def test_a_changed_claim_is_another_bundle_even_with_a_forged_digest_of_the_file(copy: Path, name: str) -> None:
    """Who reads only what a bundle says of itself sees it too, without the weights."""
    assert read_facts(copy)[1] == GeneratorBundle.load(copy).digest
    content = json.loads((copy / name).read_text())
    change = {"intended_use": "anything"} if name == "bundle.json" else {"recipe": {}}
    (copy / name).write_text(json.dumps({**content, **change}))
    forge(copy, name)
    for read in (read_facts, GeneratorBundle.load):
        with pytest.raises(BundleError, match="does not have the digest that it was published under; fetch or create"):
            read(copy)


def test_another_digest_of_the_networks_does_not_hide_a_changed_claim(copy: Path) -> None:
    content = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps({**content, "intended_use": "anything"}))
    forge(copy, "bundle.json")
    digests = json.loads((copy / "digest.json").read_text())
    for networks in ("0" * 64, "", None):
        (copy / "digest.json").write_text(json.dumps({**digests, "networks": networks}))
        with pytest.raises(BundleError, match="does not have the digest that it was published under"):
            read_facts(copy)


def test_words_that_are_not_those_of_the_numbers_are_refused(copy: Path) -> None:
    content = json.loads((copy / "bundle.json").read_text())
    content["privacy"]["formal"] = "(1, 1e-05)-differential privacy per patient"
    (copy / "bundle.json").write_text(json.dumps(content))
    forge(copy, "bundle.json")
    with pytest.raises(BundleError, match="does not describe a generator"):
        read_facts(copy)


def test_forged_values_do_not_pass_the_digest_of_the_whole(copy: Path) -> None:
    path = copy / "conditioning" / "model.safetensors"
    tensors = load_file(path)
    tensors[min(tensors)] += 1
    save_file(tensors, path)
    forge(copy, "conditioning/model.safetensors")
    with pytest.raises(BundleError, match="its digest does not match its content"):
        GeneratorBundle.load(copy)


@pytest.mark.parametrize(
    "change",
    [{"channels": [10, 16]}, {"channels": "many"}, {"surprise": 1}, {"_class_name": "Thief"}, {"latent_channels": 8}],
    ids=str,
)
def test_configs_that_fit_no_network_or_no_weights_are_refused(copy: Path, change: dict[str, object]) -> None:
    path = copy / "autoencoder" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    forge(copy, "autoencoder/config.json")
    with pytest.raises(
        BundleError, match=r"autoencoder/(config.json does not describe|model.safetensors does not fit)"
    ):
        GeneratorBundle.load(copy)


def test_files_outside_the_folder_are_never_looked_at(copy: Path) -> None:
    listed = json.loads((copy / "digest.json").read_text())
    listed["files"]["../../etc/passwd"] = "0" * 64
    (copy / "digest.json").write_text(json.dumps(listed))
    with pytest.raises(BundleError, match="names a file outside the bundle"):
        GeneratorBundle.load(copy)


def test_a_forged_size_is_refused_before_the_network_is_built(bundle_folder: Path, tmp_path: Path) -> None:
    for part in ("autoencoder", "denoiser"):
        shutil.copytree(bundle_folder, tmp_path / part)
        file = tmp_path / part / part / "config.json"
        config = json.loads(file.read_text())
        config["channels"] = [64 * width for width in config["channels"]]
        file.write_text(json.dumps(config))
        forge(tmp_path / part, f"{part}/config.json")
    code = (
        "import resource, sys\nfrom medphantom.core.errors import BundleError\n"
        "from medphantom.generators.bundle import GeneratorBundle\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for folder in sys.argv[1:]:\n"
        "    try:\n        GeneratorBundle.load(folder)\n    except BundleError as error:\n        print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "autoencoder"), str(tmp_path / "denoiser")]
    *lines, kib = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == 2
    assert all("describes a larger network than the weights in it" in line for line in lines)
    assert int(kib) < 100 * 1024
