//! Every case of the conformance suite, on three surfaces: a volume without a kernel, the same through a mount, and the
//! volume of a real `vmtorrent launch` whose image comes from a swarm.
#![expect(
    clippy::unwrap_used,
    reason = "a helper that can't go on fails the test"
)]

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use vmtorrent_platform::{BlockFile, MemoryBlockFile, TreeVolume};
use vmtorrent_tests::conformance::direct::Direct;
use vmtorrent_tests::conformance::fsx::{self, Step, Subject};
use vmtorrent_tests::conformance::mounted::Mounted;
use vmtorrent_tests::conformance::surface::{NEW, Surface};
use vmtorrent_tests::conformance::{World, image, nonzero};
use vmtorrent_tests::{Host, MemoryMount, fuse, publish, seed};

/// Makes one test for each case. `$world` is the full path of a function that gives an `Option<World>`, `None` where it
/// can't be had.
macro_rules! common_tests {
    ($world:path) => {
        tests! { $world;
            names:
                image_files_stand_at_their_paths
                a_made_file_is_there_until_it_is_removed
                exclusive_creation_refuses_what_exists_and_other_creation_opens_it
                names_up_to_255_bytes_are_taken_and_longer_ones_are_refused
                a_file_is_no_directory_and_a_directory_no_file
                directories_come_and_go
                a_rename_follows_the_rules_of_a_local_file_system
                a_rename_replaces_a_file_and_who_has_it_open_keeps_it
                a_directory_is_renamed_with_what_is_in_it
                files_and_directories_of_the_image_stay
                own_files_stand_among_those_of_the_image
                an_unlinked_file_lives_as_long_as_it_is_open
                a_listing_has_every_name_once_with_its_kind;
            attributes:
                the_storage_below_is_shown
                permissions_and_times_of_own_files_are_kept
                permissions_of_image_files_are_kept_and_their_times_are_not_set
                the_time_of_change_moves_with_changes_and_not_with_reads
                storage_is_counted_where_there_is_data
                numbers_of_nodes_tell_them_apart;
            data:
                reads_are_short_only_at_the_end
                writes_at_any_offset_and_length_change_these_bytes_and_no_other
                a_write_behind_the_end_leaves_zeros_between
                a_length_is_set_and_what_was_cut_off_is_gone
                appending_writes_at_the_end
                truncation_on_opening_empties_also_what_is_opened_for_reading
                a_handle_does_only_what_it_was_opened_for
                what_one_handle_writes_another_reads
                offsets_beyond_four_gigabytes_work
                a_length_that_cannot_be_is_refused
                a_flush_works_on_everything_that_is_open;
            space:
                allocation_grows_and_changes_no_byte
                discarded_ranges_are_zeros_and_the_length_stays
                zeroed_ranges_are_zeros_and_grow_the_file_if_they_may
                a_hole_is_never_said_to_be_where_data_is
                zeroed_and_fresh_ranges_are_holes
                seeking_ends_at_the_end;
            fsx:
                random_operations_on_the_disk_equal_those_on_an_array
                random_operations_on_an_own_file_equal_those_on_an_array;
        }
    };
}

/// As `common_tests`, for what only a kernel does.
macro_rules! kernel_tests {
    ($world:path) => {
        tests! { $world;
            kernel:
                a_directory_read_in_pieces_shows_every_name_that_stays_once
                reading_a_directory_goes_on_where_a_position_was_kept
                links_sockets_and_devices_are_refused_and_mknod_makes_files
                names_that_are_not_utf8_do_not_exist
                a_removed_file_is_opened_again_by_who_has_it_open
                other_forms_of_renaming_and_allocating_are_refused
                direct_io_works_at_any_alignment
                mappings_show_the_file_and_shared_ones_change_it
                a_mapping_and_other_handles_see_each_others_changes
                ranges_are_copied_between_files
                appenders_at_the_same_time_lose_nothing
                of_many_exclusive_creators_one_wins
                locks_exclude_other_openers
                a_mount_made_read_only_refuses_changes;
        }
    };
}

macro_rules! tests {
    ($world:path; $($group:ident: $($case:ident)*;)*) => {
        $(mod $group {
            $(#[test]
            fn $case() {
                if let Some(world) = $world() {
                    vmtorrent_tests::conformance::cases::$group::$case(world.surface.as_ref());
                }
            })*
        })*
    };
}

fn volume(image: Vec<(&str, Vec<u8>)>, host_folder: &Path) -> TreeVolume {
    let files = image.into_iter().map(|(path, content)| {
        let path = path.split('/').map(str::to_owned).collect();
        let file: Arc<dyn BlockFile> = MemoryBlockFile::new(content);
        (path, file)
    });
    TreeVolume::new(files.collect(), host_folder).unwrap()
}

fn without_kernel() -> Option<World> {
    let folder = tempfile::tempdir().unwrap();
    let surface = Direct::new(Arc::new(volume(image().into(), folder.path())));
    Some(World::new(surface, folder))
}

fn through_fuse() -> Option<World> {
    if !fuse() {
        return None;
    }
    let mount = MemoryMount::start(env!("CARGO_BIN_EXE_memory_volume"), &image(), None);
    Some(World::new(Mounted::new(&mount.directory()), mount))
}

/// Nothing of the image is here when a case begins.
fn through_a_launch() -> Option<World> {
    if !fuse() {
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let published = folder.path().join("appliance");
    for (path, content) in image() {
        let path = published.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let torrent = folder.path().join("appliance.torrent");
    publish(&published, &torrent, &[]);
    let source = seed(&torrent, folder.path(), &[]);
    let host = Host::new(folder.path(), "host");
    let launch = host
        .launch(&torrent)
        .peer(&source.listen())
        .fill("none")
        .start();
    // In this order they go.
    Some(World::new(
        Mounted::new(&host.mount()),
        (launch, source, folder),
    ))
}

mod direct {
    common_tests!(crate::without_kernel);
}

mod mount {
    common_tests!(crate::through_fuse);
    kernel_tests!(crate::through_fuse);
}

mod launch {
    common_tests!(crate::through_a_launch);
    kernel_tests!(crate::through_a_launch);
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (any::<u8>(), any::<u8>(), any::<u32>(), any::<u32>());
    let step = step.prop_map(|(what, handle, offset, length)| Step {
        what,
        handle,
        offset,
        length,
    });
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_operations_equal_those_on_an_array(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let model = nonzero(4, 30_000);
        let volume = volume(vec![("disk", model.clone())], folder.path());
        let surface = Direct::new(Arc::new(volume));
        surface.open("own", NEW).unwrap();
        for (path, model) in [("disk", model), ("own", Vec::new())] {
            let subject = Subject { surface: &surface, path, longest: 60_000 };
            fsx::run(subject, model, steps.iter().copied(), None);
        }
    }
}
