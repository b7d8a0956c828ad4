"""Records what a machine reads, and starts the next one with it: its blocks are there before they are asked for."""

import tempfile
import time
from pathlib import Path

import vmtorrent

with tempfile.TemporaryDirectory() as name:
    directory = Path(name)
    disk = directory / "disk.img"
    disk.write_bytes(b"".join(n.to_bytes(4, "big") * 4096 for n in range(512)))
    image = vmtorrent.publish(disk)
    with vmtorrent.seed(image, directory, listen="127.0.0.1:0") as seed:
        options = {"mount": False, "ephemeral": True, "fill": "none", "auto_profile": False}
        with vmtorrent.launch(seed.magnet, cache=directory / "first", **options) as vm:
            for block in (0, 100, 300, 7):
                vm.pread(4096, block * vmtorrent.Profile.BLOCK)
            profile = vm.profile()
        print(f"{profile.name}: {len(profile)} blocks were read")

        with vmtorrent.launch(seed.magnet, cache=directory / "second", profile=profile, **options) as vm:
            wanted = len(profile) * vmtorrent.Profile.BLOCK
            deadline = time.monotonic() + 30
            while vm.stats().profile_bytes < wanted and time.monotonic() < deadline:
                time.sleep(0.01)
            for block in (0, 100, 300, 7):
                vm.pread(4096, block * vmtorrent.Profile.BLOCK)
            print(f"the second machine waited {vm.stats().stalls} times")
