"""Requests and answers as they look on the wire: which call it is, and answers in Amazon's dialects."""

from __future__ import annotations

import io
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

Environ = dict[str, Any]
App = Callable[[Environ, Any], Iterable[bytes]]
NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """service: "ec2", "route53" ...; action: "RunInstances", or for REST "GET /2013-04-01/hostedzone"."""

    service: str
    action: str
    parameters: Mapping[str, str]
    body: bytes
    environ: Environ

    def ids(self, prefix: str) -> list[str]:
        """The values of a list parameter: InstanceId.1, InstanceId.2 ..."""
        return [value for key, value in self.parameters.items() if re.fullmatch(rf"{prefix}\.\d+", key)]

    def get(self, key: str, default: str = "") -> str:
        return self.parameters.get(key, default)


def read(environ: Environ) -> Request:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length) if length else b""
    environ["wsgi.input"] = io.BytesIO(body)
    # Credential=KEY/20261124/eu-central-1/ec2/aws4_request
    scope = re.search(r"Credential=[^/]*/[^/]*/[^/]*/([^/]*)/", environ.get("HTTP_AUTHORIZATION", ""))
    service = scope[1] if scope else ""
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    parameters: dict[str, str] = {}
    if target:
        action = target.rsplit(".", 1)[-1]
    elif environ.get("CONTENT_TYPE", "").startswith("application/x-www-form-urlencoded"):
        parameters = dict(parse_qsl(body.decode(), keep_blank_values=True))
        action = parameters.get("Action", "")
    else:
        action = f"{environ['REQUEST_METHOD']} {environ.get('PATH_INFO', '')}"
    return Request(service, action, parameters, body, environ)


def ask(app: App, request: Request) -> Answer:
    """moto's answer."""
    from werkzeug.test import run_wsgi_app

    environ = {**request.environ, "wsgi.input": io.BytesIO(request.body)}
    chunks, status, headers = run_wsgi_app(app, environ, buffered=True)  # type: ignore[arg-type]
    kept = {
        key: value for key, value in headers.items() if key.lower() not in ("content-length", "connection")
    }
    return Answer(int(status.split()[0]), b"".join(chunks), kept)


def refuse(request: Request, status: int, code: str, message: str) -> Answer:
    """An error in the dialect of the service."""
    identity = str(uuid.uuid4())
    if request.service == "ec2":
        body = (
            f"<Response><Errors><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error></Errors>"
            f"<RequestID>{identity}</RequestID></Response>"
        )
        return Answer(status, body.encode(), {"Content-Type": "text/xml"})
    if request.environ.get("HTTP_X_AMZ_TARGET"):
        text = json.dumps({"__type": code, "message": message})
        headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": identity}
        return Answer(status, text.encode(), headers)
    body = (
        f"<ErrorResponse><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        f"<RequestId>{identity}</RequestId></ErrorResponse>"
    )
    return Answer(status, body.encode(), {"Content-Type": "text/xml"})


def ec2(request: Request, inside: str) -> Answer:
    """A good answer of EC2."""
    body = (
        f'<{request.action}Response xmlns="{NAMESPACE}"><requestId>{uuid.uuid4()}</requestId>{inside}'
        f"</{request.action}Response>"
    )
    return Answer(200, body.encode(), {"Content-Type": "text/xml"})


def as_json(value: object) -> Answer:
    text = json.dumps(value)
    headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": str(uuid.uuid4())}
    return Answer(200, text.encode(), headers)
