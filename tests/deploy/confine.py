"""Runs a command with only the listed system calls, and without memory that is both writable and executable.

`python confine.py CALL,CALL,… -- COMMAND …` does what systemd does for a unit, by the same library but without systemd.
Calls that are not listed fail with EPERM.
"""

import ctypes
import errno
import mmap
import os
import sys

NO_NEW_PRIVILEGES, MEMORY_DENY_WRITE_EXECUTE, REFUSE_EXEC_GAIN = 38, 65, 1
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM


def confine(calls):
    """Restrict this process and its children irrevocably."""
    libc, seccomp = ctypes.CDLL(None, use_errno=True), ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(REFUSE))
    for call in calls:
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:  # other names belong to other architectures
            assert seccomp.seccomp_rule_add(context, ALLOW, number, 0) == 0, call
    assert libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0
    assert libc.prctl(MEMORY_DENY_WRITE_EXECUTE, REFUSE_EXEC_GAIN, 0, 0, 0) == 0, (
        "the kernel is older than 6.3"
    )
    assert seccomp.seccomp_load(context) == 0


def refused():
    """Try what this process should no longer be able to do, and return what was refused."""
    found = []
    try:
        mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        found.append("writable code")
    try:
        os.nice(0)
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    except OSError:
        found.append("priority")
    try:
        os.chroot("/")
    except OSError:
        found.append("chroot")
    return found


if __name__ == "__main__":
    confine(sys.argv[1].split(","))
    if sys.argv[3] == "refused":
        print(", ".join(refused()))
    else:
        os.execv(sys.argv[3], sys.argv[3:])
