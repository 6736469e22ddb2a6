"""A pretrained network's folder may bring code: it is never run, and no prompt offers to run it."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
ROOMS = ("core", "phantoms", "cohorts", "learning", "conditioning", "generators", "quality", "flows", "benchmarks")
CLASSES = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoImageProcessor", "AutoProcessor")

EVIL = """
from pathlib import Path
Path(__file__).with_name("ran").write_text("code of a stranger")
PROOF
class Evil:
    pass
"""


def test_every_call_of_transformers_says_that_no_code_is_trusted() -> None:
    seen = 0
    for file in (path for room in ROOMS for path in (ROOT / room).rglob("*.py")):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom | ast.Import)]
        named = {alias.name for node in imports if isinstance(node, ast.Import) for alias in node.names}
        if not {"transformers"} & ({getattr(node, "module", None) for node in imports} | named):
            continue
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            if isinstance(call.func, ast.Attribute) and call.func.attr in {"from_pretrained", "from_config"}:
                trusted = [word.value for word in call.keywords if word.arg == "trust_remote_code"]
                where = f"{file.relative_to(ROOT)}:{call.lineno}"
                assert len(trusted) == 1, where
                assert isinstance(trusted[0], ast.Constant), where
                assert trusted[0].value is False, where
                seen += 1
    assert seen >= 8


READERS = """
import sys
from medphantom.conditioning.pretrained_text import PretrainedReader
from medphantom.core.errors import InputError
from medphantom.quality.networks.encoders import load_encoder, load_text_image_encoder
for folder in sys.argv[1:]:
    for load in (load_encoder, load_text_image_encoder, lambda source: PretrainedReader(source, 8)):
        try:
            load(folder)
        except InputError as error:
            print(error)
"""


def hostile_encoder(folder: Path, kind: str, tmp_path: Path) -> Path:
    """An encoder of a kind that transformers may or may not know, all of whose parts are said to be its own code."""
    folder.mkdir()
    proof = f"Path({str(tmp_path / 'ran')!r}).write_text('x')"
    (folder / "evil.py").write_text(EVIL.replace("PROOF", proof))
    mapped = dict.fromkeys(CLASSES, "evil.Evil")
    (folder / "config.json").write_text(json.dumps({"model_type": kind, "auto_map": mapped}))
    processor = {"image_processor_type": "Evil", "processor_class": "Evil", "auto_map": mapped}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    tokenizer = {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


def test_code_in_a_folder_is_refused_in_one_line_without_a_prompt(tmp_path: Path) -> None:
    kinds = {"known": "dinov2", "unknown": "of a stranger"}
    folders = [hostile_encoder(tmp_path / name, kind, tmp_path) for name, kind in kinds.items()]
    done = subprocess.run(
        [sys.executable, "-c", READERS, *map(str, folders)],
        input="y\n" * 9, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    refusals = done.stdout.splitlines()
    assert len(refusals) == 6
    assert all("cannot be" in refusal for refusal in refusals)
    assert "y/N" not in done.stdout + done.stderr
    assert not (tmp_path / "ran").exists()
