"""The EC2 provider on aiobotocore; no botocore type leaves this package."""
