/* What an image's description tells, from a file and from a directory; the same files give the same; its bytes and its file give it
 * again. */
#include "test.h"

static int calls, frees;
static uint64_t last, whole;

static void progress(void *user, uint64_t done, uint64_t total) {
    CHECK(user == &calls);
    CHECK(done >= last && done <= total && (whole == 0 || whole == total));
    last = done, whole = total;
    calls++;
}

static void progress_free(void *user) {
    CHECK(user == &calls && calls > 0);
    frees++;
}

int main(void) {
    enum { LENGTH = 6 * PIECE + 5 };
    uint8_t *content = test_content(LENGTH, 0);
    const char *disk = at("disk.img");
    test_write_file(disk, content, LENGTH);
    vmt_image *image = NULL;
    OK(vmt_publish(disk, NULL, (vmt_progress){progress, &calls, progress_free}, NULL, &image, ERR));
    SAME(frees, 1);
    SAME(last, LENGTH);
    SAME(whole, LENGTH);
    SAME_TEXT(vmt_image_name(image), "disk.img");
    SAME(strlen(vmt_image_info_hash(image)), 40);
    SAME(strspn(vmt_image_info_hash(image), "0123456789abcdef"), 40);
    HAS(vmt_image_magnet(image), vmt_image_info_hash(image));
    HAS(vmt_image_magnet(image), "dn=disk.img");
    SAME(vmt_image_length(image), LENGTH);
    SAME(vmt_image_piece_length(image), PIECE);
    SAME(vmt_image_piece_count(image), 7);
    CHECK(!vmt_image_is_private(image));
    SAME(vmt_image_file_count(image), 1);
    SAME_TEXT(vmt_image_file_path(image, 0), "disk.img");
    CHECK(vmt_image_file_path(image, 0) == vmt_image_file_path(image, 0));
    SAME(vmt_image_file_length(image, 0), LENGTH);
    CHECK(vmt_image_file_path(image, 1) == NULL);
    SAME(vmt_image_file_length(image, 1), 0);
    vmt_profile *profile = NULL;
    FAILS(VMT_E_NOT_FOUND, vmt_image_profile(image, &profile, ERR));

    size_t length = 0, saved_length;
    const uint8_t *torrent = vmt_image_torrent(image, &length);
    CHECK(length > 100 && torrent[0] == 'd' && torrent[length - 1] == 'e');
    OK(vmt_image_save(image, at("x.torrent"), ERR));
    uint8_t *saved = test_read_file(at("x.torrent"), &saved_length);
    SAME(saved_length, length);
    CHECK(memcmp(saved, torrent, length) == 0);
    vmt_image *again = NULL;
    OK(vmt_image_from_bytes(saved, saved_length, &again, ERR));
    free(saved);
    SAME_TEXT(vmt_image_info_hash(again), vmt_image_info_hash(image));
    SAME_TEXT(vmt_image_magnet(again), vmt_image_magnet(image));
    vmt_image_free(again);
    again = test_publish(disk, NULL);
    CHECK(memcmp(vmt_image_torrent(again, &saved_length), torrent, length) == 0 && saved_length == length);
    vmt_image_free(again);

    vmt_options *options = test_options("name", "Another name", "piece-size", "32768", "private", "true", "tracker",
                                        "http://127.0.0.1:1/announce", "tracker", "udp://127.0.0.1:2/announce", "web-seed",
                                        "http://127.0.0.1:3/disk.img", NULL);
    again = test_publish(disk, options);
    vmt_options_free(options);
    SAME_TEXT(vmt_image_name(again), "Another name");
    SAME(vmt_image_piece_length(again), 32768);
    SAME(vmt_image_piece_count(again), 4);
    CHECK(vmt_image_is_private(again));
    HAS(vmt_image_magnet(again), "tr=http");
    HAS(vmt_image_magnet(again), "tr=udp");
    HAS(vmt_image_magnet(again), "ws=http");
    CHECK(strcmp(vmt_image_info_hash(again), vmt_image_info_hash(image)) != 0);
    vmt_image_free(again);
    vmt_image_free(image);

    /* Several files: numbered alike by the image and its appliance; the largest is to be booted. */
    SAME(mkdir(at("machine"), 0700), 0);
    SAME(mkdir(at("machine/disks"), 0700), 0);
    test_write_file(at("machine/disks/boot.img"), content, LENGTH);
    test_write_file(at("machine/disks/data.img"), content + PIECE, 2 * PIECE);
    test_write_file(at("machine/machine.json"), "{}", 2);
    image = test_publish(at("machine"), NULL);
    SAME_TEXT(vmt_image_name(image), "machine");
    SAME(vmt_image_file_count(image), 3);
    SAME(vmt_image_length(image), LENGTH + 2 * PIECE + 2);
    vmt_session *session = test_session(at("cache"));
    options = test_options("ephemeral", "true", NULL);
    vmt_appliance *appliance = NULL;
    OK(vmt_session_launch(session, image, options, NULL, &appliance, ERR));
    vmt_options_free(options);
    SAME(vmt_appliance_file_count(appliance), 3);
    CHECK(vmt_appliance_directory(appliance) == NULL && vmt_appliance_disk_path(appliance) == NULL);
    for (size_t i = 0; i < 3; i++) {
        SAME_TEXT(vmt_appliance_file_path(appliance, i), vmt_image_file_path(image, i));
        size_t found = 99;
        uint64_t file_length = 0;
        OK(vmt_appliance_find_file(appliance, vmt_image_file_path(image, i), &found, ERR));
        SAME(found, i);
        OK(vmt_appliance_file_length(appliance, i, &file_length, ERR));
        SAME(file_length, vmt_image_file_length(image, i));
    }
    SAME_TEXT(vmt_appliance_file_path(appliance, vmt_appliance_boot_file(appliance)), "disks/boot.img");
    OK(vmt_appliance_shutdown(appliance, VMT_FOREVER, NULL, ERR));
    vmt_appliance_free(appliance);
    vmt_session_free(session);
    vmt_image_free(image);
    free(content);
    return test_end();
}
