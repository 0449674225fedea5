"""Objects at any vendor that speaks S3: by host name over TLS, bucket in the path, bounded in time."""

from __future__ import annotations

import base64
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deployer.core.errors import CredentialError, DeployError
from deployer.core.model import Repository
from deployer.storage.objects import ExistsError, MissingError, OfflineError, Store

# Seconds; a call is tried ATTEMPTS times, with botocore's pauses of a few seconds in between.
CONNECT_TIMEOUT, READ_TIMEOUT, ATTEMPTS = 5, 20, 3
_REFUSED = frozenset(
    {"403", "401", "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "Forbidden", "Unauthorized"}
)
_MISSING = frozenset({"404", "NoSuchKey", "NotFound"})
_THERE = frozenset({"412", "PreconditionFailed", "409", "ConditionalRequestConflict"})
# What vendors answer to a header that they do not know.
_UNKNOWN = frozenset({"501", "NotImplemented", "InvalidArgument", "InvalidRequest", "400"})


class S3Store(Store):
    def __init__(self, repository: Repository, *, prune: bool = False) -> None:
        super().__init__(repository)
        self._keys = (
            (repository.prune_key, repository.prune_secret) if prune else (repository.key, repository.secret)
        )
        self._made: Any = None
        self._ca: Any = None

    def get(self, key: str) -> bytes:
        what = f"reading {key} from the repository {self.name}"
        answer = self._call(what, "get_object", Key=self._full(key))
        try:
            data: bytes = answer["Body"].read()
        except Exception as error:
            # It broke off in the middle: whatever urllib3 and botocore say of it.
            raise self._offline(what, error) from error
        return data

    def put(self, key: str, data: bytes, *, only_new: bool = False) -> None:
        """only_new: by "If-None-Match: *" (Amazon, Cloudflare, MinIO, ...); a vendor that knows no such header is asked
        beforehand only, so two that write within that moment are not kept apart there."""
        what = f"writing {key} to the repository {self.name}"
        full = self._full(key)
        # A bucket with Object Lock takes nothing without it (Amazon's PutObject).
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        body = {"Body": data, "ContentMD5": base64.b64encode(digest).decode()}
        if not only_new:
            self._call(what, "put_object", Key=full, **body)
            return
        try:
            self._call(what, "head_object", Key=full)
        except MissingError:
            pass
        else:
            raise ExistsError(what, "it is there already")
        try:
            self._call(what, "put_object", Key=full, IfNoneMatch="*", **body)
        except _UnknownError:
            self._call(what, "put_object", Key=full, **body)

    def list(self, prefix: str = "") -> Mapping[str, int]:
        top = len(self._full(""))
        found = {
            item["Key"][top:]: int(item["Size"])
            for page in self._pages(prefix)
            for item in page.get("Contents", ())
        }
        return dict(sorted(found.items()))

    def folders(self, prefix: str = "") -> Sequence[str]:
        top = len(self._full(prefix))
        return sorted(
            item["Prefix"][top:].rstrip("/")
            for page in self._pages(prefix, Delimiter="/")
            for item in page.get("CommonPrefixes", ())
        )

    def _pages(self, prefix: str, **more: str) -> Iterator[Any]:
        what = f"listing the repository {self.name}"
        while True:
            page = self._call(what, "list_objects_v2", Prefix=self._full(prefix), **more)
            yield page
            if not page.get("IsTruncated"):
                return
            more["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, key: str) -> None:
        self._call(f"deleting {key} in the repository {self.name}", "delete_object", Key=self._full(key))

    def _full(self, key: str) -> str:
        return f"{self.repository.prefix}/{key}" if self.repository.prefix else key

    # --- calls ---

    def _client(self) -> Any:
        if self._made:
            return self._made
        try:
            import boto3
            from botocore.config import Config
        except ImportError as error:
            raise DeployError(
                f"opening the repository {self.name}",
                f"the library for S3 is not installed: {error}",
                "pip install 'deploy-toolkit[s3]'",
            ) from None
        if self.repository.trusted_ca:
            # The library wants a file; it lasts as long as this object.
            self._ca = tempfile.NamedTemporaryFile("w", prefix="deploy-ca-", suffix=".pem")  # noqa: SIM115
            self._ca.write(self.repository.trusted_ca)
            self._ca.flush()
        key, secret = self._keys
        self._made = boto3.session.Session(aws_access_key_id=key, aws_secret_access_key=secret).client(
            "s3",
            endpoint_url=self.repository.endpoint,
            region_name=self.repository.region,
            verify=self._ca.name if self._ca else True,
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": "path"},
                connect_timeout=CONNECT_TIMEOUT,
                read_timeout=READ_TIMEOUT,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                # Checksums as trailers are Amazon's; not every vendor takes them. Signatures cover the body.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
                user_agent_extra="deploy-toolkit",
            ),
        )
        return self._made

    def _call(self, what: str, operation: str, **arguments: Any) -> Any:
        client = self._client()
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(client, operation)(Bucket=self.repository.bucket, **arguments)
        except ClientError as error:
            raise self._refused(what, error) from None
        except BotoCoreError as error:
            raise self._offline(what, error) from error

    def _refused(self, what: str, error: Any) -> DeployError:
        answer = error.response.get("Error", {})
        code, said = str(answer.get("Code", "")), str(answer.get("Message", "")) or str(error)
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code == "NoSuchBucket":
            return DeployError(
                what,
                f"there is no bucket {self.repository.bucket} at {self.repository.endpoint}",
                "make it at the vendor (docs/backups.md says how), or mend bucket, endpoint and region",
            )
        if code in _MISSING:
            return MissingError(what, "there is no such object", "see what it holds: deploy backup list")
        if code in _THERE:
            return ExistsError(what, "it is there already")
        if code in _REFUSED:
            return CredentialError(
                what,
                f"{self.repository.endpoint} refuses the key: {code} {said}".rstrip(),
                "see key, secret and what the key may do (docs/backups.md), and this computer's clock",
            )
        if code in _UNKNOWN:
            return _UnknownError(
                what, f"{self.repository.endpoint} answered {code}: {said}", "see docs/backups.md"
            )
        if status >= 500 or code in ("SlowDown", "RequestTimeout"):
            return OfflineError(
                what,
                f"{self.repository.endpoint} answered {code or status}: {said}",
                "run it again later; the vendor's own status page may tell more",
            )
        return DeployError(
            what, f"{self.repository.endpoint} answered {code or status}: {said}", "see docs/backups.md"
        )

    def _offline(self, what: str, error: Exception) -> OfflineError:
        return OfflineError(
            what,
            f"{self.repository.endpoint} does not answer: {error}",
            "see its name, this computer's network and the vendor's status page; a wrong CA shows here too (trusted_ca)",
        )


class _UnknownError(DeployError):
    """The vendor does not know what was asked of it."""
