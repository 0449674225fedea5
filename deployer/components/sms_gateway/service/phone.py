"""Phone numbers: what may be sent to, what may stand as the sender, and how a number appears in a log."""

from __future__ import annotations

import re

import phonenumbers
from phonenumbers import PhoneNumberType

# Ranges that cost the sender a multiple or pay the owner of the number, whatever countries are allowed.
COSTLY = frozenset(
    {
        PhoneNumberType.PREMIUM_RATE,
        PhoneNumberType.SHARED_COST,
        PhoneNumberType.UAN,
        PhoneNumberType.PAGER,
        PhoneNumberType.VOICEMAIL,
        PhoneNumberType.TOLL_FREE,
        PhoneNumberType.PERSONAL_NUMBER,
    }
)
# What libphonenumber calls numbers of no country: satellites (+870, +881), networks (+882, +883), +979 ...
NO_COUNTRY = "001"

_ALPHA = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9 &+_.-]{1,11}\Z")
_SHORT_CODE = re.compile(r"[0-9]{3,8}\Z")
_E164 = re.compile(r"\+[1-9][0-9]{6,14}\Z")


class Refused(Exception):
    """The number may not be sent to. reason: "invalid", "country" or "costly"."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def destination(number: str, countries: tuple[str, ...] = ()) -> str:
    """The number in E.164 ("+491701234567"), or Refused.

    countries: ISO codes that may be sent to; empty means every country. Numbers are checked for a possible length
    and not against assigned ranges: the machine's metadata is as old as its release, and ranges are assigned daily.
    """
    if not _E164.match(number):
        raise Refused("invalid", "not a number in E.164 form: '+', country code, subscriber's number")
    try:
        parsed = phonenumbers.parse(number, None)
    except phonenumbers.NumberParseException as error:
        raise Refused("invalid", str(error)) from error
    if not phonenumbers.is_possible_number(parsed):
        raise Refused("invalid", "no number of its country has this length")
    region = phonenumbers.region_code_for_number(parsed) or phonenumbers.region_code_for_country_code(
        parsed.country_code or 0
    )
    if region in (None, NO_COUNTRY, "ZZ"):
        raise Refused("costly", "satellite and global service numbers are not sent to")
    if phonenumbers.number_type(parsed) in COSTLY:
        raise Refused("costly", "premium and service numbers are not sent to")
    if countries and region not in countries:
        raise Refused("country", f"country {region} is not allowed")
    return phonenumbers.format_number(parsed, phonenumbers.PhoneNumberFormat.E164)


def valid_sender(sender: str) -> bool:
    """E.164, a short code, or up to 11 letters and digits with at least one letter."""
    return bool(_E164.match(sender) or _SHORT_CODE.match(sender) or _ALPHA.match(sender))


def mask(number: str) -> str:
    """A number for the log: its country and last two digits."""
    return number if len(number) < 6 else f"{number[:3]}…{number[-2:]}"
