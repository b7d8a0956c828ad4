/* An export is the image with what the guest wrote: of one file and of several, from the cache or fetched from peers. */
#include "test.h"

static void check_file(const char *path, const uint8_t *expected, size_t length) {
    size_t found;
    uint8_t *data = test_read_file(path, &found);
    SAME(found, length);
    CHECK(memcmp(data, expected, length) == 0);
    free(data);
}

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    OK(vmt_pwrite(s.appliance, 0, "written by the guest", 20, 2 * PIECE - 10, ERR));
    OK(vmt_discard(s.appliance, 0, 8 * PIECE, 2 * PIECE, ERR));
    OK(vmt_set_length(s.appliance, 0, s.length + 50000, ERR));
    OK(vmt_pwrite(s.appliance, 0, "end", 3, s.length + 49997, ERR));
    OK(vmt_flush(s.appliance, 0, ERR));
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    vmt_appliance_free(s.appliance);
    s.appliance = NULL;
    size_t length = s.length + 50000;
    uint8_t *expected = calloc(1, length);
    memcpy(expected, s.content, s.length);
    memcpy(expected + 2 * PIECE - 10, "written by the guest", 20);
    memset(expected + 8 * PIECE, 0, 2 * PIECE);
    memcpy(expected + s.length + 49997, "end", 3);

    /* Much of it was never read: it is fetched. */
    uint64_t written = 0;
    vmt_options *options = test_options("cache", s.cache, "read-timeout", "30", NULL);
    OK(vmt_export(s.state, at("out.img"), options, NULL, &written, ERR));
    check_file(at("out.img"), expected, length);
    CHECK(written > 0 && written < length);
    vmt_options_free(options);

    /* Now it is all in the cache, or the seed is asked again; the number need not be asked for. */
    OK(vmt_export(s.state, at("out2.img"), NULL, NULL, NULL, ERR));
    check_file(at("out2.img"), expected, length);
    free(expected);
    /* The state still serves. */
    stage_launch(&s, NULL);
    READS(s.appliance, "end", 3, s.length + 49997);

    /* Several files. */
    SAME(mkdir(at("machine"), 0700), 0);
    test_write_file(at("machine/a.img"), s.content, 3 * PIECE);
    test_write_file(at("machine/b.img"), s.content + PIECE, 2 * PIECE + 7);
    vmt_image *image = test_publish(at("machine"), NULL);
    vmt_seed *seed = NULL;
    OK(vmt_session_seed(s.source, image, at("."), &seed, ERR));
    options = test_options("state", at("state2"), "peer", vmt_session_listen_address(s.source), NULL);
    vmt_appliance *appliance = NULL;
    OK(vmt_session_launch(s.session, image, options, NULL, &appliance, ERR));
    vmt_options_free(options);
    size_t b;
    OK(vmt_appliance_find_file(appliance, "b.img", &b, ERR));
    OK(vmt_pwrite(appliance, b, "second", 6, 1, ERR));
    OK(vmt_appliance_shutdown(appliance, VMT_FOREVER, NULL, ERR));
    vmt_appliance_free(appliance);
    OK(vmt_export(at("state2"), at("out3"), NULL, NULL, NULL, ERR));
    check_file(at("out3/a.img"), s.content, 3 * PIECE);
    expected = malloc(2 * PIECE + 7);
    memcpy(expected, s.content + PIECE, 2 * PIECE + 7);
    memcpy(expected + 1, "second", 6);
    check_file(at("out3/b.img"), expected, 2 * PIECE + 7);
    free(expected);
    vmt_seed_free(seed);
    vmt_image_free(image);
    stage_close(&s);
    return test_end();
}
