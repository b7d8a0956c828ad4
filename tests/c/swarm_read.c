/* What was published and is seeded can be read by another session, byte for byte: through its description, and through a magnet
 * link alone. */
#include "test.h"

int main(void) {
    stage s;
    stage_open(&s, (test_is_slow() ? 1 : 4) << 20, NULL);
    HAS(vmt_session_listen_address(s.source), "127.0.0.1:");
    stage_check(&s, 0, s.length);
    stage_check(&s, 5 * PIECE + 17, 3 * PIECE);
    stage_check(&s, s.length - 1, 1);

    /* All that the second one knows is the link. */
    vmt_options *options = test_session_options(at("cache2"));
    OK(vmt_options_set(options, "state", at("state2"), ERR));
    OK(vmt_options_set(options, "auto-profile", "false", ERR));
    vmt_appliance *appliance = NULL;
    OK(vmt_launch(vmt_seed_magnet(s.seed), options, NULL, &appliance, ERR));
    READS(appliance, s.content, s.length, 0);
    vmt_image *image = NULL;
    OK(vmt_appliance_image(appliance, &image, ERR));
    SAME_TEXT(vmt_image_info_hash(image), vmt_image_info_hash(s.image));
    SAME(vmt_image_length(image), s.length);
    vmt_stats stats = {.struct_size = sizeof stats};
    OK(vmt_appliance_stats(appliance, &stats, ERR));
    SAME(stats.wasted_bytes, 0);
    OK(vmt_appliance_shutdown(appliance, VMT_FOREVER, &stats, ERR));
    SAME(stats.present_bytes, s.length);
    vmt_appliance_free(appliance);
    vmt_image_free(image);
    vmt_options_free(options);

    options = test_options("peer", vmt_session_listen_address(s.source), NULL);
    char magnet[128];
    snprintf(magnet, sizeof magnet, "magnet:?xt=urn:btih:%s", vmt_image_info_hash(s.image));
    vmt_session *session = test_session(at("cache3"));
    OK(vmt_session_load(session, magnet, options, NULL, &image, ERR));
    SAME_TEXT(vmt_image_info_hash(image), vmt_image_info_hash(s.image));
    vmt_image_free(image);
    vmt_options_free(options);
    OK(vmt_session_shutdown(session, VMT_FOREVER, ERR));
    vmt_session_free(session);
    stage_close(&s);
    return test_end();
}
