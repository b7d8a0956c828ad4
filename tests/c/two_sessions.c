/* Sessions of one process know nothing of each other: each has its own image, limits and end. Appliances of one session share what is
 * downloaded. */
#include "test.h"

int main(void) {
    stage first, second;
    stage_open(&first, 0, NULL);
    /* The second one's files would be the same. */
    const char *data = at("second");
    SAME(mkdir(data, 0700), 0);
    memset(&second, 0, sizeof second);
    second.length = 9 * PIECE;
    second.content = test_content(second.length, 4);
    test_write_file(at("second/other.img"), second.content, second.length);
    second.image = test_publish(at("second/other.img"), NULL);
    second.source = test_session(at("source2"));
    OK(vmt_session_seed(second.source, second.image, data, &second.seed, ERR));
    second.session = test_session(at("cache2"));
    second.state = at("state2");
    vmt_options *options = stage_options(&second);
    OK(vmt_session_launch(second.session, second.image, options, NULL, &second.appliance, ERR));
    CHECK(strcmp(vmt_session_listen_address(first.session), vmt_session_listen_address(second.session)) != 0);

    stage_check(&first, 0, 3 * PIECE);
    stage_check(&second, 0, 3 * PIECE);
    OK(vmt_pwrite(first.appliance, 0, "first", 5, 0, ERR));
    OK(vmt_pwrite(second.appliance, 0, "second", 6, 0, ERR));
    READS(first.appliance, "first", 5, 0);
    READS(second.appliance, "second", 6, 0);

    /* Two of one image in one session. */
    vmt_appliance *twin = NULL;
    OK(vmt_options_set(options, "state", at("state3"), ERR));
    OK(vmt_session_launch(second.session, second.image, options, NULL, &twin, ERR));
    vmt_options_free(options);
    vmt_stats before = {.struct_size = sizeof before}, after = before;
    OK(vmt_appliance_stats(second.appliance, &before, ERR));
    READS(twin, second.content, 3 * PIECE, 0);
    OK(vmt_appliance_stats(second.appliance, &after, ERR));
    SAME(before.fetched_bytes, after.fetched_bytes);
    /* An image that one of them runs is one and the same for all. */
    vmt_image *image = NULL;
    OK(vmt_appliance_image(twin, &image, ERR));
    SAME_TEXT(vmt_image_info_hash(image), vmt_image_info_hash(second.image));
    vmt_image_free(image);
    OK(vmt_appliance_shutdown(twin, VMT_FOREVER, NULL, ERR));
    vmt_appliance_free(twin);
    READS(second.appliance, "second", 6, 0);

    /* The end of one is not the other's. */
    stage_close(&first);
    stage_check(&second, 5 * PIECE, 3 * PIECE);
    vmt_session *again = NULL;
    OK(vmt_appliance_session(second.appliance, &again, ERR));
    SAME_TEXT(vmt_session_listen_address(again), vmt_session_listen_address(second.session));
    vmt_session_free(again);
    stage_check(&second, 4 * PIECE, PIECE);
    stage_close(&second);
    return test_end();
}
