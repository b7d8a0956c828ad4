/* After a shutdown that gave VMT_OK no thread of the session is left, though its handles are there; after freeing them no
 * descriptor is. Also when vmt_launch made it. */
#include "test.h"

int main(void) {
    /* What the first use of anything leaves behind. */
    vmt_session_free(test_session(at("warm")));
    int threads = test_threads_settled(), descriptors = test_descriptors();
    stage s;
    for (int round = 0; round < 3; round++) {
        stage_open(&s, 0, NULL);
        stage_check(&s, 0, s.length);
        CHECK(test_threads() > threads);
        OK(vmt_session_shutdown(s.session, VMT_FOREVER, ERR));
        OK(vmt_session_shutdown(s.source, VMT_FOREVER, ERR));
        SOON(test_threads() == threads);
        stage_close(&s);
        SAME(test_descriptors(), descriptors);
    }
    stage_open(&s, 0, NULL);
    OK(vmt_image_save(s.image, at("x.torrent"), ERR));
    stage_close(&s);
    vmt_options *options = test_session_options(at("cache2"));
    OK(vmt_options_set(options, "ephemeral", "true", ERR));
    vmt_appliance *appliance = NULL;
    OK(vmt_launch(at("x.torrent"), options, NULL, &appliance, ERR));
    vmt_options_free(options);
    vmt_session *session = NULL;
    OK(vmt_appliance_session(appliance, &session, ERR));
    OK(vmt_appliance_shutdown(appliance, VMT_FOREVER, NULL, ERR));
    SOON(test_threads() == threads);
    FAILS(VMT_E_CLOSED, vmt_session_serve_tracker(session, "127.0.0.1:0", ERR));
    OK(vmt_session_shutdown(session, 0, ERR));
    vmt_appliance_free(appliance);
    vmt_session_free(session);
    SAME(test_descriptors(), descriptors);
    return test_end();
}
