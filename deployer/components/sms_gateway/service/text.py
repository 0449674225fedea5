"""How a text travels: the GSM 03.38 alphabet or UCS-2, and in how many segments (3GPP TS 23.038, 23.040)."""

from __future__ import annotations

from typing import NamedTuple

BASIC = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
# These take two places: an escape goes before them.
EXTENDED = frozenset("^{}\\[~]|€\f")

MAX_SEGMENTS = 10


class Shape(NamedTuple):
    """encoding: "gsm" or "ucs2"."""

    encoding: str
    segments: int


def shape(body: str) -> Shape:
    """Encoding and number of segments of a text.

    A segment holds 160 septets or 70 UTF-16 units; 153 or 67 once a header joins several. An escape pair and a
    surrogate pair are never torn apart, so units are laid out one by one.
    """
    gsm = all(char in BASIC or char in EXTENDED for char in body)
    if gsm:
        units = [2 if char in EXTENDED else 1 for char in body]
        single, joined = 160, 153
    else:
        units = [len(char.encode("utf-16-be")) // 2 for char in body]
        single, joined = 70, 67
    name = "gsm" if gsm else "ucs2"
    if sum(units) <= single:
        return Shape(name, 1)
    segments, used = 1, 0
    for unit in units:
        if used + unit > joined:
            segments, used = segments + 1, 0
        used += unit
    return Shape(name, segments)
