"""The command line, the stages of a run and Python call the same operations: same names, defaults and refusals."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import medphantom as mp
from medphantom.cohorts.options import IngestOptions
from medphantom.core.errors import InputError, MedphantomError
from medphantom.flows.cli.examples import EXAMPLES, help_of
from medphantom.flows.cli.main import GROUPS, app, main

VERBS: dict[str, Callable[..., Any]] = {verb.__name__: verb for verbs in GROUPS.values() for verb in verbs}

# Options of the command line that are called otherwise in Python, or are part of a section there.
CALLED = {
    "setting": "settings",
    "file_format": "format",
    "label_column": "label_columns",
    "attribute": "attributes",
    "factor": "factors",
    "count": "counts",
    "change": "changes",
    "fraction": "fractions",
    "share": "shares",
    "bundle": {"augment": "bundles"},
    "no_prefect": "prefect",
    "tries": "tries",
}
# Options that only the console has, each with its reason.
CONSOLE = {
    ("assess", "real_flag"): "another way to write an argument",
    ("assess", "synthetic_flag"): "another way to write an argument",
    ("augment", "plan_only"): "augment.proposal returns the plan",
    ("lineage", "files"): "the result holds them",
    ("serve", "*"): "a schedule belongs to a process of its own",
    ("schema", "*"): "prints a file of the documentation",
}
# Parameters of Python that the command line gives by --recipe and --set, or not at all.
PYTHON = {
    "recipe": "--recipe",
    "settings": "--set",
    "progress": "the console shows progress",
    "work": "stages keep their own folder",
    "announce": "the console prints the plan",
    "ask": "the console asks",
    "workers": "--set, or one process per core",
    "population": "cohort.simulate.population of a recipe",
}
SECTIONS = {"preprocess", "generator", "sampler", "assess", "study", "foreign", "method", "config", "options"}
DIFFERENT = {
    ("run", "prefect"): "a notebook does not start a server without a request",
    ("control", "prefect"): "a notebook does not start a server without a request",
    ("demo", "prefect"): "a notebook does not start a server without a request",
    ("counterfactual", "method"): "the command line has one option per field",
}


def console(verb: str) -> dict[str, inspect.Parameter]:
    return {
        name: parameter
        for name, parameter in inspect.signature(VERBS[verb]).parameters.items()
        if (verb, name) not in CONSOLE
    }


def python(verb: str) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(getattr(mp, verb)).parameters)
    if verb == "generate":  # two calls in Python: what to draw, and to draw it
        found |= dict(inspect.signature(mp.plan).parameters)
    return found


def renamed(verb: str, name: str) -> str:
    called = CALLED.get(name, name)
    return called.get(verb, name) if isinstance(called, Mapping) else called


def fields_of_sections(verb: str) -> dict[str, Any]:
    """Fields that an option of the command line may set, with their defaults."""
    from medphantom.generators.config import CounterfactualConfig
    from medphantom.quality.counterfactual.ranking import RankConfig
    from medphantom.quality.networks.outside_classifier import ClassifierInput

    models = {
        "ingest": (IngestOptions,),
        "assess": (IngestOptions,),
        "counterfactual": (CounterfactualConfig,),
        "rank": (RankConfig, ClassifierInput),
    }.get(verb, ())
    return {name: field for model in models for name, field in model.model_fields.items()}


def plain(value: Any) -> Any:
    """Defaults that mean the same: nothing, empty, an enumeration's value, a path's text."""
    if value is None or value in ((), [], ""):
        return None
    if isinstance(value, Path):
        return str(value)
    return getattr(value, "value", list(value) if isinstance(value, tuple) else value)


IN_BOTH = sorted(verb for verb in VERBS if (verb, "*") not in CONSOLE)


@pytest.mark.parametrize("verb", IN_BOTH)
def test_every_option_of_the_command_line_is_an_argument_in_python(verb: str) -> None:
    known, fields = python(verb), fields_of_sections(verb)
    for name, parameter in console(verb).items():
        called = renamed(verb, name)
        if called in {"value_range", "strict"} or called in fields:
            continue  # a field of a section, checked by its own type
        assert called in known, f"{verb}: --{name} is no argument of mp.{verb}"
        default, other = parameter.default, known[called].default
        if (verb, called) in DIFFERENT or parameter.default is inspect.Parameter.empty:
            continue
        if other is inspect.Parameter.empty:  # by place in Python, an option with a default on the console
            continue
        if name == "no_prefect":
            continue
        if plain(default) is None and plain(other) is not None:
            assert called in {"fractions", "shares", "changes"}, f"{verb}: {name}"  # repeated options: filled in by it
            continue
        assert plain(default) == plain(other), f"{verb}: {name} is {default!r} on the console, {other!r} in Python"


@pytest.mark.parametrize("verb", IN_BOTH)
def test_every_argument_in_python_is_reached_from_the_command_line(verb: str) -> None:
    options = {renamed(verb, name) for name in console(verb)}
    for name, parameter in python(verb).items():
        if name in options | set(PYTHON) | SECTIONS or (verb, name) == ("generate", "images"):
            continue
        assert parameter.kind is inspect.Parameter.VAR_KEYWORD, f"mp.{verb}({name}=…) is no option of medphantom {verb}"
    if SECTIONS & set(python(verb)) - {"method", "config", "foreign"}:
        assert {"recipe", "setting"} <= set(console(verb)), f"medphantom {verb} cannot set its sections"


def test_python_has_no_verb_of_its_own() -> None:
    helpers = {"contact_sheet", "network_images", "open_bundle", "open_cohort", "plan", "watching"}
    values = {name for name in mp.__all__ if name[0].isupper() or name == "metrics"}
    assert set(mp.__all__) - helpers - values == set(IN_BOTH)
    assert all(getattr(mp, name) is not None for name in mp.__all__)


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_shows_two_examples_that_its_options_allow(verb: str) -> None:
    command = next(c for c in app.registered_commands if c.callback and c.callback.__name__ == verb)
    assert command.help == help_of(VERBS[verb])
    known = {flag for parameter in _click(verb).params for flag in (*parameter.opts, *parameter.secondary_opts)}
    assert len(set(EXAMPLES[verb])) == 2
    for example in EXAMPLES[verb]:
        program, name, *words = shlex.split(example)
        assert (program, name) == ("medphantom", verb)
        assert {word for word in words if word.startswith("--")} <= known


def _click(verb: str) -> Any:
    import typer

    return typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]


# ---- refusals ----

Call = Callable[[Path], Any]
REFUSALS: list[tuple[str, Call]] = [
    ("inspect cohort --images 0", lambda at: mp.inspect(at / "cohort", images=0)),
    ("inspect cohort --size 0", lambda at: mp.inspect(at / "cohort", size=0)),
    ("inspect cohort --size -1", lambda at: mp.inspect(at / "cohort", size=-1)),
    ("inspect cohort --seed -1", lambda at: mp.inspect(at / "cohort", seed=-1)),
    ("inspect cohort --out sheet.xyz", lambda at: mp.inspect(at / "cohort", out="sheet.xyz")),
    ("inspect cohort --out taken/something.png", lambda at: mp.inspect(at / "cohort", out="taken/something.png")),
    ("inspect cohort --out nowhere/sheet.png", lambda at: mp.inspect(at / "cohort", out="nowhere/sheet.png")),
    ("inspect cohort --split left", lambda at: mp.inspect(at / "cohort", split="left")),
    ("inspect ''", lambda _: mp.inspect("")),
    ("inspect cohort --rejected --images 0", lambda at: mp.inspect(at / "cohort", rejected=True, images=0)),
    (
        "inspect cohort --rejected --split nonsense --size -3 --out xx.txt --seed 2 --recipe tiny.yaml --set a=1",
        lambda at: mp.inspect(
            at / "cohort",
            rejected=True,
            split="nonsense",
            size=-3,
            out="xx.txt",
            seed=2,
            recipe="tiny.yaml",
            settings=["a=1"],
        ),
    ),
    ("phantom --out new --bit-depth 16", lambda _: mp.phantom("new", bit_depth=16)),
    ("export cohort --out ''", lambda at: mp.export(at / "cohort", "")),
    ("ingest cohort --out new --table ''", lambda at: mp.ingest(at / "cohort", "new", table="")),
    ("export cohort --out taken", lambda at: mp.export(at / "cohort", "taken")),
    ("merge cohort --out taken", lambda at: mp.merge([at / "cohort"], "taken")),
    ("train cohort --out taken", lambda at: mp.train(at / "cohort", "taken")),
    ("train cohort --out new --size 0", lambda at: mp.train(at / "cohort", "new", size=0)),
    (
        "train cohort --out new --set generator.seed=x",
        lambda at: mp.train(at / "cohort", "new", settings=["generator.seed=x"]),
    ),
    ("search cohort --out new --try sampler.x=[1]", lambda at: mp.search(at / "cohort", {"sampler.x": [1]}, "new")),
    ("search cohort --out new --try study.x=[1]", lambda at: mp.search(at / "cohort", {"study.x": [1]}, "new")),
    (
        "search cohort --out new --try sampler.steps=[2] --try sampler.steps.x=[1]",
        lambda at: mp.search(at / "cohort", {"sampler.steps": [2], "sampler.steps.x": [1]}, "new"),
    ),
    ("generate bundle --out new --match 0", lambda at: mp.plan(at / "bundle", match=0)),
    (
        "generate bundle --out new --match 3 --balance 3",
        lambda at: mp.plan(at / "bundle", match=3, balance=3),
    ),
    ("generate bundle --out new --match 3", lambda at: mp.plan(at / "bundle", match=3)),
    (
        "generate bundle --out new --match 3 --set plan.total=9",
        lambda at: mp.plan(at / "bundle", match=3, settings=["plan.total=9"]),
    ),
    (
        "generate bundle --out new --count effusion=3 --seed 1 --set plan.seed=2",
        lambda at: mp.plan(at / "bundle", counts={"effusion": 3}, seed=1, settings=["plan.seed=2"]),
    ),
    (
        "generate bundle --out new --count effusion=3 --fresh today --set plan.fresh=tomorrow",
        lambda at: mp.plan(at / "bundle", counts={"effusion": 3}, fresh="today", settings=["plan.fresh=tomorrow"]),
    ),
    (
        "train cohort --out new --size 32 --set preprocess.size=[16,16]",
        lambda at: mp.train(at / "cohort", "new", size=32, settings=["preprocess.size=[16,16]"]),
    ),
    (
        "search cohort --out new --try sampler.steps=[2] --images 3 --set plan.total=4",
        lambda at: mp.search(at / "cohort", {"sampler.steps": [2]}, "new", images=3, settings=["plan.total=4"]),
    ),
    (
        "utility cohort --out new --size 32 --set preprocess.size=[16,16]",
        lambda at: mp.utility(at / "cohort", "new", size=32, settings=["preprocess.size=[16,16]"]),
    ),
    (
        "augment cohort --out new --label effusion --to 900 --size 32 --set preprocess.size=[16,16]",
        lambda at: mp.augment(at / "cohort", "effusion", 900, "new", size=32, settings=["preprocess.size=[16,16]"]),
    ),
    (
        "assess cohort synthetic --out new --synthetic-range 0 9 --set assess.synthetic_range=[0,8]",
        lambda at: mp.assess(
            at / "cohort", at / "synthetic", "new", synthetic_range=(0, 9), settings=["assess.synthetic_range=[0,8]"]
        ),
    ),
    (
        "ingest runs/tiny/phantoms --out new --public-phrase x --workers 0 --set cohort.options.workers=1",
        lambda _: mp.ingest(
            "runs/tiny/phantoms", "new", public_phrase="x", workers=0, settings=["cohort.options.workers=1"]
        ),
    ),
    (
        "inspect cohort --size 32 --set preprocess.size=[16,16]",
        lambda at: mp.inspect(at / "cohort", size=32, settings=["preprocess.size=[16,16]"]),
    ),
    ("generate bundle --out new --match 3 --seed -1", lambda at: mp.plan(at / "bundle", match=3, seed=-1)),
    (
        "generate bundle --out new --plan plan.jsonl --seed 3",
        lambda at: mp.plan(at / "bundle", plan_file="plan.jsonl", seed=3),
    ),
    (
        "generate bundle --out new --plan plan.jsonl --fresh today",
        lambda at: mp.plan(at / "bundle", plan_file="plan.jsonl", fresh="today"),
    ),
    (
        "generate bundle --out new --plan plan.jsonl --set 'plan={total: 3}'",
        lambda at: mp.plan(at / "bundle", plan_file="plan.jsonl", settings=["plan={total: 3}"]),
    ),
    (
        "generate bundle --out file/new --count effusion=2 --save-plan plan.jsonl",
        lambda at: mp.generate(
            at / "bundle", mp.plan(at / "bundle", counts={"effusion": 2}), "file/new", save_plan="plan.jsonl"
        ),
    ),
    (
        "generate bundle --out new --count effusion=2 --save-plan new",
        lambda at: mp.generate(at / "bundle", mp.plan(at / "bundle", counts={"effusion": 2}), "new", save_plan="new"),
    ),
    (
        "generate bundle --out new --count effusion=2 --save-plan cohort/plan.jsonl",
        lambda at: mp.generate(
            at / "bundle", mp.plan(at / "bundle", counts={"effusion": 2}), "new", save_plan="cohort/plan.jsonl"
        ),
    ),
    (
        "generate bundle --out new --plan plan.jsonl --set plan.total=3",
        lambda at: mp.plan(at / "bundle", plan_file="plan.jsonl", settings=["plan.total=3"]),
    ),
    (
        "generate bundle --out new --count effusion=2 --shard ²/4",
        lambda at: mp.generate(at / "bundle", mp.plan(at / "bundle", counts={"effusion": 2}), "new", shard="²/4"),
    ),
    (
        "generate bundle --out new --count effusion=2 --shard ٣/4",
        lambda at: mp.generate(at / "bundle", mp.plan(at / "bundle", counts={"effusion": 2}), "new", shard="٣/4"),
    ),
    (
        "generate bundle --out new --count effusion=2 --save-plan file",
        lambda at: mp.generate(
            at / "bundle", mp.plan(at / "bundle", counts={"effusion": 2}), "new", save_plan="file"
        ),
    ),
    ("generate bundle --out new --count moon=3", lambda at: mp.plan(at / "bundle", counts={"moon": 3})),
    (
        "generate bundle --out new --count effusion=2 --shard 2/2",
        lambda at: mp.generate(at / "bundle", mp.plan(at / "bundle", counts={"effusion": 2}), "new", shard="2/2"),
    ),
    (
        "generate bundle --out taken --count effusion=2",
        lambda at: mp.generate(at / "bundle", mp.plan(at / "bundle", counts={"effusion": 2}), "taken"),
    ),
    (
        "counterfactual bundle cohort --out new --set effusion=absent --split moon",
        lambda at: mp.counterfactual(at / "bundle", at / "cohort", ["effusion=absent"], "new", split="moon"),
    ),
    (
        "counterfactual bundle cohort --out new --set effusion=absent --limit 0",
        lambda at: mp.counterfactual(at / "bundle", at / "cohort", ["effusion=absent"], "new", limit=0),
    ),
    (
        "counterfactual bundle cohort --out new --set effusion=absent --set effusion=present",
        lambda at: mp.counterfactual(at / "bundle", at / "cohort", ["effusion=absent", "effusion=present"], "new"),
    ),
    (
        "counterfactual bundle cohort --out new --set effusion=absent --drift 0.1",
        lambda at: mp.counterfactual(at / "bundle", at / "cohort", ["effusion=absent"], "new", method={"drift": 0.1}),
    ),
    (
        "counterfactual bundle cohort --out new --set effusion=absent --steps 0",
        lambda at: mp.counterfactual(at / "bundle", at / "cohort", ["effusion=absent"], "new", method={"steps": 0}),
    ),
    ("assess cohort synthetic --out taken", lambda at: mp.assess(at / "cohort", at / "synthetic", "taken")),
    (
        "assess cohort synthetic --out new --synthetic-range 2 1",
        lambda at: mp.assess(at / "cohort", at / "synthetic", "new", synthetic_range=(2, 1)),
    ),
    (
        "utility cohort --out new --fraction 1 --fraction 1",
        lambda at: mp.utility(at / "cohort", "new", fractions=[1.0, 1.0]),
    ),
    ("utility cohort --out new --fraction 0", lambda at: mp.utility(at / "cohort", "new", fractions=[0.0])),
    ("utility cohort --out new --generators 0", lambda at: mp.utility(at / "cohort", "new", generators=0)),
    (
        "augment cohort --out taken --label effusion --to 900 --plan-only",
        lambda at: mp.augment(at / "cohort", "effusion", 900, "taken"),
    ),
    (
        "augment cohort --out new --label effusion --to 900 --external nowhere --plan-only",
        lambda at: mp.augment(at / "cohort", "effusion", 900, "new", external={"nowhere": "nowhere"}),
    ),
    (
        "augment cohort --out new --label moon --to 9",
        lambda at: mp.augment(at / "cohort", "moon", 9, "new"),
    ),
    (
        "augment cohort --out new --label effusion --to 900 --bundle bundle --size 32",
        lambda at: mp.augment(at / "cohort", "effusion", 900, "new", bundles=[at / "bundle"], size=32),
    ),
    (
        "augment cohort --out new --label effusion --to 900 --share 2",
        lambda at: mp.augment(at / "cohort", "effusion", 900, "new", shares=[2.0]),
    ),
    ("compare cohort cohort --out new", lambda at: mp.compare([at / "cohort", at / "cohort"], "new")),
    ("compare cohort bundle --out new", lambda at: mp.compare(["cohort", "bundle"], "new")),
    (
        "rank nothing.pt cohort --output 0 --channels 2",
        lambda at: mp.rank("nothing.pt", [at / "cohort"], 0, config={"takes": {"channels": 2}}),
    ),
    ("rank nothing.pt cohort --output 0 --out file", lambda at: mp.rank("nothing.pt", ["cohort"], 0, out="file")),
    ("rank nothing.pt cohort --output 0 --out a/b", lambda at: mp.rank("nothing.pt", ["cohort"], 0, out="a/b")),
    ("verify taken", lambda _: mp.verify("taken")),
    ("lineage cohort --patient ' '", lambda _: mp.lineage(" ", ["cohort"])),
    (
        "lineage cohort --patient 1 --key-file file --public-phrase x",
        lambda _: mp.lineage("1", ["cohort"], key_file="file", public_phrase="x"),
    ),
    ("ingest nowhere --out new --public-phrase ''", lambda _: mp.ingest("nowhere", "new", public_phrase="")),
    ("init new.yaml --name ''", lambda _: mp.init("new.yaml", name="")),
    ("ingest nowhere --out new --public-phrase x", lambda _: mp.ingest("nowhere", "new", public_phrase="x")),
    ("phantom --out taken", lambda _: mp.phantom("taken")),
    ("phantom --out new --missing 2", lambda _: mp.phantom("new", missing=2.0)),
    ("phantom --out new --size 0", lambda _: mp.phantom("new", size=0)),
    ("phantom --out new --seed -1", lambda _: mp.phantom("new", seed=-1)),
    ("phantom --out new --patients 0", lambda _: mp.phantom("new", 0)),
    ("phantom --out new --format nifti --spatial-dims 2", lambda _: mp.phantom(
        "new", format="nifti", spatial_dims=2
    )),
    ("init tiny.yaml", lambda _: mp.init("tiny.yaml")),
    ("run nowhere.yaml --no-prefect", lambda _: mp.run("nowhere.yaml")),
    ("run tiny.yaml --no-prefect --out new --set generator.init_from=./nowhere", lambda _: mp.run(
        "tiny.yaml", ["generator.init_from=./nowhere"], out="new"
    )),
    ("control tiny.yaml --kind noiseless --no-prefect --out runs/tiny", lambda _: mp.control(
        "tiny.yaml", kind="noiseless", out="runs/tiny"
    )),
]  # fmt: skip


@pytest.mark.parametrize(("command", "call"), REFUSALS, ids=[command for command, _ in REFUSALS])
def test_what_one_face_refuses_the_other_refuses_in_the_same_words(
    copy: Path, command: str, call: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy / "runs" / "tiny"
    for name in ("cohort", "bundle", "synthetic"):
        (copy / name).symlink_to(run / name)
    (copy / "taken").mkdir()
    (copy / "taken" / "something").write_text("here")
    (copy / "taken" / "something.png").write_text("here")
    (copy / "file").write_text("here")
    capsys.readouterr()
    status = main(shlex.split(command))
    errors = capsys.readouterr().err.splitlines()
    assert (status, len(errors)) == (2, 1), errors
    with pytest.raises(MedphantomError) as refused:
        call(copy)
    ours = str(refused.value).replace(f"{copy}/", "")
    assert errors[0].removeprefix("medphantom: ").replace(f"{copy}/", "") == ours
    assert not list(copy.glob("new*"))
    assert not (copy / "plan.jsonl").exists()


class Strange:
    """What no argument is."""


def strange_arguments() -> Iterator[Any]:
    for verb in [*IN_BOTH, "plan", "contact_sheet", "open_bundle", "open_cohort"]:
        for name, parameter in inspect.signature(getattr(mp, verb)).parameters.items():
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD and name not in {"progress", "announce", "ask"}:
                yield pytest.param(verb, name, id=f"{verb} {name}")


@pytest.mark.parametrize(("verb", "name"), list(strange_arguments()))
def test_what_is_no_argument_is_one_line_that_names_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = finished / "runs" / "tiny"
    usual: dict[str, Any] = {
        "out": tmp_path / "new", "cohort": run / "cohort", "real": run / "cohort", "synthetic": run / "synthetic",
        "bundle": run / "bundle", "recipe": finished / "tiny.yaml", "source": run / "phantoms",
        "folder": run / "cohort", "label": "effusion", "to": 900, "tries": {"sampler.steps": [2]}, "images": mp.plan(
            run / "bundle", counts={"effusion": 1}
        ), "changes": ["effusion=absent"], "pairs": [run / "cohort"], "output": 0, "classifier": "nothing.pt",
        "runs": [run, run], "parts": [run / "synthetic"], "patient": "1", "patients": 4,
    }  # fmt: skip
    call, parameters = getattr(mp, verb), inspect.signature(getattr(mp, verb)).parameters
    given = {
        other: usual[other]
        for other, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
    if verb == "contact_sheet":
        given.pop("images", None)
    with pytest.raises(InputError) as refused:
        call(**{**given, name: Strange()})
    assert {"method": "counterfactual", "config": "rank"}.get(name, name) in str(
        refused.value
    )  # sections by their verb
    assert "Strange" in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_setting_of_the_other_call_is_refused_in_python_and_reaches_it_on_the_command_line(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = copy / "runs" / "tiny" / "bundle"
    wanted = mp.plan(bundle, counts={"effusion": 2}, settings=["plan.seed=4"])
    with pytest.raises(InputError, match=r"--set plan.total has no effect: the plan is already made; give it to plan"):
        mp.generate(bundle, wanted, copy / "new", settings=["plan.total=7"])
    with pytest.raises(InputError, match=r"--set sampler.steps has no effect: a plan does not say .*; give it to gen"):
        mp.plan(bundle, counts={"effusion": 2}, settings=["sampler.steps=3"])
    assert not (copy / "new").exists()
    made = mp.generate(bundle, wanted, copy / "one", settings=["sampler.steps=3"])
    flags = ["--count", "effusion=2", "--set", "plan.seed=4", "--set", "sampler.steps=3"]
    assert main(["generate", str(bundle), "--out", "two", *flags]) == 0
    assert mp.open_cohort("two").digest == made.digest
    capsys.readouterr()
    assert main(["generate", str(bundle), "--out", "new", *flags, "--set", "smapler.steps=3"]) == 2
    assert "smapler is no field; did you mean 'sampler'?" in capsys.readouterr().err
    assert not (copy / "new").exists()


def test_one_text_is_no_list_of_texts(copy: Path) -> None:
    run = copy / "runs" / "tiny"
    for call in (
        lambda: mp.lineage("1", str(run)),
        lambda: mp.counterfactual(run / "bundle", run / "cohort", "effusion=absent", copy / "new"),
        lambda: mp.phantom(copy / "new", factors="anatomy.adiposity"),
        lambda: mp.train(run / "cohort", copy / "new", settings="generator.seed=1"),
    ):
        with pytest.raises(InputError, match="must be a list, got"):
            call()
    assert not (copy / "new").exists()


def test_refusals_cover_every_verb() -> None:
    assert {command.split()[0] for command, _ in REFUSALS} >= set(IN_BOTH) - {"demo", "bases"}  # which take no input


def test_a_warning_that_the_console_prints_reaches_python_too(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = copy / "runs" / "tiny" / "phantoms"
    assert main(["ingest", str(source), "--out", "one", "--public-phrase", "x", "--workers", "0"]) == 0
    shown = [line.partition("warning: ")[2] for line in capsys.readouterr().out.splitlines() if "warning: " in line]
    assert shown
    with pytest.warns() as caught:
        mp.ingest(source, "two", public_phrase="x", workers=0)
    assert [str(one.message).removeprefix("ingest: ") for one in caught] == shown


def test_both_faces_look_for_a_relative_table_in_the_same_places(
    copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the working folder and in the source; where it lies in both, nothing is guessed."""
    source = copy / "runs" / "tiny" / "phantoms"
    table = source / "metadata.csv"
    (copy / "here.csv").write_text(table.read_text().replace("effusion", "hydrothorax"))
    for name, call in (("here.csv", "hydrothorax"), ("metadata.csv", "effusion")):
        if (copy / "metadata.csv").exists():
            (copy / "metadata.csv").unlink()
        arguments = ["--table", name, "--public-phrase", "x", "--workers", "0"]
        assert main(["ingest", str(source), "--out", f"console {name}", *arguments]) == 0
        with pytest.warns():
            made = mp.ingest(source, f"python {name}", table=name, public_phrase="x", workers=0)
        assert made.digest == mp.open_cohort(f"console {name}").digest
        assert call in made.schema.labels
    (copy / "metadata.csv").write_text(table.read_text())
    capsys.readouterr()
    line = "table metadata.csv lies both in the working folder and in the source; give it with its whole path"
    assert main(["ingest", str(source), "--out", "new", "--table", "metadata.csv", "--public-phrase", "x"]) == 2
    assert capsys.readouterr().err.splitlines() == [f"medphantom: {line}"]
    with pytest.raises(InputError, match=line):
        mp.ingest(source, "new", table="metadata.csv", public_phrase="x")
    with pytest.raises(InputError, match=line):
        mp.assess(source.parent / "cohort", source, "new", foreign={"table": "metadata.csv"})
    assert not list(copy.glob("new*"))
