"""Access to the server: its own pages and programs, but not other pages in the same browser."""

import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FIXED_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-store",
}


class Guard:
    """Refuses a request with a strange host name or from another origin; adds the security headers.

    Another page can reach a local server in two ways. It can use its own name and point it to 127.0.0.1 (DNS
    rebinding): so the `Host` must be an address, `localhost`, this machine's name or the server's `--host`. Or it can
    post across origins, which needs no permission: so `Origin`, if given, must be the host itself.
    """

    def __init__(self, app: ASGIApp, host: str, policy: str) -> None:
        self.app = app
        own = socket.gethostname().lower()
        self.names = {"localhost", host.lower(), own, f"{own}.local"}
        self.headers = FIXED_HEADERS | {"content-security-policy": policy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        answer = self._refusal(Headers(scope=scope)) or self.app
        await answer(scope, receive, send_guarded)

    def _refusal(self, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "").lower()
        name = _name_in(f"//{host}")
        if not (name in self.names or _is_address(name)):
            return refusal(421, f"'{name}' is not a name of this server: open its address, or start it with --host")
        origin = headers.get("origin")
        if origin is not None and _place_in(origin.lower()) != host:
            return refusal(403, f"a page of '{origin}' may not use this server")
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode", "navigate")
        if site not in ("none", "same-origin") and mode != "navigate":
            return refusal(403, "a page of another site may not use this server")
        return None


def refusal(status: int, line: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """The answer to a refused request: `{"error": line}`."""
    return JSONResponse({"error": line}, status, headers)


def _name_in(address: str) -> str:
    """The host name in an address; empty if it is malformed, as `//[` is."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def _place_in(address: str) -> str:
    """The host and port in an address; empty if it is malformed."""
    try:
        return urlsplit(address).netloc
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
