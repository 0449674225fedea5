"""Texts of short messages: alphabets and the header that joins several (3GPP TS 23.038 and 23.040)."""

from __future__ import annotations

# GSM 03.38, position by position; the escape (0x1b) is nothing by itself.
GSM = (
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞ\x1bÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§"
    "¿abcdefghijklmnopqrstuvwxyzäöñüà"
)
GSM_EXTENDED = dict(zip(b"\x0a\x14\x28\x29\x2f\x3c\x3d\x3e\x40\x65", "\f^{}\\[~]|€", strict=True))


def decode_text(data: bytes, coding: int) -> str:
    """The text of a message."""
    if coding & 0xC == 0x8:
        return data.decode("utf-16-be", "replace")
    if coding == 3:
        return data.decode("latin-1")
    text, escaped = [], False
    for byte in data:
        if escaped:
            text.append(GSM_EXTENDED.get(byte, " "))
            escaped = False
        elif byte == 0x1B:
            escaped = True
        else:
            text.append(GSM[byte & 0x7F])
    return "".join(text)


def encode_text(text: str) -> tuple[bytes, int]:
    """Data and data_coding of a text that fits one SMS."""
    try:
        return bytes(GSM.index(char) for char in text if char != "\x1b"), 0
    except ValueError:
        return text.encode("utf-16-be"), 8


def concatenation(header: bytes) -> tuple[int, int, int]:
    """Reference, total and number of a part, out of its user data header (3GPP TS 23.040, 9.2.3.24)."""
    place = 0
    while place + 2 <= len(header):
        kind, length = header[place], header[place + 1]
        value = header[place + 2 : place + 2 + length]
        if kind == 0x00 and length == 3:
            return value[0], value[1], value[2]
        if kind == 0x08 and length == 4:
            return value[0] << 8 | value[1], value[2], value[3]
        place += 2 + length
    return 0, 1, 1
