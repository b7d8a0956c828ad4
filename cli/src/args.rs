//! Invariant: what is parsed here is well-formed; whether files, ports and peers exist is found out later.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum, ValueHint};
use url::Url;
use vmtorrent::Fill;
use vmtorrent::text::is_node;

use crate::log::{LogFilter, LogFormat};
use crate::profile::ProfileCommand;
use crate::report::ReportArgs;
use crate::units;
use crate::vmm::{Choice, MachineArgs, VmmCommand};

const UNITS: &str = "\
SIZE  bytes; suffixes K, M, G (also Ki, Mi, Gi) are powers of 1024: 64K
RATE  bytes per second; suffixes K, M, G are powers of 1000, Ki, Mi, Gi powers of 1024;
      or bits per second: 500kbit, 100mbit, 1gbit

Messages for people and the log go to stderr. Without --log, RUST_LOG sets what is logged (default: warn).
Exit status: 0 done, 1 failed, 2 wrong usage.";

const LAUNCH: &str = "\
With --vmm a machine is made and run by a VMM that is known by its name, once the disk can be opened: `vmtorrent vmm
list` tells the names, `vmtorrent vmm show NAME` the command lines. ARGS are put behind the one that runs the machine:

  vmtorrent launch debian.torrent --vmm qemu --memory 2G --cpus 2

Without --vmm, ARGS are the whole command line of a VMM. In them {disk} stands for the path of the image's largest
file and {dir} for the directory of all its files, also inside an argument:

  vmtorrent launch debian.torrent -- qemu-system-x86_64 -m 1G \\
      -drive file={disk},format=raw,if=virtio,cache=none,aio=native,rerror=stop,werror=stop

vmtorrent ends with the VMM and its exit status (128 + N when signal N ended it). SIGINT, SIGTERM or SIGHUP ends
the VMM with SIGTERM, after 10 seconds with SIGKILL, and the exit status is 128 + the signal's number; a VMM of --vmm
may be ended by another command, after which the machine is removed. Without a VMM it mounts and waits for such a
signal, and the exit status is 0. In every case what the guest wrote is flushed, the directory is unmounted, and the
state is kept for the next launch. A second signal skips the waiting.

With --json the VMM's stdout goes to stderr, so that stdout holds nothing but events, one JSON object a line:
ready, then progress each second, then done.";

const REPLAY: &str = "\
A trace has a line `think_us offset length` for each read: for think_us microseconds the guest does something else, then
it reads length bytes at offset. Lines that begin with # are comments. `vmtorrent launch --trace` writes one. Reads
follow each other, one at a time, past the page cache where the file system can do that. So guests of one image are
played by programs that cost next to nothing:

  vmtorrent launch debian.torrent --ephemeral -- vmtorrent replay boot.trace --disk {disk}";

/// Start a virtual machine from a disk image that is still being downloaded from a BitTorrent swarm.
#[derive(Debug, Parser)]
#[command(name = "vmtorrent", version, after_help = UNITS, max_term_width = 110)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// What is logged: error, warn, info, debug, trace or off, or a filter by module
    #[arg(long, global = true, value_name = "FILTER", value_parser = LogFilter::parse)]
    pub log: Option<LogFilter>,
    /// How the log looks
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "FORMAT",
        default_value_t
    )]
    pub log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a .torrent file from an image file or a directory of files
    Publish(PublishArgs),
    /// Serve a published image to the swarm until a signal comes
    Seed(SeedArgs),
    /// Show an image as a complete, writable disk at once, and start a VMM on it
    #[command(after_help = LAUNCH)]
    Launch(Box<LaunchArgs>),
    /// Write the mutable image as the guest left it into a file or directory
    Export(ExportArgs),
    /// Tell which VMMs are known, and what they would run
    #[command(subcommand)]
    Vmm(VmmCommand),
    /// Put together, tell and draw what runs of a machine read first
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Read of a disk what a trace says, at the guest's pace, and report how long the reads took
    #[command(after_help = REPLAY)]
    Replay(ReplayArgs),
}

#[derive(Debug, clap::Args)]
pub struct PublishArgs {
    /// The image file, or a directory of files
    #[arg(value_hint = ValueHint::AnyPath)]
    pub path: PathBuf,
    /// Where the .torrent file is written
    #[arg(short, long, value_name = "FILE.torrent", value_hint = ValueHint::FilePath)]
    pub output: PathBuf,
    /// Name of the image [default: the last part of PATH]
    #[arg(long)]
    pub name: Option<String>,
    /// Bytes of a piece [default: 16K up to 2 GiB of image, then doubling]
    #[arg(long, value_name = "SIZE", value_parser = units::piece_size)]
    pub piece_size: Option<u32>,
    /// Tracker at which peers find each other; may be repeated
    #[arg(long = "tracker", value_name = "URL")]
    pub trackers: Vec<String>,
    /// Web server that holds the image too; may be repeated
    #[arg(long = "web-seed", value_name = "URL")]
    pub web_seeds: Vec<String>,
    /// Put this profile of earlier runs into the .torrent file, for all who launch it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub profile: Option<PathBuf>,
    /// Let peers be found through the trackers only
    #[arg(long)]
    pub private: bool,
}

#[derive(Debug, clap::Args)]
pub struct SeedArgs {
    /// The .torrent file, or its http(s) URL
    #[arg(value_name = "FILE.torrent")]
    pub torrent: String,
    /// Directory that holds the published file or directory under its name
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: PathBuf,
    /// Address on which peers connect; port 0 takes a free one [default: 0.0.0.0:0]
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    pub listen: Option<SocketAddr>,
    /// Run a tracker too, on this address
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    pub tracker: Option<SocketAddr>,
    /// Most that is sent to all peers together
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub upload_limit: Option<u64>,
    /// Serve figures for monitoring (Prometheus) at http://IP:PORT/metrics
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    pub metrics: Option<SocketAddr>,
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Print events on stdout, one JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// Options of the swarm that `seed` and `launch` share.
#[derive(Clone, Debug, clap::Args)]
pub struct NetworkArgs {
    /// Look for no peers on the local network
    #[arg(long)]
    pub no_lsd: bool,
    /// Look for no peers in the distributed hash table (DHT)
    #[arg(long)]
    pub no_dht: bool,
    /// Node of the DHT to ask first, in place of the public ones; may be repeated
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_node, conflicts_with = "no_dht")]
    pub dht_bootstrap: Vec<String>,
    /// Reach no peer over uTP where TCP fails, and let none in so
    #[arg(long)]
    pub no_utp: bool,
    /// Neither ask peers for other peers nor tell them of any
    #[arg(long)]
    pub no_pex: bool,
    /// Neither ask peers for a profile nor give them one
    #[arg(long)]
    pub no_profile_exchange: bool,
    /// Send and take blocks in compressed form (zstd) where the peer can do so and the line is slow
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub compression: Switch,
    /// Most connections to peers at once
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_connections: u16,
    /// Most peers that may ask for blocks at once; those of the local network have slots of their own [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub upload_slots: Option<u16>,
}

#[derive(Debug, clap::Args)]
pub struct LaunchArgs {
    /// The .torrent file, its http(s) URL, or a magnet link (in quotes)
    pub source: String,
    /// Directory of the downloaded copies [default: below the XDG cache directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub cache: Option<PathBuf>,
    /// Directory of what the guest writes [default: below the XDG state directory, by the image's name]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, conflicts_with = "ephemeral")]
    pub state: Option<PathBuf>,
    /// Most that the downloaded copy may take on the disk; what the guest writes is not counted [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = units::disk_size)]
    pub max_disk: Option<u64>,
    /// Forget at the end what the guest wrote
    #[arg(long)]
    pub ephemeral: bool,
    /// Empty directory where the image appears [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub mount: Option<PathBuf>,
    /// Let other users open the image too, for a VMM that runs as another user
    #[arg(long)]
    pub allow_other: bool,
    /// Address on which peers connect; port 0 takes a free one [default: 0.0.0.0:0]
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    pub listen: Option<SocketAddr>,
    /// Peer to connect to, beside those that are found; may be repeated
    #[arg(long = "peer", value_name = "IP:PORT", value_parser = parse_address)]
    pub peers: Vec<SocketAddr>,
    /// Web server that holds the image too, beside those that the .torrent file or magnet link names; may be repeated
    #[arg(long = "web-seed", value_name = "URL", value_parser = parse_web_seed)]
    pub web_seeds: Vec<Url>,
    /// What is fetched that no read asked for
    #[arg(long, value_enum, default_value_t = FillArg::Idle)]
    pub fill: FillArg,
    /// Have fetched ahead what earlier runs read, as this profile says [default: the one in the .torrent file, and the
    /// runs that this host kept; else a peer's]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub profile: Option<PathBuf>,
    /// Keep what this run reads in the cache, as a profile for later launches, and use those of earlier ones
    #[arg(long, value_enum, default_value_t = Switch::On)]
    pub auto_profile: Switch,
    /// Write what this run reads to a profile, every few seconds and at the end
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub record: Option<PathBuf>,
    /// Seconds that a read waits for missing data before it fails; 0: for ever
    #[arg(long, value_name = "SECS", default_value_t = 60)]
    read_timeout: u64,
    /// Seconds that peers are asked for the description of the image of a magnet link; 0: for ever
    #[arg(long, value_name = "SECS", default_value_t = 60)]
    metadata_timeout: u64,
    /// Most that is taken from all peers together
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub download_limit: Option<u64>,
    /// Most that is sent to all peers together
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    pub upload_limit: Option<u64>,
    /// Look for no peers but those that --peer names, and ask no web server but those that --web-seed names
    #[arg(long)]
    pub no_discovery: bool,
    /// Write the guest's reads of {disk} there, as far as they reach the image: what `vmtorrent replay` takes
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub trace: Option<PathBuf>,
    /// Serve figures for monitoring (Prometheus) at http://IP:PORT/metrics
    #[arg(long, value_name = "IP:PORT", value_parser = parse_address)]
    pub metrics: Option<SocketAddr>,
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub report: ReportArgs,
    /// Print events on stdout, one JSON object a line; the VMM's stdout goes to stderr
    #[arg(long)]
    pub json: bool,
    /// The VMM that runs a machine on the disk
    #[arg(long, value_name = "NAME")]
    pub vmm: Option<String>,
    #[command(flatten)]
    pub machine: MachineArgs,
    /// A VMM and its arguments, in which {disk} and {dir} are replaced; with --vmm, more arguments for that one
    #[arg(last = true, value_name = "ARGS")]
    pub words: Vec<OsString>,
}

impl NetworkArgs {
    /// Nodes of the DHT that are asked first; `None`: those of the library.
    pub fn dht_bootstrap(&self) -> Option<Vec<String>> {
        Some(self.dht_bootstrap.clone()).filter(|nodes| !nodes.is_empty())
    }
}

impl LaunchArgs {
    /// What is to be started.
    pub fn take_choice(&mut self) -> Choice {
        Choice {
            name: self.vmm.take(),
            machine: std::mem::take(&mut self.machine),
            words: std::mem::take(&mut self.words),
        }
    }

    /// How long a read waits; `None`: for ever.
    pub fn read_timeout(&self) -> Option<Duration> {
        (self.read_timeout > 0).then(|| Duration::from_secs(self.read_timeout))
    }

    /// How long peers are asked for an image's description; `None`: for ever.
    pub fn metadata_timeout(&self) -> Option<Duration> {
        (self.metadata_timeout > 0).then(|| Duration::from_secs(self.metadata_timeout))
    }
}

#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// State directory of a launch that has ended
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state: PathBuf,
    /// The file to write; a directory when the image has several files
    #[arg(short, long, value_name = "OUT", value_hint = ValueHint::AnyPath)]
    pub output: PathBuf,
}

#[derive(Debug, clap::Args)]
pub struct ReplayArgs {
    /// The trace
    #[arg(value_hint = ValueHint::FilePath)]
    pub trace: PathBuf,
    /// The disk to read: a file or a block device
    #[arg(long, value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub disk: PathBuf,
    /// Divides the time in which the guest thinks
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = units::speed)]
    pub speed: f64,
    /// Print the report as a JSON object
    #[arg(long)]
    pub json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Yes
    On,
    /// No
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FillArg {
    /// Nothing
    None,
    /// What the line has left over
    Idle,
    /// Everything, as fast as it comes; reads still go first
    Full,
}

impl From<FillArg> for Fill {
    fn from(fill: FillArg) -> Self {
        match fill {
            FillArg::None => Self::None,
            FillArg::Idle => Self::Idle,
            FillArg::Full => Self::Full,
        }
    }
}

fn parse_web_seed(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).ok();
    url.filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host())
        .ok_or_else(|| {
            "not the URL of a web server; write for example https://images.example.org/debian/"
                .to_owned()
        })
}

fn parse_node(text: &str) -> Result<String, String> {
    let node = Some(text).filter(|text| is_node(text));
    node.map(str::to_owned).ok_or_else(|| {
        "not a host and a port; write for example dht.example.org:6881 or 192.0.2.7:6881".to_owned()
    })
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "not an IP address and port; write for example 192.0.2.7:6881 or [2001:db8::7]:6881"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }

    #[test]
    fn what_follows_the_dashes_belongs_to_the_vmm() {
        let args =
            parse("vmtorrent launch a.torrent --fill none -- qemu -drive file={disk} --json")
                .unwrap();
        let Command::Launch(launch) = args.command else {
            panic!("not launch");
        };
        assert_eq!(launch.words, ["qemu", "-drive", "file={disk}", "--json"]);
        assert!(!launch.json);
        assert_eq!(Fill::from(launch.fill), Fill::None);
    }

    #[test]
    fn a_vmm_by_name_has_a_machine_and_may_get_more_words() {
        let args = parse(
            "vmtorrent launch a.torrent --vmm qemu --memory 2G --cpus 3 --vmm-set accel=tcg --vmm-set cpu=max -- -s",
        )
        .unwrap();
        let Command::Launch(mut launch) = args.command else {
            panic!("not launch");
        };
        let choice = launch.take_choice();
        choice.check().unwrap();
        assert_eq!(choice.name.as_deref(), Some("qemu"));
        assert_eq!(
            (choice.machine.memory, choice.machine.cpus),
            (Some(2 << 30), Some(3))
        );
        assert_eq!(choice.machine.vmm_set.len(), 2);
        assert_eq!(choice.words, ["-s"]);
    }

    #[test]
    fn options_of_a_machine_want_a_vmm() {
        let check = |line: &str| match parse(line).unwrap().command {
            Command::Launch(mut launch) => launch.take_choice().check(),
            _ => panic!("not launch"),
        };
        check("vmtorrent launch a.torrent -- qemu").unwrap();
        for option in [
            "--memory 1G",
            "--cpus 2",
            "--vmm-set a=b",
            "--vmm-name x",
            "--disk-format raw",
            "--vmm-file f",
        ] {
            let line = format!("vmtorrent launch a.torrent {option} -- qemu");
            let message = check(&line).unwrap_err().to_string();
            assert!(message.contains("--vmm NAME"), "{option}: {message}");
        }
    }

    #[test]
    fn a_read_timeout_of_zero_means_for_ever() {
        let timeout = |line| match parse(line).unwrap().command {
            Command::Launch(launch) => launch.read_timeout(),
            _ => panic!("not launch"),
        };
        assert_eq!(
            timeout("vmtorrent launch a.torrent"),
            Some(Duration::from_secs(60))
        );
        assert_eq!(timeout("vmtorrent launch a.torrent --read-timeout 0"), None);
    }

    #[test]
    fn wrong_values_are_refused_with_an_example() {
        for (line, example) in [
            ("vmtorrent launch a.torrent --peer host", "192.0.2.7:6881"),
            (
                "vmtorrent launch a.torrent --dht-bootstrap host",
                "dht.example.org:6881",
            ),
            ("vmtorrent launch a.torrent --upload-limit fast", "100mbit"),
            (
                "vmtorrent launch a.torrent --web-seed ftp://h/a",
                "https://images.example.org/",
            ),
            ("vmtorrent publish a -o b --piece-size 64Q", "64K"),
            ("vmtorrent launch a.torrent --max-disk some", "10G"),
            (
                "vmtorrent launch a.torrent --vmm qemu --memory 1.5G",
                "512M",
            ),
            (
                "vmtorrent launch a.torrent --vmm qemu --memory 1000",
                "512M",
            ),
            (
                "vmtorrent launch a.torrent --vmm qemu --vmm-set accel",
                "accel=tcg",
            ),
            ("vmtorrent replay a --disk b --speed 0", "such as 2"),
            ("vmtorrent replay a --disk b --speed nan", "such as 2"),
        ] {
            let message = parse(line).unwrap_err().to_string();
            assert!(message.contains(example), "{line}: {message}");
        }
    }

    #[test]
    fn seed_and_launch_share_the_options_of_the_swarm() {
        let network = |line: &str| match parse(line).unwrap().command {
            Command::Launch(launch) => launch.network,
            Command::Seed(seed) => seed.network,
            _ => panic!("neither"),
        };
        for line in [
            "vmtorrent launch a.torrent",
            "vmtorrent seed a.torrent --data d",
        ] {
            let plain = network(line);
            assert_eq!((plain.no_lsd, plain.max_connections), (false, 200));
            assert_eq!(plain.upload_slots, None);
            assert!(!plain.no_profile_exchange && !plain.no_pex && !plain.no_utp);
            assert_eq!(plain.compression, Switch::On);
            let set = format!(
                "{line} --no-lsd --no-utp --no-pex --no-profile-exchange --compression off --max-connections 7 \
                 --upload-slots 9"
            );
            let set = network(&set);
            assert_eq!((set.no_lsd, set.max_connections), (true, 7));
            assert_eq!(set.upload_slots, Some(9));
            assert!(set.no_profile_exchange && set.no_pex && set.no_utp);
            assert_eq!(set.compression, Switch::Off);
            assert!(parse(&format!("{line} --max-connections 0")).is_err());
            assert!(parse(&format!("{line} --upload-slots 0")).is_err());
            assert!(!plain.no_dht && plain.dht_bootstrap().is_none());
            let dht = network(&format!(
                "{line} --dht-bootstrap a:1 --dht-bootstrap [::1]:2"
            ));
            assert_eq!(dht.dht_bootstrap().unwrap(), ["a:1", "[::1]:2"]);
            assert!(network(&format!("{line} --no-dht")).no_dht);
            assert!(parse(&format!("{line} --no-dht --dht-bootstrap a:1")).is_err());
        }
    }

    #[test]
    fn a_state_is_kept_or_ephemeral_not_both() {
        assert!(parse("vmtorrent launch a.torrent --state s --ephemeral").is_err());
    }
}
