"""Amazon's errors as ours, with its code and request id."""

from __future__ import annotations

from deployer.core.errors import CredentialError, DeployError, QuotaError

CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
PERMISSION = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "OptInRequired"})
THROTTLED = frozenset({"RequestLimitExceeded", "Throttling", "ThrottlingException", "EC2ThrottledException"})
CAPACITY = frozenset({"InsufficientInstanceCapacity", "InsufficientHostCapacity", "Unsupported"})


class Refused(DeployError):
    """Amazon answered with an error. code: its word for it."""

    code = ""


class NoAnswer(DeployError):
    """Nothing is known of the outcome: no answer, or one that says "internal error" (5xx). Or it was throttled."""

    code = ""


def code_of(error: BaseException) -> str:
    """Amazon's code, of its own exception or of one of ours; "" for any other error."""
    if isinstance(error, DeployError):
        return str(getattr(error, "code", ""))
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def missing(error: BaseException) -> bool:
    """Amazon does not know the thing: "InvalidVolume.NotFound" and its like."""
    code = code_of(error)
    return code.endswith((".NotFound", ".NotFoundException")) or code == "Gateway.NotAttached"


def used_up(error: BaseException) -> bool:
    """A client token stands for something that is gone: what is asked for anew needs another one."""
    return code_of(error) in ("IdempotentInstanceTerminated", "InvalidNetworkInterfaceID.NotFound")


def in_use(error: BaseException) -> bool:
    """Something still uses the thing, often only for seconds."""
    code = code_of(error)
    if code == "InvalidParameterValue":
        return isinstance(error, DeployError) and "in use" in error.why
    return code == "DependencyViolation" or code.endswith("InUse")


def translate(error: Exception, what: str, operation: str) -> DeployError:
    """Any exception of boto3 as one of ours. what: what was being done, as a clause."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        return _answered(error, what, operation)
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return CredentialError(
            what,
            f"no credentials for AWS were found: {error}",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or AWS_PROFILE",
        )
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError):
        return NoAnswer(
            what,
            f"{operation}: no answer from AWS: {error}",
            "see that this computer reaches the internet; then run again, which continues",
        )
    return DeployError(what, f"{operation}: {type(error).__name__}: {error}", "run again")


def _answered(error: Exception, what: str, operation: str) -> DeployError:
    response = getattr(error, "response", {})
    code = code_of(error)
    message = str(response.get("Error", {}).get("Message", "")).strip()
    # It goes on with a kilobyte that only Amazon can read.
    message = message.split(" Encoded authorization failure message")[0]
    metadata = response.get("ResponseMetadata", {})
    request = str(metadata.get("RequestId", ""))
    why = f"{operation}: {code}: {message} (request {request or 'without id'})"
    if code in CREDENTIALS:
        return CredentialError(
            what, why, "see that the keys are right and not expired, and this computer's clock too"
        )
    if code in PERMISSION:
        return CredentialError(what, why, f"allow {operation}: docs/aws-iam.md has the whole policy")
    if code not in THROTTLED and (code.endswith("LimitExceeded") or "QuotaExceeded" in code):
        return QuotaError(what, why, "ask for more in Amazon's console (Service Quotas), or delete something")
    made: Refused | NoAnswer
    if code in THROTTLED:
        made = NoAnswer(what, why, "too many calls in this account; run again in a minute")
    elif code in CAPACITY:
        # Before the next one: lack of capacity is answered as a server's error.
        made = Refused(what, why, "choose another `type`, or another `zone` for a new deployment")
    elif int(metadata.get("HTTPStatusCode", 0)) >= 500:
        made = NoAnswer(
            what, why, "run again, which continues; https://health.aws.amazon.com tells of outages"
        )
    else:
        made = Refused(what, why, "run again; if it stays so, look at it in Amazon's console")
    made.code = code
    return made
