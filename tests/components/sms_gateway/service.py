"""The service with a Kannel that is scripted: only faults of the real one need that (the rig has the real one)."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import httpx

from deployer.components.sms_gateway.service.app import Service
from deployer.components.sms_gateway.service.config import Config, parse

SID = "AC" + "0" * 32
TOKEN, PASSWORD, INTERNAL = "auth-token", "api-password", "internal-token"


def config(folder: Path, **changed: Any) -> Config:
    raw: dict[str, Any] = {
        "account_sid": SID,
        "auth_token": TOKEN,
        "user": "app",
        "password": PASSWORD,
        "sender": "Demo",
        "carriers": [{"name": "first", "sender": ""}, {"name": "second", "sender": "4900002"}],
        "kannel": {
            "status_url": "http://kannel.test:13000",
            "sendsms_url": "http://kannel.test:13013/cgi-bin/sendsms",
            "user": "gateway",
            "password": "kannel-password",
            "catch_port": 13020,
        },
        "internal_token": INTERNAL,
        "state": str(folder),
        "policy": {
            "callback_hosts": ["app.example", "127.0.0.1"],
            "per_number": 3,
            "per_prefix": 5,
            "per_day": 8,
        },
    }
    return parse({**raw, **changed})


class FakeKannel(httpx.AsyncBaseTransport):
    """Both HTTP interfaces of Kannel, and any host that a callback goes to."""

    def __init__(self) -> None:
        self.online = ["first", "second"]
        self.stored: list[str] = []
        self.answer = (202, "0: Accepted for delivery")
        self.alive = True
        self.submitted: list[dict[str, str]] = []
        self.callbacks: list[httpx.Request] = []
        self.callback_status = 200

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host != "kannel.test":
            await request.aread()
            self.callbacks.append(request)
            return httpx.Response(self.callback_status, headers={"location": "http://127.0.0.1/"})
        if not self.alive:
            raise httpx.ConnectError("refused")
        if request.url.path == "/status.xml":
            items = "".join(
                f"<smsc><name>x</name><id>{name}</id><status>online 3s</status></smsc>"
                for name in self.online
            )
            text = f"<sms><storesize>{len(self.stored)}</storesize></sms><smscs>{items}</smscs>"
            return httpx.Response(200, text=f'<?xml version="1.0"?>\n<gateway>{text}</gateway>\n')
        if request.url.path == "/store-status.xml":
            items = "".join(f"<message><receiver>{to}</receiver></message>" for to in self.stored)
            return httpx.Response(200, text=f'<?xml version="1.0"?>\n<gateway>{items}</gateway>\n')
        self.submitted.append(dict(request.url.params))
        return httpx.Response(self.answer[0], text=self.answer[1])


def made(folder: Path, **changed: Any) -> tuple[Service, FakeKannel]:
    """A service whose outgoing HTTP goes to a FakeKannel."""
    service, kannel = Service(config(folder, **changed)), FakeKannel()
    service.http._transport = kannel
    service.http._mounts = {}
    return service, kannel


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
