"""Runs modules of Ansible in processes forked from one that has imported their library, which is most of what they take.

`python module_server.py SOCKET` is that process. `CLIENT` stands for Python: Ansible starts it for each module, and passes the
module by standard input.
"""

import os
import socket
import sys

CLIENT = """\
import _socket, os, sys
served = _socket.socket(_socket.AF_UNIX)
served.connect(sys.argv[1])
streams = b"".join(number.to_bytes(4, sys.byteorder) for number in range(3))
told = [os.getcwdb(), *(name + b"=" + value for name, value in os.environb.items())]
told = b"\\0".join(told)
served.sendmsg([len(told).to_bytes(8, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
sent = 0
while sent < len(told):
    sent += served.send(told[sent:])
answer = served.recv(8)
sys.exit(int(answer or b"1"))
"""
"""A program for `python -SE -c`, whose argument is the socket: it passes on its streams, folder and environment."""


def serve(path: str) -> None:
    """Fork a process for each connection, which tells its exit code over it."""
    import ansible.module_utils.basic
    import ansible.module_utils.common.file
    import ansible.module_utils.facts.system.chroot
    import ansible.module_utils.service  # noqa: F401

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        print("ready", flush=True)
        running = 0
        while True:
            client, _ = server.accept()
            while running and os.waitpid(-1, os.WNOHANG)[0]:
                running -= 1
            running += 1
            if os.fork() == 0:
                server.close()
                code = _run(client)
                client.sendall(str(code & 0xFF).encode())
                os._exit(code)
            client.close()


def _run(client: socket.socket) -> int:
    """Become the process that the client stands for, run the module, and return its exit code."""
    head, streams, *_ = socket.recv_fds(client, 8, 3)
    told = bytearray()
    while len(told) < int.from_bytes(head, "big"):
        told += client.recv(1 << 16)
    folder, *environment = bytes(told).split(b"\0")
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(folder)
    os.environb.clear()
    os.environb.update(each.split(b"=", 1) for each in environment)
    sys.argv = ["-c"]
    with os.fdopen(0, closefd=False) as program:
        module = program.read()
    try:
        exec(module, {"__name__": "__main__"})
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    serve(sys.argv[1])
