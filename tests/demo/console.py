"""The guest's serial console."""

import contextlib
import re
import socket
import threading
import time

from failure import Failure, tail


class Console:
    """The guest's serial console: a socket that QEMU connects to; notes when each mark came."""

    MARKS = {
        "firmware": re.compile(rb"SeaBIOS"),
        "kernel": re.compile(rb"Linux version"),
        "systemd": re.compile(rb"Welcome to"),
        "boot": re.compile(rb"VMTORRENT-DEMO-BOOT n=(?P<n>\d+) data=(?P<data>\w+)"),
        # What was done differs between appliances: `name=value` for each part, and `bad` says that it went wrong.
        "ready": re.compile(rb"VMTORRENT-DEMO-READY uptime=(?P<uptime>[\d.]+)(?P<results>(?: \w+=\w+)+)"),
    }

    def __init__(self, path, log):
        self.path, self.log = path, log
        self.times, self.values = {}, {}
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self):
        try:
            connection, _ = self.listener.accept()
        except OSError:
            return
        line = b""
        with connection, open(self.log, "wb") as log:
            while True:
                try:
                    data = connection.recv(4096)
                except OSError:
                    data = b""
                now = time.monotonic()
                if not data:
                    return
                log.write(data)
                log.flush()
                *full, line = (line + data).split(b"\n")
                for text in full:
                    self._mark(text, now)

    def _mark(self, text, now):
        for name, pattern in self.MARKS.items():
            if name not in self.times and (match := pattern.search(text)):
                self.times[name] = now
                found = {key: value.decode() for key, value in match.groupdict().items()}
                results = dict(result.split("=") for result in found.pop("results", "").split())
                self.values[name] = found | results

    def close(self):
        """To be called when QEMU has ended: waits until the last bytes are read."""
        # Wakes an accept that nobody answered.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join(5)
        self.listener.close()

    def check(self, log):
        """The guest's results, or a failure that shows the console's end."""
        if "ready" not in self.values:
            raise Failure(f"the guest printed no READY line; the end of {log}:\n{tail(log)}")
        ready, boot = self.values["ready"], self.values.get("boot", {})
        if bad := [part for part, result in ready.items() if result == "bad"]:
            raise Failure(f"the guest found something else than it should: {', '.join(bad)}; see {log}")
        if boot.get("n") != "1" or boot.get("data") != "none":
            raise Failure(f"the guest's disk was not fresh ({boot}): see {log}")
        return ready
