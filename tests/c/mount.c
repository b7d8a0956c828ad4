/* The image appears through FUSE, and is one with what the functions read and write; it is gone after a shutdown, and after a free
 * without one. */
#include "test.h"

static bool mounted(const char *path) {
    FILE *mounts = fopen("/proc/mounts", "r");
    CHECK(mounts != NULL);
    char line[4096];
    bool found = false;
    while (fgets(line, sizeof line, mounts) != NULL)
        found = found || strstr(line, path) != NULL;
    fclose(mounts);
    return found;
}

/* What another process does with the mounted file. */
static void from_outside(void) {
    int disk = open(at("mount/disk.img"), O_RDWR | O_CLOEXEC);
    CHECK(disk >= 0);
    struct stat status;
    size_t length;
    uint8_t *content = test_read_file(at("data/disk.img"), &length), *buffer = malloc(length);
    SAME(fstat(disk, &status), 0);
    SAME(status.st_size, length);
    SAME(pread(disk, buffer, length, 0), length);
    CHECK(memcmp(buffer, content, length) == 0);
    SAME(pwrite(disk, "by the kernel", 13, 5000), 13);
    SAME(fdatasync(disk), 0);
    SAME(close(disk), 0);
}

static void again(void) {
    int disk = open(at("mount/disk.img"), O_RDWR | O_CLOEXEC);
    CHECK(disk >= 0);
    char buffer[13];
    SAME(pread(disk, buffer, 9, 70000), 9);
    CHECK(memcmp(buffer, "by a call", 9) == 0);
    SAME(pread(disk, buffer, 13, 5000), 13);
    CHECK(memcmp(buffer, "\0\0\0\0\0\0\0\0\0\0\0\0", 13) == 0);
    SAME(pwrite(disk, "second", 6, 0), 6);
    SAME(fsync(disk), 0);
    SAME(close(disk), 0);
}

int main(void) {
    if (access("/dev/fuse", R_OK | W_OK) != 0)
        test_skip("there is no /dev/fuse to use");
    helper first, second;
    helper_start(&first, from_outside);
    helper_start(&second, again);
    stage s;
    stage_open_seed(&s, 0);
    vmt_options *options = stage_options(&s);
    OK(vmt_options_set(options, "mount", at("absent"), ERR));
    FAILS_AS(VMT_E_NOT_FOUND, ENOENT, "absent", vmt_session_launch(s.session, s.image, options, NULL, &s.appliance, ERR));
    OK(vmt_options_set(options, "mount", at("data/disk.img"), ERR));
    FAILS_AS(VMT_E_INVALID, EINVAL, "disk.img", vmt_session_launch(s.session, s.image, options, NULL, &s.appliance, ERR));
    const char *directory = at("mount");
    SAME(mkdir(directory, 0700), 0);
    OK(vmt_options_set(options, "mount", directory, ERR));
    OK(vmt_session_launch(s.session, s.image, options, NULL, &s.appliance, ERR));
    CHECK(mounted(directory));
    SAME_TEXT(vmt_appliance_directory(s.appliance), directory);
    const char *path = vmt_appliance_disk_path(s.appliance);
    SAME_TEXT(path, at("mount/disk.img"));

    /* The library looks at a mount of this process then: see helper. */
    if (!test_is_slow()) {
        vmt_options *others = test_options("ephemeral", "true", "mount", directory, NULL);
        vmt_appliance *other = NULL;
        FAILS_AS(VMT_E_IN_USE, EBUSY, "mount", vmt_session_launch(s.session, s.image, others, NULL, &other, ERR));
        vmt_options_free(others);
    }

    helper_run(&first);
    READS(s.appliance, "by the kernel", 13, 5000);
    OK(vmt_pwrite(s.appliance, 0, "by a call", 9, 70000, ERR));
    OK(vmt_discard(s.appliance, 0, 5000, 13, ERR));
    helper_run(&second);
    READS(s.appliance, "second", 6, 0);

    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    CHECK(!mounted(directory));
    /* What belongs to the handle stays. */
    SAME_TEXT(vmt_appliance_directory(s.appliance), directory);
    vmt_appliance_free(s.appliance);
    s.appliance = NULL;
    SAME(rmdir(directory), 0);
    SAME(mkdir(directory, 0700), 0);

    /* Without a shutdown; and by that of the session. */
    OK(vmt_session_launch(s.session, s.image, options, NULL, &s.appliance, ERR));
    CHECK(mounted(directory));
    vmt_appliance_free(s.appliance);
    s.appliance = NULL;
    SOON(!mounted(directory));
    vmt_status launched = VMT_E_IN_USE;
    SOON((launched = vmt_session_launch(s.session, s.image, options, NULL, &s.appliance, NULL)) != VMT_E_IN_USE);
    SAME(launched, VMT_OK);
    READS(s.appliance, "second", 6, 0);
    OK(vmt_session_shutdown(s.session, VMT_FOREVER, ERR));
    CHECK(!mounted(directory));
    vmt_options_free(options);
    stage_close(&s);
    return test_end();
}
