"""A TCP relay that adds latency: what a link to a far machine feels like, on a kernel without netem.

    python -m tests.rig.delay 50 127.0.0.2:22=10.214.0.11:22 127.0.0.2:443=10.214.0.11:443

Every byte arrives half of the given round-trip time (milliseconds) later, each way, in order and without a
limit on bandwidth; a new connection costs one round trip more, as a handshake does.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

CHUNK = 1 << 16


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Copy one direction; reading goes on while earlier bytes wait for their time."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                return
            writer.write(data)
            await writer.drain()

    delivering = asyncio.create_task(deliver())
    try:
        while data := await reader.read(CHUNK):
            waiting.put_nowait((loop.time() + delay, data))
    except ConnectionError:
        pass
    waiting.put_nowait((loop.time() + delay, b""))
    try:
        await delivering
    except (ConnectionError, OSError):
        delivering.cancel()


def _handler(host: str, port: int, delay: float) -> Callable[..., Awaitable[None]]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * delay)
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pump(reader, far_writer, delay), _pump(far_reader, writer, delay))
        writer.close()
        far_writer.close()

    return handle


async def relay(round_trip: float, ways: list[str]) -> None:
    """round_trip: milliseconds; ways: LISTEN:PORT=HOST:PORT. Runs until it is cancelled."""
    for way in ways:
        here, there = way.split("=")
        listen, listen_port = here.rsplit(":", 1)
        host, port = there.rsplit(":", 1)
        await asyncio.start_server(_handler(host, int(port), round_trip / 2000), listen, int(listen_port))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(relay(float(sys.argv[1]), sys.argv[2:]))
