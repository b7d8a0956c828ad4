"""Waits and copies leave the interpreter to others."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import MIB, Swarm

import vmtorrent


def test_python_runs_on_while_a_read_waits(dead: Swarm) -> None:
    with vmtorrent.launch(dead.torrent, **{**dead.options, "read_timeout": 1.0}) as vm:
        count, over = 0, threading.Event()

        def spin() -> None:
            nonlocal count
            while not over.is_set():
                count += 1

        thread = threading.Thread(target=spin)
        thread.start()
        began = time.monotonic()
        with pytest.raises(vmtorrent.TimedOutError):
            vm.pread(100, MIB)
        waited = time.monotonic() - began
        over.set()
        thread.join()
        assert waited >= 0.9
        # A held interpreter would leave it a handful.
        assert count > 10_000


def test_eight_threads_read_present_data_at_once_and_the_gain_is_told(swarm: Swarm) -> None:
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        assert vm.pread(6 * MIB) == swarm.data

        def read(rounds: int) -> None:
            for _ in range(rounds):
                assert vm.pread(4 * MIB, MIB) == swarm.data[MIB : 5 * MIB]

        def seconds(threads: int, rounds: int) -> float:
            with ThreadPoolExecutor(threads) as pool:
                began = time.monotonic()
                list(pool.map(read, [rounds] * threads))
                return time.monotonic() - began

        seconds(1, 10)
        # Told and not asserted: what else the machine does would decide.
        gains = [seconds(1, 160) / seconds(8, 20) for _ in range(3)]
        print(f"eight threads over one, on {len(os.sched_getaffinity(0))} processors: {[f'{g:.2f}' for g in gains]}")


def test_many_threads_read_and_write_at_once(swarm: Swarm) -> None:
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:

        def work(number: int) -> None:
            place = number * 600_000
            assert vm.pread(100_000, place) == swarm.data[place : place + 100_000]
            vm.pwrite(bytes([number]) * 5000, place)
            vm.flush()
            assert vm.pread(5000, place) == bytes([number]) * 5000

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, range(8)))
