"""The images that rows share: made once in a run, and gone with it."""

import os
import random
import subprocess

from child import Failure
from scope import MIB, REPOSITORY, Scope, note

# The images that tests/appliance/build.sh makes, by their variant.
APPLIANCES = {"demo": "appliance.img", "develop": "develop.img"}


class Images(Scope):
    """Each image lies in a directory of its own, so that this directory can be seeded."""

    def __init__(self, options, directory):
        super().__init__(options, directory)
        self.made = {}

    def random(self, mib):
        """Bytes that nothing compresses and no two pieces share: (path, torrent)."""
        if mib not in self.made:
            note(f"making {mib} MiB of random data")
            path = self.path(f"random-{mib}")
            path.mkdir()
            path /= "disk.img"
            with open(path, "wb") as file:
                for _ in range(mib):
                    file.write(os.urandom(MIB))
                # Later rows must not pay for it.
                os.fsync(file.fileno())
            self.made[mib] = (path, self.publish(path)[0])
        return self.made[mib]

    def sparse(self, gib, data_mib):
        """Zeros with so many MiB of random data, strewn a MiB at a time: (path, torrent, memory of publish)."""
        path = self.path("sparse")
        path.mkdir()
        path /= "disk.img"
        places = random.Random(gib).sample(range(gib * 1024), data_mib)
        with open(path, "wb") as file:
            file.truncate(gib * 1024 * MIB)
            for place in sorted(places):
                os.pwrite(file.fileno(), os.urandom(MIB), place * MIB)
        return (path, *self.publish(path))

    def appliance(self, variant="demo"):
        """An appliance of tests/appliance, the demo's by default: (path, torrent). It is kept for the next run."""
        if variant not in self.made:
            directory = self.options.dir
            built = subprocess.run([REPOSITORY / "tests/appliance/build.sh", directory, variant], check=False)
            if built.returncode:
                raise Failure(f"the appliance {variant} could not be made: see above")
            # In a directory of its own: what serves that directory must not show the mounts of this run too.
            (self.directory / variant).mkdir()
            image = self.directory / variant / APPLIANCES[variant]
            os.link(directory / image.name, image)
            # Published, hashed and therefore in the page cache: all ways of serving it begin alike.
            self.made[variant] = (image, self.publish(image)[0])
        return self.made[variant]
