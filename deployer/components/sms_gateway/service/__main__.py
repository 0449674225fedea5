"""`python3 -m sms_gateway CONFIG` serves; `... CONFIG queue status|hold|release` looks at or stops the queue."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from .app import SPOOL, Service
from .config import Config, load
from .store import Store


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: three listeners share one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def servers(config: Config, service: Service) -> list[Server]:
    """Loopback for this machine, TLS for the stack's others, and Kannel's own door."""
    common = {
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "lifespan": "off",
        "timeout_keep_alive": 75,
        "timeout_graceful_shutdown": 8,
    }
    proxied = {**common, "proxy_headers": True, "forwarded_allow_ips": list(config.trusted_proxies)}
    made = [
        uvicorn.Config(service.public, host="127.0.0.1", port=config.port, **proxied),  # type: ignore[arg-type]
        uvicorn.Config(
            service.internal,
            host="127.0.0.1",
            port=config.internal_port,
            proxy_headers=False,
            **common,  # type: ignore[arg-type]
        ),
    ]
    if config.tls:
        made.append(
            uvicorn.Config(
                service.public,
                host=config.tls.host,
                port=config.tls.port,
                ssl_certfile=config.tls.certificate,
                ssl_keyfile=config.tls.key,
                **proxied,  # type: ignore[arg-type]
            )
        )
    return [Server(item) for item in made]


async def serve(config: Config) -> int:
    """Serve until SIGTERM or SIGINT. SIGHUP reads the certificate again."""
    service = Service(config)
    running = servers(config, service)

    def stop() -> None:
        for server in running:
            server.should_exit = True

    def renew() -> None:
        for server in running:
            if config.tls and server.config.ssl:
                server.config.ssl.load_cert_chain(config.tls.certificate, config.tls.key)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    loop.add_signal_handler(signal.SIGHUP, renew)
    work: asyncio.Future[Any] = asyncio.create_task(service.run())
    listening: asyncio.Future[Any] = asyncio.gather(*(server.serve() for server in running))
    announced = asyncio.create_task(announce(running))
    await asyncio.wait({work, listening}, return_when=asyncio.FIRST_COMPLETED)
    failed = work.done()
    stop()
    announced.cancel()
    await listening
    work.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await work
    await service.close()
    return 1 if failed or not all(server.started for server in running) else 0


async def announce(running: list[Server]) -> None:
    """Tell systemd that every listener is up (sd_notify(3))."""
    while not all(server.started for server in running):
        await asyncio.sleep(0.02)
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(b"READY=1", path.replace("@", "\0", 1) if path.startswith("@") else path)


def queue(config: Config, action: str) -> None:
    """Print how many messages wait; `hold` keeps them here, `release` lets them go."""
    store = Store(config.state / SPOOL)
    if action != "status":
        hold = action == "hold"
        store.change("INSERT OR REPLACE INTO settings VALUES ('hold', ?)", ("1" if hold else "0",))
        store.change("UPDATE messages SET held = ? WHERE status = 'queued'", (int(hold),))
    print(json.dumps({**store.counts(), "holding": store.holding()}))
    store.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="sms_gateway", description=__doc__)
    parser.add_argument("config", type=Path)
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("queue").add_argument("action", choices=("status", "hold", "release"))
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    # It logs each URL it asks, with Kannel's password and the message in it.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("httpcore").setLevel(logging.WARNING)
    config = load(given.config)
    if given.command == "queue":
        queue(config, given.action)
        return 0
    return asyncio.run(serve(config))


if __name__ == "__main__":
    sys.exit(main())
