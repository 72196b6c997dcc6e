"""Requests of client commands go out here with the right key, and what the gateway refuses comes back as our error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import typer

from schemas.errors import BadInput, Misconfigured, PenstockError, Unavailable

if TYPE_CHECKING:
    import httpx2

    from infra.settings import Settings

DEV_FILE = "dev.env"
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
TIMEOUT = 90.0


class GatewayRefused(PenstockError):
    """The gateway refused."""

    code = "refused"

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        """Take what the problem document says."""
        detail = str(problem.get("detail") or problem.get("title") or f"the gateway answered {status}")
        super().__init__(detail, field=problem.get("field"), fix=problem.get("fix"))
        self.http_status = status
        self.problem = dict(problem)


class Api:
    """The gateway, with one key."""

    def __init__(self, http: httpx2.Client) -> None:
        """Use an open client."""
        self.http = http

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        **query: Any,
    ) -> Any:
        """One request; its answer's JSON, or None when it has none.

        Query parameters that are None are left out.

        Raises:
            GatewayRefused: with what the problem document says.
            Unavailable: nobody answers.
        """
        params = {name: value for name, value in query.items() if value is not None}
        with self._reaching():
            answer = self.http.request(method, path, json=body, headers=dict(headers or {}), params=params)
        if answer.is_error:
            raise refusal(answer.status_code, answer.content)
        return json.loads(answer.content) if answer.content else None

    def send(self, path: str, content: bytes, content_type: str) -> Any:
        """One POST of bytes that are made already.

        Raises:
            GatewayRefused: with what the problem document says.
            Unavailable: nobody answers.
        """
        with self._reaching():
            answer = self.http.post(path, content=content, headers={"content-type": content_type})
        if answer.is_error:
            raise refusal(answer.status_code, answer.content)
        return json.loads(answer.content)

    def pages(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All items of a listing, page by page."""
        cursor: str | None = None
        while True:
            found = self.call("GET", path, cursor=cursor, **query)
            yield from found["items"]
            cursor = found["next_cursor"]
            if cursor is None:
                return

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        import httpx2

        try:
            yield
        except httpx2.TransportError as error:
            raise self.unreachable(error) from None

    def unreachable(self, error: Exception) -> Unavailable:
        """What a broken connection means to the caller."""
        return Unavailable(
            f"no gateway answers at {self.http.base_url} ({type(error).__name__})",
            fix="start a local stack with `penstock up`, or set PENSTOCK_URL",
        )


def refusal(status: int, content: bytes) -> GatewayRefused:
    """What an answer that is an error says."""
    try:
        problem = json.loads(content)
    except ValueError:
        problem = {}
    return GatewayRefused(status, problem if isinstance(problem, dict) else {})


@contextmanager
def open_api(*, admin: bool = False) -> Iterator[Api]:
    """The gateway that is configured, or that of a running local stack.

    Args:
        admin: the command administers, so the admin key is sent where there is one, and is said to be.

    Raises:
        Misconfigured: no key is set; names the setting.
    """
    import httpx2

    settings = client_settings()
    key, name = settings.api_key, "PENSTOCK_API_KEY"
    if admin and settings.admin_key is not None:
        key, name = settings.admin_key, "PENSTOCK_ADMIN_KEY"
        typer.secho(f"using {name}", err=True, dim=True)
    if key is None:
        raise Misconfigured(f"{name} is not set", field=name, fix=f"set {name}, or run `penstock up` here")
    try:
        http = httpx2.Client(
            base_url=settings.url,
            headers={"authorization": f"Bearer {key.get_secret_value()}"},
            timeout=TIMEOUT,
            # A proxy is never right for loopback, whatever HTTP_PROXY says.
            trust_env=urlsplit(settings.url).hostname not in LOOPBACK,
        )
    except (httpx2.InvalidURL, UnicodeEncodeError):
        raise Misconfigured("PENSTOCK_URL or the key cannot be sent", field="PENSTOCK_URL") from None
    with http:
        yield Api(http)


def client_settings() -> Settings:
    """The settings, with what a local stack has left for those that are not set."""
    from infra.settings import load_settings

    settings = load_settings()
    found = read_dev_file(settings.home.expanduser() / DEV_FILE)
    unset = {name: value for name, value in found.items() if name not in settings.model_fields_set}
    # A key of the local stack must not be sent to another gateway.
    if "url" in settings.model_fields_set and settings.url != found.get("url"):
        return settings
    return load_settings(**unset) if unset else settings


def read_dev_file(path: Path) -> dict[str, str]:
    """`PENSTOCK_URL`, `PENSTOCK_API_KEY` and `PENSTOCK_ADMIN_KEY` from a file that `penstock up` wrote."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}", field=str(path)) from None
    names = {"PENSTOCK_URL": "url", "PENSTOCK_API_KEY": "api_key", "PENSTOCK_ADMIN_KEY": "admin_key"}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {names[name.strip()]: value.strip() for name, _, value in pairs if name.strip() in names}


def part(text: str) -> str:
    """A caller's id as one part of a path."""
    encoded = quote(text, safe="")
    return encoded.replace(".", "%2E") if encoded in {".", ".."} else encoded


def read_json_option(text: str | None, option: str) -> Any:
    """The value of an option that takes JSON.

    Raises:
        BadInput: it is none.
    """
    if text is None:
        return None
    try:
        return json.loads(text)
    except ValueError:
        raise BadInput(
            f"{option} must be JSON", field=option, fix="""quote it for the shell: '{"lang": "en"}'"""
        ) from None
