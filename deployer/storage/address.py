"""A repository in one line, for a computer that has no inventory yet (`deploy adopt --from`)."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from deployer.core.errors import InputError
from deployer.core.model import Repository

FORM = "s3://KEY@host[:port]/bucket[/prefix][?ca=FILE&region=NAME], or file:///path; ?stack=NAME where there are several"


def parse(url: str, secret: str = "") -> Repository:
    """The repository that the address names. secret: its secret key, which never stands in an address.

    Raises InputError.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise _wrong(url, str(error)) from None
    path = unquote(parts.path)
    if parts.scheme == "file":
        if parts.netloc or not path.startswith("/"):
            raise _wrong(url, "after file:// stands an absolute path of this computer")
        return Repository(Path(path).name or "folder", "path", path=path)
    if parts.scheme != "s3":
        raise _wrong(url, "it begins with neither s3:// nor file://")
    if parts.password is not None:
        raise _wrong(
            url.replace(parts.password, "***"),
            "it holds a secret key, which others can see in the list of processes and in the shell's history",
        )
    bucket, _, prefix = path.strip("/").partition("/")
    if not (parts.hostname and parts.username and bucket):
        raise _wrong(url, "the key, the host or the bucket is missing")
    options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    if unknown := options.keys() - {"ca", "region", "stack"}:
        raise _wrong(url, f"unknown: {', '.join(sorted(unknown))}")
    return Repository(
        name=parts.hostname,
        kind="s3",
        endpoint=f"https://{parts.hostname}" + (f":{port}" if port else ""),
        region=options.get("region", "us-east-1"),
        bucket=bucket,
        prefix=prefix,
        key=unquote(parts.username),
        secret=secret,
        trusted_ca=_pem(options["ca"], url) if "ca" in options else "",
    )


def stack_of(url: str) -> str:
    """The stack that the address names (?stack=NAME), "" for the only one there."""
    return parse_qs(urlsplit(url).query).get("stack", [""])[-1]


def _pem(name: str, url: str) -> str:
    try:
        text = Path(name).expanduser().read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise _wrong(url, f"ca={name}: {why}") from None
    if "BEGIN CERTIFICATE" not in text:
        raise _wrong(url, f"ca={name}: it holds no certificate (PEM)")
    return text


def _wrong(url: str, why: str) -> InputError:
    return InputError(f"reading the address {url}", why, f"write it as {FORM}")
