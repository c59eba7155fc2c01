"""`python -m ganlab` in a fraction of a second: an executable file whose commands are forked where torch is imported.

It takes the place of `sys.executable` in a test whose commands start others, as a sweep does. The file is a real
process. The forked one takes over what that was started with (arguments, environment, folder, streams, ignored
signals), gets its signals, and is killed when it is killed; the file's process ends as the forked one does. What is no
`-m ganlab`, or has a stream that is closed, is given to the real interpreter.

This file needs nothing but Python, so that another environment can run it: `python forked_python.py FOLDER MODULE…`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

FILE = """#!{python} -IS
import json, os, signal, socket, struct, sys
if sys.argv[1:2] == ["-u"]:  # as torchrun has it
    del sys.argv[1]
if sys.argv[1:3] != ["-m", "ganlab"] or not all(os.path.exists(f"/proc/self/fd/{{number}}") for number in (0, 1, 2)):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
ignored = [number for number in {signals} if signal.getsignal(number) == signal.SIG_IGN]
taken = json.dumps([sys.argv, dict(os.environ), os.getcwd(), ignored]).encode()
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
socket.send_fds(server, [struct.pack("!I", len(taken))], [0, 1, 2])
server.sendall(taken)
for number in set({signals}) - set(ignored):
    signal.signal(number, lambda number, frame: server.send(bytes([number])))
code = struct.unpack("!i", server.recv(4, socket.MSG_WAITALL))[0]
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def executable(folder: Path) -> Path:
    """The executable file in the folder of a server; the folder's name must be short, as a socket's has to be."""
    return folder / "python"


class Server:
    """Forks a process for each command; ends when `parent`, a file or its descriptor, is readable."""

    def __init__(self, folder: Path, parent: Any) -> None:
        self.file, self.parent = executable(folder), parent
        address = str(folder / "socket")
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.bind(address)
        self.socket.listen(64)
        written = self.file.with_suffix(".new")
        written.write_text(FILE.format(python=sys.executable, address=address, signals=[*map(int, SIGNALS)]))
        written.chmod(0o755)
        written.rename(self.file)

    def serve(self) -> None:
        while True:
            ready, _, _ = select.select([self.socket, self.parent], [], [])
            if self.parent in ready:
                return
            connection, _ = self.socket.accept()
            if os.fork() == 0:
                self.socket.close()
                self._attend(connection)
                os._exit(0)
            connection.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:  # those that attended to a command that has ended
                    pass

    def _attend(self, connection: socket.socket) -> None:
        head, streams, _, _ = socket.recv_fds(connection, 4, 3)
        taken = json.loads(connection.recv(struct.unpack("!I", head)[0], socket.MSG_WAITALL))
        pid = os.fork()
        if pid == 0:
            connection.close()
            os._exit(self._run(streams, *taken))
        for stream in streams:
            os.close(stream)
        ended = os.pidfd_open(pid)
        while True:
            ready, _, _ = select.select([ended, connection], [], [])
            if ended in ready:
                break
            numbers = connection.recv(16) or bytes([signal.SIGKILL])
            for number in numbers:
                os.kill(pid, number)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        with contextlib.suppress(OSError):
            connection.sendall(struct.pack("!i", code))

    def _run(
        self, streams: list[int], argv: list[str], environment: dict[str, str], folder: str, ignored: list[int]
    ) -> int:
        os.setsid()
        for number in SIGNALS:
            usual = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, signal.SIG_IGN if number in ignored else usual)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
        sys.argv, sys.executable = argv[2:], str(self.file)
        try:
            runpy.run_module("ganlab", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        return 0


def main(folder: str, modules: Iterable[str]) -> None:
    """A server of another environment, which ends when its stdin is closed."""
    for module in modules:
        importlib.import_module(module)
    Server(Path(folder), sys.stdin).serve()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
