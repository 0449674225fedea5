"""The schema of stack.yaml and of inventories/NAME.yaml.

Defaults are safe and complete: name, domain and app make a stack; provider and machines make an inventory.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from deployer.core.model import DoctorPolicy
from deployer.project.fields import (
    AgeRecipient,
    Bytes,
    Count,
    Country,
    Domain,
    Email,
    GiB,
    Host,
    HttpsUrl,
    HttpUrl,
    Label,
    Line,
    Port,
    SmsSender,
    SshPublicKey,
    StackName,
    SystemId,
    SystemType,
    TimeOfDay,
    TimeZone,
    Word,
    not_empty,
)

# Checked like one that was written, so that the section's own defaults hold. (An instance here would have the
# section's validator built for itself, besides the one that is built into the file's: 20 ms of every run.)
_EMPTY: Any = Field(default={}, validate_default=True)


class Section(BaseModel):
    """Keys of one section. A key without a value (all below it commented out) counts as not written."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_empty(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        optional = {n for n, info in cls.model_fields.items() if not info.is_required()}
        return {key: value for key, value in data.items() if value is not None or key not in optional}


class OperatorSection(Section):
    name: Word
    ssh_key: SshPublicKey
    # The SSH key again where it is left out.
    age: AgeRecipient = ""


class MailSection(Section):
    sender: Email = ""
    postmaster: Email = ""
    dkim_selector: Label = "deploy1"
    message_size: Bytes = 25 << 20
    mta_sts: Literal["none", "testing", "enforce"] = "testing"


class SmsSection(Section):
    sender: SmsSender = ""
    countries: tuple[Country, ...] = ()
    per_number: Count = 10
    per_prefix: Count = 100
    per_day: Count = 1000
    prefix_digits: Annotated[int, Field(ge=1, le=15)] = 7
    callback_hosts: tuple[Host, ...] = ()
    keep_reports: Count = 30
    inbound_url: HttpUrl = ""


class SizeSection(Section):
    cores: Annotated[int, Field(ge=0)] = 0
    memory: GiB = 0
    disk: GiB = 0


class SizesSection(Section):
    app: SizeSection = _EMPTY
    database: SizeSection = _EMPTY
    mail: SizeSection = _EMPTY
    sms: SizeSection = _EMPTY


class BackupSection(Section):
    full: Count = 7
    differential: Count = 1
    files: Annotated[int, Field(ge=1, le=60)] = 5
    keep_full: Count = 4
    keep_files: Count = 30
    wal_bound: Count = 4
    late: Count = 15
    pings: tuple[HttpUrl, ...] = ()
    mail: tuple[Email, ...] = ()
    sms: tuple[Line, ...] = ()


class StackFile(Section):
    name: StackName
    domain: Domain
    app: str
    operators: tuple[OperatorSection, ...] = ()
    mail: MailSection = _EMPTY
    sms: SmsSection = _EMPTY
    sizes: SizesSection = _EMPTY
    settings: dict[str, Any] = {}
    upgrade_window: TimeOfDay = "04:00"
    timezone: TimeZone = "Etc/UTC"
    backup: BackupSection = _EMPTY


class MachineSection(Section):
    """One machine. What else stands there is the provider's (address, type ...)."""

    model_config = ConfigDict(extra="ignore")

    name: Label = ""
    # "base" is no role: a machine with nothing else plays none.
    roles: Annotated[
        tuple[Literal["all", "app", "database", "mail", "sms", "base"], ...], AfterValidator(not_empty)
    ]


class AcmeSection(Section):
    directories: tuple[HttpsUrl, ...] = ()
    email: Email = ""
    trusted_ca: str = ""


class SmarthostSection(Section):
    name: Word
    host: Host
    port: Port = 587
    user: Line = ""
    password: Line = ""
    spf: Line = ""


class CarrierSection(Section):
    name: Word
    host: Host
    port: Port
    system_id: SystemId
    password: Line
    tls: bool = False
    system_type: SystemType = ""
    sender: SmsSender = ""
    msg_id_type: Annotated[int, Field(ge=0, le=3)] = 0


class DoctorSection(Section):
    resolvers: tuple[Host, ...] = ()
    mail_servers: tuple[Host, ...] = DoctorPolicy.mail_servers
    blocklists: tuple[Host, ...] = DoctorPolicy.blocklists
    registrar: Line = ""


class RepositorySection(Section):
    name: Label
    kind: Literal["s3", "path"]
    endpoint: HttpsUrl | Literal[""] = ""
    region: Word = "us-east-1"
    bucket: Line = ""
    prefix: Line = ""
    key: Line = ""
    secret: Line = ""
    prune_key: Line = ""
    prune_secret: Line = ""
    trusted_ca: str = ""
    path: Line = ""
    vendor: Line = ""


class InventoryFile(Section):
    """options of the provider stand in a section of its own name and are taken out before."""

    provider: Label
    machines: Annotated[tuple[MachineSection, ...], AfterValidator(not_empty)]
    catch: bool | None = None
    acme: AcmeSection | None = None
    smarthosts: tuple[SmarthostSection, ...] = ()
    carriers: tuple[CarrierSection, ...] = ()
    # "none", or a list of sections whose other keys are the vendor's own: checked in project/zones.py.
    dns: Any = None
    doctor: DoctorSection = _EMPTY
    repositories: tuple[RepositorySection, ...] = ()
