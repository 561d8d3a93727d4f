"""The listing process: fetches and parses pages outside the event loop.

`listing_process` starts it as `python -m autoscaler.providers.ec2.lister` and documents the exchange. It has its
own client and serves one request at a time. It ends when its standard input does, so it never outlives its
parent. It ignores Ctrl-C, which the parent handles.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
from typing import BinaryIO

from autoscaler.errors import ConfigError
from autoscaler.providers.ec2.client import Ec2Client, open_client, open_session
from autoscaler.providers.ec2.listing import describe_page
from autoscaler.providers.ec2.settings import Ec2Settings


def main() -> int:
    """Serve page requests from standard input until it ends, and return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = _claim_stdout()
    requests = sys.stdin.buffer
    with asyncio.Runner() as runner:
        try:
            client = runner.run(_open(requests.readline()))
        except ConfigError as error:
            _send(replies, {"error": str(error)})
            return 1
        _send(replies, {"ready": True})
        # Replies are large and free of cycles: not collecting garbage while reading them saves a third of the time.
        # Freezing exempts the service model, some 100,000 objects, from every collection.
        gc.disable()
        gc.freeze()
        for line in requests:
            request = json.loads(line)
            page = runner.run(describe_page(client, request["token"], request["size"]))
            _send(
                replies,
                {"id": request["id"], "rows": page.rows, "next": page.next_token, "problem": page.problem},
            )
            if page.next_token is None:
                gc.collect()
        runner.run(client.close())
    return 0


async def _open(settings_line: bytes) -> Ec2Client:
    settings = Ec2Settings(**json.loads(settings_line))
    return await open_client(await open_session(settings), settings, changes=False)


def _claim_stdout() -> BinaryIO:
    """Reserve the pipe to the parent for replies: everything else that prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def _send(replies: BinaryIO, reply: dict[str, object]) -> None:
    replies.write(json.dumps(reply, separators=(",", ":")).encode() + b"\n")
    replies.flush()


if __name__ == "__main__":
    sys.exit(main())
