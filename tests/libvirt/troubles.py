"""A libvirt connection with troubles: calls that hang, fail, or find that the host has changed."""

from __future__ import annotations

import threading


class Hanging:
    """A call that waits until it is released; `reached` is set once a thread waits in it."""

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
    """A call that fails with an error from libvirt."""

    def fail(_real, *_arguments):
        raise libvirt_error(code, message)

    return fail


def libvirt_error(code, message):
    import libvirt

    error = libvirt.libvirtError(message)
    error.err = (code, 0, message, 2, "", "", "", 0, 0)
    return error


class Troubled:
    """Wraps a libvirt object and replaces the calls that a script names. Objects that it looks up are wrapped, too.

    A script maps a method's name to a function that is called instead, with the real object and the arguments. If it returns
    NotImplemented, the real method is called.
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
            return Troubled(found, self._script) if "ookup" in name else found

        return call
