"""From the app's routes to what the Caddyfile says, as plain values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from deployer.core.errors import InputError
from deployer.core.manifest import Manifest, Process, Route


@dataclass(frozen=True)
class Bound:
    """The largest body of a request. large: regular expression of a Content-Length above it."""

    bytes: int
    large: str


# A coarse bound, above what a picture or a short video needs; the app's own limit is the finer one.
APP_BODY = Bound(199_999_999, r"^([2-9]\d{8}|\d{10,})$")
SMS_BODY = Bound(99_999, r"^\d{6,}$")

# A path that nobody has: an answer of 404 shows that somebody is there.
NO_PAGE = "/.well-known/deploy-ready"


def fill(text: str, domain: str) -> str:
    """The manifest's small template: `{{ domain }}`."""
    return re.sub(r"\{\{\s*domain\s*\}\}", lambda _: domain, text)


def quote(text: str) -> str:
    """One token of a Caddyfile. Raises InputError for what a Caddyfile cannot say.

    Inside backticks nothing is special but `{$`, which would read Caddy's environment.
    """
    if "{$" in text or ("`" in text and ("\\" in text)):
        raise InputError(
            "writing the proxy's configuration",
            f"{text[:60]!r} holds `{{$`, or a backtick together with a backslash, which Caddy would read otherwise",
            "write it in another way in the app's manifest",
        )
    if "`" in text:
        return '"' + text.replace('"', '\\"') + '"'
    return f"`{text}`"


def patterns(path: str) -> tuple[str, ...]:
    """Path patterns of Caddy for a route's path; empty for "everything".

    "/a" means /a and all below it, "/a/" all below it; a path that ends in "*" is a pattern already.
    """
    if path in ("", "/", "*", "/*"):
        return ()
    if path.endswith("*"):
        return (path,)
    if path.endswith("/"):
        return (path + "*",)
    return (path, path + "/*")


def hosts(manifest: Manifest, domain: str) -> tuple[str, ...]:
    """The names that the app answers to, in the manifest's order, each once; without those that stand for many."""
    return tuple(host for host in _all_hosts(manifest, domain) if not host.startswith("*."))


def wild(manifest: Manifest, domain: str) -> tuple[str, ...]:
    """Those that stand for every name right below: "*.example.net"."""
    return tuple(host for host in _all_hosts(manifest, domain) if host.startswith("*."))


def _all_hosts(manifest: Manifest, domain: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(fill(route.host, domain) for route in manifest.routes))


def ask(manifest: Manifest) -> str:
    """URL on this machine that says which of the many names get a certificate; "" when there are none."""
    for route in manifest.routes:
        process = next((process for process in manifest.processes if process.name == route.process), None)
        if route.ask and process:
            return f"http://127.0.0.1:{process.port}{route.ask}"
    return ""


def app_sites(manifest: Manifest, domain: str) -> list[dict[str, object]]:
    """One site a host. Its handlers go from the longest path to the shortest."""
    sites = []
    # Caddy takes the more exact name whatever their order.
    for host in _all_hosts(manifest, domain):
        routes = [route for route in manifest.routes if fill(route.host, domain) == host]
        routes.sort(key=lambda route: len(route.path.rstrip("*/")), reverse=True)
        handlers = [
            _handler(f"r{number}", route, manifest.processes, domain) for number, route in enumerate(routes)
        ]
        sites.append(_site(host, APP_BODY, handlers))
    return sites


def sms_site(host: str, url: str, paths: Sequence[str], ca: str) -> dict[str, object]:
    """The SMS gateway's API for the world: `paths` only."""
    parts = urlsplit(url)
    upstream = f"{parts.scheme}://{parts.netloc}"
    every = tuple(pattern for path in paths for pattern in patterns(path))
    handler: dict[str, object] = {
        "name": "api",
        "paths": tuple(map(quote, every)),
        "headers": {},
        "upstream": upstream,
        # Not its /health: without a password that counts as a wrong guess of the client's.
        "ready": quote(NO_PAGE),
        "ca": ca if parts.scheme == "https" else "",
    }
    return _site(host, SMS_BODY, [handler])


def page_site(host: str, path: str, text: str) -> dict[str, object]:
    """A host that has one page of plain text."""
    handler: dict[str, object] = {
        "name": "page",
        "paths": (quote(path),),
        "headers": {},
        "upstream": "",
        "ready": "",
        "ca": "",
        "respond": quote(text),
        "content_type": quote("text/plain"),
    }
    return _site(host, SMS_BODY, [handler])


def _site(host: str, body: Bound, handlers: list[dict[str, object]]) -> dict[str, object]:
    return {
        "host": host,
        "wild": host.startswith("*."),
        "max_body": body.bytes,
        "large": quote(body.large),
        "handlers": handlers,
        "catches_all": any(not handler["paths"] for handler in handlers),
    }


def _ready(process: Process) -> str:
    """What is asked before a write is sent on. A process without a page for it answers 404, which will do."""
    return urlsplit(process.ready).path or NO_PAGE


def _handler(name: str, route: Route, processes: Sequence[Process], domain: str) -> dict[str, object]:
    process = next((process for process in processes if process.name == route.process), None)
    if route.process and (process is None or not process.port):
        raise InputError(
            "reading the app's routes",
            f"the route {route.host}{route.path} goes to the process {route.process!r}, which has no port",
            "give that process a port in app.yaml, or name another one",
        )
    headers = {quote(key): quote(fill(value, domain)) for key, value in route.headers.items()}
    return {
        "name": name,
        "paths": tuple(map(quote, patterns(route.path))),
        "headers": headers,
        # Caddy counts by name: what is under way to this one is what may hang.
        "upstream": f"{'localhost' if route.long_polls else '127.0.0.1'}:{process.port}" if process else "",
        "ready": quote(_ready(process)) if process else "",
        "ca": "",
        "respond": quote(fill(route.respond, domain)),
        "content_type": quote(route.content_type),
    }


def outside_probe(manifest: Manifest, host: str, domain: str) -> dict[str, object]:
    """What to ask `host` from outside: url, status, expect.

    A route to a process shows that the proxy reaches the app: any status below 500 will do, since only the app
    knows what its paths answer (that it reads its database is for its own probes). A host that only answers
    with texts must give the first of them.
    """
    own = [route for route in manifest.routes if fill(route.host, domain) == host]
    route = next((route for route in own if route.process), own[0])
    url = f"https://{host}{route.path.rstrip('*') or '/'}"
    if route.process:
        return {"url": url, "status": "<500"}
    return {"url": url, "status": 200, "expect": fill(route.respond, domain)}
