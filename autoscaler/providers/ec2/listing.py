"""One page of the listing: this package's only way to list VMs.

The event loop's process and the listing process both use it, so that there is one filter, one order of
fields and one wording of failures.
"""

from __future__ import annotations

from typing import Any, Final

from autoscaler.errors import ProviderError
from autoscaler.ports import FLEET_TAG
from autoscaler.providers.ec2.classify import advice
from autoscaler.providers.ec2.client import PAGE, Ec2Client
from autoscaler.providers.ec2.operations import Operation
from autoscaler.providers.ec2.wire import ReplyPage
from autoscaler.providers.failing import Failure

FIRST_PAGE: Final = 200
"""Most VMs that are read in the event loop's own process, which blocks the loop for about 20 ms."""

FULL_PAGE: Final = 1000
"""Most VMs that EC2 puts on one page."""


async def describe_page(client: Ec2Client, token: str | None, size: int) -> ReplyPage:
    """Fetch and parse one page of VMs that carry the ownership tag.

    Failures are in `ReplyPage.problem` and never raised.
    """
    parameters: dict[str, Any] = {
        "Filters": [{"Name": "tag-key", "Values": [FLEET_TAG]}],
        "MaxResults": size,
    }
    if token is not None:
        parameters["NextToken"] = token
    try:
        reply = await client.call(Operation.DESCRIBE_INSTANCES, **parameters)
    except ProviderError as error:
        return ReplyPage((), problem=str(error))
    if isinstance(reply, Failure):
        return ReplyPage((), problem=f"{Operation.DESCRIBE_INSTANCES}: {reply}{advice(reply)}")
    page: ReplyPage = reply[PAGE]
    return page
