//! Profiles for tests.
use crate::profile::Profile;
use serde_json::json;

/// Block, runs, mean, variance; half of the runs lie at each end.
pub(crate) type Row = (u32, u32, f64, f64);

/// A profile of so many runs; files as path, length, accesses.
pub(crate) fn profile(runs: u32, files: &[(&str, u64, &[Row])]) -> Profile {
    let file = |(path, length, rows): &(&str, u64, &[Row])| {
        let row = |&(block, runs, mean, variance): &Row| {
            let (least, most) = (mean - variance.sqrt(), mean + variance.sqrt());
            json!([
                block,
                runs,
                mean,
                variance,
                least as u64,
                most.ceil() as u64,
                null
            ])
        };
        let path: Vec<&str> = path.split('/').collect();
        let rows: Vec<_> = rows.iter().map(row).collect();
        json!({"path": path, "length": length, "accesses": rows})
    };
    let files: Vec<_> = files.iter().map(file).collect();
    let text = json!({
        "format": "vmtorrent profile", "version": 1, "name": "demo.img", "runs": runs, "block_bytes": 16384,
        "info_hash": "3f0e8a11c29b5d7744aa10ffb1e2d3c4a5968778", "columns": [], "files": files,
    });
    Profile::from_json(text.to_string().as_bytes()).unwrap()
}

/// A profile like that of a machine of 1 GiB that boots in 14 s.
pub(crate) fn boot(runs: u32) -> Profile {
    let mut rows = std::collections::BTreeMap::new();
    for (n, read) in crate::report::samples::boot_reads().into_iter().enumerate() {
        // Most blocks are read in every run; each seventh not.
        let in_runs = match n % 7 {
            0 => 1 + (n / 7) as u32 % runs,
            _ => runs,
        };
        let time = read.guest_time as f64;
        rows.insert(
            read.block,
            (
                read.block,
                in_runs,
                time,
                if in_runs > 1 {
                    (time / 50.0).powi(2)
                } else {
                    0.0
                },
            ),
        );
    }
    let rows: Vec<Row> = rows.into_values().collect();
    profile(runs, &[("demo.img", 1 << 30, &rows)])
}
