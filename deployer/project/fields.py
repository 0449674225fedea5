"""Kinds of values in our files. Each checker takes the text as written and raises ValueError, whose words
follow the quoted value: `"foo_bar" is not a domain: ...`."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?\Z")
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*\Z")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\Z")
_UNITS = {"B": 0, "KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
_SSH_KEYS = (
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
)
# ISO 3166-1 alpha-2.
_COUNTRIES = (
    " AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT"
    " BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH"
    " ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT"
    " HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS"
    " LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI"
    " NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG"
    " SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG"
    " UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW"
    " "
)
# Machine names (up to 63 characters and a dot) go in front of the stack's domain; RFC 1035 ends at 253.
_LONGEST_DOMAIN = 189


def label(text: str) -> str:
    """A name as RFC 1035 has it."""
    if len(text) > 63:
        raise ValueError("is longer than 63 characters")
    if not _LABEL.match(text) or not text[0].isalpha():
        raise ValueError(
            "is not a name: lower-case letters, digits and hyphens only, a letter first, no hyphen last"
        )
    return text


def stack_name(text: str) -> str:
    if len(text) > 30:
        raise ValueError("is longer than 30 characters, which leaves no room for the names of machines")
    return label(text)


def host_name(text: str) -> str:
    """A fully qualified name in ASCII (RFC 1035 lengths, RFC 5890 A-labels), lower case."""
    if not text.isascii():
        try:
            hint = f"; write it as {text.encode('idna').decode()}"
        except UnicodeError:
            hint = ""
        raise ValueError(f"is not a domain: letters outside ASCII need their IDNA form{hint}")
    name = text.lower()
    if name.endswith("."):
        raise ValueError("is not a domain: leave out the last dot")
    if len(name) > 253:
        raise ValueError("is not a domain: longer than 253 characters")
    for part in name.split("."):
        if not part:
            raise ValueError("is not a domain: two dots in a row, or one in front")
        if len(part) > 63:
            raise ValueError(f'is not a domain: "{part}" is longer than 63 characters')
        if not _LABEL.match(part):
            raise ValueError(f'is not a domain: "{part}" may hold letters, digits and inner hyphens only')
        if part.startswith("xn--"):
            try:
                part.encode().decode("idna")
            except UnicodeError:
                raise ValueError(f'is not a domain: "{part}" is not valid IDNA') from None
        elif part[2:4] == "--":
            raise ValueError(f'is not a domain: "{part}" has hyphens in third and fourth place (RFC 5891)')
    return name


def domain(text: str) -> str:
    """The stack's domain: at least two labels, with room for names in front."""
    name = host_name(text)
    if "." not in name:
        raise ValueError('is not a domain: at least two parts are needed ("example.org")')
    if name.rpartition(".")[2].isdigit():
        raise ValueError("is not a domain but an address")
    if len(name) > _LONGEST_DOMAIN:
        raise ValueError(f"is longer than {_LONGEST_DOMAIN} characters; names of machines go in front of it")
    return name


def host(text: str) -> str:
    """A host name or an IP address."""
    import ipaddress

    try:
        return str(ipaddress.ip_address(text.strip("[]")))
    except ValueError:
        pass
    if re.match(r"[0-9.]+\Z", text):
        raise ValueError("is not an address")
    try:
        return host_name(text)
    except ValueError as error:
        raise ValueError(str(error).replace("not a domain", "not a host name", 1)) from None


def email(text: str) -> str:
    local, _, name = text.rpartition("@")
    if not local or not _LOCAL_PART.match(local) or len(local) > 64:
        raise ValueError("is not a mail address")
    try:
        return f"{local}@{domain(name)}"
    except ValueError as error:
        raise ValueError(f"is not a mail address: what follows the @ {error}") from None


def size(text: object) -> int:
    """Bytes, from "25 MiB"."""
    match = _SIZE.match(str(text).strip())
    if isinstance(text, (dict, list)) or not match or (match[2] and match[2] not in _UNITS):
        raise ValueError('is not a size; write a number and a unit, such as "25 MiB"')
    if not match[2]:
        raise ValueError(f'has no unit; write "{match[1]} MiB", or another of {", ".join(_UNITS)}')
    return int(float(match[1]) * (1 << _UNITS[match[2]]))


def gibibytes(text: object) -> float:
    """GiB, from "4" or "512 MiB"."""
    match = _SIZE.match(str(text).strip())
    if isinstance(text, (dict, list)) or not match or (match[2] and match[2] not in _UNITS):
        raise ValueError('is not a size; write GiB ("4"), or a number and a unit ("512 MiB")')
    return float(match[1]) * (1 << _UNITS[match[2] or "GiB"]) / (1 << 30)


def time_of_day(text: str) -> str:
    if not re.match(r"([01][0-9]|2[0-3]):[0-5][0-9]\Z", text):
        raise ValueError('is not a time of day; write hours and minutes, such as "04:00"')
    return text


def timezone(text: str) -> str:
    """A name of the IANA time-zone database, looked up where this computer has one."""
    if text in ("Etc/UTC", "UTC"):
        return text
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        known = False
    else:
        known = True
    if known or (
        not zoneinfo.available_timezones() and re.match(r"[A-Z][A-Za-z_]+(/[A-Za-z0-9_+-]+)+\Z", text)
    ):
        return text
    raise ValueError('is not a time zone; write a name such as "Europe/Berlin"')


def ssh_public_key(text: str) -> str:
    """One line of authorized_keys without options: kind, base64, comment."""
    words = text.split()
    if "PRIVATE KEY" in text:
        raise ValueError("is a private key; name the public one (the file that ends in .pub)")
    if len(words) < 2 or words[0] not in _SSH_KEYS:
        raise ValueError('is not an SSH public key; it begins with "ssh-ed25519 AAAA"')
    try:
        blob = base64.b64decode(words[1], validate=True)
        (length,) = struct.unpack(">I", blob[:4])
    except (binascii.Error, struct.error):
        raise ValueError("is not an SSH public key: its base64 part is damaged") from None
    if blob[4 : 4 + length] != words[0].encode() or len(blob) < 4 + length + 36:
        raise ValueError("is not an SSH public key: its base64 part is damaged")
    return " ".join(words)


def age_recipient(text: str) -> str:
    """Something that age can encrypt to: age1..., or an SSH public key (ed25519 or RSA)."""
    import pyrage  # type: ignore[import-untyped]

    if text.startswith("AGE-SECRET-KEY-"):
        raise ValueError("is a secret identity; write its public half (age1...), and make a new identity now")
    kind = pyrage.x25519 if text.startswith("age1") else pyrage.ssh
    try:
        kind.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise ValueError(
            'is not an age recipient; write "age1..." or an SSH public key of kind ed25519 or RSA'
        ) from None
    return text


def country(text: str) -> str:
    code = text.upper()
    if code == "UK":
        raise ValueError('is not a country; did you mean "GB"?')
    if len(code) != 2 or f" {code} " not in _COUNTRIES:
        raise ValueError('is not a country; write its two letters of ISO 3166 ("DE")')
    return code


def sms_sender(text: str) -> str:
    """A number with its country's code, a short code, or up to eleven letters (GSM 03.40)."""
    if re.match(r"\+?[0-9]{3,15}\Z", text) or re.match(r"(?=.*[A-Za-z])[A-Za-z0-9 ]{1,11}\Z", text):
        return text
    raise ValueError("is not an SMS sender: a number with country code, or at most eleven letters and digits")


def https_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme != "https" or not parts.hostname or re.search(r"\s", text):
        raise ValueError('is not an address that begins with "https://"')
    return text


def system_id(text: str) -> str:
    """SMPP 3.4, 4.1.1: at most 15 characters."""
    if not 1 <= len(line(text)) <= 15:
        raise ValueError("is not a system id of SMPP: 1 to 15 characters")
    return text


def system_type(text: str) -> str:
    """SMPP 3.4, 4.1.1: at most 12 characters."""
    if len(line(text)) > 12:
        raise ValueError("is not a system type of SMPP: at most 12 characters")
    return text


def word(text: str) -> str:
    if not re.match(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}\Z", text):
        raise ValueError("is not a name: letters, digits, dots, hyphens and underscores, at most 40")
    return text


def port(text: object) -> int:
    try:
        number = int(str(text))
    except ValueError:
        number = 0
    if not 1 <= number <= 65535:
        raise ValueError("is not a port; ports are 1 to 65535")
    return number


def http_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or re.search(r"\s", text):
        raise ValueError('is not an address that begins with "https://" or "http://"')
    return text


def not_empty(items: tuple[str, ...]) -> tuple[str, ...]:
    if not items:
        raise ValueError("must not be empty")
    return items


def line(text: str) -> str:
    """Text that goes into one line of a configuration file."""
    if re.search(r"[\x00-\x1f\x7f]", text):
        raise ValueError("holds a line break or another control character")
    return text


Label = Annotated[str, AfterValidator(label)]
StackName = Annotated[str, AfterValidator(stack_name)]
Domain = Annotated[str, AfterValidator(domain)]
Host = Annotated[str, AfterValidator(host)]
Email = Annotated[str, AfterValidator(email)]
Bytes = Annotated[int, BeforeValidator(size)]
GiB = Annotated[float, BeforeValidator(gibibytes)]
TimeOfDay = Annotated[str, AfterValidator(time_of_day)]
TimeZone = Annotated[str, AfterValidator(timezone)]
SshPublicKey = Annotated[str, AfterValidator(ssh_public_key)]
AgeRecipient = Annotated[str, AfterValidator(age_recipient)]
Country = Annotated[str, AfterValidator(country)]
SmsSender = Annotated[str, AfterValidator(sms_sender)]
HttpUrl = Annotated[str, AfterValidator(http_url)]
HttpsUrl = Annotated[str, AfterValidator(https_url)]
Word = Annotated[str, AfterValidator(word)]
Port = Annotated[int, BeforeValidator(port)]
SystemId = Annotated[str, AfterValidator(system_id)]
SystemType = Annotated[str, AfterValidator(system_type)]
Line = Annotated[str, AfterValidator(line)]
Count = Annotated[int, Field(ge=1)]
