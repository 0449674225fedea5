"""CAA records (RFC 8659): which certificate authorities may sign our names."""

from __future__ import annotations

from urllib.parse import urlsplit

from deployer.core.model import Acme

# By the host of the ACME directory, as each documents it.
_ISSUERS = {
    "acme-v02.api.letsencrypt.org": "letsencrypt.org",
    "acme-staging-v02.api.letsencrypt.org": "letsencrypt.org",
    "acme.zerossl.com": "sectigo.com",
    "dv.acme-v02.api.pki.goog": "pki.goog",
    "api.buypass.com": "buypass.com",
    "acme.ssl.com": "ssl.com",
}


def caa(acme: Acme) -> tuple[str, ...]:
    """Values for every name. None when a directory's authority is not known: the record would shut it out."""
    issuers = [_ISSUERS.get(urlsplit(url).hostname or "") for url in acme.directories]
    if not all(issuers):
        return ()
    return tuple(f'0 issue "{issuer}"' for issuer in dict.fromkeys(issuers))
