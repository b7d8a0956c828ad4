"""The same boot over what people use today. Each gives the image read-only; QEMU writes into a qcow2 overlay."""

import getpass

from child import Failure
from guest import Guest, overlay
from scope import free_port, need, wait_file


class Other:
    """A server that runs all the time, and a client that is started for each boot."""

    name = ""

    def __init__(self, scope, image, server, client):
        self.scope, self.image, self.server, self.client = scope, image, server, client
        self.size = image.stat().st_size

    def drive(self, scope):
        """Starts the client; the overlay's drive options, and the child that must not end."""
        raise NotImplementedError

    def boot(self, scope, seconds):
        """Seconds from the client's start to READY and bytes received; seconds are None when it took too long."""
        guest = Guest(scope)
        received = self.client.received()
        drive, begin = self.drive(scope)
        vmm = scope.start(*guest.arguments(None, drive), host=self.client)
        begin = begin or vmm.started
        try:
            taken = guest.wait_ready(vmm, seconds - (vmm.started - begin)) - begin
        except Failure:
            if not vmm.alive():
                raise
            taken = None
        guest.kill()
        return taken, self.client.received() - received


class Sshfs(Other):
    name = "sshfs"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        need("sshfs", "/usr/sbin/sshd", "ssh-keygen")
        scope = self.scope
        key, host_key, known = scope.path("id"), scope.path("host"), scope.path("known_hosts")
        for path in (key, host_key):
            scope.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)
        self.port = free_port()
        known.write_text(f"[{self.server.address}]:{self.port} {host_key.with_suffix('.pub').read_text()}")
        pidfile = scope.path("sshd.pid")
        config = scope.path("sshd_config")
        config.write_text(
            f"Port {self.port}\nListenAddress {self.server.address}\nHostKey {host_key}\nPidFile {pidfile}\n"
            f"AuthorizedKeysFile {key}.pub\nStrictModes no\nPermitRootLogin prohibit-password\nUsePAM no\n"
            "Subsystem sftp internal-sftp\n"
        )
        # Where its unprivileged half is locked up; Debian's start script makes it.
        scope.run("mkdir", "-p", "/run/sshd")
        server = scope.start("/usr/sbin/sshd", "-D", "-e", "-f", config, host=self.server)
        server.wait_for("sshd listened", wait_file(pidfile), 20)
        self.options = f"IdentityFile={key},UserKnownHostsFile={known},StrictHostKeyChecking=yes,port={self.port}"

    def drive(self, scope):
        mount = scope.mount_point("sshfs")
        drive = overlay(scope, mount / self.image.name, "raw", self.size)
        user = f"{getpass.getuser()}@{self.server.address}:{self.image.parent}"
        client = scope.start("sshfs", "-f", user, mount, "-o", f"ro,{self.options}", host=self.client)
        client.wait_for("sshfs was mounted", mount.is_mount, 20)
        return drive, client.started


class Nbd(Other):
    name = "nbd"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        need("nbdkit")
        scope, self.port, pidfile = self.scope, free_port(), self.scope.path("nbd.pid")
        server = scope.start(
            "nbdkit", "-f", "-r", "-P", pidfile, "-i", self.server.address, "-p", self.port, "file", self.image,
            host=self.server,
        )  # fmt: skip
        server.wait_for("nbdkit listened", wait_file(pidfile), 20)

    def drive(self, scope):
        return overlay(scope, f"nbd://{self.server.address}:{self.port}", "raw", self.size), None


class Http(Other):
    name = "http+cache"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        need("nbdkit", "nginx")
        scope, pidfile = self.scope, self.scope.path("nginx.pid")
        port, config = free_port(), scope.path("nginx.conf")
        config.write_text(
            f"daemon off; user {getpass.getuser()}; worker_processes 1; pid {pidfile}; error_log stderr;\n"
            "events { worker_connections 256; }\n"
            f"http {{ access_log off; sendfile on; tcp_nodelay on; keepalive_requests 1000000;\n"
            f"  server {{ listen {self.server.address}:{port}; root {self.image.parent}; }} }}\n"
        )
        server = scope.start("nginx", "-p", scope.directory, "-e", "stderr", "-c", config, host=self.server)
        server.wait_for("nginx listened", wait_file(pidfile), 20)
        self.url = f"http://{self.server.address}:{port}/{self.image.name}"

    def drive(self, scope):
        socket, pidfile = scope.path("s"), scope.path("curl.pid")
        drive = overlay(scope, f"nbd+unix:///?socket={socket}", "raw", self.size)
        client = scope.start(
            "nbdkit", "-f", "-r", "-U", socket, "-P", pidfile, "--filter=cache", "curl", self.url,
            "cache-on-read=true", host=self.client,
        )  # fmt: skip
        client.wait_for("nbdkit listened", wait_file(pidfile), 20)
        return drive, client.started


class Btfs(Other):
    """It finds its peer through the tracker that the seed runs."""

    name = "btfs"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        need("btfs")
        scope, tracker = self.scope, f"{self.server.address}:{free_port()}"
        self.torrent, _ = scope.publish(self.image, "--tracker", f"http://{tracker}/announce")
        scope.seed(self.torrent, self.image.parent, "--tracker", tracker, host=self.server)

    def drive(self, scope):
        mount, data = scope.mount_point("btfs"), scope.path("btfs-data")
        data.mkdir()
        drive = overlay(scope, mount / self.image.name, "raw", self.size)
        client = scope.start("btfs", "-f", f"--data-directory={data}", self.torrent, mount, host=self.client)
        client.wait_for("btfs showed the image", (mount / self.image.name).exists, 30)
        return drive, client.started


ALL = [Sshfs, Nbd, Http, Btfs]
