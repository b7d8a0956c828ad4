"""Publishing, seeding, profiles."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from conftest import MIB, Swarm, content, no_threads, own_threads

import vmtorrent


def test_the_same_file_gives_the_same_torrent_and_all_options_are_in_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(content(MIB))
    told: list[tuple[int, int]] = []
    image = vmtorrent.publish(
        disk,
        tmp_path / "a.torrent",
        name="machine.img",
        piece_size=65536,
        trackers=["http://192.0.2.7:6969/announce"],
        web_seeds=["http://192.0.2.7/"],
        private=True,
        progress=lambda done, total: told.append((done, total)),
    )
    assert (image.name, image.length, image.piece_length, image.piece_count) == ("machine.img", MIB, 65536, 16)
    assert image.private and image.trackers == [["http://192.0.2.7:6969/announce"]]
    assert image.web_seeds == ["http://192.0.2.7/"] and image.profile is None
    assert image.info_hash in image.magnet and len(image.info_hash) == 40
    assert told[-1] == (MIB, MIB)
    again = vmtorrent.publish(
        disk,
        name="machine.img",
        piece_size=65536,
        trackers=["http://192.0.2.7:6969/announce"],
        web_seeds=["http://192.0.2.7/"],
        private=True,
    )
    assert again.to_bytes() == (tmp_path / "a.torrent").read_bytes() == image.to_bytes()
    assert again == image and hash(again) == hash(image)


def test_an_exception_of_the_progress_ends_the_publishing(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(content(4 * MIB))

    def refuse(done: int, total: int) -> None:
        raise LookupError(f"{done} of {total}")

    with pytest.raises(LookupError):
        vmtorrent.publish(tmp_path / "disk.img", tmp_path / "disk.torrent", progress=refuse)
    assert not (tmp_path / "disk.torrent").exists()


def test_ctrl_c_ends_a_publishing(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    with open(disk, "wb") as file:
        for n in range(64):
            file.write(content(8 * MIB, n))
    code = (
        "import sys, time, vmtorrent\n"
        "first = True\n"
        "def told(done, total):\n"
        "    global first\n"
        "    if first: print('begun', flush=True)\n"
        "    first = False\n"
        "try:\n"
        "    while True: vmtorrent.publish(sys.argv[1], progress=told)\n"
        "except KeyboardInterrupt:\n"
        "    print(time.monotonic(), flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, str(disk)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "begun\n"
    sent = time.monotonic()
    child.send_signal(signal.SIGINT)
    out, _ = child.communicate(timeout=30)
    assert float(out) - sent < 10


@pytest.mark.parametrize(
    ("options", "remedy"),
    [({"piece_size": 1000}, "multiple of 16 KiB"), ({"name": "a/b"}, "plain name"), ({"trackers": ["x"]}, "tracker")],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, options: dict[str, Any], remedy: str) -> None:
    (tmp_path / "disk.img").write_bytes(b"x")
    with pytest.raises(vmtorrent.InvalidInputError, match=remedy):
        vmtorrent.publish(tmp_path / "disk.img", **options)


def test_a_seed_serves_tracks_and_ends(tmp_path: Path) -> None:
    data = content(2 * MIB)
    (tmp_path / "disk.img").write_bytes(data)
    image = vmtorrent.publish(tmp_path / "disk.img", tmp_path / "disk.torrent")
    with vmtorrent.seed(
        tmp_path / "disk.torrent",
        tmp_path,
        listen="127.0.0.1:0",
        tracker="127.0.0.1:0",
        metrics="127.0.0.1:0",
        local_discovery=False,
    ) as seed:
        assert seed.image == image and not seed.closed
        assert seed.tracker_url is not None and seed.listen_address in seed.magnet
        assert seed.metrics_url is not None
        with urllib.request.urlopen(seed.metrics_url, timeout=10) as page:
            assert b"vmtorrent_" in page.read()
        # The tracker alone leads to it.
        link = f"magnet:?xt=urn:btih:{image.info_hash}&tr={seed.tracker_url}"
        with vmtorrent.launch(
            link,
            mount=False,
            ephemeral=True,
            cache=tmp_path / "cache",
            listen="127.0.0.1:0",
            local_discovery=False,
        ) as vm:
            assert vm.pread(2 * MIB) == data
        assert seed.stats().uploaded_bytes >= MIB
        assert image.name in seed._repr_html_() and image.name in repr(seed)
    seed.close()
    assert seed.closed and seed.stats().uploaded_bytes >= MIB and "closed" in seed._repr_html_()
    assert no_threads()


def test_a_seed_without_its_data_is_refused_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"x" * 1000)
    image = vmtorrent.publish(tmp_path / "disk.img")
    (tmp_path / "disk.img").unlink()
    with pytest.raises(vmtorrent.NotFoundError, match="disk.img"):
        vmtorrent.seed(image, tmp_path, listen="127.0.0.1:0", local_discovery=False)


def test_a_seed_that_nobody_closed_ends_with_the_collector(tmp_path: Path) -> None:
    (tmp_path / "disk.img").write_bytes(b"x" * 1000)
    image = vmtorrent.publish(tmp_path / "disk.img")
    seed = vmtorrent.seed(image, tmp_path, listen="127.0.0.1:0", local_discovery=False)
    assert own_threads() != []
    del seed
    assert no_threads()


def test_runs_are_recorded_merged_and_used(swarm: Swarm, tmp_path: Path) -> None:
    record = tmp_path / "run.json"
    with vmtorrent.launch(swarm.torrent, record=record, **swarm.options) as vm:
        assert vm.pread(2 * MIB) == swarm.data[: 2 * MIB]
        first = vm.profile()
    assert first.runs == 1 and len(first) == 128
    assert vmtorrent.Profile.load(record) == first
    blocks = first.blocks()
    assert {b.file for b in blocks} == {0} and {b.block for b in blocks} == set(range(128))
    assert [b.mean for b in blocks] == sorted(b.mean for b in blocks)

    both = first.copy()
    both.merge(first)
    both.merge(both)
    assert (both.runs, len(both), first.runs) == (4, 128, 1)
    assert vmtorrent.Profile.from_json(both.to_json()) == both != first
    both.save(tmp_path / "both.json")

    other_disk = tmp_path / "other.img"
    other_disk.write_bytes(content(3 * MIB, 7))
    published = vmtorrent.publish(swarm.disk, profile=both)
    assert published.profile == both and published.info_hash == first.info_hash
    other = vmtorrent.publish(other_disk)
    with pytest.raises(vmtorrent.InvalidInputError, match=first.info_hash):
        vmtorrent.publish(other_disk, profile=first)
    assert other.profile is None

    # A second machine with it has the blocks before they are asked for.
    options = {**swarm.options, "cache": tmp_path / "cold", "state": tmp_path / "second"}
    with vmtorrent.launch(swarm.torrent, profile=tmp_path / "both.json", **options) as vm:
        deadline = time.monotonic() + 30
        while vm.stats().profile_bytes < 2 * MIB - 65536 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert vm.stats().profile_bytes >= 2 * MIB - 65536
        assert vm.stats().demand_bytes == 0


def test_a_profile_of_another_image_is_refused_or_merged_where_it_fits(swarm: Swarm, tmp_path: Path) -> None:
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        vm.pread(MIB)
        mine = vm.profile()
    text = mine.to_json()
    other = vmtorrent.Profile.from_json(text.replace(mine.info_hash, "ab" * 20))
    with pytest.raises(vmtorrent.InvalidInputError, match="ab" * 20):
        mine.merge(other)
    assert mine.runs == 1
    found = mine.merge_by_force(other)
    assert (found.same, found.elsewhere) == (64, 0) and mine.runs == 2


def test_profiles_of_several_threads_stay_whole(swarm: Swarm) -> None:
    with vmtorrent.launch(swarm.torrent, **swarm.options) as vm:
        vm.pread(MIB)
        profile, run = vm.profile(), vm.profile()

    def merge() -> None:
        for _ in range(20):
            profile.merge(run)

    threads = [threading.Thread(target=merge) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert profile.runs == 81
