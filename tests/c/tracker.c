/* A session's own tracker brings peers together that know nothing of each other but its URL. */
#include "test.h"

int main(void) {
    uint8_t *content = test_content(8 * PIECE, 0);
    SAME(mkdir(at("data"), 0700), 0);
    test_write_file(at("data/disk.img"), content, 8 * PIECE);
    vmt_options *options = test_session_options(at("source"));
    OK(vmt_options_set(options, "discovery", "true", ERR));
    OK(vmt_options_set(options, "local-discovery", "false", ERR));
    vmt_session *source = NULL;
    OK(vmt_session_start(options, &source, ERR));
    CHECK(vmt_session_tracker_url(source) == NULL);
    OK(vmt_session_serve_tracker(source, "127.0.0.1:0", ERR));
    const char *url = vmt_session_tracker_url(source);
    HAS(url, "http://127.0.0.1:");
    HAS(url, "/announce");
    vmt_options *publishing = test_options("tracker", url, "private", "true", NULL);
    vmt_image *image = test_publish(at("data/disk.img"), publishing);
    CHECK(vmt_image_is_private(image));
    HAS(vmt_image_magnet(image), "tr=");
    vmt_options_free(publishing);
    vmt_seed *seed = NULL;
    OK(vmt_session_seed(source, image, at("data"), &seed, ERR));

    OK(vmt_image_save(image, at("x.torrent"), ERR));
    OK(vmt_options_set(options, "cache", at("cache"), ERR));
    OK(vmt_options_set(options, "ephemeral", "true", ERR));
    OK(vmt_options_set(options, "auto-profile", "false", ERR));
    vmt_appliance *appliance = NULL;
    OK(vmt_launch(at("x.torrent"), options, NULL, &appliance, ERR));
    vmt_options_free(options);
    READS(appliance, content, 8 * PIECE, 0);
    OK(vmt_appliance_shutdown(appliance, VMT_FOREVER, NULL, ERR));
    vmt_appliance_free(appliance);
    OK(vmt_seed_shutdown(seed, VMT_FOREVER, ERR));
    OK(vmt_session_shutdown(source, VMT_FOREVER, ERR));
    vmt_seed_free(seed);
    vmt_session_free(source);
    vmt_image_free(image);
    free(content);
    return test_end();
}
