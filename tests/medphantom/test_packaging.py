"""What a wheel puts at the top of site-packages, and that nobody's own folders are in the way of what is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from setuptools import Distribution
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parents[2]
CALLED_AS_IT_IS = ("core", "phantoms", "cohorts", "learning", "conditioning", "generators", "quality", "flows")
ROOMS = {**{room: room for room in CALLED_AS_IT_IS}, "bases": "shipped"}  # medphantom.bases is a verb
MAIN = "from medphantom.flows.cli.main import main; import medphantom; print(medphantom.__file__); main(['schema'])"


def packaged_modules() -> set[str]:
    distribution = Distribution({"script_name": "setup.py"})
    distribution.parse_config_files([str(ROOT / "pyproject.toml")])
    command = build_py(distribution)
    command.finalize_options()
    return {f"{package}.{module}" for package, module, _ in command.find_all_modules()}


def our_modules() -> Iterator[str]:
    for room, name in ROOMS.items():
        for file in (ROOT / room).rglob("*.py"):
            yield ".".join(("medphantom", name, *file.relative_to(ROOT / room).with_suffix("").parts))


def test_every_module_is_packaged() -> None:
    missing = set(our_modules()) - packaged_modules()
    assert not missing, "name their packages in pyproject.toml"


def test_every_room_is_linked_where_the_source_tree_is_used_as_it_is() -> None:
    assert {link.name for link in (ROOT / "medphantom").iterdir() if link.is_symlink()} == set(ROOMS.values())
    for room, name in ROOMS.items():
        assert (ROOT / "medphantom" / name).resolve() == ROOT / room


def test_no_module_of_a_flow_is_named_like_a_package() -> None:
    # Prefect may put the folder of the flow file first on sys.path.
    taken = set(sys.stdlib_module_names) | set(metadata.packages_distributions())
    ours = {file.stem for file in (ROOT / "flows" / "orchestration").glob("*.py")} - {"__init__"}
    assert not ours & taken


def alone(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder, without whatever brings the source tree into the path of these tests."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this tree, built as pip builds it, without a network."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(out)]
    source = out / "source"
    files = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout.decode()
    for name in filter(None, files.split("\0")):
        file = source / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_symlink():
            file.symlink_to((ROOT / name).readlink())
        elif (ROOT / name).is_file():
            file.write_bytes((ROOT / name).read_bytes())
    subprocess.run([*command, str(source)], check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture
def in_the_way(tmp_path: Path) -> Path:
    """A user's folder beside a notebook, with packages of the same names as our rooms, and one that ends at import."""
    for room in (*ROOMS, "tests"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "__init__.py").write_text(f"raise SystemExit('the {room} of somebody else')\n")
    return tmp_path


def test_a_wheel_brings_one_name_and_all_that_is_needed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"medphantom"}
    assert set(our_modules()) <= {name.removesuffix(".py").replace("/", ".") for name in names}
    for needed in ("quality/report/templates/page.html.j2", "flows/recipes/templates/recipe.yaml", "core/py.typed"):
        assert f"medphantom/{needed}" in names
    for base in (ROOT / "bases").glob("*/"):
        files = [
            file.relative_to(ROOT / "bases") for file in base.rglob("*") if file.is_file() and file.suffix != ".pyc"
        ]
        assert {f"medphantom/shipped/{file.as_posix()}" for file in files} <= set(names)


def test_an_installed_wheel_works_beside_folders_of_the_same_names(
    wheel: Path, in_the_way: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    code = f"import sys; sys.path.insert(1, {str(site)!r}); {MAIN}"
    done = alone([sys.executable, "-c", code], in_the_way)
    where, schema = done.stdout.split("\n", 1)
    assert Path(where).is_relative_to(site)
    assert schema.rstrip() == (ROOT / "docs/formats/recipe.schema.json").read_text("utf-8").rstrip()


def test_an_editable_install_works_beside_folders_of_the_same_names(
    in_the_way: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    site = tmp_path_factory.mktemp("editable")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--target", str(site), "-e", str(ROOT)], check=True, capture_output=True)
    libraries = sysconfig.get_path("purelib")  # -S: without the editable install that they may hold themselves
    code = f"import site, sys; sys.path += [{str(site)!r}, {libraries!r}]; site.addsitedir({str(site)!r}); {MAIN}"
    done = alone([sys.executable, "-S", "-c", code], in_the_way)
    assert Path(done.stdout.split("\n", 1)[0]).is_relative_to(ROOT)
