"""Which EC2 endpoint to use, and its timeouts.

Rules: a frozen value that can check itself and be sent to the listing process as JSON. Secrets never appear in its
repr. Reading the environment or a file is not done here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from autoscaler.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Ec2Settings:
    """Settings for one account and Region.

    Attributes:
        region: AWS Region, for example eu-central-1.
        endpoint_url: Endpoint to use instead of AWS's own (the embedded cloud), or None.
        profile: Profile of the AWS configuration files, or None for the default chain.
        access_key_id: Static key for the embedded cloud; None on AWS, where the default chain finds credentials.
        secret_access_key: Secret that belongs to access_key_id.
        connect_timeout_s: Longest time to open a connection.
        read_timeout_s: Longest silence on an open connection.
        call_deadline_s: Longest time for one call, including retries of reads.
        listing_deadline_s: Longest time for one listing; VMs read by then are returned in an incomplete listing.

    Raises:
        ConfigError: A value contradicts another or is not positive.
    """

    region: str
    endpoint_url: str | None = None
    profile: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    connect_timeout_s: float = 3.0
    read_timeout_s: float = 10.0
    call_deadline_s: float = 20.0
    listing_deadline_s: float = 60.0

    def __post_init__(self) -> None:
        if not self.region:
            raise ConfigError(
                "EC2: no Region is given; name it by the setting aws_region (--region), for example eu-central-1"
            )
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ConfigError(
                "EC2: the settings aws_access_key_id and aws_secret_access_key go together; give both or none"
            )
        if self.access_key_id is not None and self.profile is not None:
            raise ConfigError("EC2: give either the setting aws_profile or aws_access_key_id, not both")
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name.endswith("_s") and not value > 0:
                raise ConfigError(f"EC2 settings: {each.name} is {value}; it must be more than 0 seconds")
