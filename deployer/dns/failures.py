"""What vendors of DNS throw, as errors that say what to do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from deployer.core.errors import CredentialError, DeployError, QuotaError, UnreachableError

_AWS_CREDENTIALS = (
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "OptInRequired",
)
_NEXT = {
    "hetzner": "export HCLOUD_TOKEN with a read and write token of the project that holds the zone",
    "route53": "see that AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or AWS_PROFILE) are set and may list and change"
    " the zone: route53:ListHostedZones, ListResourceRecordSets, ChangeResourceRecordSets",
    "rfc2136": "see that the server allows transfer and update of the zone to this computer or to the key"
    " (BIND: allow-transfer, update-policy), and that key_name, key_secret and key_algorithm are its own",
}


class Again(Exception):
    """The zone changed under us, or the network broke off: reading and planning anew may do."""

    def __init__(self, error: DeployError) -> None:
        super().__init__(str(error))
        self.error = error


@contextlib.contextmanager
def translated(provider: str, zone: str) -> Iterator[None]:
    """Raises CredentialError, QuotaError, UnreachableError or DeployError; Again (with one of them) for what passes."""
    what = f"talking to the DNS vendor {provider}" + (f" about {zone}" if zone else "")
    try:
        yield
    except DeployError:
        raise
    except Exception as error:
        raise _known(provider, what, error) from error


def _known(provider: str, what: str, error: Exception) -> Exception:
    names = {f"{cls.__module__.split('.')[0]}.{cls.__name__}" for cls in type(error).__mro__}
    refused = _NEXT.get(provider, "see that the credentials in the inventory's entry are good for this zone")
    text = " ".join(str(error).split()) or type(error).__name__
    if "hcloud.APIException" in names:
        return _hetzner(what, refused, error)
    if "botocore.ClientError" in names:
        return _aws(what, refused, error)
    if names & {
        "botocore.NoCredentialsError",
        "botocore.PartialCredentialsError",
        "botocore.ProfileNotFound",
    }:
        return CredentialError(what, text, refused)
    if names & {"dns.TSIGError", "dns.PeerError", "dns.BadSignature", "dns.BadKey", "dns.BadTime"} or (
        type(error).__module__ == "dns.tsig"
    ):
        return CredentialError(what, f"the key is refused: {text}", refused)
    if "dns.TransferError" in names or type(error).__name__ == "Refused":
        if any(code in text for code in ("REFUSED", "NOTAUTH")):
            return CredentialError(what, f"refused: {text}", refused)
        return DeployError(what, text, refused)
    if type(error).__name__ == "Changed":
        return Again(
            DeployError(what, f"the records are being changed by somebody else ({text})", "run it again")
        )
    if isinstance(error, OSError) or names & {
        "dns.Timeout",
        "dns.FormError",
        "requests.RequestException",
        "botocore.HTTPClientError",
        "botocore.ConnectionError",
    }:
        return Again(UnreachableError(what, text, "see whether it answers at all, then run this again"))
    if any(word in type(error).__name__.lower() for word in ("unauthorized", "forbidden", "authentication")):
        return CredentialError(what, text, refused)
    return DeployError(
        what, f"{type(error).__name__}: {text}", "run it again; deploy plan shows what is left"
    )


def _hetzner(what: str, refused: str, error: Exception) -> Exception:
    code, message = getattr(error, "code", ""), getattr(error, "message", "")
    identity = getattr(error, "correlation_id", None)
    why = f"{message} ({code}{f', request {identity}' if identity else ''})"
    if code in ("unauthorized", "forbidden", "token_readonly", 401, 403):
        return CredentialError(what, why, refused)
    if code == "rate_limit_exceeded":
        # hcloud has waited and asked again, several times.
        return DeployError(what, why, "wait some minutes: Hetzner counts an hour's calls; then run it again")
    if code == "resource_limit_exceeded":
        return QuotaError(what, why, "have the limit raised, or remove what is not needed")
    if code in (
        "uniqueness_error",
        "conflict",
        "locked",
        "not_found",
        "service_error",
        "unavailable",
    ) or (isinstance(code, int) and code >= 500):
        return Again(DeployError(what, why, "run it again in a minute"))
    return DeployError(what, why, "deploy plan shows what is left to do")


def _aws(what: str, refused: str, error: Exception) -> Exception:
    answer = getattr(error, "response", {})
    code = answer.get("Error", {}).get("Code", "")
    identity = answer.get("ResponseMetadata", {}).get("RequestId", "")
    why = f"{answer.get('Error', {}).get('Message', '')} ({code}, request {identity})"
    if code in _AWS_CREDENTIALS:
        return CredentialError(what, why, refused)
    if code in ("LimitsExceeded", "TooManyHostedZones"):
        return QuotaError(what, why, "have the limit raised, or remove what is not needed")
    if code in (
        "InvalidChangeBatch",
        "PriorRequestNotComplete",
        "Throttling",
        "ThrottlingException",
        "ServiceUnavailable",
    ):
        return Again(DeployError(what, why, "run it again in a minute"))
    return DeployError(what, why, "deploy plan shows what is left to do")
