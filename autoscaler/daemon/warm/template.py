"""The current template of a fleet: what new VMs would be made from, as last read.

Rules of this file: one question at a time, and bounded. A template stays known while it cannot be read again, but not
for a policy that names another template: VMs made from that one would count as out of date. A single missing answer
means little; the second in a row is reported, because nothing counts as out of date until a person acts.
"""

from __future__ import annotations

from autoscaler.daemon.bounded import within
from autoscaler.daemon.fleets import Fleet
from autoscaler.ports import LaunchSpec, Note, ProvisionSpec, TemplateReader, UnreadableTemplate

SPEC_EVERY_S = 300.0
"""Time between two reads of the launch template, in seconds."""
_RETRY_S = 60.0
_TOLD_AFTER = 2
"""Failed reads in a row after which the failure is reported."""


class Template:
    """The launch template of one fleet.

    Attributes:
        current: Its content when it was last read; None before the first time.
        trouble: Why the last read failed; empty if it succeeded.
    """

    def __init__(self) -> None:
        self.current: LaunchSpec | None = None
        self.trouble = ""
        self._of: ProvisionSpec | None = None
        self._next_s = float("-inf")
        self._failed, self._told = 0, ""

    def is_due(self, fleet: Fleet, now_s: float) -> bool:
        """Return whether it is time to read the template, for a fleet whose policy needs its content."""
        if not fleet.policy.reads_template:
            return False
        if fleet.spec != self._of:
            self._of, self.current, self._next_s = fleet.spec, None, float("-inf")
        return now_s >= self._next_s

    def is_known(self, fleet: Fleet) -> bool:
        """Return whether it is known what VMs would be made from today, as far as the provider can tell at all."""
        return self.current is not None or not isinstance(fleet.provider, TemplateReader)

    async def read(self, fleet: Fleet, now_s: float, timeout_s: float) -> list[Note]:
        """Read the template if it is time to, and return what deserves an event.

        Args:
            fleet: The fleet of the template.
            now_s: The current time.
            timeout_s: Longest wait, in seconds of the event loop.
        """
        reader, spec = fleet.provider, fleet.spec
        if not self.is_due(fleet, now_s) or spec is None or not isinstance(reader, TemplateReader):
            return []
        try:
            answer: object = await within(lambda: reader.launch_spec(spec), timeout_s)
            found = (
                answer
                if isinstance(answer, LaunchSpec | UnreadableTemplate | None)
                else UnreadableTemplate(f"the provider answers {answer!r:.50}")
            )
        except TimeoutError:
            found = UnreadableTemplate(f"no answer within {timeout_s:g} s")
        except Exception as error:  # noqa: BLE001  whatever an adapter raises, only the template is unknown
            found = UnreadableTemplate(str(error) or type(error).__name__)
        if isinstance(found, UnreadableTemplate):
            self._next_s = now_s + _RETRY_S
            return self._unread(fleet, spec.launch_template, found.why)
        self._next_s = now_s + SPEC_EVERY_S
        self.current = found or self.current
        told, self.trouble, self._failed, self._told = self._told, "", 0, ""
        text = f"launch template {spec.launch_template} can be read again"
        return [Note("template_read", fleet.name, text)] if told else []

    def _unread(self, fleet: Fleet, name: str, why: str) -> list[Note]:
        self.trouble, self._failed = why, self._failed + 1
        if self._failed < _TOLD_AFTER or why == self._told:
            return []
        self._told = why
        known = (
            "the previous version still applies"
            if self.current
            else "it is not known which VMs are out of date"
        )
        text = f"launch template {name} cannot be read, so {known}: {why}; `autoscaler doctor` shows what is missing"
        return [Note("template_unreadable", fleet.name, text)]
