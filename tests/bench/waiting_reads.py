#!/usr/bin/env python3
"""Reads that are expected to wait: `waiting_reads.py FILE OFFSET ...`, each in a thread of its own.

Prints the JSON event `answered` for each that came back.
"""

import json
import mmap
import os
import sys
import threading


def main():
    file = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT)

    def read(offset):
        try:
            result = {"count": os.preadv(file, [mmap.mmap(-1, 4096)], offset)}
        except OSError as error:
            result = {"error": error.strerror}
        print(json.dumps({"event": "answered", "offset": offset, **result}), flush=True)

    threads = [threading.Thread(target=read, args=(int(offset),)) for offset in sys.argv[2:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
