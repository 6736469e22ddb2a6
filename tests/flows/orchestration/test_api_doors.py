"""Who may use a Prefect server of ours: its owner. Attacked by another process, and by a page of another origin."""

from __future__ import annotations

import base64
import http.server
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import sync_playwright
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from medphantom.core.errors import InputError, RecipeError
from medphantom.flows.cli.main import main
from medphantom.flows.orchestration.api_password import PASSWORD_FILE, load_or_make_password, read_password
from medphantom.flows.orchestration.named_api import without_password
from medphantom.flows.orchestration.served import SERVED_VARIABLE, Served, open_served
from medphantom.flows.runs.job import open_job
from tests.quality.report.test_browser import CHROMIUM, FLAGS

ATTACK = Path(__file__).with_name("attack_api.py")
NOTHING = "outcome: 0 files, 0 bytes of the private folder can be read by anybody"


@dataclass
class Serving:
    url: str
    folder: Path
    state: Path
    password: str
    process: subprocess.Popen[str]

    @property
    def header(self) -> dict[str, str]:
        return {"Authorization": "Basic " + base64.b64encode(self.password.encode()).decode()}


def attack(serving: Serving, out: Path, *more: str) -> list[str]:
    private = out / "private"
    shutil.copytree(serving.folder / "runs" / "tiny" / "phantoms" / "dicom", private)
    private.chmod(0o700)
    command = [sys.executable, str(ATTACK), f"{serving.url}/api", str(private), str(out / "readable"), *more]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.fixture(scope="module")
def serving(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """One server for this module; its owner has settings that would open it, and a proxy that cannot help."""
    folder = tmp_path_factory.mktemp("doors")
    shutil.copytree(finished, folder, dirs_exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {
        **kept,
        "PREFECT_HOME": str(folder / "home"),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "false",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "*",
        "PREFECT_API_AUTH_STRING": "somebody:else",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "",
    }
    state = folder / "state"
    state.mkdir(mode=0o755)
    command = [sys.executable, "-m", "medphantom.flows.cli.main", "serve", "tiny.yaml", "--out", "runs/tiny"]
    with (folder / "serve.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--cron", "0 2 1 1 *", "--state", str(state)],
            cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        url = next(line.split()[1] for line in process.stdout if line.startswith("Prefect: "))
        found = Serving(url, folder, state, read_password(state), process)
        deadline = time.monotonic() + 120
        while not ask(found, "/deployments/filter", {}):
            assert time.monotonic() < deadline
            time.sleep(0.5)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def ask(serving: Serving, path: str, body: dict[str, Any], **headers: str) -> Any:
    token = httpx.get(f"{serving.url}/api/csrf-token", params={"client": "test"}, headers=serving.header).json()
    csrf = {"Prefect-Csrf-Token": token["token"], "Prefect-Csrf-Client": "test"}
    answer = httpx.post(f"{serving.url}/api{path}", json=body, headers={**serving.header, **csrf, **headers})
    return answer.raise_for_status().json()


def test_a_stranger_reads_and_starts_nothing(serving: Serving, tmp_path: Path) -> None:
    for place, more in enumerate([(), ("--auth", "medphantom:wrong"), ("--auth", "somebody:else")]):
        output = attack(serving, tmp_path / str(place), "--seconds", "5", *more)
        assert {line.rsplit(": ", 1)[1] for line in output if line.startswith(("GET", "POST", "PATCH"))} == {"401"}
        assert output[-1] == NOTHING


@pytest.mark.slow
def test_who_knows_the_password_cannot_choose_another_recipe_or_code(serving: Serving, tmp_path: Path) -> None:
    before = sorted((serving.folder / "runs").iterdir())
    output = attack(serving, tmp_path, "--auth", serving.password, "--change")
    assert "runs: 4 made, ended as ['CRASHED']" in output
    assert output[-2:] == ["code of the attacker was run: False", NOTHING]
    assert sorted((serving.folder / "runs").iterdir()) == before


def test_websockets_ask_for_the_password_too(serving: Serving) -> None:
    for path in ("/events/in", "/events/out", "/logs/out", "/task_runs/subscriptions/scheduled"):
        address = f"{serving.url.replace('http', 'ws')}/api{path}"
        for token in (None, "medphantom:wrong"):
            with connect(address, subprotocols=[Subprotocol("prefect")], proxy=None) as socket:
                socket.send(json.dumps({"type": "auth", "token": token}))
                with pytest.raises(ConnectionClosed):
                    socket.recv(timeout=20)
        with connect(address, subprotocols=[Subprotocol("prefect")], proxy=None) as socket:
            socket.send(json.dumps({"type": "auth", "token": serving.password}))
            assert json.loads(socket.recv(timeout=20)) == {"type": "auth_success"}


def test_only_health_is_open_and_only_under_a_name_of_this_machine(serving: Serving) -> None:
    assert httpx.get(f"{serving.url}/api/health").status_code == 200
    for path in ("/api/docs", "/api/openapi.json", "/api/variables/name/system-health", "/api/csrf-token?client=x"):
        assert httpx.get(serving.url + path).status_code == 401, path
    assert httpx.post(f"{serving.url}/api/health").status_code == 401
    host = {"Host": "evil.example"}  # a name that a foreign DNS resolves to 127.0.0.1
    assert httpx.get(f"{serving.url}/api/admin/version", headers={**serving.header, **host}).status_code == 400
    port = serving.url.rsplit(":", 1)[1]
    listening = subprocess.run(["ss", "-Htln"], capture_output=True, text=True, check=False).stdout
    if listening:
        assert [line.split()[3] for line in listening.splitlines() if f":{port} " in line] == [f"127.0.0.1:{port}"]


def test_the_password_alone_changes_nothing_without_a_token(serving: Serving) -> None:
    """CSRF protection holds although the owner's environment switches it off under its old name."""
    answer = httpx.post(f"{serving.url}/api/flows/", json={"name": "x"}, headers=serving.header)
    assert (answer.status_code, answer.json()) == (403, {"detail": "Missing CSRF token."})
    evil = {**serving.header, "Origin": "http://evil.example"}
    assert "access-control-allow-origin" not in httpx.get(f"{serving.url}/api/admin/version", headers=evil).headers


def test_the_password_stands_in_one_private_file_and_nowhere_else(serving: Serving) -> None:
    assert stat.S_IMODE(serving.state.stat().st_mode) == 0o700
    assert stat.S_IMODE((serving.state / PASSWORD_FILE).stat().st_mode) == 0o600
    secret = serving.password.encode()
    encoded = base64.b64encode(secret)
    for file in serving.folder.rglob("*"):
        if file.is_file() and file != serving.state / PASSWORD_FILE:
            content = file.read_bytes()
            assert secret not in content, file
            assert encoded not in content, file
    for process in Path("/proc").glob("[0-9]*"):
        try:
            assert secret not in (process / "cmdline").read_bytes()
        except OSError:
            continue
    assert serving.password not in httpx.get(f"{serving.url}/api/admin/settings", headers=serving.header).text


def test_its_owner_is_shown_it(serving: Serving, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--show-password", "--state", str(serving.state)]) == 0
    assert capsys.readouterr().out == serving.password + "\n"


PAGE = """<!doctype html><form method=post enctype=text/plain action="API/flows/"><input name='{"name":"form","x":"'
value='"}'></form><script>
async function attempt(path, options) {
  try { const answer = await fetch("API" + path, options); return String(answer.status || answer.type) }
  catch (error) { return "blocked" }
}
const body = () => new Blob(['{"name": "fetched"}'])
async function attack() {
  const all = {}
  for (const credentials of ["omit", "include"]) {
    all["read " + credentials] = await attempt("/admin/version", {credentials})
    all["write " + credentials] = await attempt("/flows/", {method: "POST", credentials, body: body()})
    await attempt("/flows/", {method: "POST", mode: "no-cors", credentials, body: body()})
    all["token " + credentials] = await attempt("/csrf-token?client=x", {credentials})
  }
  return all
}
</script>"""


@pytest.fixture
def other_origin(serving: Serving) -> Iterator[str]:
    page = PAGE.replace("API", f"{serving.url}/api").encode()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: install the package chromium")
def test_a_page_of_another_origin_reads_and_changes_nothing(serving: Serving, other_origin: str) -> None:
    def names() -> set[str]:
        return {flow["name"] for flow in ask(serving, "/flows/filter", {})}

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, "--no-proxy-server"])
        for stolen in ({}, serving.header):  # as if the browser sent the owner's password along with everything
            context = browser.new_context(extra_http_headers=stolen)
            context.add_cookies([{"name": "prefect_ui_version", "value": "v2", "url": serving.url}])
            page = context.new_page()
            page.goto(other_origin)
            assert set(page.evaluate("attack()").values()) <= {"blocked", "401", "403"}
            with page.expect_navigation():
                page.evaluate("document.forms[0].submit()")
            assert ("CSRF" if stolen else "Unauthorized") in page.inner_text("body")
            context.close()
        assert not names() & {"form", "fetched"}

        page = browser.new_page()  # and the owner gets in, by the command that the documents name
        page.goto(serving.url)
        page.locator("input[type=password]").first.fill(serving.password)
        page.keyboard.press("Enter")
        page.wait_for_url("**/dashboard*")
        browser.close()


def test_a_password_that_others_may_have_read_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    password = load_or_make_password(state)
    assert load_or_make_password(state) == password
    file = state / PASSWORD_FILE
    for mode in (0o640, 0o604, 0o660):
        file.chmod(mode)
        with pytest.raises(InputError, match="can be read by others"):
            load_or_make_password(state)
    file.chmod(0o600)
    file.write_text("medphantom:1234\n")
    with pytest.raises(InputError, match="holds no password that medphantom made"):
        load_or_make_password(state)
    file.unlink()
    (tmp_path / "mine").write_text(password)
    file.symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match="cannot be read as a file of yours"):
        load_or_make_password(state)
    file.unlink()
    assert load_or_make_password(state) != password


def test_a_url_is_shown_without_its_password() -> None:
    assert without_password("https://me:secret@host:4200/api") == "https://host:4200/api"


def test_serve_wants_a_recipe(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve"]) == 2
    assert main(["serve", "--show-password", "--state", str(tmp_path)]) == 2
    assert "does not exist; medphantom serve makes it" in capsys.readouterr().err


USER_OF_A_SERVER = """
import sys
from medphantom.flows.orchestration.prefect_server import any_server, quiet_prefect
quiet_prefect()
from medphantom.core.errors import MedphantomError
try:
    with any_server() as api:
        from prefect.client.orchestration import get_client
        with get_client(sync_client=True) as client:
            client.create_flow_from_name("mine")
        print(api.url.removesuffix("/api"), api.own, flush=True)
        sys.stdin.readline()
except MedphantomError as error:
    print(error)
"""


def user_of_a_server(home: Path, **more: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return subprocess.Popen(
        [sys.executable, "-c", USER_OF_A_SERVER],
        env={**kept, "PREFECT_HOME": str(home), **more},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_the_temporary_servers_of_two_runs_are_closed_too(serving: Serving, tmp_path: Path) -> None:
    runs = [user_of_a_server(tmp_path / "home") for _ in range(2)]
    try:
        for place, run in enumerate(runs):
            assert run.stdout is not None
            url, own = run.stdout.readline().split()
            assert own == "True"
            there = Serving(url, serving.folder, serving.state, serving.password, run)
            for name, more in (("nobody", ()), ("other", ("--auth", serving.password))):
                output = attack(there, tmp_path / f"{place}{name}", "--seconds", "5", *more)
                assert {line.rsplit(": ", 1)[1] for line in output if line.startswith(("GET", "POST"))} == {"401"}
                assert output[-1] == NOTHING
            answer = httpx.post(f"{url}/api/flows/", json={"name": "x"}, headers={"Origin": "http://evil.example"})
            assert answer.status_code == 401
            assert "access-control-allow-origin" not in answer.headers
        assert not list((tmp_path / "home").rglob(PASSWORD_FILE))
    finally:
        for run in runs:
            run.communicate("\n", timeout=60)


@pytest.mark.slow
def test_a_server_that_the_users_profile_names_is_used_with_its_own_password(serving: Serving, tmp_path: Path) -> None:
    for password, expected in (
        (serving.password, f"{serving.url} False"),
        ("me:wrong", "refuses us (401); give its password by PREFECT_API_AUTH_STRING"),
    ):
        home = tmp_path / password.partition(":")[0]
        home.mkdir()
        profile = f'PREFECT_API_URL = "{serving.url}/api"\nPREFECT_API_AUTH_STRING = "{password}"\n'
        (home / "profiles.toml").write_text(f'active = "mine"\n[profiles.mine]\n{profile}')
        output = user_of_a_server(home).communicate("\n", timeout=120)[0]
        assert expected in output
        assert password not in output


def test_a_schedule_runs_only_what_was_served(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    night = datetime(2026, 1, 1, 2, tzinfo=UTC)
    with pytest.raises(InputError, match="start it by medphantom serve"):
        open_served(night)
    job = open_job("tiny.yaml", ["plan.total=6"], "runs/tiny")
    monkeypatch.setenv(SERVED_VARIABLE, Served.of(job).model_dump_json())
    opened = open_served(night)
    assert (opened.recipe.plan.total, opened.run.path.name) == (6, "tiny-20260101T020000Z")
    with (copy / "tiny.yaml").open("a") as stream:
        stream.write("# a remark changes nothing\n")
    open_served(night)
    (copy / "tiny.yaml").write_text((copy / "tiny.yaml").read_text().replace("steps: 2}", "steps: 3}"))
    with pytest.raises(RecipeError, match="has changed since it was served; start medphantom serve again"):
        open_served(night)
