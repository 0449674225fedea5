"""Probes from outside: what the public meets, asked for from the operator's computer."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

from deployer.core.component import Probe
from deployer.core.probe import Result

# Seconds beyond a probe's own time-out after which it is given up (a name that does not resolve, for one).
GRACE = 0.3


class Red(Exception):
    """The answer was not what it must be; the text says how."""


def run(probes: Sequence[Probe], ca_pem: str | None) -> list[Result]:
    """Run probes of the kinds https, smtp and sms_api side by side; the results in the order of `probes`.

    ca_pem: certificates of CAs that are trusted besides the system's (our own, or the one of a private ACME).
    Each ends within its time-out. Never raises for what a probe meets.
    """
    answers: queue.SimpleQueue[tuple[int, Result]] = queue.SimpleQueue()
    began = time.monotonic()
    for number, probe in enumerate(probes):

        def work(number: int = number, probe: Probe = probe) -> None:
            answers.put((number, one(probe, ca_pem)))

        # Not a pool: its threads are waited for when the program ends, and one may hang in the resolver.
        threading.Thread(target=work, name=f"probe {probe.name}", daemon=True).start()
    found: dict[int, Result] = {}
    last = began + max((probe.timeout for probe in probes), default=0) + GRACE
    while len(found) < len(probes):
        try:
            number, result = answers.get(timeout=max(last - time.monotonic(), 0))
        except queue.Empty:
            break
        found[number] = result
    return [
        found.get(number)
        or Result(probe.name, False, f"no answer within {probe.timeout:g} s", probe.timeout, probe.degrades)
        for number, probe in enumerate(probes)
    ]


def one(probe: Probe, ca_pem: str | None) -> Result:
    """Run one probe here and now."""
    began = time.monotonic()
    try:
        detail, ok = _kind(probe.kind)(probe, ca_pem), True
    except Red as red:
        detail, ok = str(red), False
    except TimeoutError:
        detail, ok = f"no answer within {probe.timeout:g} s", False
    except Exception as error:
        # Whatever a network throws at us is this probe's answer; the others must still be heard.
        detail, ok = explain(error), False
    return Result(probe.name, ok, detail, round(time.monotonic() - began, 3), probe.degrades)


def _kind(kind: str) -> Callable[[Probe, str | None], str]:
    # Imported when used: TLS and SMTP take a tenth of a second to load.
    if kind == "https":
        from deployer.probes.web import https

        return https
    if kind == "sms_api":
        from deployer.probes.web import sms_api

        return sms_api
    if kind == "smtp":
        from deployer.probes.mail import smtp

        return smtp
    raise Red(f"a probe of the kind {kind!r} does not run from here")


def explain(error: BaseException) -> str:
    """An error of the network in one line."""
    reason = getattr(error, "verify_message", None)
    if reason:
        return f"the certificate is not good: {reason}"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())
