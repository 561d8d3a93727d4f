"""A connection to libvirt with troubles: calls that hang, fail, or find the host changed meanwhile."""

from __future__ import annotations

import threading


class Hanging:
    """A call that waits until it is released; `reached` once somebody waits."""

    def __init__(self):
        self.reached = threading.Event()
        self.released = threading.Event()
        self.times = 0

    def __call__(self, _real, *_arguments):
        self.times += 1
        self.reached.set()
        assert self.released.wait(60)
        return NotImplemented


def failing(code, message):
    """A call that libvirt answers with an error."""

    def fail(_real, *_arguments):
        raise libvirt_error(code, message)

    return fail


def libvirt_error(code, message):
    import libvirt

    error = libvirt.libvirtError(message)
    error.err = (code, 0, message, 2, "", "", "", 0, 0)
    return error


class Troubled:
    """The real thing, but for the calls that a script names; what it gives back is troubled by the same script.

    A script maps a method's name to what is called instead, with the real object and its arguments; NotImplemented goes on
    with the real call.
    """

    def __init__(self, real, script):
        self._real, self._script = real, script

    def __getattr__(self, name):
        method = getattr(self._real, name)

        def call(*arguments):
            trouble = self._script.get(name)
            found = trouble(self._real, *arguments) if trouble is not None else NotImplemented
            if found is NotImplemented:
                found = method(*arguments)
            if name == "getAllDomainStats":
                return [(Troubled(domain, self._script), stats) for domain, stats in found]
            return Troubled(found, self._script) if name.startswith("lookup") else found

        return call
