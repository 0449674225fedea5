"""One receipt as a page that can be shown to others: one file of HTML, without script and without anything from outside.

What the template draws is computed here: positions are numbers, and all texts are escaped by jinja2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from deployer.core.amounts import clock, size
from deployer.core.errors import DeployError
from deployer.core.resources import find_template, shipped
from deployer.flow.loose import moment, number, sequence
from deployer.flow.story import Phase, Story

TEMPLATE = "receipts/page.html.j2"
# Units of the drawings; the browser scales them.
WIDTH, LEFT, RIGHT = 720, 44, 8
ROW, NAMES, TOOK = 24, 190, 80
TOP, HEIGHT, BOTTOM = 14, 190, 22
# Distances between lines of a scale, in seconds.
STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400, 604800)
# A part of the time is drawn apart when the whole is so many times as long.
ZOOM = 3
FAILURES = 100


@dataclass(frozen=True)
class Bar:
    """A phase in the drawing. y, x, width: units."""

    name: str
    took: str
    y: float
    x: float
    width: float


@dataclass(frozen=True)
class Waits:
    """Each request as a stem: where it began, and how long it waited. good, bad: paths of SVG; they, x and y hold
    numbers only. span: x and width of the time in which the machines held requests."""

    title: str
    good: str
    bad: str
    x: Sequence[tuple[float, str]]
    y: Sequence[tuple[float, str]]
    span: tuple[float, float] | None


def render(story: Story, root: Path) -> str:
    """The page. Raises DeployError when a template of the project's own is wrong."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([str(root / "templates"), str(shipped("templates"))]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=True,
    )
    environment.filters |= {"clock": clock, "size": size}
    total = sum(phase.seconds for phase in story.phases)
    try:
        find_template(TEMPLATE, root)
        return environment.get_template(TEMPLATE).render(
            story=replace(story, failures=story.failures[:FAILURES]),
            more_failures=max(len(story.failures) - FAILURES, 0),
            cards=cards(story),
            bars=bars(story.phases),
            total=total,
            charts=charts(story),
            width=WIDTH,
            height=TOP + HEIGHT + BOTTOM,
            left=LEFT,
            right=WIDTH - RIGHT,
            top=TOP,
            bottom=TOP + HEIGHT,
            row=ROW,
            names=NAMES,
            words={"good": "good", "degraded": "good, with faults", "bad": "failed"},
        )
    except FileNotFoundError as error:
        raise DeployError("making the page", str(error), "restore the file") from None
    except jinja2.TemplateError as error:
        line = getattr(error, "lineno", None)
        where = f"{TEMPLATE}:{line}" if line else TEMPLATE
        raise DeployError("making the page", f"{where}: {error.message}", "mend the template") from None


def cards(story: Story) -> list[tuple[str, str]]:
    """The figures that stand above all, with what they are."""
    figures = {key: number(value) for key, value in story.figures.items()}
    found = []
    if (pause := figures.get("pause")) is not None:
        found.append((clock(pause), "pause"))
    if (failed := figures.get("failed_requests")) is not None:
        found.append((f"{failed:.0f}", "failed requests"))
    if (wait := figures.get("longest_wait")) is not None:
        found.append((clock(wait), "longest wait"))
    if (lost := figures.get("lost_at_most")) is not None:
        found.append((clock(lost), "lost at most"))
    if moved := figures.get("bytes"):
        found.append((size(moved), "moved"))
    if "pause" not in figures and (changes := figures.get("changes")) is not None:
        found.append((f"{changes:.0f}", "changes"))
    if story.seconds is not None:
        found.append((clock(story.seconds), "in all"))
    return found


def bars(phases: Sequence[Phase]) -> list[Bar]:
    """One below the other, each where the one before it ended."""
    total = sum(phase.seconds for phase in phases) or 1.0
    room, past, found = WIDTH - NAMES - TOOK, 0.0, []
    for number_, phase in enumerate(phases):
        x, width = NAMES + past / total * room, max(phase.seconds / total * room, 1.5)
        found.append(Bar(phase.name, clock(phase.seconds), number_ * ROW, round(x, 1), round(width, 1)))
        past += phase.seconds
    return found


# --- the probes' waits ---


def charts(story: Story) -> list[Waits]:
    """The whole time, and apart from it the time around the pause where that would be too small to be seen."""
    entries = _entries(story)
    begin, end = number(story.outside.get("started")), number(story.outside.get("ended"))
    if not entries or begin is None:
        return []
    until = max([(end or begin) - begin, *(at + wait for at, wait, _ in entries)])
    whole = _chart("All of it", entries, 0.0, until, begin, story.span)
    pause, pause_at = number(story.outside.get("pause")), number(story.outside.get("pause_at"))
    if story.span:
        first, last = story.span
    elif pause and pause_at:
        first, last = pause_at, pause_at + pause
    else:
        return [whole]
    around = max(last - first, 2.0)
    low, high = max(first - begin - around, 0.0), min(last - begin + around, until)
    near = [entry for entry in entries if low <= entry[0] <= high]
    if not near or high <= low or until < ZOOM * (high - low):
        return [whole]
    return [_chart("Around the pause", near, low, high, begin, story.span), whole]


def _entries(story: Story) -> list[tuple[float, float, bool]]:
    found = []
    for one in sequence(story.outside, "timeline"):
        if isinstance(one, list | tuple) and len(one) == 3:
            at, wait = number(one[0]), number(one[1])
            if at is not None and wait is not None and at >= 0 and wait >= 0:
                found.append((at, wait, bool(one[2])))
    return found


def _chart(
    title: str,
    entries: Sequence[tuple[float, float, bool]],
    low: float,
    high: float,
    begin: float,
    span: tuple[float, float] | None,
) -> Waits:
    room, floor = WIDTH - LEFT - RIGHT, TOP + HEIGHT
    length = max(high - low, 0.1)
    ceiling = max(max(wait for _, wait, _ in entries) * 1.05, 0.1)

    def x(at: float) -> float:
        return round(LEFT + min(max((at - low) / length, 0.0), 1.0) * room, 1)

    def y(wait: float) -> float:
        return round(floor - wait / ceiling * HEIGHT, 1)

    def stems(good: bool) -> str:
        return "".join(f"M{x(at)} {floor}V{y(wait)}" for at, wait, ok in entries if ok is good)

    held = None
    if span:
        first, last = x(span[0] - begin), x(span[1] - begin)
        held = (first, max(round(last - first, 1), 1.0))
    return Waits(
        title=f"{title}: from {moment(begin + low)} to {moment(begin + high)} UTC",
        good=stems(True),
        bad=stems(False),
        x=[(x(low + at), _short(at)) for at in _scale(length, 8)],
        y=[(y(wait), _short(wait)) for wait in _scale(ceiling, 5)],
        span=held,
    )


def _scale(length: float, most: int) -> list[float]:
    """At most so many round steps from 0 to length."""
    step = next((step for step in STEPS if length / step <= most), length / most)
    return [round(step * number_, 3) for number_ in range(int(length / step) + 1)]


def _short(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:g} s"
    return f"{seconds / 60:g} min" if seconds < 7200 else f"{seconds / 3600:g} h"
