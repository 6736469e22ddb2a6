"""What an installation weighs: a plain one, and what each extra adds to it.

The last commit is installed with the versions of ``constraints.txt`` into a fresh virtual environment by pip, from the
index that pip is configured with; each extra is then installed into it, measured, and removed again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import write_result

ROOT = Path(__file__).parents[1]
EXTRAS = ("private", "pretrained", "tensorboard", "onnx", "all", "dev")


class Environment:
    """A fresh virtual environment.

    Args:
        folder: Where it is made, beside a copy of the last commit.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.source = folder / "environment", folder / "source"
        archive = folder / "source.tar"
        subprocess.run(["git", "archive", "HEAD", "-o", str(archive)], cwd=ROOT, check=True)
        with tarfile.open(archive) as files:
            files.extractall(self.source, filter="data")
        subprocess.run([sys.executable, "-m", "venv", str(self.folder)], check=True)

    def pip(self, *arguments: str) -> str:
        """Run pip; return what it printed."""
        command = [str(self.folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", *arguments]
        return subprocess.run(command, cwd=self.source, check=True, stdout=subprocess.PIPE, text=True).stdout

    def install(self, extra: str = "") -> float:
        """Install the project, with an extra; return the seconds."""
        started = time.perf_counter()
        self.pip("install", "--quiet", "--no-cache-dir", "-c", "constraints.txt", f".[{extra}]" if extra else ".")
        return time.perf_counter() - started

    def packages(self) -> set[str]:
        """Names of all installed packages, pip among them."""
        return {package["name"] for package in json.loads(self.pip("list", "--format=json"))}

    def mib(self) -> float:
        """Space on disk, compiled Python files included."""
        return sum(path.lstat().st_blocks for path in self.folder.rglob("*")) * 512 / 2**20


def measured(folder: Path) -> list[dict[str, Any]]:
    """One row for the plain installation, and one for what each extra adds."""
    environment = Environment(folder)
    seconds = environment.install()
    plain, mib = environment.packages(), environment.mib()
    rows = [{"install": "medphantom", "mib": round(mib), "packages": len(plain), "seconds": round(seconds)}]
    for extra in EXTRAS:
        seconds = environment.install(extra)
        new = sorted(environment.packages() - plain)
        added = {"mib": round(environment.mib() - mib), "packages": len(new), "seconds": round(seconds), "new": new}
        rows.append({"install": f"medphantom[{extra}]", **added})
        environment.pip("uninstall", "--quiet", "--yes", *new)
    return rows


def main() -> None:
    """Measure, print the table of the README, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the temporary environment is made (about 3 GB)")
    with tempfile.TemporaryDirectory(prefix="install-", dir=parser.parse_args().folder) as folder:
        rows = measured(Path(folder))
    print("| install | MiB | packages | seconds |\n|---|---|---|---|")
    for place, row in enumerate(rows):
        sign = "+" if place else ""
        print(f"| `{row['install']}` | {sign}{row['mib']:,} | {sign}{row['packages']} | {row['seconds']} |")
    write_result("install_size", {"rows": rows})


if __name__ == "__main__":
    main()
