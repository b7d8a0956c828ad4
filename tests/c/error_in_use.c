/* What is taken gives VMT_E_IN_USE and EBUSY, or what the system said: ports, state directories, outputs, images; and is free again afterwards. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "test.h"

#define TAKEN_AS(number, part, call) FAILS_AS(VMT_E_IN_USE, number, part, call)
#define TAKEN(part, call) TAKEN_AS(EBUSY, part, call)

int main(void) {
    stage s;
    stage_open(&s, 0, NULL);
    char address[32];
    int listener = test_silent_peer(address);
    vmt_options *options = test_options("listen", address, "cache", at("cache4"), NULL);
    vmt_session *session = NULL;
    TAKEN_AS(EADDRINUSE, address, vmt_session_start(options, &session, ERR));
    TAKEN_AS(EADDRINUSE, address, vmt_session_serve_tracker(s.session, address, ERR));
    TAKEN_AS(EADDRINUSE, address, vmt_session_serve_metrics(s.session, address, ERR));
    close(listener);
    OK(vmt_session_start(options, &session, ERR));
    SAME_TEXT(vmt_session_listen_address(session), address);
    vmt_options_free(options);

    OK(vmt_session_serve_tracker(s.session, "127.0.0.1:0", ERR));
    TAKEN("tracker", vmt_session_serve_tracker(s.session, "127.0.0.1:0", ERR));
    OK(vmt_session_serve_metrics(s.session, "127.0.0.1:0", ERR));
    TAKEN("", vmt_session_serve_metrics(s.session, "127.0.0.1:0", ERR));

    vmt_appliance *appliance = NULL;
    options = stage_options(&s);
    TAKEN("state", vmt_session_launch(s.session, s.image, options, NULL, &appliance, ERR));
    TAKEN("state", vmt_session_launch(session, s.image, options, NULL, &appliance, ERR));
    TAKEN("state", vmt_export(s.state, at("out.img"), NULL, NULL, NULL, ERR));
    vmt_seed *seed = NULL;
    TAKEN("", vmt_session_seed(s.session, s.image, at("data"), &seed, ERR));
    TAKEN("", vmt_session_seed(s.source, s.image, at("data"), &seed, ERR));
    stage_check(&s, 0, s.length);
    OK(vmt_appliance_shutdown(s.appliance, VMT_FOREVER, NULL, ERR));
    vmt_appliance_free(s.appliance);
    s.appliance = NULL;

    test_write_file(at("out.img"), "mine", 4);
    TAKEN("out.img", vmt_export(s.state, at("out.img"), NULL, NULL, NULL, ERR));
    size_t length;
    uint8_t *kept = test_read_file(at("out.img"), &length);
    SAME_TEXT((char *)kept, "mine");
    free(kept);

    /* Free again. */
    OK(vmt_session_launch(session, s.image, options, NULL, &appliance, ERR));
    OK(vmt_session_shutdown(session, VMT_FOREVER, ERR));
    vmt_appliance_free(appliance);
    vmt_session_free(session);
    vmt_options_free(options);
    CHECK(seed == NULL);
    stage_close(&s);
    return test_end();
}
