/* Arguments that make no sense give VMT_E_INVALID, EINVAL and what would: numbers of files, sizes, addresses, sources. */
#include "test.h"

#define WRONG(part, call) FAILS_AS(VMT_E_INVALID, EINVAL, part, call)

static void never(void *user, vmt_status status, uint64_t value, const vmt_error *error) {
    (void)user, (void)status, (void)value, (void)error;
    CHECK(!"called though it was refused");
}

static void wrong_files(const vmt_appliance *a, size_t file, const char *name) {
    char buffer[16];
    size_t read = 0;
    uint64_t number = 0;
    vmt_extent extent;
    vmt_completion completion = {never, NULL, NULL};
    WRONG(name, vmt_pread(a, file, buffer, 1, 0, &read, ERR));
    WRONG(name, vmt_try_pread(a, file, buffer, 1, 0, &read, ERR));
    WRONG(name, vmt_pwrite(a, file, buffer, 1, 0, ERR));
    WRONG(name, vmt_flush(a, file, ERR));
    WRONG(name, vmt_discard(a, file, 0, 1, ERR));
    WRONG(name, vmt_write_zeroes(a, file, 0, 1, ERR));
    WRONG(name, vmt_set_length(a, file, 1, ERR));
    WRONG(name, vmt_prefetch(a, file, 0, 1, &number, ERR));
    WRONG(name, vmt_extents(a, file, 0, 1, &extent, 1, &read, ERR));
    WRONG(name, vmt_appliance_file_length(a, file, &number, ERR));
    WRONG(name, vmt_aio_pread(a, file, buffer, 1, 0, completion, ERR));
    WRONG(name, vmt_aio_pwrite(a, file, buffer, 1, 0, completion, ERR));
    WRONG(name, vmt_aio_flush(a, file, completion, ERR));
    WRONG(name, vmt_aio_discard(a, file, 0, 1, completion, ERR));
    WRONG(name, vmt_aio_write_zeroes(a, file, 0, 1, completion, ERR));
    CHECK(vmt_appliance_file_path(a, file) == NULL);
}

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    wrong_files(s.appliance, 1, "1");
    wrong_files(s.appliance, SIZE_MAX, "18446744073709551615");

    char buffer[16] = {0};
    size_t read = 0;
    vmt_extent extent;
    WRONG("capacity", vmt_extents(s.appliance, 0, 0, 1, &extent, 0, &read, ERR));
    /* More than memory can hold. */
    size_t huge = (size_t)PTRDIFF_MAX + 1;
    WRONG("length", vmt_pread(s.appliance, 0, buffer, huge, 0, &read, ERR));
    WRONG("length", vmt_try_pread(s.appliance, 0, buffer, huge, 0, &read, ERR));
    WRONG("length", vmt_pwrite(s.appliance, 0, buffer, huge, 0, ERR));
    vmt_completion completion = {never, NULL, NULL};
    WRONG("length", vmt_aio_pread(s.appliance, 0, buffer, huge, 0, completion, ERR));
    WRONG("length", vmt_aio_pwrite(s.appliance, 0, buffer, huge, 0, completion, ERR));
    vmt_image *image = NULL;
    WRONG("length", vmt_image_from_bytes((const uint8_t *)buffer, huge, &image, ERR));
    vmt_profile *profile = NULL;
    WRONG("length", vmt_profile_from_bytes((const uint8_t *)buffer, huge, &profile, ERR));

    static const char *const sources[] = {"ftp://127.0.0.1/x.torrent", "magnet:?xt=urn:btih:nothing", "magnet:?dn=x", ""};
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        WRONG("", vmt_session_load(s.session, sources[i], NULL, NULL, &image, ERR));
        vmt_appliance *appliance = NULL;
        WRONG("", vmt_launch(sources[i], NULL, NULL, &appliance, ERR));
    }
    /* Nobody to ask. */
    WRONG("", vmt_session_load(s.session, "magnet:?xt=urn:btih:0123456789012345678901234567890123456789", NULL, NULL, &image, ERR));

    static const char *const addresses[] = {"", "127.0.0.1", "localhost:80", "127.0.0.1:65536", ":80", "http://127.0.0.1:80"};
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        WRONG(addresses[i], vmt_session_serve_tracker(s.session, addresses[i], ERR));
        WRONG(addresses[i], vmt_session_serve_metrics(s.session, addresses[i], ERR));
    }
    vmt_log_handler nobody = {NULL, NULL, NULL};
    WRONG("6", vmt_log_set(6, nobody, ERR));
    WRONG("-1", vmt_log_set(-1, nobody, ERR));

    /* What an image can't hold. */
    SAME(mkdir(at("empty"), 0700), 0);
    WRONG("empty", vmt_publish(at("empty"), NULL, test_no_progress, NULL, &image, ERR));
    SAME(mkdir(at("linked"), 0700), 0);
    SAME(symlink(at("data/disk.img"), at("linked/link.img")), 0);
    WRONG("link.img", vmt_publish(at("linked"), NULL, test_no_progress, NULL, &image, ERR));
    WRONG("/dev/null", vmt_publish("/dev/null", NULL, test_no_progress, NULL, &image, ERR));
    test_write_file(at("nothing.img"), "", 0);
    WRONG("nothing.img", vmt_publish(at("nothing.img"), NULL, test_no_progress, NULL, &image, ERR));
    SAME(mkdir(at("latin"), 0700), 0);
    test_write_file(at("latin/\xE4.img"), "x", 1);
    WRONG("UTF-8", vmt_publish(at("latin"), NULL, test_no_progress, NULL, &image, ERR));
    /* What is to be seeded has another length. */
    SAME(mkdir(at("short"), 0700), 0);
    test_write_file(at("short/disk.img"), s.content, s.length - 1);
    vmt_session *session = test_session(at("cache3"));
    vmt_seed *seed = NULL;
    WRONG("disk.img", vmt_session_seed(session, s.image, at("short"), &seed, ERR));
    vmt_session_free(session);
    CHECK(image == NULL && profile == NULL && seed == NULL);
    stage_check(&s, 0, s.length);
    stage_close(&s);
    return test_end();
}
