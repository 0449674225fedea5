"""What a receipt tells, whatever verb wrote it: the same parts for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from deployer.core.amounts import clock, size
from deployer.flow.loose import moment, number, section, sequence, text, texts

Facts = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Phase:
    """One phase; they follow one another. bytes: that were moved, 0 for none or unknown."""

    name: str
    seconds: float
    bytes: float = 0.0


@dataclass(frozen=True)
class Story:
    """at: when it began, UTC; seconds: that it took, None when unknown. state: "good", "degraded" or "bad".

    matters: short texts for a list; facts: label and text. figures: numbers for programs. outside: what probes met
    (flow/watching.py), {} for none. problems: what was wrong. sizes: part, bytes and seconds. span: moments (seconds
    since 1970) between which the machines held requests, None for none.
    """

    id: str
    verb: str
    deployment: str
    at: datetime
    seconds: float | None
    state: str
    title: str
    matters: tuple[str, ...] = ()
    facts: Facts = ()
    figures: Mapping[str, float | str] = field(default_factory=dict)
    phases: tuple[Phase, ...] = ()
    outside: Mapping[str, Any] = field(default_factory=dict)
    outside_facts: Facts = ()
    failures: tuple[tuple[str, str, str], ...] = ()
    span: tuple[float, float] | None = None
    verified: tuple[str, ...] = ()
    sizes: tuple[tuple[str, float, float], ...] = ()
    problems: tuple[str, ...] = ()
    probes: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    way_back: str = ""


def tell(id: str, verb: str, deployment: str, at: datetime, body: Mapping[str, Any]) -> Story:
    """A receipt's story. Raises nothing for what is missing or of another kind than expected."""
    # The receipt of a restore or a migrate is that of the `up` which ended it, with a section of its own.
    own = section(body, verb) or body
    outside = section(own, "watch") or section(body, "watch")
    probes = [one for one in sequence(body, "probes") if isinstance(one, Mapping)]
    red = [one for one in probes if not one.get("ok") and not one.get("degrades")]
    failed = number(outside.get("failed"))
    problems = _problems(body, own, probes)
    figures = _figures(body, own, outside)
    if own.get("ok") is False or own.get("error") or own.get("why") or red:
        state = "bad"
    else:
        state = "degraded" if sequence(body, "degraded") or sequence(own, "lacks") or failed else "good"
    seconds = _seconds(body, own)
    held, served = number(own.get("held_at")), number(own.get("served_at"))
    return Story(
        id=id,
        verb=verb,
        deployment=deployment,
        at=at.astimezone(UTC),
        seconds=seconds,
        state=state,
        title=_title(verb, deployment, own),
        matters=_matters(verb, body, own, figures, problems),
        facts=_facts(verb, body, own),
        figures=figures,
        phases=_phases(own),
        outside=outside,
        outside_facts=outside_facts(outside),
        failures=_failures(outside),
        span=(held, served) if held and served and served >= held else None,
        verified=_verified(own),
        sizes=_sizes(own),
        problems=problems,
        probes=tuple((_probe(one), _answer(one)) for one in probes),
        notes=tuple(dict.fromkeys([*texts(own, "notes"), *texts(body, "notes")])),
        way_back=text(own.get("way_back")),
    )


# --- parts ---


def _seconds(body: Mapping[str, Any], own: Mapping[str, Any]) -> float | None:
    found = [
        number(one) for one in (own.get("total_seconds"), body.get("total_seconds"), body.get("seconds"))
    ]
    return next((one for one in found if one is not None), None)


def _title(verb: str, deployment: str, own: Mapping[str, Any]) -> str:
    if verb == "migrate" and own.get("from") and own.get("to"):
        return f"From {text(own['from'])} to {text(own['to'])}"
    if verb in ("restore", "drill") and own.get("repository"):
        return {"restore": "Restored", "drill": "Drill"}[verb] + f" from {text(own['repository'])}"
    return f"deploy {verb} of {deployment}"


def _figures(
    body: Mapping[str, Any], own: Mapping[str, Any], outside: Mapping[str, Any]
) -> dict[str, float | str]:
    """Those that there are, for programs."""
    found: dict[str, object] = {
        "pause": outside.get("pause", own.get("pause_seconds")),
        "pause_on_machines": own.get("pause_seconds"),
        "app_start": own.get("app_start_seconds"),
        "requests": outside.get("requests"),
        "failed_requests": outside.get("failed"),
        "longest_wait": outside.get("longest_wait"),
        "bytes": own.get("bytes"),
        "lost_at_most": own.get("recovery_point_seconds"),
        "changes": body.get("changed"),
    }
    figures: dict[str, float | str] = {
        key: value for key, raw in found.items() if (value := number(raw)) is not None
    }
    if own.get("recovered_to"):
        figures["recovered_to"] = text(own["recovered_to"])
    return figures


def _matters(
    verb: str,
    body: Mapping[str, Any],
    own: Mapping[str, Any],
    figures: Mapping[str, float | str],
    problems: Sequence[str],
) -> tuple[str, ...]:
    found = [f"{text(own['from'])} to {text(own['to'])}"] if own.get("from") and own.get("to") else []
    if verb in ("restore", "drill") and own.get("repository"):
        found.append(f"from {text(own['repository'])}")
    if (pause := number(figures.get("pause"))) is not None:
        found.append(f"pause {clock(pause)}")
    if (failed := number(figures.get("failed_requests"))) is not None:
        found.append(f"{failed:.0f} failed requests")
    if "recovered_to" in figures:
        found.append(f"as of {str(figures['recovered_to'])[:19]}")
    if (lost := number(figures.get("lost_at_most"))) is not None:
        found.append(f"lost at most {clock(lost)}")
    if own is body and (changes := number(figures.get("changes"))) is not None:
        found.append(f"{changes:.0f} changes")
    if problems and not failed:
        more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
        found.append(problems[0][:120] + more)
    return tuple(found)


def _facts(verb: str, body: Mapping[str, Any], own: Mapping[str, Any]) -> Facts:
    listed: list[tuple[str, str]] = [
        ("from", text(own.get("from"))),
        ("to", text(own.get("to"))),
        ("repository", text(own.get("repository"))),
        ("from generation", text(own.get("from_generation"))),
        ("generation", text(own.get("generation"))),
        ("asked for", text(own.get("asked_for"))),
        ("database as of", text(own.get("recovered_to"))),
        ("files as of", text(own.get("point"))),
    ]
    if (lost := number(own.get("recovery_point_seconds"))) is not None:
        listed.append(("lost at most", f"{clock(lost)} before it began"))
    if (pause := number(own.get("pause_seconds"))) is not None:
        start = number(own.get("app_start_seconds"))
        part = f", of it {clock(start)} the app's own start" if start is not None else ""
        listed.append(("pause", f"{clock(pause)}{part}"))
    held, served = moment(own.get("held_at")), moment(own.get("served_at"))
    if held and served:
        listed.append(("requests held", f"{held} to {served} UTC"))
    steps = [(text(name), number(raw)) for name, raw in section(own, "cutover").items()]
    listed.append(("cutover", ", ".join(f"{name} {clock(took)}" for name, took in steps if took is not None)))
    listed.append(("data moved", size(number(own.get("bytes")) or 0)))
    if (rate := number(own.get("mb_per_second"))) is not None:
        listed.append(("speed", f"{rate:g} MB/s"))
    listed.append(("changes", _changes(body)))
    machines = [one for one in sequence(body, "machines") if isinstance(one, Mapping)]
    listed.append(("machines", ", ".join(text(one.get("name")) for one in machines)))
    listed.append(("deleted", ", ".join(texts(body, "deleted"))))
    return tuple((label, said) for label, said in listed if said)


def _changes(body: Mapping[str, Any]) -> str:
    """ "43: create 40, change 3", or "" where none are told of."""
    counts: dict[str, int] = {}
    for one in sequence(body, "changes"):
        if isinstance(one, Mapping):
            action = text(one.get("action")) or "change"
            counts[action] = counts.get(action, 0) + 1
    total = number(body.get("changed"))
    if total is None:
        return ""
    kinds = ", ".join(f"{action} {count}" for action, count in counts.items())
    return f"{total:.0f}: {kinds}" if kinds else f"{total:.0f}"


def _phases(own: Mapping[str, Any]) -> tuple[Phase, ...]:
    """A migrate has a list of them, others seconds by name."""
    found = []
    for one in sequence(own, "phases"):
        if isinstance(one, Mapping) and (seconds := number(one.get("seconds"))) is not None:
            found.append(Phase(text(one.get("name")), max(seconds, 0), number(one.get("bytes")) or 0))
    if not found:
        for name, raw in section(own, "seconds").items():
            if (seconds := number(raw)) is not None:
                found.append(Phase(text(name), max(seconds, 0)))
    return tuple(found)


def _verified(own: Mapping[str, Any]) -> tuple[str, ...]:
    parts = section(own, "parts")
    of_parts = [f"{text(name)}: {said}" for name in parts for said in texts(section(parts, name), "checks")]
    return (*texts(own, "verified"), *texts(own, "checks"), *of_parts)


def _sizes(own: Mapping[str, Any]) -> tuple[tuple[str, float, float], ...]:
    parts = section(own, "parts")
    found = []
    for name in parts:
        part = section(parts, name)
        took = sum(number(one) or 0 for one in section(part, "seconds").values())
        found.append((text(name), number(part.get("bytes")) or 0, took))
    return tuple(found)


def _problems(
    body: Mapping[str, Any], own: Mapping[str, Any], probes: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    found = [line.strip() for line in str(own.get("why") or "").splitlines()]
    error = own.get("error")
    if error and not found:
        keys = ("what", "why", "next")
        found = [text(error.get(key)) for key in keys] if isinstance(error, Mapping) else [text(error)]
    found += [
        f"{_probe(one)}: {text(one.get('detail'))}"
        for one in probes
        if not one.get("ok") and not one.get("degrades")
    ]
    found += texts(body, "degraded")
    found += [f"missing: {said}" for said in texts(own, "lacks")]
    return tuple(said for said in dict.fromkeys(found) if said)


def _probe(one: Mapping[str, Any]) -> str:
    """ "app-1: cache/reads and writes"."""
    name = "/".join(text(one.get(key)) for key in ("component", "name") if one.get(key))
    return f"{text(one['machine'])}: {name}" if one.get("machine") else name


def _answer(one: Mapping[str, Any]) -> str:
    if one.get("ok"):
        return "green"
    return ("degraded: " if one.get("degrades") else "red: ") + (text(one.get("detail")) or "no answer")


def outside_facts(outside: Mapping[str, Any]) -> Facts:
    """What the probes from outside met, in words."""
    if not outside:
        return ()
    listed = []
    if (asked := number(outside.get("requests"))) is not None:
        failed = number(outside.get("failed")) or 0
        listed.append(("HTTPS requests", f"{asked:.0f}, {failed:.0f} of them failed"))
    for key, label in (("pause", "longest time without an answer"), ("longest_wait", "longest wait")):
        if (value := number(outside.get(key))) is not None:
            at = moment(outside.get(f"{key}_at"))
            listed.append((label, f"{value:.1f} s" + (f", from {at} UTC" if at else "")))
    waits = section(outside, "waits")
    known = [(key, number(waits.get(key))) for key in ("50", "95", "99")]
    if said := ", ".join(f"{key} % within {value:.2f} s" for key, value in known if value is not None):
        listed.append(("waits", said))
    if opened := number(outside.get("open")):
        listed.append(("not answered at the end", f"{opened:.0f}"))
    for key, label in (
        ("skipped", "not asked: too many waited"),
        ("late", "not asked: our computer was slow"),
    ):
        if count := number(outside.get(key)):
            listed.append((label, f"{count:.0f}"))
    others = section(outside, "others")
    for kind, label in (("smtp", "SMTP dialogues"), ("sms_api", "SMS API requests")):
        one = section(others, kind)
        if (asked := number(one.get("requests"))) is not None:
            said = f"{asked:.0f}, {number(one.get('failed')) or 0:.0f} of them failed"
            gap = number(one.get("pause"))
            listed.append((label, said + (f"; longest without one {gap:.1f} s" if gap is not None else "")))
    return tuple(listed)


def _failures(outside: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    """When, what and why, of all kinds of probes."""
    others = section(outside, "others")
    every = [outside, *(section(others, kind) for kind in others)]
    found = [one for kind in every for one in sequence(kind, "failures") if isinstance(one, Mapping)]
    found.sort(key=lambda one: number(one.get("at")) or 0)
    return tuple((moment(one.get("at")), text(one.get("name")), text(one.get("why"))) for one in found)
