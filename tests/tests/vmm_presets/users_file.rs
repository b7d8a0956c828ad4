//! A VMM of the user's own file.

use std::fs;

use super::stage::{Stage, can_run};
use super::{DISK, PATIENCE};

#[test]
fn a_vmm_of_the_users_own_file_runs_and_its_mistakes_are_named() {
    if !can_run() {
        return;
    }
    let stage = Stage::new(DISK);
    let config = stage.dir.path().join("config/vmtorrent");
    fs::create_dir_all(&config).unwrap();
    let compare = format!(
        "cmp \\\"$1\\\" \\\"{}\\\" && echo same, $2 bytes",
        stage.dir.path().join(DISK).display()
    );
    let text = format!(
        "[vmm.mine]\nrun = [\"sh\", \"-c\", \"{compare}; exit 7\", \"sh\", \"{{disk}}\", \"{{memory}}\"]\n"
    );
    fs::write(config.join("vmm.toml"), text).unwrap();
    let mut launch = stage.launch("mine").spawn();
    assert_eq!(launch.wait_exit(PATIENCE).code(), Some(7));
    let stderr = launch.stderr();
    assert!(stderr.contains("same, 536870912 bytes"), "{stderr}");

    let other = stage.dir.path().join("other.toml");
    fs::write(&other, "[vmm.mine]\nrun = [\"sh\", \"-c\", \"exit 8\"]\n").unwrap();
    let mut launch = stage.launch("mine").option("--vmm-file", &other).spawn();
    assert_eq!(
        launch.wait_exit(PATIENCE).code(),
        Some(8),
        "the file that is named goes before the user's"
    );

    fs::write(&other, "[vmm.mine]\nrun = [\"sh\", \"{dsk}\"]\n").unwrap();
    let mut launch = stage.launch("mine").option("--vmm-file", &other).spawn();
    assert_eq!(launch.wait_exit(PATIENCE).code(), Some(1));
    let stderr = launch.stderr();
    let place = format!("{}, line 2, vmm.mine.run[1]: {{dsk}}", other.display());
    assert!(stderr.contains(&place), "{stderr}");
    stage.is_clean();
}
