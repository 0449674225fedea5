"""HTTPS: a page of the app, and the SMS gateway's API without sending a message."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from deployer.core.component import Probe
from deployer.probes import Red
from deployer.probes.connection import Deadline, connect, context, encrypt

# bytes of an answer that are read
MOST = 256 << 10


def https(probe: Probe, ca_pem: str | None) -> str:
    """GET args["url"] from args["address"]; what came, in a line.

    args status: a number (default 200), or "<500" for anything below. args expect: text that must be in the answer.
    Raises Red, OSError, TimeoutError.
    """
    status, body, days = _get(probe, str(probe.args["url"]), {}, ca_pem)
    wanted = probe.args.get("status", 200)
    if isinstance(wanted, str) and wanted.startswith("<"):
        good = status < int(wanted[1:])
    else:
        good = status == int(str(wanted))
    if not good:
        raise Red(f"status {status} instead of {wanted}")
    expect = str(probe.args.get("expect", ""))
    if expect and expect not in body:
        raise Red(f"status {status}, but not the text that was expected")
    return f"status {status}; certificate good for {days:.0f} days"


def sms_api(probe: Probe, ca_pem: str | None) -> str:
    """Log in at the SMS gateway's args["url"] (its /health when the URL has no path) as args["user"].

    The gateway answers "degraded" when a carrier is away but messages are taken; that is green here.
    Raises Red, OSError, TimeoutError.
    """
    url = str(probe.args["url"])
    if urlsplit(url).path in ("", "/"):
        url = url.rstrip("/") + "/health"
    login = base64.b64encode(f"{probe.args['user']}:{probe.args['password']}".encode()).decode()
    status, body, _ = _get(probe, url, {"Authorization": f"Basic {login}"}, ca_pem)
    if status == 401:
        raise Red("user and password are refused")
    try:
        answer = json.loads(body)
        state = str(answer["status"])
    except (ValueError, KeyError, TypeError):
        raise Red(f"status {status} without an answer of the gateway") from None
    if status != 200 or state not in ("ok", "degraded"):
        raise Red(f"status {status}: {state}")
    return "takes messages" if state == "ok" else "takes messages; not every carrier is there"


def _get(probe: Probe, url: str, headers: Mapping[str, str], ca_pem: str | None) -> tuple[int, str, float]:
    """Status, text, and the days that the certificate is good for. Redirects are answers like others."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    deadline = Deadline(probe.timeout)
    plain = connect(str(probe.args.get("address") or host), port, deadline)
    try:
        secure, days = encrypt(plain, context(ca_pem), host, deadline)
    except BaseException:
        plain.close()
        raise
    client = http.client.HTTPConnection(host, port)
    client.sock = secure
    try:
        secure.settimeout(deadline.left())
        client.request("GET", target, headers={"User-Agent": "deploy-probe", "Accept": "*/*", **headers})
        secure.settimeout(deadline.left())
        response = client.getresponse()
        body = bytearray()
        while len(body) < MOST:
            secure.settimeout(deadline.left())
            part = response.read1(MOST - len(body))
            if not part:
                break
            body += part
        return response.status, body.decode("utf-8", "replace"), days
    finally:
        client.close()
