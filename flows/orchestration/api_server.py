"""The process of a Prefect server of our own, for this machine and its owner only.

Used as ``python -m medphantom.flows.orchestration.api_server [--temporary]`` with a bound socket as its standard input,
as ``inetd`` does it: the port is ours before the process starts, so that nobody else can answer there in its place. The
password comes from the environment. Prefect checks it too; here it is required before any other part of Prefect sees a
request.
"""

from __future__ import annotations

import base64
import hmac
import os
import socket
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

PASSWORD_VARIABLE = "PREFECT_SERVER_API_AUTH_STRING"  # noqa: S105 - a name, not the thing
API = "/api"
HOSTS = ("127.0.0.1", "localhost")  # any other name was pointed to this machine by somebody's DNS
OPEN = frozenset({f"{API}/health", f"{API}/ready"})

SECONDS_TO_END = 5
STATUS_NOT_STARTED = 3  # such as: another server was making the same database


class OwnerOnly:
    """Answer 401 to every request without the password that is not for a static page.

    The pages themselves hold no data and prompt for the password. Prefect authenticates a websocket in its first
    message, since a browser cannot send a header there. No challenge is sent, because a browser that remembered the
    password would send it along with a third party's form.

    Args:
        app: The application that receives authenticated requests.
        password: The password in the form ``user:password``.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], password: str) -> None:
        self.app = app
        self._expected = b"Basic " + base64.b64encode(password.encode())

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http" or self._is_page(scope) or self._knows(scope):
            await self.app(scope, receive, send)
            return
        from starlette.responses import JSONResponse

        await JSONResponse({"exception_message": "Unauthorized"}, status_code=401)(scope, receive, send)

    @staticmethod
    def _is_page(scope: MutableMapping[str, Any]) -> bool:
        path = scope["path"]
        return scope["method"] in {"GET", "HEAD"} and (path in OPEN or not path.startswith(API))

    def _knows(self, scope: MutableMapping[str, Any]) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)


def main(arguments: list[str]) -> None:
    """Serve Prefect's API and pages on standard input until a signal ends it."""
    import uvicorn
    from prefect.server.api.server import create_app
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    password = os.environ[PASSWORD_VARIABLE]  # without one, no server
    prefect = create_app(ephemeral="--temporary" in arguments, final=True)  # may copy its pages beside the package
    os.umask(0o077)  # what follows lies in the owner's folder
    app = TrustedHostMiddleware(OwnerOnly(prefect, password), allowed_hosts=list(HOSTS))
    config = uvicorn.Config(
        app, log_level="error", lifespan="on", proxy_headers=False, timeout_graceful_shutdown=SECONDS_TO_END
    )
    server = uvicorn.Server(config)
    server.run(sockets=[socket.socket(fileno=os.dup(0))])
    if not server.started:
        sys.exit(STATUS_NOT_STARTED)


if __name__ == "__main__":
    main(sys.argv[1:])
