"""The listing process: fetches and parses pages outside the event loop.

Started as `python -m autoscaler.providers.ec2.lister` by `listing_process`, which documents the exchange.
It has its own client and serves one request at a time. It ends when its standard input does, and so never
outlives its parent. Ctrl-C is the parent's business.
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
    """Serve page requests from standard input until it ends."""
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
        # Documents are big and free of cycles: collecting between listings takes a third off reading them.
        # The service model, some 100,000 objects, need never be visited.
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
    """Keep the pipe to the parent for replies alone; whatever else prints goes to standard error."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return replies


def _send(replies: BinaryIO, reply: dict[str, object]) -> None:
    replies.write(json.dumps(reply, separators=(",", ":")).encode() + b"\n")
    replies.flush()


if __name__ == "__main__":
    sys.exit(main())
