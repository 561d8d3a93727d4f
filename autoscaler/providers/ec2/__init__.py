"""EC2 as a provider, on aiobotocore (`provider`, `settings`). No botocore type leaves this package.

This file imports nothing: `classify` and `wire` are light and used without the SDK.
"""
