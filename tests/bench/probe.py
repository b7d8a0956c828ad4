#!/usr/bin/env python3
"""What the lab's lines really do: round trip by UDP echo, goodput by TCP.

    probe.py serve                      prints its port
    probe.py rtt ADDRESS PORT COUNT     median round trip, milliseconds
    probe.py rate ADDRESS PORT SECONDS  TCP goodput towards here, Mbit/s
"""

import socket
import statistics
import sys
import threading
import time


def serve():
    with socket.create_server(("", 0)) as listener, socket.socket(type=socket.SOCK_DGRAM) as echo:
        port = listener.getsockname()[1]
        echo.bind(("", port))
        print(port, flush=True)

        def answer():
            while True:
                data, sender = echo.recvfrom(2048)
                echo.sendto(data, sender)

        threading.Thread(target=answer, daemon=True).start()
        block = bytes(1 << 18)
        while True:
            connection, _ = listener.accept()
            with connection:
                try:
                    while True:
                        connection.sendall(block)
                except OSError:
                    pass


def rtt(address, port, count):
    times = []
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.settimeout(2)
        probe.connect((address, port))
        # The first one finds out the address.
        for number in range(count + 1):
            begin = time.perf_counter()
            probe.send(b"%d" % number)
            while probe.recv(2048) != b"%d" % number:
                pass
            times.append(time.perf_counter() - begin)
    return statistics.median(times[1:]) * 1e3


def rate(address, port, seconds):
    with socket.create_connection((address, port), timeout=10) as connection:
        # Slow start is not what is measured.
        warm, end, total, begin = time.monotonic() + 0.5, None, 0, None
        while end is None or time.monotonic() < end:
            length = len(connection.recv(1 << 18))
            if begin is not None:
                total += length
            elif time.monotonic() > warm:
                begin = time.monotonic()
                end = begin + seconds
        return total * 8 / (time.monotonic() - begin) / 1e6


def main():
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["rtt", address, port, count]:
            print(rtt(address, int(port), int(count)))
        case ["rate", address, port, seconds]:
            print(rate(address, int(port), float(seconds)))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
