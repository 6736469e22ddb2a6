"""The Prefect API that a user names, in the environment or in the active profile of Prefect."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

from medphantom.core.errors import ResourceError

API_VARIABLE = "PREFECT_API_URL"
AUTH_VARIABLE = "PREFECT_API_AUTH_STRING"


def named_api() -> str | None:
    """Return the URL of the API that Prefect's settings name."""
    from prefect.settings import PREFECT_API_URL

    return PREFECT_API_URL.value() or None


def without_password(url: str) -> str:
    """Return a URL that is safe to show, without the user and password that it may contain."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def require_answer(url: str) -> str:
    """Make sure that a named API answers and accepts the password.

    Returns:
        The URL of the API, without any password.

    Raises:
        ResourceError: The API does not answer, or refuses the password.
    """
    import httpx
    from prefect.client.orchestration import get_client

    shown = without_password(url)
    with get_client(sync_client=True) as client:
        try:
            client.hello()  # unlike the health check, asks for the password
        except httpx.HTTPStatusError as error:
            if error.response.status_code in {401, 403}:
                raise ResourceError(
                    f"the Prefect API at {shown} refuses us ({error.response.status_code})",
                    f"give its password by {AUTH_VARIABLE}, or its key by PREFECT_API_KEY",
                ) from None
            problem: Exception = error
        except (httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
            problem = error
        else:
            return shown
    raise ResourceError(
        f"the Prefect API at {shown} does not answer ({type(problem).__name__})",
        f"start it, or unset {API_VARIABLE} to have a server of our own",
    )


def lets_anybody_in(url: str) -> bool:
    """Return whether an API answers without a password."""
    import httpx

    try:
        return httpx.get(f"{without_password(url)}/admin/version", timeout=10).status_code == httpx.codes.OK
    except (httpx.HTTPError, httpx.InvalidURL):
        return False
