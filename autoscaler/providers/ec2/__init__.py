"""EC2 as a provider, on aiobotocore. Nothing of botocore leaves this package."""

from autoscaler.providers.ec2.provider import Ec2Provider
from autoscaler.providers.ec2.settings import Ec2Settings

__all__ = ["Ec2Provider", "Ec2Settings"]
