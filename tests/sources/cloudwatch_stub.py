"""CloudWatch's GetMetricData on loopback, as AWS documents it: percentiles, maths, paging, partial data, throttling.

It checks what the service checks (500 queries, ids, periods, expressions that name a metric of the call), holds
datapoints by metric and start of the window, and follows a test's script for the next requests.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer

from autoscaler.clock import SystemClock
from autoscaler.sources.cloudwatch_client import CloudWatchClient, CloudWatchSettings

KEYS = {"access_key_id": "AKIDEXAMPLE", "secret_access_key": "not-a-secret"}
CPU = ("AWS/EC2", "CPUUtilization")


@dataclass
class CloudWatchStub:
    """Answers each request from `points`, unless `script` has another answer for it."""

    points: dict[tuple, dict[float, float]] = field(default_factory=lambda: defaultdict(dict))
    """By (namespace, name, statistic, dimension values): start of the window to value."""
    script: list = field(default_factory=list)
    """Answers to the next requests: (status, code, message), a function of the parsed request, or None for a normal answer."""
    requests: list[dict] = field(default_factory=list)
    per_page: int = 100_000
    status: dict[str, str] = field(default_factory=dict)
    """StatusCode by dimension value."""

    async def __aenter__(self):
        app = web.Application()
        app.router.add_post("/", self._answer)
        self._server = TestServer(app, host="127.0.0.1")
        await self._server.start_server()
        self.url = f"http://127.0.0.1:{self._server.port}"
        return self

    async def __aexit__(self, *_):
        await self._server.close()

    def client(self, called=None, **limits):
        return CloudWatchClient(CloudWatchSettings("eu-central-1", self.url, **KEYS, **limits), called)

    def put(self, metric, values, *dimensions, stat="Average"):
        self.points[(*metric, stat, *dimensions)].update(values)

    @property
    def metrics_asked(self):
        return [sum("MetricStat" in query for query in each["MetricDataQueries"]) for each in self.requests]

    async def _answer(self, request):
        assert request.headers["X-Amz-Target"].endswith(".GetMetricData")
        asked = json.loads(await request.read())
        self.requests.append(asked)
        scripted = self.script.pop(0) if self.script else None
        if callable(scripted):
            scripted = scripted(asked)
        if scripted == "hang":
            clock = SystemClock()
            await clock.sleep_until(clock.monotonic() + 60.0)
        if scripted == "html":
            return web.Response(text="<html>proxy</html>", content_type="text/html")
        if scripted is None:
            scripted = self._checked(asked)
        if scripted is not None:
            status, code, message = scripted
            return _json({"__type": f"com.amazonaws.cloudwatch#{code}", "message": message}, status)
        return _json(self._data(asked))

    def _checked(self, asked):
        queries = asked["MetricDataQueries"]
        if len(queries) > 500:
            return (
                400,
                "ValidationError",
                "The collection MetricDataQueries must not have a size greater than 500.",
            )
        ids = [query["Id"] for query in queries]
        if len(set(ids)) < len(ids) or not all(re.fullmatch(r"[a-z][a-zA-Z0-9_]*", each) for each in ids):
            return 400, "ValidationError", "The values for parameter id are not unique or not valid."
        if asked["EndTime"] <= asked["StartTime"]:
            return 400, "ValidationError", "The parameter StartTime must be less than EndTime."
        for query in queries:
            used = re.findall(r"\b[a-z]\d+\b", query.get("Expression", ""))
            if "Expression" in query and not set(used) <= set(ids):
                return 400, "ValidationError", f"Error in expression '{query['Id']}': no such metric"
            if "BROKEN" in query.get("Expression", ""):
                return 400, "ValidationError", f"Error in expression '{query['Id']}': Syntax error"
        return None

    def _data(self, asked):
        rows = []
        for query in asked["MetricDataQueries"]:
            if not query["ReturnData"]:
                continue
            stat = self._stat(asked, query)
            metric = stat["Metric"]
            values = [each["Value"] for each in metric["Dimensions"]]
            known = self.points.get((metric["Namespace"], metric["MetricName"], stat["Stat"], *values), {})
            found = [
                (at, value)
                for at, value in sorted(known.items(), reverse=True)
                if asked["StartTime"] <= at < asked["EndTime"]
            ]
            if query.get("Expression", "").startswith("2 *"):
                found = [(at, 2 * value) for at, value in found]
            status = next((self.status[each] for each in values if each in self.status), "Complete")
            rows.append((query["Id"], found, status))
        return self._page(rows, int(asked.get("NextToken", 0)))

    def _page(self, rows, begin):
        """Return `per_page` datapoints. A metric that continues on the next page has status PartialData."""
        end = begin + self.per_page
        at, results = 0, []
        for name, found, status in rows:
            part = found[max(begin - at, 0) : max(end - at, 0)]
            if part or (begin <= at < end) or not found:
                more = at + len(found) > end
                results.append(
                    {
                        "Id": name,
                        "Label": name,
                        "Timestamps": [stamp for stamp, _ in part],
                        "Values": [value for _, value in part],
                        "StatusCode": "PartialData" if more else status,
                    }
                )
            at += len(found)
        page = {"MetricDataResults": results, "Messages": []}
        return page | ({"NextToken": str(end)} if at > end else {})

    @staticmethod
    def _stat(asked, query):
        if "MetricStat" in query:
            return query["MetricStat"]
        (name,) = re.findall(r"\bm\d+\b", query["Expression"])[:1]
        return next(each["MetricStat"] for each in asked["MetricDataQueries"] if each["Id"] == name)


def _json(body, status=200):
    headers = {"x-amzn-RequestId": "request-1"}
    return web.Response(
        status=status,
        text=json.dumps(body),
        content_type="application/x-amz-json-1.0",
        headers=headers,
    )
